import json

import pytest

from toolrec.cli import run_command
from toolrec.evaluation.statistics import Resampling
from toolrec.evaluation.summary import rows_of, summarise
from toolrec.runs.folder import RunFolder
from toolrec.util.files import write_json


@pytest.fixture
def manifest(demo, demo_folder):
    return {
        "schema_version": 1,
        "resume_key": "k",
        "settings": {"split": "test", "dataset_checksum": demo.checksum},
        "dataset": {"path": str(demo_folder)},
    }


@pytest.fixture
def make_run(tmp_path, users, rounds, demo, hand):
    def made(manifest):
        folder = RunFolder.create(tmp_path / "run", manifest)
        rows = users.copy()
        rows["user_id"] = [demo.user_ids[index] for index in rows["user_index"]]
        first, *rest = rows.at[0, "final_items"]
        rows.at[0, "final_items"] = [first, demo.target(1, "test"), *rest]
        folder.commit(*map(hand.plain_rows, (rows, rounds)))
        folder.close()
        return tmp_path / "run"

    return made


@pytest.fixture
def run(make_run, manifest):
    return make_run(manifest)


def test_one_trace(run, demo, capsys):
    assert run_command(["show", str(run), "--user", demo.user_ids[1]]) == 0
    out = capsys.readouterr().out
    for words in ("Thought: Fruit, then.", "Action:  Retrieve[none, 20]", "Re-ask:  Not accepted: <i99>", "round 3",
                  "<- target", "hit at position", "Tokens:  decide 3 calls"):  # fmt: skip
        assert words in out, words
    assert demo.pool.titles[demo.target(1, "test")] in " ".join(out.split())
    assert "\x1b" not in out


def test_a_failed_user(run, demo, capsys):
    assert run_command(["show", str(run), "--user", demo.user_ids[4]]) == 0
    out = capsys.readouterr().out
    assert "ended by llm_failure" in out and "error: the endpoint is down" in out


def test_a_user_is_found_by_its_index_too(run, demo, capsys):
    assert run_command(["show", str(run), "--user", "4"]) == 0
    assert f"User {demo.user_ids[4]}" in capsys.readouterr().out


def test_an_unknown_user_is_bad_input_and_a_near_id_is_suggested(run, demo, capsys):
    assert run_command(["show", str(run), "--user", demo.user_ids[2] + "x"]) == 2
    assert f"its 4 users: {demo.user_ids[2]}, " in capsys.readouterr().err


def test_an_unknown_user_is_bad_input(run, demo, capsys):
    assert run_command(["show", str(run), "--user", "nobody"]) == 2
    captured = capsys.readouterr()
    assert "no such user" in captured.err and f"its 4 users: {demo.user_ids[1]}" in captured.err
    assert "Traceback" not in captured.err


def test_a_data_set_that_is_gone_costs_titles_and_target(make_run, manifest, demo, tmp_path, capsys):
    manifest["dataset"]["path"] = str(tmp_path / "gone")
    assert run_command(["show", str(make_run(manifest)), "--user", demo.user_ids[1]]) == 0
    out = capsys.readouterr().out
    assert "without titles and target" in out and "item number 1" in out and "Target:" not in out


def test_another_data_set_by_now_gives_no_wrong_titles(make_run, manifest, demo, capsys):
    manifest["settings"]["dataset_checksum"] = "another"
    assert run_command(["show", str(make_run(manifest)), "--user", demo.user_ids[1]]) == 0
    assert "the data set is another one by now" in capsys.readouterr().out


def test_the_runs_table(run, users, dataset, baseline_lists, protocol, capsys):
    summary = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=Resampling(num_resamples=50))
    write_json(run / "summary.json", summary)
    assert run_command(["show", str(run)]) == 0
    short = capsys.readouterr().out
    assert "NDCG@10" in short and "--full" in short and "Beyond accuracy" not in short
    assert run_command(["show", str(run), "--full"]) == 0
    assert "Beyond accuracy" in capsys.readouterr().out


def test_the_summary_of_an_older_version_is_shown(run, users, dataset, baseline_lists, protocol, capsys):
    summary = summarise(users, dataset, baseline_lists, protocol=protocol, resampling=Resampling(num_resamples=50))
    for key in ("groups", "leaks"):
        del summary[key]
    for key in ("contributions", "num_unreachable_targets"):
        del summary["hits"][key]
    for key in ("difference_interval", "correction", "power"):
        del summary["statistics"][key]
    for row in rows_of(summary).values():
        del row["beyond_accuracy"]
        for name in [name for name in row if name.startswith("difference_to_")]:
            for difference in row[name].values():
                for key in set(difference) - {"mean", "low", "high", "p_value"}:
                    del difference[key]
    write_json(run / "summary.json", summary)
    for flags in ([], ["--full"]):
        assert run_command(["show", str(run), *flags]) == 0
        assert "one training" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"statistics": {}})])
def test_no_figures_or_damaged_ones_are_bad_input(run, content, capsys):
    if content is not None:
        (run / "summary.json").write_text(content)
    assert run_command(["show", str(run)]) == 2
    captured = capsys.readouterr()
    assert (captured.err.startswith("error: ") and "summary.json" in captured.err) or "no figures yet" in captured.err


def test_no_run_folder_is_bad_input(tmp_path, capsys):
    assert run_command(["show", str(tmp_path / "nothing")]) == 2
    assert "no run folder here" in capsys.readouterr().err
