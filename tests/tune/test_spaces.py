"""Search spaces: what can be searched, and what a file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolrec.errors import ConfigError
from toolrec.recommenders import RecommendersConfig
from tune.spaces import Domain, encoder_space, read_space, space_from_json, space_to_json, with_params


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
        ("", "no mapping"),
        ("- a\n", "no mapping"),
        ("a: [", "cannot be read"),
        ("depth: {choice: [1]}\n", "unknown parameter in the search space; got: depth"),
        ("max_epochs: {choice: [1]}\n", "unknown parameter"),
        ("width: 16\n", "the domain of width cannot be read"),
        ("width: {choose: [16]}\n", "unknown kind of search domain; got: choose"),
        ("width: {choice: []}\n", "a choice needs values"),
        ("dropout: {uniform: [0.5, 0.1]}\n", "the lowest first"),
        ("learning_rate: {loguniform: [0, 0.1]}\n", "the lowest first"),
        ("dropout: {uniform: [a, b]}\n", "the lowest first"),
        ("width: {uniform: [16, 32]}\n", "width has no values between two others; got: uniform"),
        ("width: {choice: [16, 32.5]}\n", "width has values of another type; got: 32.5; allowed: a whole number"),
        ("width: {choice: [[16]]}\n", "width has values of another type"),
        ("batch_size: {choice: [true]}\n", "batch_size has values of another type"),
        ("dropout: {choice: [0, half]}\n", "dropout has values of another type; got: half; allowed: a number"),
        ("compile: {choice: [sometimes]}\n", "compile has values of another type; got: sometimes; allowed: true, false or null"),
        ("norm: {choice: [pre, middle]}\n", "norm has values of another type; got: middle; allowed: pre, post"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_space(written(tmp_path, text))


def test_values_of_a_parameters_own_type_are_taken(tmp_path: Path):
    text = "compile: {choice: [true, null]}\nnorm: {choice: [pre, post]}\ndropout: {choice: [0, 0.5]}\n"
    assert set(read_space(written(tmp_path, text))) == {"compile", "norm", "dropout"}


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_space(tmp_path / "nowhere.yaml")


def test_a_space_survives_its_protocol():
    assert space_from_json(space_to_json(encoder_space())) == encoder_space()


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
