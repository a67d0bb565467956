"""What is wrong with the input is said in one line, with exit code 2, before anything is started or written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from key_marker import MARKER, VARIABLES
from support import Evaluate

from toolrec.cli import run_command
from toolrec.connect import connected, free_port
from toolrec.errors import ConfigError
from toolrec.llm.embedded import run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.runs.folder import read_users


@pytest.fixture
def command(demo_folder: Path, demo_recommenders: Path, tmp_path: Path) -> list[str]:
    return ["evaluate", str(demo_folder), "--recommenders", str(demo_recommenders), "--run", str(tmp_path / "run")]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--users", "0"], "(--users) is out of range; got: 0; allowed: a whole number, 1 or more, or all"),
        (["--users", "many"], "(--users) is not a whole number; got: many"),
        (["--users", "100000"], "100000"),
        (["--attributes", "genre,colour"], "no recommender was trained for this attribute; got: colour"),
        (["--tools", "somewhere"], "unknown source of tools; got: somewhere"),
        (["--llm-url", "http://127.0.0.1:1/v1"], "--llm-url and --llm-model go together"),
        (["--rounds", "0"], "surrogate.rounds (--rounds) is out of range; got: 0; allowed: a whole number, 1 to 1,000"),
        (["--concurrency", "0"], "simulation.concurrency (--concurrency) is out of range"),
        (["--actors", "0"], "simulation.num_actors (--actors) is out of range"),
        (["--temperature", "7"], "llm.temperature (--temperature) is out of range; got: 7; allowed: a number, 0 to 2"),
        (["--keep-tools"], "--keep-tools needs"),
        (["--tools-config", "nowhere.yaml"], "cannot read the file of --tools-config"),
        (
            ["--metrics-port", "0"],
            "ray.metrics_port (--metrics-port) is out of range; got: 0",
        ),
        (["--prompt-history-length", "0"], "prompt_history_length (--prompt-history-length) is out of range"),
        (["--prices", "nowhere.yaml"], "cannot read the price file"),
        (["--budget-usd", "3"], "--budget-usd needs the model's price"),
        (["--budget-tokens", "0"], "budget.max_tokens (--budget-tokens) is out of range"),
        (["--dry-run", "--resume"], "--dry-run and --resume do not go together"),
        (["--cache", "unused", "--cache-max-age", "7"], "not a duration; got: 7"),
        (["--cache-max-age", "7d"], "--cache-max-age needs --cache"),
        (["--replay", "nowhere"], "recording.json"),
        (["--replay", "nowhere", "--llm-url", "http://127.0.0.1:1/v1", "--llm-model", "m"], "--replay asks no endpoint"),
        (["--replay", "examples", "--record", "elsewhere"], "--replay goes with neither"),
    ],
)
def test_a_wrong_flag(command: list[str], flags: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command([*command, *flags]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(["evaluate", str(tmp_path / "nothing")]) == 2
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_recommenders_of_another_data_set(
    command: list[str], demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    other = tmp_path / "other"
    assert run_command(["data", "prepare", "demo", "--users", "40", "--items", "120", "--seed", "9", "--out", str(other)]) == 0
    capsys.readouterr()
    assert run_command([command[0], str(other), *command[2:]]) == 2
    assert "data set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_damaged_weights(command: list[str], demo_recommenders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    damaged = tmp_path / "recommenders"
    shutil.copytree(demo_recommenders, damaged)
    weights = damaged / "backbone" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert run_command([*command[:3], str(damaged), *command[4:]]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_resumed(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    assert run_command([*command, "--resume"]) == 2
    assert "manifest.json" in capsys.readouterr().err
    assert run_command([*command[:4], "--resume"]) == 2
    assert "--resume needs the run folder" in capsys.readouterr().err


def test_an_endpoint_that_cannot_be_reached(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--llm-url", "http://127.0.0.1:9/v1", "--llm-model", "m", "--llm-max-attempts", "2"]
    assert run_command([*command, *flags, "--llm-key-env", VARIABLES[0]]) == 2
    said = capsys.readouterr()
    assert "error: " in said.err and "127.0.0.1:9" in said.err
    assert "Traceback" not in said.err and MARKER not in said.out + said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "no running Ray at this address"),
        ("ray://127.0.0.1:10001", "not the address of a Ray head node"),
        ("head", "not the address of a Ray head node"),
        ("127.0.0.1:99999", "no running Ray at this address"),
    ],
)
def test_a_ray_that_is_not_there(address: str, reason: str):
    with pytest.raises(ConfigError, match=reason), connected(address):
        raise AssertionError("connected to nothing")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("tools: {num_replicas: 0}", "tools.deployment.tools.num_replicas is out of range"),
        ("colour: red", "unknown setting tools.deployment.colour"),
        ("dataset: elsewhere", "unknown setting tools.deployment.dataset"),
        ("- a list", "not a mapping"),
        ("device: cuda", "needs num_gpus above 0"),
    ],
)
def test_wrong_options_of_the_tools(command: list[str], options: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "tools.yaml"
    path.write_text(options)
    assert run_command([*command, "--tools-config", str(path)]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_key_in_place_of_its_variable_is_not_echoed(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command([*command, "--llm-url", "http://127.0.0.1:9/v1", "--llm-model", "m", "--llm-key-env", MARKER]) == 2
    said = capsys.readouterr()
    assert "not the name of an environment variable" in said.err and MARKER not in said.err + said.out
    assert not (tmp_path / "run").exists()


def test_tools_that_are_not_served_leave_no_run_folder(
    local_ray: None, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run_command([*command, "--tools", "attach:elsewhere"]) == 2
    assert "no tools are served under this application name; got: elsewhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_stops_the_run_and_the_right_one_resumes_it(
    evaluate: Evaluate, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run, port = tmp_path / "run", free_port()
    # The session's actors have the variable's value for good: it is the endpoint that changes its key.
    flags = ["--llm-url", f"http://127.0.0.1:{port}/v1", "--llm-model", MODEL_NAME, "--llm-key-env", VARIABLES[1], "--users", "6"]
    with run_in_thread(api_key="another", port=port):
        evaluate(*flags, run_folder=run, expect=2)
        assert not run.exists()
        evaluate(*flags, "--no-llm-check", run_folder=run, expect=3)
    said = capfd.readouterr()
    assert "the LLM endpoint failed for 6 users in a row" in said.err
    with run_in_thread(api_key=MARKER, port=port):
        evaluate(*flags, "--resume", run_folder=run)
    assert len(read_users(run)) == 6
    printed = said.out + said.err + "".join(capfd.readouterr())
    assert "Traceback" not in printed and MARKER not in printed
    for path in run.rglob("*"):
        assert path.is_dir() or MARKER.encode() not in path.read_bytes()
