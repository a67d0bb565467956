"""A run folder at a URL: its driver writes it on its own disk, and each commit is copied up before the next one begins.

At every moment the objects at the URL are a run folder that can be resumed: a file is copied after those that it stands
for. Journals grow, and objects cannot: what was added since the last time becomes an object of its own, as
`spend/part-000007.jsonl`.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from toolrec.errors import RemoteStorageError, RunFolderError, RunStoppedError
from toolrec.runs.folder import IN_FLIGHT, JOURNALS, MANIFEST, SUMMARY
from toolrec.storage.cache import download_all, place_in_cache, refreshed_copy
from toolrec.storage.lock import LOCK_OBJECT, RemoteLock
from toolrec.storage.remote import RemoteFile, RemoteFolder, TakenError, at_the_start
from toolrec.util.files import locked, storage_errors
from toolrec.util.urls import Url

log = logging.getLogger(__name__)

_BY_THEMSELVES = {MANIFEST, SUMMARY, IN_FLIGHT, *JOURNALS}

IN_FLIGHT_INTERVAL_S = 30.0
"""How often the rounds of users in flight are copied up. A driver that is lost with its disk loses no more than these."""


def working_folder(run: Path) -> Path:
    """Where a run folder is written on this machine: itself, or of a URL a folder of the same name in the cache."""
    return place_in_cache("runs", run) if isinstance(run, Url) else run


def readable_run(run: Path) -> Path:
    """Where a run folder can be read on this machine: itself, or of a URL a copy of what is there now.

    Raises:
        RunFolderError: there is no run at the URL, or it cannot be read.
    """
    return refreshed_copy(run, manifest=MANIFEST, error=RunFolderError) if isinstance(run, Url) else run


class RunMirror:
    """Copies one run folder up to its URL. Made by `mirrored`."""

    def __init__(self, folder: Path, remote: RemoteFolder, lock: RemoteLock, there: dict[str, RemoteFile]) -> None:
        self._folder, self._remote, self._lock = folder, remote, lock
        self._there = set(there)
        self._is_new = not there
        self._sent = {name: _state(folder / name) for name in there}
        self._num_journalled = {name: _whole_lines(folder / name) for name in JOURNALS}
        self._in_flight_s = 0.0
        self._copying = threading.Lock()

    def push(self, *, is_last: bool = False) -> None:
        """Copies up what has changed, in an order that leaves a run folder behind wherever it is cut off.

        Args:
            is_last: of a session: the rounds in flight too, however short ago they were copied.

        Raises:
            RemoteStorageError: the bucket refuses, or does not answer; what was copied before stays.
            RunStoppedError: another driver has taken the run folder.
        """
        with self._copying, self._resumable():
            self._lock.check()
            self._push_changed(MANIFEST)
            self._remove_uncommitted()
            for kind in ("rounds", "users"):
                for path in sorted((self._folder / kind).glob("part-*.parquet")):
                    self._push_part(path)
            for name in JOURNALS:
                self._push_journal(name)
            self._push_in_flight(is_due=is_last)
            others = sorted(path.name for path in self._folder.iterdir() if path.is_file() and not path.name.startswith("."))
            for name in (*(name for name in others if name not in _BY_THEMSELVES), SUMMARY):
                self._push_changed(name)

    def discard(self) -> None:
        """Removes what this run has copied up, where it is new and came to nothing: what was there, or holds users, stays."""
        if not self._is_new or any(name.startswith("users/") for name in self._there):
            return
        with self._copying:
            for name in sorted(self._there, reverse=True):
                if name != LOCK_OBJECT:
                    self._remote.delete(name)
            self._there.clear()

    @contextlib.contextmanager
    def _resumable(self) -> Iterator[None]:
        """Says how to go on; after a first failure nothing is waited for any more."""
        try:
            yield
        except RemoteStorageError as error:
            self._remote.patience_s = 0.0
            why = f" ({error.hint})" if error.hint else ""
            hint = f"what was committed there stays; once this is mended, --resume goes on{why}"
            raise RemoteStorageError(error.message, value=error.value, hint=hint) from error

    def _push_changed(self, name: str) -> None:
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError):
            state = _state(path)
            if self._sent.get(name) != state:
                self._remote.upload(name, path)
                self._sent[name] = state
                self._there.add(name)

    def _push_part(self, path: Path) -> None:
        name = path.relative_to(self._folder).as_posix()
        if name in self._there:
            return
        try:
            self._remote.upload(name, path, is_new=True)
        except TakenError:
            raise RunStoppedError(
                "another process has written to the run folder", value=f"{self._remote}/{name}", hint="--resume goes on"
            ) from None
        self._there.add(name)

    def _push_journal(self, name: str) -> None:
        """Copies the lines that were added, as the next part. Lines of earlier sessions are parts already."""
        path = self._folder / name
        sent = self._num_journalled[name]
        if not path.exists() or path.stat().st_size <= sent:
            return
        with path.open("rb") as handle:
            handle.seek(sent)
            added = handle.read()
        added = added[: added.rfind(b"\n") + 1]
        if not added:
            return
        stem = Path(name).stem
        numbers = [int(Path(part).stem.removeprefix("part-")) for part in self._there if part.startswith(f"{stem}/part-")]
        part = f"{stem}/part-{max(numbers, default=0) + 1:06d}.jsonl"
        try:
            self._remote.create(part, added)
        except TakenError:
            raise RunStoppedError(
                "another process has written to the run folder", value=f"{self._remote}/{part}", hint="--resume goes on"
            ) from None
        self._there.add(part)
        self._num_journalled[name] = sent + len(added)

    def _push_in_flight(self, *, is_due: bool) -> None:
        if not (self._folder / IN_FLIGHT).exists():
            if IN_FLIGHT in self._there:
                self._remote.delete(IN_FLIGHT)
                self._there.discard(IN_FLIGHT)
                self._sent.pop(IN_FLIGHT, None)
        elif is_due or time.monotonic() - self._in_flight_s > IN_FLIGHT_INTERVAL_S:
            self._push_changed(IN_FLIGHT)
            self._in_flight_s = time.monotonic()

    def _remove_uncommitted(self) -> None:
        """Removes rounds without their users, which an earlier session left and `RunFolder.resume` has removed here."""
        for name in [name for name in self._there if name.startswith("rounds/")]:
            is_committed = name.replace("rounds/", "users/", 1) in self._there
            if not is_committed and not (self._folder / name).exists():
                self._remote.delete(name)
                self._there.discard(name)


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _whole_lines(path: Path) -> int:
    """Bytes of a journal up to its last whole line."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


@contextlib.contextmanager
def mirrored(run: Path, *, resume: bool) -> Iterator[RunMirror | None]:
    """The mirror of a run folder at a URL for as long as the block runs; None for a path.

    The folder is locked, and what is there is fetched, so that `working_folder` holds it. What the block has written is
    there when it ends; the working folder is then removed.

    Args:
        resume: whether the run that is there goes on.

    Raises:
        RunFolderError: the URL cannot be used, another process is writing there, or a run is there and is not to go on.
        RemoteStorageError: the last files could not be copied up; they stay in the working folder.
    """
    if not isinstance(run, Url):
        yield None
        return
    folder = working_folder(run)
    with contextlib.ExitStack() as stack:
        with at_the_start(RunFolderError):
            mirror = _opened(run, folder, stack, resume=resume)
        try:
            yield mirror
        except BaseException:
            _leave(mirror, folder)
            raise
        mirror.push(is_last=True)
        shutil.rmtree(folder, ignore_errors=True)


def _opened(run: Url, folder: Path, stack: contextlib.ExitStack, *, resume: bool) -> RunMirror:
    """Locks the run folder, here and there, and fetches what is there."""
    remote = RemoteFolder(run)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(locked(folder.with_name(f".{folder.name}.lock")))
        except BlockingIOError:
            raise RunFolderError("another process of this machine is writing to this run folder", value=str(run)) from None
    _run_there(remote, resume=resume)  # before anything is written there
    lock = RemoteLock.acquire(remote)
    stack.callback(lock.release)
    there = _run_there(remote, resume=resume)
    _clear(folder, set(there))
    with storage_errors(folder):
        download_all(remote, there, folder)
    return RunMirror(folder, remote, lock, there)


def _clear(folder: Path, there: set[str]) -> None:
    """Makes room for what is there. Users that an earlier session wrote here and could not copy up are moved aside."""
    if any(f"users/{path.name}" not in there for path in (folder / "users").glob("part-*.parquet")):
        aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        log.warning("users that were not copied up are simulated again; what was written of them lies in %s", aside)
    shutil.rmtree(folder, ignore_errors=True)


def _run_there(remote: RemoteFolder, *, resume: bool) -> dict[str, RemoteFile]:
    there = remote.files()
    there.pop(LOCK_OBJECT, None)
    if there and not resume:
        hint = "give another --run, or --resume to go on with it"
        raise RunFolderError("the run folder is there already", value=str(remote), hint=hint)
    if there and MANIFEST not in there:
        raise RunFolderError("something else than a run is at this URL", value=str(remote), hint="give another --run")
    return there


def _leave(mirror: RunMirror, folder: Path) -> None:
    """After an error: what there is to go on with is copied up, as far as that can be done."""
    try:
        if (folder / MANIFEST).exists():
            mirror.push(is_last=True)
        else:
            mirror.discard()
    except (RemoteStorageError, RunStoppedError, OSError) as error:
        log.warning("the last files were not copied up, and lie in %s: %s", folder, error)
