"""The response cache: replies in an SQLite file that all processes of a node share, with an age at which they expire."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from toolrec.errors import ConfigError, LLMError
from toolrec.llm.stores.storing import StoredCall, reply_from_json, reply_to_json
from toolrec.records import Completion
from toolrec.util.files import storage_errors

CACHE_FILE = "replies.sqlite"
WRITE_INTERVAL_S = 0.25
"""How long replies are gathered before they are written together; a killed process loses at most these."""

BUSY_S = 30.0
"""How long a writer waits for another process's block, in seconds."""

INCOMPLETE = frozenset({"length", "content_filter"})
"""Replies that ended for these reasons are not kept."""

_SCHEMA_VERSION = 1
_SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, created_s REAL NOT NULL, reply TEXT NOT NULL) WITHOUT ROWID"

log = logging.getLogger(__name__)


class ReplyCache:
    """Replies by endpoint and call; reads from the caller's thread (some 20 microseconds), writes from one of its own.

    Only complete replies are kept: none that was cut off or is empty, and no error. A cache that fails later on (a full
    disk, say) says so once and is not used any more: it costs money, not results.

    Args:
        folder: where the file is; made where it is missing.
        endpoint: the endpoint's address, part of each key.
        max_age_s: older replies count as missing; None for no limit.
        clock: seconds since the epoch.

    Raises:
        ConfigError: there is a file that is no cache of this layout.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, *, endpoint: str, max_age_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._endpoint = endpoint
        self._max_age_s = max_age_s
        self._clock = clock
        self._path = folder / CACHE_FILE
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._reader = _opened(self._path)
        self._fresh: dict[str, tuple[float, str]] = {}  # not written yet
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._is_closed = False
        self._has_failed = False
        self._writer = threading.Thread(target=self._write, name="reply cache", daemon=True)
        self._writer.start()

    def get(self, call: StoredCall) -> Completion | None:
        """The reply, unless it is missing or too old."""
        key = self._key(call)
        found = self._fresh.get(key) or self._read(key)
        if found is None or (self._max_age_s is not None and self._clock() - found[0] > self._max_age_s):
            return None
        return reply_from_json(json.loads(found[1]))

    def put(self, call: StoredCall, reply: Completion) -> None:
        """Keeps a complete reply; it is on disk a moment later."""
        if self._has_failed or reply.finish_reason in INCOMPLETE or not (reply.text or reply.tool_calls):
            return
        with self._lock:
            self._fresh[self._key(call)] = (self._clock(), json.dumps(reply_to_json(reply)))
        self._has_work.set()

    def note_failure(self, call: StoredCall, error: LLMError) -> None:
        """Nothing: the next one asks again."""

    def close(self) -> None:
        """Writes what is left."""
        self._is_closed = True
        self._has_work.set()
        self._writer.join()
        self._reader.close()

    def _key(self, call: StoredCall) -> str:
        return hashlib.sha256(f"{self._endpoint}\n{call.key}".encode()).hexdigest()

    def _read(self, key: str) -> tuple[float, str] | None:
        if self._has_failed:
            return None
        try:
            row: tuple[float, str] | None = self._reader.execute(
                "SELECT created_s, reply FROM replies WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            self._failed(error)
            return None
        return row

    def _write(self) -> None:
        try:
            connection = _opened(self._path)
            while not self._is_closed or self._fresh:
                self._has_work.wait()
                self._has_work.clear()
                if not self._is_closed:
                    time.sleep(WRITE_INTERVAL_S)
                with self._lock:
                    rows = [(key, created_s, reply) for key, (created_s, reply) in self._fresh.items()]
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", rows)
                with self._lock:
                    for key, created_s, _ in rows:
                        if self._fresh[key][0] == created_s:
                            del self._fresh[key]
            connection.close()
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        if not self._has_failed:
            log.warning("the response cache is not used any more: %s", error)
        self._has_failed = True
        with self._lock:
            self._fresh.clear()


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to the cache's file.

    Raises:
        ConfigError: the file is something else.
    """
    try:
        # Made in one thread of an actor and used in another, never in both at once.
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        elif version != _SCHEMA_VERSION:
            raise ConfigError("the response cache has another layout", value=str(path), hint="give another --cache folder")
    except sqlite3.Error as error:
        raise ConfigError(
            f"the response cache cannot be used ({error})", value=str(path), hint="give another --cache folder"
        ) from error
    return connection
