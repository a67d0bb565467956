"""Data sets and recommenders that are made here and put at a URL; commands that take no URL; jobs with URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from bucket_in_memory import Bucket, failing, put_folder

from toolrec.cli import run_command
from toolrec.cli.submit import check_command
from toolrec.data import load_dataset
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.storage.cache import cache_folder
from toolrec.util.urls import place_of

URL = "bucket://lab/data/demo"
PREPARE = ["data", "prepare", "demo", "--users", "60", "--items", "120", "--out", URL]


def error_of(capsys: pytest.CaptureFixture[str], command: list[str], *, expect: int = 2) -> str:
    capsys.readouterr()
    assert run_command(command) == expect
    return capsys.readouterr().err


def test_a_data_set_is_made_at_a_url(bucket: type[Bucket], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(PREPARE) == 0
    assert load_dataset(URL).num_users == 60
    assert list(bucket.store)[-1] == "/lab/data/demo/manifest.json" and len(bucket.store) == 4
    assert run_command(PREPARE) == 0  # the same again
    other = [*PREPARE, "--seed", "5"]
    assert "another data set is already there (demo); got: bucket://lab/data/demo" in error_of(capsys, other)
    assert run_command([*other, "--overwrite"]) == 0
    assert not [path for path in (cache_folder() / "made").rglob("*") if path.is_file()]
    bucket().pipe_file("/lab/photos/cat.jpg", b"x")
    assert "something else is at this URL" in error_of(capsys, [*PREPARE[:-1], "bucket://lab/photos"])


def test_only_one_of_its_kind_is_replaced(bucket: type[Bucket], demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_folder(demo_folder, URL)
    for name in ("manifest.json", "users/part-000001.parquet"):
        bucket().pipe_file(f"/lab/run/{name}", b"{}")
    before = dict(bucket.store)
    for place in (URL, "bucket://lab/run"):
        assert "something else is at this URL" in error_of(capsys, ["train", str(demo_folder), "--out", place])
    assert "something else is at this URL" in error_of(capsys, [*PREPARE[:-1], "bucket://lab/run", "--overwrite"])
    assert bucket.store == before


def test_it_is_told_before_the_work(bucket: type[Bucket], demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bucket.fault = failing(-1, PermissionError("Access Denied"), verb="write")
    for command in (PREPARE, ["train", str(demo_folder), "--out", "bucket://lab/recommenders/demo"]):
        assert "no permission to write here (PermissionError: Access Denied)" in error_of(capsys, command)
    assert not bucket.store


def test_recommenders_are_trained_at_a_url(bucket: type[Bucket], demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_folder(demo_folder, URL)
    out = "bucket://lab/recommenders/demo"
    command = ["train", URL, "--out", out, "--epochs", "1", "--attributes", "genre", "--fusion-users", "20"]
    bucket.fault = failing(1, PermissionError("Access Denied"), verb="write", name="weights")
    assert "all of it is in" in error_of(capsys, command, expect=3)
    bucket.fault = None
    made = next((cache_folder() / "made").glob("*/demo"))
    assert recommenders_manifest(made)["members"] and "/lab/recommenders/demo/manifest.json" not in bucket.store
    assert run_command(command) == 0
    assert f"written to {out}" in capsys.readouterr().out.replace("\n", "")
    assert list(load_recommenders(place_of(out), load_dataset(URL))) == ["popularity", "backbone", "genre"]


def test_where_no_url_can_be_given(
    bucket: type[Bucket], demo_folder: Path, demo_recommenders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(demo_folder), "--recommenders", str(demo_recommenders)]
    for command, message in (
        (["experiment", "rounds", *given, "--run", "bucket://lab/x"], "an experiment's folder cannot be at a URL"),
        (["tune", "encoder", *given, "--attribute", "genre", "--sweep", "bucket://lab/x"], "a sweep takes no URL (sweep)"),
        (["evaluate", *given, "--run", "bucket://lab/x", "--dry-run"], "no URL can be given here"),
        (["evaluate", *given, "--cache", "bucket://lab/x"], "no URL can be given here"),
        (["evaluate", *given, "--replay", "bucket://lab/x"], "no URL can be given here"),
        (["fit-fusions", str(demo_folder), "--recommenders", "bucket://lab/x"], "bucket://lab/x"),
    ):
        assert message in error_of(capsys, command), command
    assert not bucket.store


def test_jobs_take_urls() -> None:
    words = ["evaluate", "s3://lab/data/ml", "--recommenders", "s3://lab/recommenders/ml", "--run", "s3://lab/runs/first"]
    assert {flag: str(path) for flag, path in check_command(words).items()} == {
        "DIR": "s3://lab/data/ml",
        "--recommenders": "s3://lab/recommenders/ml",
        "--run": "s3://lab/runs/first",
    }
    assert str(check_command(["fit-fusions", "s3://lab/data/ml"])["folder"]) == "s3://lab/data/ml"
