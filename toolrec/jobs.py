"""Jobs: a command that a running cluster's job server runs, with the working folder sent along."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import yaml

from toolrec.errors import ConfigError

EXCLUDES = (
    "/.git/",
    "/.venv/",
    "/venv/",
    "/data/",
    "/recommenders/",
    "/runs/",
    "/sweeps/",
    "/experiments/",
    "/site/",
    "/dist/",
    "/build/",
    "/tests/",
    "/docs/",
    "/benchmarks/",
    ".env",
    "*.parquet",
    "*.safetensors",
    "*.pt",
    "*.zip",
    "*.tar.gz",
    "*.sqlite",
    "__pycache__/",
    ".*_cache/",
    ".hypothesis/",
)
"""What never travels with a job, beside what `.gitignore` and `.rayignore` name; `cluster/runtime-env.yaml` has the same."""

ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}

MAX_UPLOAD_BYTES = 100 * 1024**2
"""Above this Ray's job server refuses a package."""

CONNECT_TIMEOUT_S = 10.0
STATUS_INTERVAL_S = 2.0
AGENT_TIMEOUT_S = 180.0
NO_AGENT = "No available agent"
"""How a job server of Ray's says that none of its nodes can start a job: those of a new cluster take a while."""
STOPPED_EXIT_CODE = 3

TALKATIVE = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env")
"""What Ray's client would say of every folder that it reads."""

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as the head node has them"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One command and what it needs.

    Args:
        command: the program and its arguments.
        address: the job server's URL; None for the one that Ray's variables name, else this machine's.
        working_dir: folder that is sent along; None for nothing but what the nodes have.
        runtime_env: further settings of Ray's runtime environment.
    """

    command: tuple[str, ...]
    address: str | None = None
    working_dir: Path | None = None
    runtime_env: Mapping[str, Any] = field(default_factory=lambda: {"env_vars": ENVIRONMENT, "excludes": list(EXCLUDES)})


def read_runtime_env(path: Path) -> dict[str, Any]:
    """A runtime environment's file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the runtime environment ({error})", value=str(path)) from error
    if not isinstance(settings, dict):
        raise ConfigError("a runtime environment is a mapping", value=str(path))
    if "working_dir" in settings:
        raise ConfigError("the working folder is given by --working-dir", value=str(path), hint="leave working_dir out")
    return settings


def upload_files(folder: Path, excludes: Sequence[str]) -> dict[str, int]:
    """The files that Ray would send of a folder, with their sizes in bytes.

    Raises:
        ConfigError: it is no folder.
    """
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    if not folder.is_dir():
        raise ConfigError("the working folder is not there", value=str(folder))
    top = folder.absolute()
    sizes: dict[str, int] = {}

    def take(path: Path) -> None:
        if path.is_file():
            sizes[str(path.relative_to(top))] = path.stat().st_size

    quiet = logging.getLogger(f"{__name__}.packaging")
    quiet.setLevel(logging.WARNING)
    _dir_travel(top, [_get_excludes(top, list(excludes))], take, include_gitignore=True, logger=quiet)
    return sizes


def check_upload(folder: Path, excludes: Sequence[str]) -> int:
    """The size in bytes of what is sent of a folder.

    Raises:
        ConfigError: it is more than a job server takes.
    """
    sizes = upload_files(folder, excludes)
    total = sum(sizes.values())
    if total > MAX_UPLOAD_BYTES:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
        shown = ", ".join(f"{name} ({sizes[name] / 1e6:,.0f} MB)" for name in largest)
        raise ConfigError(
            f"the working folder has {total / 1e6:,.0f} MB to send, the largest: {shown}",
            value=str(folder),
            allowed=f"at most {MAX_UPLOAD_BYTES / 1e6:,.0f} MB",
            hint="name what stays here in .rayignore or under `excludes` of --runtime-env; data sets belong on a path that "
            "every node sees",
        )
    return total


def job_address(given: str | None) -> str:
    """The job server's URL: the one given, else the one of Ray's variables, else this machine's.

    Raises:
        ConfigError: it is no URL of a job server.
    """
    address = given or next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), DEFAULT_ADDRESS)
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname is not None and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ConfigError("not the address of a job server", value=address, allowed="http://HOST:8265, the head node's dashboard")
    return url.rstrip("/")


def job_client(address: str, say: Callable[[str], None]) -> Any:
    """A client of the job server.

    Raises:
        ConfigError: nothing answers there, or something else does; the token is missing or wrong; or its Ray is too old.
    """
    import ray
    from packaging.version import InvalidVersion, Version
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        headers = get_auth_headers_if_auth_enabled({})
    except (AuthenticationError, RuntimeError, OSError) as error:
        raise ConfigError(f"no token for the cluster ({_first_line(error)})", hint=TOKEN_HINT) from None
    try:
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=CONNECT_TIMEOUT_S)
    except requests.RequestException as error:
        raise ConfigError(
            f"no job server answers at this address ({_reason(error)})",
            value=address,
            hint="it is the head node's dashboard, http://HOST:8265; `kubectl port-forward` or `ray dashboard` brings it here",
        ) from None
    if answer.status_code in (401, 403):
        what = "asks for a token" if answer.status_code == 401 else "refuses this token"
        raise ConfigError(f"the cluster {what}", value=address, hint=TOKEN_HINT)
    try:
        version = str(answer.json()["ray_version"])
        Version(version)
    except (ValueError, KeyError, TypeError, InvalidVersion):
        raise ConfigError(f"this is no job server of Ray (HTTP {answer.status_code})", value=address) from None
    if Version(version) < Version("2.50"):
        raise ConfigError(
            "the cluster's Ray is too old", value=version, allowed="2.50 or later", hint=f"here it is {ray.__version__}"
        )
    if version != ray.__version__:
        say(f"the cluster runs Ray {version}, this machine has {ray.__version__}: the job runs with the cluster's")
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with _address_without_variables():
        return JobSubmissionClient(address)


@contextlib.contextmanager
def _address_without_variables() -> Any:
    """Ray's variables would override the address that is given to it."""
    kept = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def submit_job(client: Any, request: JobRequest, say: Callable[[str], None]) -> str:
    """Sends the working folder and starts the job; gives its id.

    Raises:
        ConfigError: the job server does not take it.
    """
    runtime_env = dict(request.runtime_env)
    if request.working_dir is not None:
        size = check_upload(request.working_dir, runtime_env.get("excludes", ()))
        say(f"sending {request.working_dir.absolute()} ({size / 1e6:.1f} MB)")
        runtime_env["working_dir"] = str(request.working_dir.absolute())
    deadline_s = time.monotonic() + AGENT_TIMEOUT_S
    is_waiting = False
    while True:
        try:
            submitted: str = client.submit_job(entrypoint=shlex.join(request.command), runtime_env=runtime_env)
            return submitted
        except (RuntimeError, ValueError, TypeError) as error:
            if NO_AGENT not in str(error) or time.monotonic() > deadline_s:
                raise ConfigError(f"the job server did not take the job ({_first_line(error)})") from None
        if not is_waiting:
            say(f"the job server has no agent that starts jobs yet; trying again for up to {AGENT_TIMEOUT_S:.0f} s")
            is_waiting = True
        time.sleep(STATUS_INTERVAL_S)


def follow_job(client: Any, submission_id: str, write: Callable[[str], Any] = sys.stdout.write) -> tuple[int, str]:
    """Writes the job's log until the job ends.

    Returns:
        Its exit code, and what the job server says of its end.
    """
    from ray.job_submission import JobStatus

    written = _follow_log(client, submission_id, write)
    while not (info := _patiently(lambda: client.get_job_info(submission_id))).status.is_terminal():
        time.sleep(STATUS_INTERVAL_S)
    if not written.is_whole:
        # The connection was lost on the way: what came after it.
        rest = _patiently(lambda: client.get_job_logs(submission_id))
        write(rest[written.num_characters :])
    if info.status == JobStatus.SUCCEEDED:
        return 0, ""
    if info.driver_exit_code:  # a signal's number is negative
        code = info.driver_exit_code if info.driver_exit_code > 0 else 128 - info.driver_exit_code
    else:
        code = STOPPED_EXIT_CODE if info.status == JobStatus.STOPPED else 1
    reason = str(info.message or info.status.value).partition(", last available logs")[0]
    return code, " ".join(reason.split())


@dataclass(slots=True)
class _Written:
    num_characters: int = 0
    is_whole: bool = False


def _follow_log(client: Any, submission_id: str, write: Callable[[str], Any]) -> _Written:
    import aiohttp

    written = _Written()

    async def follow() -> None:
        async for text in client.tail_job_logs(submission_id):
            write(text)
            written.num_characters += len(text)

    try:
        asyncio.run(follow())
        written.is_whole = True
    except (RuntimeError, OSError, aiohttp.ClientError):
        pass  # the job is asked for its end, and its log once more
    return written


def _patiently(ask: Callable[[], Any], tries: int = 30) -> Any:
    """Asks again where the job server is out of reach for a while.

    Raises:
        ConfigError: it stays so.
    """
    for tries_left in reversed(range(tries)):
        try:
            return ask()
        except (requests.RequestException, RuntimeError, ConnectionError) as error:
            if tries_left == 0:
                raise ConfigError(
                    f"the job server is out of reach ({_first_line(error)})", hint="the job itself may still run"
                ) from None
            time.sleep(STATUS_INTERVAL_S)
    raise AssertionError("unreachable")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    cause = error.args[0] if error.args else error
    return _first_line(getattr(cause, "reason", cause)).rpartition(": ")[2]


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
