"""A run's folder: first the manifest, then blocks of finished users. Every file is complete or absent.

manifest.json     all that is needed to repeat the run
rounds/*.parquet  the rounds of a block
users/*.parquet   its users; written after the rounds, and commits them: resume drops rounds without users
spend.jsonl       what each completed round spent, void attempts included
in_flight.jsonl   completed rounds of users that are not committed; written by the shared memory, removed at the end
failures.jsonl    what went wrong, one JSON object a line; only where something did
spend/part-*.jsonl  failures/part-*.jsonl   parts of these journals, of a run at a URL; they come before the rest
lists.parquet     every recommender's list and figures for every user: a paired test can be redone from it alone
summary.json  report.html
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from toolrec.errors import RunFolderError, StorageError
from toolrec.records import Trace, add_counts
from toolrec.runs.rows import ADDED_COLUMNS, ROUNDS_SCHEMA, USERS_SCHEMA, Row, trace_of, with_added_columns
from toolrec.storage.lock import LOCK_OBJECT, is_held
from toolrec.util.files import atomic_file, cut_torn_line, differences, locked, read_json, storage_errors, write_json

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
REPORT = "report.html"
LISTS = "lists.parquet"
SPEND = "spend.jsonl"
IN_FLIGHT = "in_flight.jsonl"
LLM_COUNTS = "llm_counts.json"
LOCK = ".lock"
FAILURES = "failures.jsonl"
JOURNALS = (SPEND, FAILURES)


class Mirror(Protocol):
    """Where a run folder is copied to while it is written; see `toolrec.runs.mirror`."""

    def push(self) -> None:
        """Copies what has changed.

        Raises:
            StorageError: that cannot be done; the run is resumable.
        """
        ...


class RunFolder:
    """The driver's access to a run folder; a second driver is refused. The shared memory writes one file in it.

    With a `mirror`, what has been committed or journalled is there too when the call returns.
    """

    def __init__(self, path: Path, lock: TextIO, next_part: int, *, is_new: bool, mirror: Mirror | None = None) -> None:
        self.path = path
        self._lock = lock
        self._next_part = next_part
        self._is_new = is_new
        self._mirror = mirror
        self._earlier_llm_counts = read_llm_counts(path)
        self._noted: dict[str, int] = {}

    @classmethod
    def create(cls, path: Path, manifest: dict[str, Any], *, mirror: Mirror | None = None) -> RunFolder:
        """Makes a new folder with its manifest.

        Raises:
            RunFolderError: `path` exists and is not empty.
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
        folder = cls(path, lock, 1, is_new=True, mirror=mirror)
        folder._copy()
        return folder

    @classmethod
    def resume(
        cls,
        path: Path,
        manifest: dict[str, Any],
        *,
        defaults: Mapping[str, Any] | None = None,
        accepts_changes: bool = False,
        mirror: Mirror | None = None,
    ) -> RunFolder:
        """Opens an earlier run's folder and removes what was not committed.

        Args:
            manifest: what the run would be started with now.
            defaults: result settings at their defaults. An earlier run had a setting that it does not name at its default.
            accepts_changes: goes on with other code or other fusions; the manifest then keeps both, and later resumes with
                the same need not be told again.

        Raises:
            RunFolderError: a setting that changes results differs from `manifest`, or the code or the fusions do and that
                is not accepted, or a driver is working in the folder.
        """
        lock = _locked(path)
        stored = read_manifest(path)
        settings = {**(defaults or {}), **stored.get("settings", {})}
        if stored.get("resume_key") != manifest["resume_key"] and settings != manifest["settings"]:
            said = differences(settings, manifest["settings"])
            raise RunFolderError(
                f"the run folder belongs to another configuration: {said}",
                value=str(path),
                hint="resume with the settings of its manifest.json, or give another --run",
            )
        changed = [] if _is_accepted(stored, manifest) else changes_since(stored, manifest)
        if changed and not accepts_changes:
            lock.close()
            raise RunFolderError(
                f"since the run was started, {'; '.join(changed)}",
                value=str(path),
                hint="go back to what it was started with, start a new run, or accept it with --accept-changes",
            )
        if changed:
            accepted = {"changes": changed, "code": manifest.get("code"), "fusions": _fusions(manifest)}
            earlier = stored.get("resumed_after_changes", [])
            write_json(path / MANIFEST, {**stored, "resumed_after_changes": [*earlier, accepted]})
        users = {part.name for part in (path / "users").glob("part-*.parquet")}
        for part in (path / "rounds").glob("part-*.parquet"):
            if part.name not in users:
                part.unlink()
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink()
        numbers = [int(name.removeprefix("part-").removesuffix(".parquet")) for name in users]
        cut_torn_line(path / SPEND)
        folder = cls(path, lock, max(numbers, default=0) + 1, is_new=False, mirror=mirror)
        folder._copy()
        return folder

    def check_in_place(self) -> None:
        """Whether the folder is still the one that was opened; one that was removed is not made anew.

        Raises:
            StorageError: it was removed, moved or replaced.
        """
        try:
            is_same = os.path.samestat((self.path / LOCK).stat(), os.fstat(self._lock.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise StorageError(
                "the run folder was removed, moved or replaced while the run was going on",
                value=str(self.path),
                hint="what it held is lost unless you put it back; then run again with --resume",
            )

    def commit(self, user_rows: Sequence[Row], round_rows: Sequence[Row]) -> None:
        """Writes a block of finished users, rounds first.

        Raises:
            StorageError: the disk is full, or the folder was removed; what was committed before stays.
        """
        self.check_in_place()
        name = f"part-{self._next_part:06d}.parquet"
        _write_parquet(self.path / "rounds" / name, round_rows, ROUNDS_SCHEMA)
        _write_parquet(self.path / "users" / name, user_rows, USERS_SCHEMA)
        self._next_part += 1
        self._copy()

    def journal(self, entries: Sequence[Row]) -> None:
        """Appends what rounds spent, one JSON object a line."""
        if not entries:
            return
        self.check_in_place()
        with storage_errors(self.path), (self.path / SPEND).open("a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries)
            handle.flush()
            os.fsync(handle.fileno())
        self._copy()

    def note_llm_counts(self, counts: dict[str, int]) -> None:
        """Writes this session's counts of requests, retries and refusals so far, added to those of earlier sessions."""
        if counts and counts != self._noted:
            self.check_in_place()
            self._noted = counts
            write_json(self.path / LLM_COUNTS, add_counts([self._earlier_llm_counts, counts]))

    @property
    def rounds_in_flight(self) -> Path:
        """The shared memory's file."""
        return self.path / IN_FLIGHT

    def forget_in_flight(self) -> None:
        """Removes the shared memory's file, after every user is committed."""
        self.rounds_in_flight.unlink(missing_ok=True)

    def discard_if_untouched(self) -> None:
        """Removes the folder if this run made it and simulated nothing."""
        if self._is_new and not (self.path / "users").exists() and not (self.path / SPEND).exists():
            shutil.rmtree(self.path)

    def _copy(self) -> None:
        if self._mirror is not None:
            self._mirror.push()

    def close(self) -> None:
        """Releases the folder for another driver."""
        self._lock.close()


def changes_since(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a run's code and fusions is another by now, in words. Folders of earlier versions do not tell, and may go on."""
    found = []
    code, code_now = stored.get("code") or {}, now.get("code") or {}
    for name in sorted(code.keys() & code_now.keys()):
        if code[name] == code_now[name]:
            continue
        if name == "toolrec":
            was, is_now = (_version(manifest) for manifest in (stored, now))
            found.append(f"the code of toolrec has changed (started with {was}, this is {is_now})")
        else:
            found.append(f"the code of {name} has changed")
    if (fusions := _fusions(stored)) is not None and fusions != _fusions(now):
        found.append("the recommenders' learned fusions were fitted again, or removed")
    return found


def _is_accepted(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the run has been resumed with just this code and these fusions before."""
    return any(
        entry.get("code") == now.get("code") and entry.get("fusions", _fusions(stored)) == _fusions(now)
        for entry in stored.get("resumed_after_changes", ())
    )


def _version(manifest: Mapping[str, Any]) -> str:
    versions = manifest.get("versions") or {}
    return f"{versions.get('toolrec', 'an unknown version')} at {str(versions.get('commit') or 'no commit')[:12]}"


def _fusions(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The files of the learned fusions with their checksums, by name; None where the manifest says nothing of them."""
    learned = ((manifest.get("recommenders") or {}).get("manifest") or {}).get("fusions")
    return None if learned is None else {row["name"]: row["files"] for row in learned.get("learned", ())}


def is_at_work(run: Path) -> bool:
    """Whether a driver is working in the run folder; of a copy, whether one was at its URL when it was made."""
    if (run / LOCK_OBJECT).is_file():
        return is_held((run / LOCK_OBJECT).read_bytes())
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
        raise RunFolderError("no run folder here", value=str(run), hint="give the folder that `toolrec evaluate` wrote")
    if not (run / MANIFEST).is_file():
        raise RunFolderError(f"this folder is no run: it has no {MANIFEST}", value=str(run))
    manifest: Any = read_json(run / MANIFEST, error=RunFolderError)
    if not isinstance(manifest, dict) or "resume_key" not in manifest:
        raise RunFolderError(f"this folder is no run: its {MANIFEST} is of something else", value=str(run))
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


def read_trace(run: Path, user_index: int) -> Trace:
    """The trace of one committed user.

    Raises:
        RunFolderError: the user is not committed, or a file is damaged.
    """
    users = _read_table(run, "users", USERS_SCHEMA, user_index).to_pylist()
    if not users:
        raise RunFolderError("the run holds no such user", value=user_index)
    rounds = _read_table(run, "rounds", ROUNDS_SCHEMA, user_index).sort_by("round").to_pylist()
    return trace_of(users[0], [row for row in rounds if row["attempt"] == users[0]["attempt"]])


def traces_by_part(run: Path, *, done: Collection[str] = ()) -> Iterator[tuple[str, list[Trace]]]:
    """The committed users' traces, block after block, so that large runs need little memory.

    Args:
        run: the run folder; of one that goes on, the blocks that are there now.
        done: names of blocks to leave out.

    Yields:
        A block's name and its traces, by user_index.
    """
    read_manifest(run)
    for part in _parts(run, "users"):
        if part.name in done:
            continue
        rounds: dict[tuple[int, int], list[Row]] = {}
        for row in _read_part(run / "rounds" / part.name, ROUNDS_SCHEMA, run).sort_by("round").to_pylist():
            rounds.setdefault((row["user_index"], row["attempt"]), []).append(row)
        users = _read_part(part, USERS_SCHEMA, run).sort_by("user_index").to_pylist()
        yield part.name, [trace_of(user, rounds.get((user["user_index"], user["attempt"]), [])) for user in users]


def rounds_by_part(run: Path, *, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The committed rounds, file after file, so that large runs need little memory; all rounds of a user are in one file."""
    read_manifest(run)
    schema = pa.schema([ROUNDS_SCHEMA.field(name) for name in columns])
    for part in _parts(run, "rounds"):
        frame: pd.DataFrame = _read_part(part, schema, run).to_pandas()
        yield frame


def read_spend(run: Path) -> list[Row]:
    """The spend journal, each entry once (a restarted shared memory reports entries again). A torn last line is left out."""
    entries: dict[tuple[Any, ...], Row] = {}
    for path in journal_files(run, SPEND):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entry = json.loads(line)
                entries[entry["user_index"], entry["attempt"], entry["round"], entry["purpose"]] = entry
    return list(entries.values())


def journal_files(run: Path, name: str) -> list[Path]:
    """The files of a journal, oldest lines first: the parts of earlier sessions at a URL, then the file itself."""
    whole = run / name
    return [*sorted((run / whole.stem).glob("part-*.jsonl")), *([whole] if whole.exists() else [])]


def read_attempts(run: Path) -> dict[int, int]:
    """Each user's last known attempt, from the journal and the rounds in flight."""
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


def read_lists(run: Path) -> pd.DataFrame | None:
    """Every recommender's list for every user, one row for each of both; None until the run has figures.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = run / LISTS
    if not path.is_file():
        return None
    try:
        frame: pd.DataFrame = pq.read_table(path, columns=["recommender", "user_index", "items"]).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise RunFolderError(f"a file of the run folder is damaged ({error})", value=str(path)) from error
    return frame


def part_sizes(run: Path) -> dict[str, int]:
    """The names of the committed blocks, in order, and how many users each has."""
    return {part.name: int(pq.read_metadata(part).num_rows) for part in _parts(run, "users")}


def read_parts(run: Path, names: Sequence[str], kind: Literal["users", "rounds"]) -> pa.Table:
    """The users or the rounds of some committed blocks, in the order of the files.

    Raises:
        RunFolderError: a file is damaged.
    """
    schema = USERS_SCHEMA if kind == "users" else ROUNDS_SCHEMA
    tables = [_read_part(run / kind / name, schema, run) for name in names]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_llm_counts(run: Path) -> dict[str, int]:
    """Requests, retries and refusals by kind, over all sessions of the run."""
    path = run / LLM_COUNTS
    counts: dict[str, int] = read_json(path, error=RunFolderError) if path.exists() else {}
    return counts


def _read(run: Path, kind: str, schema: pa.Schema, user_index: int | None = None) -> pd.DataFrame:
    frame: pd.DataFrame = _read_table(run, kind, schema, user_index).to_pandas()
    return frame


def _read_table(run: Path, kind: str, schema: pa.Schema, user_index: int | None = None) -> pa.Table:
    read_manifest(run)
    filters = None if user_index is None else [("user_index", "=", user_index)]
    tables = [_read_part(part, schema, run, filters) for part in _parts(run, kind)]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _parts(run: Path, kind: str) -> list[Path]:
    return sorted((run / kind).glob("part-*.parquet"))


def _read_part(part: Path, schema: pa.Schema, run: Path, filters: list[tuple[str, str, int]] | None = None) -> pa.Table:
    """One block in today's columns."""
    try:
        stored = set(pq.read_schema(part).names)
        names = [name for name in schema.names if name in stored or name not in ADDED_COLUMNS]
        return with_added_columns(pq.read_table(part, columns=names, filters=filters), schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise RunFolderError(f"a file of the run folder is damaged ({error})", value=str(run)) from error


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
