"""`toolrec train`, on the small demo on disk."""

import subprocess
import sys

import pytest

from toolrec.cli import run_command
from toolrec.recommenders import load_recommenders, recommenders_manifest

SMALL = ["--epochs", "1", "--hidden", "8", "--layers", "1", "--heads", "1"]


def test_trains_shows_a_table_and_can_be_loaded(demo_folder, demo, tmp_path, capsys):
    out = tmp_path / "rec"
    flags = ["--attributes", "genre, release_year", "--seed", "5", "--model-history-length", "9", "--loss", "sampled_softmax"]
    assert run_command(["train", str(demo_folder), "--out", str(out), *flags, "--negatives", "7", *SMALL]) == 0
    shown = capsys.readouterr()
    for text in ("popularity", "backbone", "genre", "release_year", "validation", "ndcg@10", "trainable", "parameters"):
        assert text in shown.out
    assert "Validation split, not test" in shown.out and "150" in shown.out
    assert "training backbone" in shown.err
    assert set(load_recommenders(out, demo)) == {"popularity", "backbone", "genre", "release_year"}
    manifest = recommenders_manifest(out)
    assert (manifest["seed"], manifest["model_history_length"]) == (5, 9)
    assert manifest["config"]["backbone_fit"]["num_negatives"] == 7


def test_the_default_place_is_named_after_the_data_set(demo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(["train", str(demo_folder), "--attributes", "", *SMALL]) == 0
    assert [m["name"] for m in recommenders_manifest(tmp_path / "recommenders" / "demo")["members"]] == ["popularity", "backbone"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attributes", "director"], "genre, release_year"),
        (["--loss", "hinge"], "cross_entropy, sampled_softmax, in_batch_softmax, gbce, bce, bpr"),
        (["--heads", "7"], "multiple"),
        (["--device", "abacus"], "auto, cpu, cuda"),
        (["--max-time-s", "0"], "above 0"),
        (["--seed", "-1"], "seed"),
        (["--learning-rate", "nan"], "learning_rate"),
    ],
)
def test_wrong_flags_end_with_2_and_what_is_allowed(demo_folder, tmp_path, capsys, flags, message):
    assert run_command(["train", str(demo_folder), "--out", str(tmp_path / "rec"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_set_ends_with_2(tmp_path, capsys):
    assert run_command(["train", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_importing_the_room_and_its_command_loads_no_torch():
    code = (
        "import sys, toolrec.recommenders, toolrec.cli.train;"
        "assert not {'torch', 'ray', 'pandas', 'openai'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_public_names_are_there():
    import toolrec.recommenders as room

    assert sorted(room.__all__, key=str.lower) == sorted(set(room.__all__), key=str.lower)
    for name in room.__all__:
        assert getattr(room, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = room.no_such_name
