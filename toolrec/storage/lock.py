"""One writer for each folder of a bucket: an object with its owner, renewed as long as the owner lives."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from toolrec.errors import RemoteStorageError, RunFolderError, RunStoppedError
from toolrec.storage.remote import RemoteFolder, TakenError
from toolrec.util.progress import stage

log = logging.getLogger(__name__)

LOCK_OBJECT = "lock.json"
RENEW_S = 15.0
STALE_S = 60.0
"""An owner that has not renewed its lock for this long is taken for dead."""
LOOK_S = 2.0


class RemoteLock:
    """Made by `acquire`. A thread renews it; `check` says whether it is still ours."""

    def __init__(self, remote: RemoteFolder, owner: str, *, renew_s: float) -> None:
        self._remote, self._owner, self._renew_s = remote, owner, renew_s
        self._is_over = threading.Event()
        self._is_lost = False
        self._thread = threading.Thread(target=self._renew_regularly, name="run lock", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, remote: RemoteFolder, *, stale_s: float = STALE_S, renew_s: float = RENEW_S) -> RemoteLock:
        """Takes the folder. The lock of a process that is dead, or has not renewed it for `stale_s`, is taken over.

        Raises:
            RunFolderError: another process holds it and lives.
            RemoteStorageError: the bucket cannot be used.
        """
        owner = uuid.uuid4().hex
        seen: Any = None
        seen_s = time.monotonic()
        while True:
            try:
                remote.create(LOCK_OBJECT, _content(owner, 0))
            except TakenError:
                held = _read(remote)
            else:
                held = _read(remote)
                if held is not None and held.get("owner") == owner:  # not every storage keeps a second writer from it
                    return cls(remote, owner, renew_s=renew_s)
            if held is None:
                continue
            now = held.get("owner"), held.get("beat")
            if seen is not None and now != seen:
                raise RunFolderError(
                    f"another process is writing to this run folder (process {held.get('process')} on {held.get('host')})",
                    value=str(remote),
                )
            if seen is None and not _is_dead_here(held):
                whose = f"process {held.get('process')} on {held.get('host')}"
                stage(f"the run folder has a lock of {whose}; waiting for {stale_s:.0f} s whether it is renewed")
            if _is_dead_here(held) or time.monotonic() - seen_s > stale_s:
                remote.delete(LOCK_OBJECT)
                continue
            seen = now
            time.sleep(min(LOOK_S, stale_s / 4))

    def check(self) -> None:
        """Whether the folder is still ours.

        Raises:
            RunStoppedError: another process has taken it.
        """
        if self._is_lost:
            raise RunStoppedError(
                "another process has taken over the run folder",
                value=str(self._remote),
                hint="this one had not renewed its lock in time; what it had written before stays",
            )

    def release(self) -> None:
        """Gives the folder back; a lock that cannot be removed is taken over by the next one."""
        self._is_over.set()
        self._thread.join()
        with contextlib.suppress(RemoteStorageError):
            held = _read(self._remote)
            if held is not None and held.get("owner") == self._owner:
                self._remote.delete(LOCK_OBJECT)

    def _renew_regularly(self) -> None:
        beat = 0
        while not self._is_over.wait(self._renew_s):
            beat += 1
            try:
                held = _read(self._remote)
                if held is not None and held.get("owner") != self._owner:
                    self._is_lost = True
                    return
                self._remote.write(LOCK_OBJECT, _content(self._owner, beat))
            except RemoteStorageError as error:
                log.warning("the run folder's lock was not renewed: %s", error)


def is_held(content: bytes | None, *, stale_s: float = STALE_S) -> bool:
    """Whether a lock's content says that its owner lives, by this machine's clock."""
    held = None if content is None else _parsed(content)
    if held is None or _is_dead_here(held):
        return False
    try:
        renewed = datetime.fromisoformat(str(held.get("time")))
        return (datetime.now(UTC) - renewed).total_seconds() < stale_s
    except (ValueError, TypeError):
        return False


def _content(owner: str, beat: int) -> bytes:
    about = {
        "owner": owner,
        "beat": beat,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started_s": psutil.Process().create_time(),
        "space": _process_space(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(about).encode()


def _read(remote: RemoteFolder) -> dict[str, Any] | None:
    content = remote.find(LOCK_OBJECT)
    return None if content is None else _parsed(content) or {}


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        held = json.loads(content)
    except ValueError:
        return None
    return held if isinstance(held, dict) else None


def _is_dead_here(held: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine and is no more; False where that cannot be known."""
    if held.get("space") != _process_space() or not isinstance(held.get("process"), int):
        return False
    try:
        began_s: float = psutil.Process(held["process"]).create_time()
        return abs(began_s - float(held.get("started_s", 0))) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _process_space() -> str:
    """Within one of these a process number means one process: this start of this machine, and its container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"unknown {uuid.uuid4().hex}"
