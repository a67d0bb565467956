"""Run folders at URLs, without Ray: what is there at each moment can be resumed; one driver; faults in the middle."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bucket_in_memory import Bucket, failing, put_folder
from without_ray import run_without_ray

from toolrec.errors import RemoteStorageError, RunFolderError, RunStoppedError
from toolrec.runs.failures import Failure, FailureLog, read_failures
from toolrec.runs.folder import RunFolder, read_attempts, read_spend
from toolrec.runs.mirror import mirrored, working_folder
from toolrec.runs.run import load_run
from toolrec.storage.lock import LOCK_OBJECT, RemoteLock, is_held
from toolrec.storage.remote import RemoteFolder
from toolrec.util.urls import place_of

URL = "bucket://lab/runs/first"
USERS = 12
Evaluate = Callable[..., None]


def names(bucket: type[Bucket]) -> list[str]:
    return sorted(path.removeprefix("/lab/runs/first/") for path in bucket.store if path.startswith("/lab/runs/first/"))


def lists(run: Any) -> pd.DataFrame:
    return run.users[["user_id", "ended_by", "final_items", "completed_items"]]


@pytest.fixture
def evaluate(demo_folder: Path, demo_recommenders: Path) -> Evaluate:
    def run(**settings: Any) -> None:
        run_without_ray(demo_folder, demo_recommenders, place_of(URL), users=USERS, **settings)

    return run


def test_a_run_at_a_url_equals_the_local_one(bucket: type[Bucket], evaluate: Evaluate, small_run: Path) -> None:
    evaluate()
    found = names(bucket)
    assert {"manifest.json", "summary.json", "report.html", "lists.parquet", "users/part-000003.parquet"} <= set(found)
    assert LOCK_OBJECT not in found and not working_folder(place_of(URL)).exists()
    there, here = load_run(URL), load_run(small_run)
    pd.testing.assert_frame_equal(lists(there), lists(here))
    pd.testing.assert_frame_equal(there.summary, here.summary)
    pd.testing.assert_frame_equal(there.spend, here.spend)
    assert there.status == "complete" and there.manifest["config"]["run"] == URL and there.path.name == "first"
    with pytest.raises(RunFolderError, match="there already"):
        evaluate()


def test_each_state_there_can_be_resumed(bucket: type[Bucket], evaluate: Evaluate, small_run: Path) -> None:
    """The objects after each single write of a run are a run folder: opened, and gone on with, they come to the same lists."""
    states: list[dict[str, bytes]] = []

    def keep(verb: str, path: str) -> None:
        if verb == "write":
            states.append({name: file.getvalue() for name, file in bucket.store.items() if not name.endswith(LOCK_OBJECT)})

    bucket.fault = keep
    evaluate()
    bucket.fault = None
    states = [state for state in states if "/lab/runs/first/manifest.json" in state]
    numbers = [len([name for name in state if "/users/" in name]) for state in states]
    assert set(numbers) == {0, 1, 2, 3}
    chosen = [max(index for index, number in enumerate(numbers) if number == wanted) for wanted in range(3)]
    for state in (states[index] for index in chosen):
        bucket.store.clear()
        for name, content in state.items():
            bucket().pipe_file(name, content)
        seen = load_run(URL)
        assert seen.status == "interrupted" and set(seen.rounds["user_id"]) == set(seen.users["user_id"])
        evaluate(resume=True)
        pd.testing.assert_frame_equal(lists(load_run(URL)), lists(load_run(small_run)))


def test_lost_permission_stops_the_run_resumably(bucket: type[Bucket], evaluate: Evaluate, small_run: Path) -> None:
    bucket.fault = failing(-1, PermissionError("Access Denied"), verb="write", name="users/part-000002")
    with pytest.raises(RemoteStorageError) as caught:
        evaluate()
    assert caught.value.exit_code == 3
    assert "no permission to write here" in str(caught.value) and "--resume goes on" in str(caught.value)
    assert [name for name in names(bucket) if name.startswith("users/")] == ["users/part-000001.parquet"]
    bucket.fault = None
    with pytest.raises(
        RunFolderError, match=r"another configuration: surrogate\.rounds was 7, now 3; got: bucket://lab/runs/first; resume with"
    ):
        evaluate(resume=True, **{"surrogate.rounds": 3})
    evaluate(resume=True)
    assert [name for name in names(bucket) if name.startswith("rounds/")] == [f"rounds/part-{n:06d}.parquet" for n in (1, 2, 3)]
    pd.testing.assert_frame_equal(lists(load_run(URL)), lists(load_run(small_run)))


@pytest.mark.parametrize("resume", [True, False])
def test_what_is_no_run_is_left_as_it_is(resume: bool, bucket: type[Bucket], evaluate: Evaluate) -> None:
    bucket().pipe_file("/lab/runs/first/deeper/manifest.json", b"{}")
    with pytest.raises(RunFolderError, match=r"something else than a run|there already"):
        evaluate(resume=resume)
    assert names(bucket) == ["deeper/manifest.json"]


def test_a_working_folder_that_disappears_takes_nothing_with_it(
    bucket: type[Bucket], evaluate: Evaluate, small_run: Path
) -> None:
    def remove(verb: str, path: str) -> None:
        if verb == "write" and "users/part-000002" in path:
            shutil.rmtree(working_folder(place_of(URL)))

    bucket.fault = remove
    with pytest.raises((RunFolderError, RemoteStorageError, RunStoppedError, OSError)):
        evaluate()
    bucket.fault = None
    assert {"manifest.json", "rounds/part-000001.parquet", "users/part-000001.parquet"} <= set(names(bucket))
    evaluate(resume=True)
    pd.testing.assert_frame_equal(lists(load_run(URL)), lists(load_run(small_run)))


def test_users_that_were_not_copied_up_are_kept_aside(bucket: type[Bucket], evaluate: Evaluate) -> None:
    bucket.fault = failing(-1, PermissionError("Access Denied"), verb="write", name="users/part-000002")
    with pytest.raises(RemoteStorageError):
        evaluate()
    bucket.fault = None
    folder = working_folder(place_of(URL))
    evaluate(resume=True)
    [aside] = folder.parent.glob(f"{folder.name}.*")
    assert (aside / "users" / "part-000002.parquet").exists() and not folder.exists()


def test_a_slow_bucket_and_lost_answers_cost_nothing(bucket: type[Bucket], evaluate: Evaluate, small_run: Path) -> None:
    asked: set[str] = set()

    def fault(verb: str, path: str) -> str | None:
        if verb != "write" or path in asked:
            return None
        asked.add(path)
        if "users/" in path:
            return "answer lost"
        raise OSError(16, "SlowDown")

    bucket.fault = fault
    evaluate()
    pd.testing.assert_frame_equal(lists(load_run(URL)), lists(load_run(small_run)))


def test_bad_input_is_told_before_any_work(bucket: type[Bucket], evaluate: Evaluate) -> None:
    bucket.fault = failing(-1, FileNotFoundError("The specified bucket does not exist"), verb="write")
    with pytest.raises(RunFolderError, match=r"nothing to write here .*bucket does not exist.*bucket's name"):
        evaluate()
    bucket.fault = failing(-1, PermissionError("Access Denied"), verb="list")
    with pytest.raises(RunFolderError, match="no permission to list here"):
        evaluate()
    assert not names(bucket)


def test_nothing_is_left_of_a_run_that_began_nothing(bucket: type[Bucket], demo_folder: Path, demo_recommenders: Path) -> None:
    with pytest.raises(Exception, match=r"no such recommender|was trained for this attribute"):
        run_without_ray(demo_folder, demo_recommenders, place_of(URL), users=3, **{"tools.attributes": ("shoe_size",)})
    assert not names(bucket)


def test_journals_become_parts(bucket: type[Bucket]) -> None:
    entry = {"user_index": 1, "attempt": 1, "round": 1, "purpose": "decide", "tool": "", "num_calls": 1}
    for session in (1, 2):
        with mirrored(place_of(URL), resume=True) as mirror:
            path = working_folder(place_of(URL))
            manifest = {"schema_version": 1, "resume_key": "k", "settings": {}}
            open_folder = RunFolder.create if session == 1 else RunFolder.resume
            folder = open_folder(path, manifest, mirror=mirror)
            for number in (1, 2):
                folder.journal([{**entry, "round": number, "user_index": session}])
            FailureLog(path).write(Failure(kind="tool_lost", reason=f"in session {session}"))
            folder.close()
    assert [name for name in names(bucket) if name.startswith("spend")] == [f"spend/part-{n:06d}.jsonl" for n in (1, 2, 3, 4)]
    copy = load_run(URL).path
    assert [(row["user_index"], row["round"]) for row in read_spend(copy)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert read_attempts(copy) == {1: 1, 2: 1}
    assert [failure["reason"] for failure in read_failures(copy)] == ["in session 1", "in session 2"]


def test_a_local_run_folder_goes_on_in_a_bucket(
    bucket: type[Bucket], evaluate: Evaluate, small_run: Path, tmp_path: Path
) -> None:
    local = shutil.copytree(small_run, tmp_path / "first")
    (local / "summary.json").unlink()
    put_folder(local, URL)
    spent = len(read_spend(local))
    evaluate(resume=True)
    assert len(read_spend(load_run(URL).path)) == spent and load_run(URL).status == "complete"


def test_one_driver(bucket: type[Bucket]) -> None:
    remote = RemoteFolder(place_of(URL))
    lock = RemoteLock.acquire(remote, renew_s=0.05)
    held = json.loads(remote.read(LOCK_OBJECT))
    assert is_held(remote.read(LOCK_OBJECT))
    with pytest.raises(RunFolderError, match=f"another process is writing .*process {held['process']} on "):
        RemoteLock.acquire(remote, stale_s=2.0)
    lock.check()
    lock.release()
    assert not names(bucket)


def test_a_dead_drivers_lock_is_taken_over(bucket: type[Bucket]) -> None:
    remote = RemoteFolder(place_of(URL))
    RemoteLock.acquire(remote).release()
    lock = RemoteLock.acquire(remote)
    held = json.loads(remote.read(LOCK_OBJECT))
    lock.release()
    began_s = time.monotonic()
    remote.write(LOCK_OBJECT, json.dumps({**held, "started_s": held["started_s"] - 1000}).encode())  # of this machine: at once
    RemoteLock.acquire(remote, stale_s=60).release()
    assert time.monotonic() - began_s < 30
    remote.write(LOCK_OBJECT, json.dumps({**held, "space": "elsewhere"}).encode())  # of another: when it is not renewed
    RemoteLock.acquire(remote, stale_s=0.3).release()


def test_a_driver_that_was_taken_for_dead_stops(bucket: type[Bucket]) -> None:
    with pytest.raises(RunStoppedError, match="another process has"), mirrored(place_of(URL), resume=False) as mirror:
        assert mirror is not None
        path = working_folder(place_of(URL))
        folder = RunFolder.create(path, {"schema_version": 1, "resume_key": "k", "settings": {}}, mirror=mirror)
        bucket().pipe_file("/lab/runs/first/rounds/part-000001.parquet", b"of the other one")
        folder.commit([], [])


def test_a_copy_follows_the_run(bucket: type[Bucket], small_run: Path) -> None:
    put_folder(small_run, URL)
    load_run(URL)
    bucket.requests.clear()
    load_run(URL)
    assert [verb for verb, _ in bucket.requests] == ["list"]
    del bucket.store["/lab/runs/first/summary.json"]
    assert load_run(URL).status == "interrupted"
    bucket().pipe_file(f"/lab/runs/first/{LOCK_OBJECT}", b"{}")
    assert load_run(URL).status == "interrupted"  # of nobody


def test_commands_read_it(
    bucket: type[Bucket], small_run: Path, demo_folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from toolrec.cli import run_command

    put_folder(small_run, URL)
    put_folder(demo_folder, "bucket://lab/data/demo")
    for command in (["show", URL], ["spend", URL], ["report", URL, "-o", str(tmp_path / "page.html")]):
        assert run_command(command) == 0
    assert run_command(["export", URL, "--format", "csv", "--out", str(tmp_path / "tables")]) == 0
    assert run_command(["data", "show", "bucket://lab/data/demo"]) == 0
    capsys.readouterr()
    assert run_command(["show", "bucket://lab/runs/none"]) == 2
    assert "no manifest.json at this URL; got: bucket://lab/runs/none" in capsys.readouterr().err
    assert run_command(["control", URL]) == 2
    assert "no URL can be given here" in capsys.readouterr().err


def test_pushes_do_not_meet(bucket: type[Bucket]) -> None:
    with mirrored(place_of(URL), resume=False) as mirror:
        assert mirror is not None
        path = working_folder(place_of(URL))
        folder = RunFolder.create(path, {"schema_version": 1, "resume_key": "k", "settings": {}}, mirror=mirror)
        threads = [threading.Thread(target=folder.journal, args=([{"user_index": n}],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folder.close()
    parts = [bucket.store[f"/lab/runs/first/{name}"].getvalue() for name in names(bucket) if name.startswith("spend/")]
    assert sorted(json.loads(line)["user_index"] for line in b"".join(parts).splitlines()) == list(range(8))
