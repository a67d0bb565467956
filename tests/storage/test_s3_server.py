"""The same against a real S3-compatible server (moto's), through a proxy that spoils requests; and a driver that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_in_memory import put_folder
from faulty_proxy import Fault, FaultyProxy
from support import MARK, left_behind, lists_of, start_cli
from without_ray import run_without_ray

from toolrec.cli import run_command
from toolrec.data import load_dataset
from toolrec.errors import DataError, RemoteStorageError, RunFolderError
from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.runs.folder import read_users
from toolrec.runs.run import load_run
from toolrec.storage.cache import CACHE_VARIABLE
from toolrec.storage.lock import LOCK_OBJECT, RemoteLock
from toolrec.storage.remote import SMALL_BYTES, RemoteFolder, TakenError
from toolrec.util.urls import place_of

NUM_KILLED = 32
DATA, RECOMMENDERS, RUN = "s3://lab/data/demo", "s3://lab/recommenders/demo", "s3://lab/runs/first"


def test_objects(s3: Any, tmp_path: Path) -> None:
    folder = RemoteFolder(place_of("s3://lab/box"), patience_s=1)
    assert folder.files() == {} and folder.find("a") is None
    folder.create("a", b"1")
    folder.create("a", b"1")  # as after an answer that was lost
    with pytest.raises(TakenError):
        folder.create("a", b"2")
    folder.write("a", b"3")
    (tmp_path / "large").write_bytes(os.urandom(SMALL_BYTES + 1))
    folder.upload("deep/er/large", tmp_path / "large")
    files = folder.files()
    assert {name: about.num_bytes for name, about in files.items()} == {"a": 1, "deep/er/large": SMALL_BYTES + 1}
    folder.download("deep/er/large", tmp_path / "back", num_bytes=SMALL_BYTES + 1)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes() and folder.read("a") == b"3"
    folder.delete("a")
    folder.delete("a")
    assert list(folder.files()) == ["deep/er/large"]
    lock = RemoteLock.acquire(folder)
    with pytest.raises(TakenError):
        folder.create(LOCK_OBJECT, b"of another")
    lock.release()


def test_a_server_with_faults(s3: Any, s3_proxy: FaultyProxy, demo_folder: Path) -> None:
    put_folder(demo_folder, DATA)
    faults: dict[str, list[Fault]] = {"manifest.json": [503, 503], "pool.parquet": ["truncated", 500], "users.parquet": [1.5]}

    def fault(method: str, path: str) -> Fault:
        left = faults.get(path.rpartition("/")[2]) if method == "GET" else None
        return left.pop(0) if left else None

    s3_proxy.fault = fault
    assert load_dataset(DATA).checksum == load_dataset(demo_folder).checksum
    assert s3_proxy.num_faults == 5


def test_bad_input(
    s3: Any, s3_proxy: FaultyProxy, demo_folder: Path, demo_recommenders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json at this URL; got: s3://nowhere/data"):
        load_dataset("s3://nowhere/data")
    command = ["evaluate", str(demo_folder), "--recommenders", str(demo_recommenders), "--users", "2", "--run"]
    assert run_command([*command, "s3://nowhere/runs/x"]) == 2
    assert "bucket's name" in capsys.readouterr().err
    s3_proxy.fault = lambda method, path: 403 if method == "PUT" else None
    assert run_command([*command, RUN]) == 2
    assert "no permission to write here" in capsys.readouterr().err
    s3_proxy.fault = lambda method, path: 403
    with pytest.raises(DataError, match="no permission to read"):
        load_dataset(DATA)
    s3_proxy.fault = lambda method, path: None
    assert not s3.find("lab")


def test_permission_is_lost_in_the_middle(
    s3: Any, s3_proxy: FaultyProxy, demo_folder: Path, demo_recommenders: Path, small_run: Path
) -> None:
    s3_proxy.fault = lambda method, path: 403 if method == "PUT" and "users/part-000002" in path else None
    with pytest.raises(RemoteStorageError, match=r"no permission to write here .*--resume goes on") as caught:
        run_without_ray(demo_folder, demo_recommenders, place_of(RUN), users=12)
    assert caught.value.exit_code == 3
    with pytest.raises(RunFolderError, match="there already"):
        run_without_ray(demo_folder, demo_recommenders, place_of(RUN), users=12)
    s3_proxy.fault = lambda method, path: None
    run_without_ray(demo_folder, demo_recommenders, place_of(RUN), users=12, resume=True)
    assert same_lists(load_run(RUN).path, small_run)


def same_lists(one: Path, other: Path) -> bool:
    return bool(lists_of(one).to_dict("records") == lists_of(other).to_dict("records"))


@pytest.fixture
def slow_llm() -> Iterator[EmbeddedServer]:
    server = run_in_thread(EmbeddedOptions(latency_s=0.1))
    yield server
    server.stop()


@pytest.mark.slow
def test_a_killed_run_goes_on_elsewhere(
    s3: Any,
    slow_llm: EmbeddedServer,
    demo_folder: Path,
    demo_recommenders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's actors read data and recommenders from the bucket; the driver is killed; another machine's cache is empty."""
    put_folder(demo_folder, DATA)
    put_folder(demo_recommenders, RECOMMENDERS)
    llm = ["--llm-url", slow_llm.base_url, "--llm-model", MODEL_NAME, "--protocol", "tools"]
    small = ["--tools", "local", "--actors", "1", "--num-cpus", "2", "--concurrency", "4", "--set", "simulation.block_users=4"]
    command = ["evaluate", DATA, "--recommenders", RECOMMENDERS, "--run", RUN, "--users", str(NUM_KILLED), *small, *llm]
    log = tmp_path / "log"
    process = start_cli(*command, stdout=log, **{MARK: RUN, "RAY_AUTH_MODE": "disabled"})
    committed: Callable[[], list[str]] = lambda: s3.glob("lab/runs/first/users/part-*.parquet")  # noqa: E731
    deadline_s = time.monotonic() + 400
    while len(committed()) < 3 and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    num_committed = len(committed())
    assert num_committed >= 3, log.read_text()
    assert s3.exists(f"lab/runs/first/{LOCK_OBJECT}")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another"))
    seen = load_run(RUN)
    assert 0 < len(seen.users) < NUM_KILLED and len(seen.spend) > 0

    settings = {"llm.base_url": slow_llm.base_url, "llm.model": MODEL_NAME, "surrogate.protocol": "tools"}
    run_without_ray(place_of(DATA), place_of(RECOMMENDERS), place_of(RUN), users=NUM_KILLED, resume=True, **settings)
    unbroken = run_without_ray(demo_folder, demo_recommenders, tmp_path / "unbroken", users=NUM_KILLED, **settings)
    resumed = load_run(RUN)
    assert resumed.status == "complete" and same_lists(resumed.path, unbroken)
    assert read_users(resumed.path)["user_index"].is_unique
    assert not left_behind(RUN)
