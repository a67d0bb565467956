"""Search spaces: what can be searched, and what a file may say."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

from toolrec.errors import ConfigError
from toolrec.recommenders import RecommendersConfig
from toolrec.tuning.config import EncoderSweep
from toolrec.tuning.spaces import Domain, backbone_space, check_space, encoder_space, with_params
from toolrec.util.settings_sources import read_mapping


def read_space(path: Path) -> dict[str, Domain]:
    """The space of a file, as `--space` reads it."""
    space = EncoderSweep(dataset="d", attribute="genre", space=read_mapping(path, what="the search space")).space
    assert space is not None
    return space


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_space_comes_from_a_file(tmp_path: Path):
    text = "learning_rate: {loguniform: [0.0003, 0.01]}\nwidth: {choice: [16, 32]}\n"
    assert read_space(written(tmp_path, text)) == {
        "learning_rate": Domain(kind="loguniform", values=(0.0003, 0.01)),
        "width": Domain(kind="choice", values=(16, 32)),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a mapping|space .*is empty"),
        ("- a\n", "not a mapping|space .*is empty"),
        ("a: [", "cannot read"),
        ("depth: {choice: [1]}\n", "unknown parameter in the search space; got: depth"),
        ("max_epochs: {choice: [1]}\n", "unknown parameter"),
        ("width: 16\n", "space.width is not a mapping"),
        ("width: {choose: [16]}\n", "kind has no such value; got: choose"),
        ("width: {choice: []}\n", "a choice needs values"),
        ("dropout: {uniform: [0.5, 0.1]}\n", "the lowest first"),
        ("learning_rate: {loguniform: [0, 0.1]}\n", "the lowest first"),
        ("dropout: {uniform: [a, b]}\n", "the lowest first"),
        ("width: {uniform: [16, 32]}\n", "width has no values between two others; got: uniform"),
        ("width: {choice: [16, 32.5]}\n", r"width \(--hidden\) is not a whole number; got: 32.5"),
        ("width: {choice: [[16]]}\n", r"width \(--hidden\) is not a whole number"),
        ("batch_size: {choice: [true]}\n", r"batch_size \(--batch-size\) is not a whole number"),
        ("dropout: {choice: [0, half]}\n", r"dropout \(--dropout\) is not a number; got: half"),
        ("compile: {choice: [sometimes]}\n", r"compile \(--compile\) is neither true nor false; got: sometimes"),
        (
            "width: {choice: [16, 5000]}\n",
            "no trial can have: width .* is out of range; got: 5000; allowed: .*1 to 4,096",
        ),
        ("learning_rate: {loguniform: [0.1, 100.0]}\n", r"learning_rate .* is out of range; got: 100.0"),
        ("dropout: {uniform: [0.5, 1.0]}\n", "dropout .* is out of range; got: 1.0"),
        ("width: {choice: [8]}\nwidth: {choice: [16]}\n", "a key is there twice; got: width; line 2 of"),
        ("norm: {choice: [pre, middle]}\n", "norm has no such value; got: middle; allowed: pre, post"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_space(written(tmp_path, text))


def test_values_of_a_parameters_own_type_are_taken(tmp_path: Path):
    text = "compile: {choice: [true, null]}\nnorm: {choice: [pre, post]}\ndropout: {choice: [0, 0.5]}\n"
    assert set(read_space(written(tmp_path, text))) == {"compile", "norm", "dropout"}


@pytest.mark.parametrize(("name", "built_in"), [("encoder", encoder_space()), ("backbone", backbone_space())])
def test_the_files_in_the_repository_are_the_built_in_spaces(name: str, built_in: dict[str, Domain]):
    assert read_space(ROOT / "tune" / "spaces" / f"{name}.yaml") == built_in


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_space(tmp_path / "nowhere.yaml")


def test_parameters_go_where_they_belong():
    base = RecommendersConfig()
    params = {"learning_rate": 0.5, "width": 8, "num_buckets": 4}
    of_encoder = with_params(base, params, is_backbone=False)
    assert (of_encoder.encoder_fit.learning_rate, of_encoder.encoder.width, of_encoder.num_buckets) == (0.5, 8, 4)
    assert (of_encoder.backbone, of_encoder.backbone_fit) == (base.backbone, base.backbone_fit)
    of_backbone = with_params(base, params, is_backbone=True)
    assert (of_backbone.backbone_fit.learning_rate, of_backbone.backbone.width) == (0.5, 8)
    assert (of_backbone.encoder, of_backbone.encoder_fit) == (base.encoder, base.encoder_fit)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="multiple of the number of heads"):
        with_params(RecommendersConfig(), {"width": 7}, is_backbone=False)


def test_choices_that_do_not_go_together_are_refused_before_any_trial(tmp_path: Path):
    space = read_space(written(tmp_path, "width: {choice: [16, 24]}\nnum_heads: {choice: [2, 16]}\n"))
    with pytest.raises(ConfigError, match="multiple of the number of heads; got: 24 and 16"):
        check_space(space, RecommendersConfig(), is_backbone=False)
