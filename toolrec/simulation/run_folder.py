"""A run's folder: manifest first, then blocks of finished users; whatever is there is whole.

manifest.json     all that is needed to repeat the run
rounds/*.parquet  new messages of each round; written before
users/*.parquet   which commits them: rounds without their user are dropped on resume
spend.jsonl       what each completed round spent, also of attempts that came to nothing
in_flight.jsonl   completed rounds of users that are not committed: written by the shared memory, gone when all are
failures.jsonl    what went wrong, one JSON object a line; only where something did
summary.json  report.html
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from toolrec.errors import RunFolderError
from toolrec.files import atomic_file, cut_torn_line, differences, locked, read_json, storage_errors, write_json
from toolrec.records import add_counts
from toolrec.simulation.rows import ROUNDS_SCHEMA, USERS_SCHEMA, Row

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
REPORT = "report.html"
SPEND = "spend.jsonl"
IN_FLIGHT = "in_flight.jsonl"
LLM_COUNTS = "llm_counts.json"
LOCK = ".lock"


class RunFolder:
    """The driver's hold on a run folder; a second driver is refused. One file in it is the shared memory's."""

    def __init__(self, path: Path, lock: TextIO, next_part: int, *, is_new: bool) -> None:
        self.path = path
        self._lock = lock
        self._next_part = next_part
        self._is_new = is_new
        self._earlier_llm_counts = read_llm_counts(path)
        self._noted: dict[str, int] = {}

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any]) -> RunFolder:
        """A new folder with its manifest.

        Raises:
            RunFolderError: there is something at `path` already.
            StorageError: it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(child.name != LOCK for child in path.iterdir())):
            raise RunFolderError(
                "the run folder is there already", value=str(path), hint="give another --run, or --resume to go on with it"
            )
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        write_json(path / MANIFEST, manifest)
        return cls(path, lock, 1, is_new=True)

    @classmethod
    def resume(cls, path: Path, manifest: dict[str, Any]) -> RunFolder:
        """An earlier run's folder, cleared of what was not committed.

        Raises:
            RunFolderError: its settings differ from `manifest` in what changes results, or a driver is at work in it.
        """
        lock = _locked(path)
        stored = read_manifest(path)
        if stored.get("resume_key") != manifest["resume_key"]:
            said = differences(stored.get("settings", {}), manifest["settings"])
            raise RunFolderError(
                f"the run folder belongs to another configuration: {said}",
                value=str(path),
                hint="resume with the settings of its manifest.json, or give another --run",
            )
        users = {part.name for part in (path / "users").glob("part-*.parquet")}
        for part in (path / "rounds").glob("part-*.parquet"):
            if part.name not in users:
                part.unlink()
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink()
        numbers = [int(name.removeprefix("part-").removesuffix(".parquet")) for name in users]
        cut_torn_line(path / SPEND)
        return cls(path, lock, max(numbers, default=0) + 1, is_new=False)

    def commit(self, user_rows: Sequence[Row], round_rows: Sequence[Row]) -> None:
        """Writes a block of finished users, rounds first.

        Raises:
            StorageError: the disk is full; what was committed before stays.
        """
        name = f"part-{self._next_part:06d}.parquet"
        _write_parquet(self.path / "rounds" / name, round_rows, ROUNDS_SCHEMA)
        _write_parquet(self.path / "users" / name, user_rows, USERS_SCHEMA)
        self._next_part += 1

    def journal(self, entries: Sequence[Row]) -> None:
        """Appends what rounds spent, one JSON object a line."""
        if not entries:
            return
        with storage_errors(self.path), (self.path / SPEND).open("a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
            handle.flush()
            os.fsync(handle.fileno())

    def note_llm_counts(self, counts: dict[str, int]) -> None:
        """Writes what this session met so far on the way to the endpoint, on top of what earlier ones did."""
        if counts and counts != self._noted:
            self._noted = counts
            write_json(self.path / LLM_COUNTS, add_counts([self._earlier_llm_counts, counts]))

    @property
    def rounds_in_flight(self) -> Path:
        """Where the shared memory keeps the completed rounds of users that are not committed."""
        return self.path / IN_FLIGHT

    def forget_in_flight(self) -> None:
        """Removes the rounds of users in flight, when there are none any more."""
        self.rounds_in_flight.unlink(missing_ok=True)

    def discard_if_untouched(self) -> None:
        """Removes a folder of this run's making in which nothing was simulated yet."""
        if self._is_new and not (self.path / "users").exists() and not (self.path / SPEND).exists():
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Lets another driver take the folder."""
        self._lock.close()


def is_at_work(run: Path) -> bool:
    """Whether a driver holds the run folder."""
    try:
        with (run / LOCK).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_manifest(run: Path) -> dict[str, Any]:
    """The run's manifest.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    if not run.is_dir():
        raise RunFolderError("no run folder here", value=str(run))
    manifest: dict[str, Any] = read_json(run / MANIFEST, error=RunFolderError)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError("the run folder has another layout", value=manifest.get("schema_version"), allowed=SCHEMA_VERSION)
    return manifest


def read_users(run: Path) -> pd.DataFrame:
    """All committed users, one row each, by user_index."""
    return _read(run, "users", USERS_SCHEMA).sort_values("user_index", ignore_index=True)


def read_rounds(run: Path, user_index: int | None = None, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The committed rounds, of one user or of all, in order; all columns, or those named."""
    schema = ROUNDS_SCHEMA if columns is None else pa.schema([ROUNDS_SCHEMA.field(name) for name in columns])
    frame = _read(run, "rounds", schema, user_index)
    return frame.sort_values(["user_index", "round"], ignore_index=True)


def read_spend(run: Path) -> list[Row]:
    """The spend journal, each entry once; a last line that a kill cut short is left out.

    A restarted shared memory tells once more what it holds.
    """
    path = run / SPEND
    entries: dict[tuple[Any, ...], Row] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                entries[entry["user_index"], entry["attempt"], entry["round"], entry["purpose"]] = entry
    return list(entries.values())


def read_attempts(run: Path) -> dict[int, int]:
    """The last attempt of each user that is known to have begun, by the journal and by the rounds in flight."""
    known = [(entry["user_index"], entry["attempt"]) for entry in read_spend(run)]
    path = run / IN_FLIGHT
    if path.exists():
        with path.open("rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # a last line that a kill cut short
                    user_index, attempt, _ = line.removeprefix(b"[").split(b",", maxsplit=2)
                    known.append((int(user_index), int(attempt)))
    attempts: dict[int, int] = {}
    for user, number in known:
        attempts[user] = max(number, attempts.get(user, 0))
    return attempts


def read_llm_counts(run: Path) -> dict[str, int]:
    """What happened on the way to the endpoint, over all sessions of the run."""
    path = run / LLM_COUNTS
    counts: dict[str, int] = read_json(path, error=RunFolderError) if path.exists() else {}
    return counts


def _read(run: Path, kind: str, schema: pa.Schema, user_index: int | None = None) -> pd.DataFrame:
    read_manifest(run)
    parts = sorted((run / kind).glob("part-*.parquet"))
    filters = None if user_index is None else [("user_index", "=", user_index)]
    try:
        tables = [pq.read_table(part, columns=schema.names, filters=filters).cast(schema) for part in parts]
    except (pa.ArrowInvalid, OSError) as error:
        raise RunFolderError(f"a file of the run folder is damaged ({error})", value=str(run)) from error
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _write_parquet(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary, compression="zstd")


def _locked(path: Path) -> TextIO:
    if not path.is_dir():
        raise RunFolderError("no run folder here", value=str(path))
    with storage_errors(path):
        try:
            return locked(path / LOCK)
        except BlockingIOError:
            raise RunFolderError("another process is writing to this run folder", value=str(path)) from None
