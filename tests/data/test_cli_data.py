from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from toolrec.data import load_dataset
from toolrec.errors import ConfigError, DataError, ToolRecError

Cli = Callable[..., Result]


def toolrec(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The real command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "toolrec", *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def test_prepare_and_show_the_demo(cli: Cli, tmp_path: Path) -> None:
    result = cli("prepare", "demo", "--seed", 4, "--users", 50, "--items", 130, "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.exception
    assert "demo: 50 users, 130 items" in result.stdout or "demo: 50 users, 1" in result.stdout
    shown = cli("show", tmp_path / "demo", "--items", 2)
    dataset = load_dataset(tmp_path / "demo")
    assert shown.exit_code == 0
    for text in (
        "leave-one-out",
        "release_year",
        "source_order",
        "unix_seconds",
        "m001",
        "density",
        dataset.checksum[:20],
        "planted",
    ):
        assert text in shown.stdout
    assert "m003" not in shown.stdout


def test_every_option_ends_in_the_manifest(cli: Cli, recbole: Callable[..., Path], tmp_path: Path) -> None:
    arguments = (
        "prepare", "recbole", "--source", recbole(), "--out", tmp_path / "out", "--name", "my-set",
        "--attributes", "genre,year:category", "--min-rating", 2, "--min-item-interactions", 2,
        "--k-core-users", 3, "--k-core-items", 2, "--tie-break", "item_id",
        "--repeats", "keep", "--item-word", "book", "--consumed-word", "read",
    )  # fmt: skip
    result = cli(*arguments)
    assert result.exit_code == 0, result.exception
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["name"] == "my-set" and manifest["split"] == "leave_one_out" and manifest["tie_break"] == "item_id"
    assert manifest["filters"] == {
        "min_rating": 2.0, "min_item_interactions": 2, "k_core_users": 3, "k_core_items": 2, "repeats": "keep"
    }  # fmt: skip
    assert [(attribute["name"], attribute["kind"]) for attribute in manifest["attributes"]] == [
        ("genre", "categories"),
        ("year", "category"),
    ]
    assert manifest["domain"] == {"item": "book", "items": "books", "consumed": "read", "is_movies": False}
    assert set(manifest["source"]["sha256"]) == {"tiny.inter", "tiny.item"}
    assert "min_rating 2" in cli("show", tmp_path / "out").stdout
    # Items with a rating of 1 are i1 only: each of 4 users keeps i2 to i5.
    assert manifest["counts"]["num_interactions"] == 4 * 4 and manifest["dropped"]["below_min_rating"] == 4


def test_replaces_a_data_set_and_nothing_else(cli: Cli, recbole: Callable[..., Path], tmp_path: Path) -> None:
    source, out = recbole(), tmp_path / "out"
    assert cli("prepare", "recbole", "--source", source, "--out", out).exit_code == 0
    first = load_dataset(out).checksum
    other = ("prepare", "recbole", "--source", source, "--out", out, "--attributes", "genre")
    refused = cli(*other)
    assert isinstance(refused.exception, DataError) and "--overwrite" in str(refused.exception)
    assert load_dataset(out).checksum == first
    assert cli("prepare", "recbole", "--source", source, "--out", out).exit_code == 0  # the same again
    assert cli(*other, "--overwrite").exit_code == 0
    assert load_dataset(out).checksum != first
    (out / "notes.txt").write_text("mine")
    refused = cli("prepare", "recbole", "--source", source, "--out", out)
    assert isinstance(refused.exception, DataError) and "notes.txt" in str(refused.exception)
    other = tmp_path / "precious"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    for place in (other, other / "manifest.json", source):
        refused = cli("prepare", "recbole", "--source", source, "--out", place)
        assert isinstance(refused.exception, DataError) and refused.exception.exit_code == 2
    assert [file.name for file in other.iterdir()] == ["manifest.json"]
    assert sorted(file.name for file in source.iterdir()) == ["tiny.inter", "tiny.item"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("ml-2m",), ConfigError, "allowed: demo, own, recbole, ml-100k, ml-1m"),
        (("recbole",), ConfigError, "recbole needs --source"),
        (("recbole", "--source", "absent"), DataError, "the source does not exist"),
        (("recbole", "--source", "SOURCE", "--attributes", "mood"), ConfigError, "allowed: genre, year, maker"),
        (("recbole", "--source", "SOURCE", "--attributes", "genre,:number"), ConfigError, "attributes are given as a,b"),
        (("recbole", "--source", "SOURCE", "--attributes", "genre:color"), ConfigError, "unknown kind"),
        (("recbole", "--source", "SOURCE", "--attributes", "maker:number"), DataError, "maker is not a number; got: acme"),
        (("recbole", "--source", "SOURCE", "--title-column", "nome"), ConfigError, "no such title column"),
        (("recbole", "--source", "SOURCE", "--name", "../up"), ConfigError, "a name has letters"),
        (("recbole", "--source", "SOURCE", "--items-word", "books"), ConfigError, "go with --item-word"),
        (("recbole", "--source", "SOURCE", "--min-rating", 9), DataError, "no user and no item is left after filtering"),
        (("recbole", "--source", "SOURCE", "--min-item-interactions", 5), DataError, "no user and no item is left"),
        (("recbole", "--source", "SOURCE", "--k-core-users", 6), DataError, "no user and no item is left"),
        (("recbole", "--source", "SOURCE", "--tie-break", "luck"), ConfigError, "allowed: source_order, item_id"),
        (("recbole", "--source", "SOURCE", "--seed", 1), ConfigError, "only for the demo"),
        (("demo", "--source", "SOURCE"), ConfigError, "takes no --source"),
        (("demo", "--items", 3), ConfigError, "cannot have that many items"),
    ],
)
def test_bad_input(
    cli: Cli, recbole: Callable[..., Path], tmp_path: Path, arguments: tuple[object, ...], kind: type[ToolRecError], message: str
) -> None:
    source = recbole()
    result = cli("prepare", *(source if part == "SOURCE" else part for part in arguments), "--out", tmp_path / "out")
    assert isinstance(result.exception, kind), result.exception
    assert result.exception.exit_code == 2 and message in str(result.exception)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["tiny"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare", "recbole", "--source", "empty.zip"), "not a whole zip archive"),
        (("prepare", "ml-1m", "--source", "empty.zip", "--k-core-users", "many"), "k-core-users"),
        (("show", "absent"), "no such data set folder"),
        (("show", "."), "not a data set folder"),
    ],
)
def test_real_command_line_has_exit_code_2_and_no_stack_trace(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "empty.zip").write_bytes(b"")
    result = toolrec("data", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr + result.stdout
    assert [child.name for child in tmp_path.iterdir()] == ["empty.zip"]


def test_real_command_line_prepares_to_the_default_folder(tmp_path: Path) -> None:
    result = toolrec("data", "prepare", "demo", "--users", 20, "--items", 120, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert load_dataset(tmp_path / "data" / "demo").num_users == 20
    assert [child.name for child in (tmp_path / "data").iterdir()] == ["demo"]


def test_a_place_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    result = cli("prepare", "demo", "--users", 20, "--items", 120, "--out", tmp_path / "file" / "demo")
    assert isinstance(result.exception, ToolRecError) and "cannot write here" in str(result.exception)
