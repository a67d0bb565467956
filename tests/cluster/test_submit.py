"""`toolrec submit`: what is refused before anything is sent, and how much is sent."""

from __future__ import annotations

import http.server
import importlib.util
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from toolrec.cli import run_command
from toolrec.cli.submit import check_command, with_variables
from toolrec.connect import _refused
from toolrec.errors import ConfigError
from toolrec.jobs import EXCLUDES, MAX_UPLOAD_BYTES, NO_AGENT, JobRequest, check_upload, job_address, submit_job, upload_files

ROOT = Path(__file__).resolve().parents[2]
RECOMMENDERS = ["--recommenders", "/shared/recommenders/demo"]
EVALUATE = ["evaluate", "/shared/data/demo", "--run", "/shared/runs/first", *RECOMMENDERS]


@pytest.fixture
def no_ray_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_the_upload_of_the_checkout_stays_under_5_mb(tmp_path: Path):
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=list(EXCLUDES))
    assert package.stat().st_size < 5e6
    names = upload_files(ROOT, EXCLUDES)
    assert {"toolrec/pipeline.py", "tune/__main__.py", "serve/app.py", "cluster/runtime-env.yaml"} <= names.keys()
    assert sum(names.values()) < 5e6


def test_large_files_stay_here_although_git_does_not_ignore_them(tmp_path: Path):
    for name in ("part.py", "data/x/pool.parquet", "mine/weights.safetensors", "toolrec/data/store.py", ".env"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    assert set(upload_files(tmp_path, EXCLUDES)) == {"part.py", "toolrec/data/store.py"}
    assert check_upload(tmp_path, EXCLUDES) == 2 * 100


def test_a_folder_too_large_to_send_is_refused_with_its_largest_file(tmp_path: Path):
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + 1)
    (tmp_path / "small.py").write_text("x")
    with pytest.raises(ConfigError, match=r"the largest: large\.bin \(105 MB\)"):
        check_upload(tmp_path, EXCLUDES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "/shared/data/demo"], "a job needs --run"),
        (EVALUATE[:4], "a job needs --recommenders"),
        (["train", "/shared/data/demo"], "a job needs --out"),
        (["tune", "encoder", "/shared/data/demo", "--attribute", "genre"], "a job needs --sweep"),
        ([*EVALUATE[:2], "--run", "runs/first", *RECOMMENDERS], r"absolute paths \(--run\); got: runs/first"),
        (["evaluate", "data/demo", *EVALUATE[2:]], r"absolute paths \(DIR\); got: data/demo"),
        ([*EVALUATE, "--cache", "cache"], r"absolute paths \(--cache\); got: cache"),
        (["show", "/shared/runs/first"], "not a command that can be a job; got: show"),
        (["submit", *EVALUATE], "not a command that can be a job; got: submit"),
        (["evaluat"], "not a command that can be a job; got: evaluat"),
        (["data"], "not a command that can be a job; got: data"),
    ],
)
def test_a_command_that_cannot_be_a_job_is_refused(words: list[str], said: str):
    with pytest.raises(ConfigError, match=said):
        check_command(words)


def test_paths_of_a_job_by_flag():
    paths = check_command([*EVALUATE, "--users", "10"])
    assert {flag: path.name for flag, path in paths.items()} == {"DIR": "demo", "--run": "first", "--recommenders": "demo"}


def test_variables_of_settings_travel_and_keys_do_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOOLREC_LLM_URL", "http://llm:8000/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.delenv("TOOLREC_PRICES", raising=False)
    sent = with_variables(JobRequest(command=("python",)), EVALUATE).runtime_env["env_vars"]
    assert sent["TOOLREC_LLM_URL"] == "http://llm:8000/v1"
    assert "TOOLREC_PRICES" not in sent and "a-key" not in sent.values()


def test_an_unknown_flag_is_refused_here(capfd: pytest.CaptureFixture[str]):
    assert run_command(["submit", *EVALUATE, "--user", "10"]) == 2
    assert "--user" in capfd.readouterr().err


@pytest.mark.parametrize("address", ["head:x", "ray://head:10001", "http://", "http://head:99999"])
def test_an_address_that_is_none_of_a_job_server_is_refused(address: str, no_ray_variables: None):
    with pytest.raises(ConfigError, match="not the address of a job server"):
        job_address(address)


def test_the_address_given_is_taken_before_rays_variables(monkeypatch: pytest.MonkeyPatch, no_ray_variables: None):
    assert job_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "http://other:8265/")
    assert job_address(None) == "http://other:8265"
    assert job_address("head:8265") == "http://head:8265"


@pytest.fixture
def server() -> Iterator[tuple[str, dict]]:
    """A web server that answers every request the same way."""
    answer: dict = {"status": 200, "body": {"ray_version": "2.10.0"}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer["status"])
            self.end_headers()
            self.wfile.write(json.dumps(answer["body"]).encode())

        def log_message(self, *_: object) -> None: ...

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", answer
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, {"ray_version": "2.10.0"}, "the cluster's Ray is too old; got: 2.10.0"),
        (200, {"page": "another"}, "this is no job server of Ray (HTTP 200)"),
        (404, {}, "this is no job server of Ray (HTTP 404)"),
        (401, {}, "the cluster asks for a token"),
        (403, {}, "the cluster refuses this token"),
    ],
)
def test_what_answers_is_told_in_one_sentence(
    status: int, body: dict, said: str, server: tuple[str, dict], no_ray_variables: None, capfd: pytest.CaptureFixture[str]
):
    address, answer = server
    answer.update(status=status, body=body)
    assert run_command(["submit", "--address", address, "--send-nothing", *EVALUATE]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_nobody_at_the_address(no_ray_variables: None, capfd: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        assert run_command(["submit", "--address", f"http://127.0.0.1:{taken.getsockname()[1]}", *EVALUATE]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "no job server answers at this address" in lines[0] and "refused" in lines[0]


def test_another_version_is_told_in_one_sentence():
    text = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.58.0\n    Python: 3.12.1\n"
        "This process on 127.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.2\n"
    )
    error = _refused(RuntimeError(text), "head:6379")
    assert isinstance(error, ConfigError)
    assert "head:6379 has Ray 2.58.0 and Python 3.12.1, this process Ray 2.60.0 and Python 3.11.2" in str(error)
    other = RuntimeError("something else")
    assert _refused(other, None) is other


class StartingCluster:
    """A job server's client whose first answers are these refusals, in the words of Ray's own client."""

    def __init__(self, *refusals: str) -> None:
        self.refusals = list(refusals)

    def submit_job(self, **_: object) -> str:
        if self.refusals:
            raise RuntimeError(f"Request failed with status code 500: {self.refusals.pop(0)}")
        return "job_1"


def test_a_cluster_that_is_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toolrec.jobs.STATUS_INTERVAL_S", 0.01)
    starting, said = StartingCluster(*(f"{NO_AGENT} to submit job, please try again later." for _ in range(2))), []
    assert submit_job(starting, JobRequest(command=("true",)), said.append) == "job_1"
    assert said == ["the job server has no agent that starts jobs yet; trying again for up to 180 s"]
    with pytest.raises(ConfigError, match=r"did not take the job \(Request failed with status code 500: full\)"):
        submit_job(StartingCluster("full"), JobRequest(command=("true",)), said.append)
    monkeypatch.setattr("toolrec.jobs.AGENT_TIMEOUT_S", 0.0)
    with pytest.raises(ConfigError, match=NO_AGENT):
        submit_job(StartingCluster(NO_AGENT, NO_AGENT), JobRequest(command=("true",)), said.append)


def test_these_are_rays_words_for_a_cluster_without_an_agent():
    source = importlib.util.find_spec("ray.dashboard.modules.job.job_head").origin
    assert NO_AGENT in Path(source).read_text()
