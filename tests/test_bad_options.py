"""Every option of `toolrec evaluate` and `train` with values that it cannot have: exit code 2, the reason, no stack trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from toolrec.cli import build_app, run_command

NO_NUMBER = ("", "x", "1,5", "0x10", "\x00", "\ud800")
NO_INTEGER = (*NO_NUMBER, "1.5", "nan", "inf", "1e3")
NO_SECONDS = (*NO_NUMBER, "nan", "inf", "-inf", "-1", "0", "1e400")
HUGE = "1" + "0" * 30
COUNT = (*NO_INTEGER, "0", "-1", f"-{HUGE}")

EVALUATE = {
    "--recommenders": ("", "\x00", "/nonexistent/x", "x\ny"),
    "--run": ("\x00",),
    "--split": ("", "train", "TEST"),
    "--users": (*NO_INTEGER, "0", "-1", HUGE, "²", "9" * 5000),
    "--seed": (*NO_INTEGER, "-1"),
    "--attributes": ("colour", "genre,,colour", "\x00", "\ud800"),
    "--protocol": ("", "native"),
    "--rounds": (*COUNT, HUGE),
    "--prompt-history-length": COUNT,
    "--finish-policy": ("", "best"),
    "--max-reasks": (*NO_INTEGER, "-1", HUGE),
    "--shuffle-rank-candidates": NO_INTEGER,
    "--user-token-budget": COUNT,
    "--llm-url": (
        "",
        "x",
        "ftp://127.0.0.1/v1",
        "http://",
        "http://u:p@127.0.0.1/v1",
        "http://127.0.0.1:99999/v1",
        "http://[::1",
        "\x00",
    ),
    "--llm-model": ("x",),
    "--llm-extra": ("", "x", "[1]", '{"model": "x"}', '{"messages": []}', "{", "\x00"),
    "--llm-headers-env": ("not a name", "\x00"),
    "--resource-timeout-s": NO_SECONDS,
    "--temperature": (*NO_NUMBER, "nan", "inf", "-1", "2.1"),
    "--llm-seed": NO_INTEGER,
    "--llm-max-output-tokens": COUNT,
    "--llm-max-attempts": COUNT,
    "--llm-timeout-s": NO_SECONDS,
    "--budget-usd": NO_SECONDS,
    "--budget-tokens": COUNT,
    "--dry-run-users": COUNT,
    "--cache": ("\x00",),
    "--cache-max-age": ("", "x", "-1h", "0", "1y"),
    "--record": ("\x00",),
    "--replay": ("/nonexistent/x", "/", "\x00"),
    "--llm-max-malformed": COUNT,
    "--metrics-port": (*COUNT, "65536", HUGE),
    "--prices": ("/nonexistent/x", "/", "\x00"),
    "--llm-max-failed-user": COUNT,
    "--max-failed-requests": (*NO_INTEGER, "-1"),
    "--outage-timeout-s": NO_SECONDS,
    "--requests-per-minute": NO_SECONDS,
    "--tokens-per-minute": NO_SECONDS,
    "--llm-concurrency": (*COUNT, HUGE),
    "--user-timeout-s": NO_SECONDS,
    "--strategy": ("", "x", "x:y", "os:path", "toolrec.surrogate:Nothing", "\x00", "a:b:c", "..:x"),
    "--compat": ("", "x", "Authors", "\x00"),
    "--obscure": ("", "x", "title", "\x00"),
    "--rank-tool": ("", "x", "x:y", "toolrec.tools.rank:Nothing", "\x00"),
    "--baseline": ("", "x", "x:y", "\x00"),
    "--tools": ("", "somewhere", "attach", "\x00"),
    "--tools-config": ("", "/nonexistent/x", "/", "\x00"),
    "--config": ("", "/nonexistent/x", "/", "\x00"),
    "--set": ("", "x", "=1", "rounds=1", "surrogate=1", "surrogate.rounds=x", "surrogate.rounds=[", "\x00=1"),
    "--concurrency": (*COUNT, HUGE),
    "--actors": (*COUNT, HUGE),
    "--num-cpus": (*COUNT, HUGE),
    "--address": ("", "x", "x:y", "127.0.0.1:9", "ray://127.0.0.1:1", "127.0.0.1:" + HUGE, "\x00:1", "[::1", "\ud800:1"),
}
TRAIN = {
    "--attributes": ("colour", "genre,,colour", "\x00"),
    "--out": ("\x00",),
    "--recipe": ("", "x", "sasrec"),
    "--backbone": ("/nonexistent/x", "\x00"),
    "--text-encoder": ("/nonexistent/x", "\x00"),
    "--seed": (*NO_INTEGER, "-1", HUGE),
    "--epochs": COUNT,
    "--max-time-s": (*NO_NUMBER, "nan", "-1", "0"),
    "--fusion-users": (*COUNT, "9"),
    "--device": ("", "x", "tpu", "cuda:x", "\x00"),
    "--hidden": (*COUNT, "7"),
    "--layers": COUNT,
    "--heads": (*COUNT, "7"),
    "--dropout": (*NO_NUMBER, "nan", "-0.1", "1"),
    "--loss": ("", "x"),
    "--negatives": COUNT,
    "--model-history-length": COUNT,
    "--learning-rate": (*NO_NUMBER, "nan", "inf", "0", "-1"),
    "--batch-size": COUNT,
    "--patience": COUNT,
    "--config": ("", "/nonexistent/x", "/", "\x00"),
    "--set": ("", "x", "=1", "recommenders=1", "recommenders.backbone.width=x", "width=7", "\x00=1"),
}


def cases(options: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(flag, value) for flag, values in options.items() for value in values]


def assert_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(arguments) == 2
    said = capsys.readouterr().err
    assert said.strip() and "Traceback" not in said
    assert "no running Ray at this address" not in said or "--address" in arguments[-2:], said


@pytest.mark.parametrize(("flag", "value"), cases(EVALUATE))
def test_a_value_that_an_option_of_evaluate_cannot_have(
    flag: str, value: str, demo_folder: Path, demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # Nothing listens at the address: whatever is accepted by mistake ends there, and is told by its message.
    given = {"--recommenders": str(demo_recommenders), "--run": str(tmp_path / "run"), "--address": "127.0.0.1:9", flag: value}
    assert_refused(["evaluate", str(demo_folder), *(part for pair in given.items() for part in pair)], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("flag", "value"), cases(TRAIN))
def test_a_value_that_an_option_of_train_cannot_have(
    flag: str, value: str, demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    given = {"--out": str(tmp_path / "out"), flag: value}
    assert_refused(["train", str(demo_folder), *(part for pair in given.items() for part in pair)], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "train", "fit-fusions", "show"])
@pytest.mark.parametrize("folder", ["", "/nonexistent/x", "/", "\x00", "x\ny", "\ud800"])
def test_a_folder_that_is_none(command: str, folder: str, capsys: pytest.CaptureFixture[str]):
    assert_refused([command, folder], capsys)


def test_no_option_with_a_value_is_forgotten():
    tree: Any = typer.main.get_command(build_app())
    for command, table, harmless in (("evaluate", EVALUATE, {"--llm-key-env"}), ("train", TRAIN, set())):
        options = {p.opts[0] for p in tree.commands[command].params if p.opts[0].startswith("--") and not p.is_flag}
        assert options - set(table) - harmless == set()


def test_an_error_does_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert_refused(["show", str(tmp_path / "\x1b[2J\u202e")], capsys)
    assert run_command(["show", str(tmp_path / "\x1b[2J\u202e")]) == 2
    assert not set(capsys.readouterr().err) & {"\x1b", "\u202e"}
