"""Files that are either whole or not there: temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from toolrec.errors import ConfigError, InputError, StorageError
from toolrec.util.urls import place_of

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def under_job() -> bool:
    """Whether this process was started by `ray job submit`."""
    return _JOB_VARIABLE in os.environ


def shared_path(path: Path, *, flag: str | None = None) -> Path:
    """The path made absolute, for commands whose work other processes share.

    Args:
        flag: where it is given, for the error.

    Raises:
        ConfigError: it is relative in a submitted job. A job runs in a temporary copy of the working folder, where what is
            written is lost and what is looked for is missing.
    """
    if under_job() and not path.is_absolute():
        hint = "give a path that every node sees" + (f" as {flag}" if flag else "")
        raise ConfigError("a submitted job needs absolute paths", value=str(path), hint=hint)
    return path.absolute()


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; on success it is synced and renamed, on failure removed.

    Raises:
        StorageError: the disk is full or `path` cannot be written.
    """
    path = place_of(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, temporary: Path | None = None) -> Iterator[Path]:
    """Gives a temporary folder that becomes `path` on success; a folder already there is replaced.

    Args:
        temporary: on the same file system, and not there yet; beside `path` if not given.

    Raises:
        StorageError: the disk is full or `path` cannot be written.
    """
    path = place_of(path)
    temporary = temporary or path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        with storage_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            for child in temporary.rglob("*"):
                if child.is_file():
                    _sync(child)
            if path.exists():
                path.replace(old)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a refused write into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and run again, with --resume where the command has it"
            raise StorageError("no space left on the disk", value=str(path), hint=hint) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise StorageError(f"cannot write here ({error.strerror})", value=str(path)) from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locked(path: Path, *, waits: bool = False) -> TextIO:
    """Opens a file and holds it alone until it is closed, or the process ends.

    Args:
        waits: until another process that holds it lets it go.

    Raises:
        BlockingIOError: another process holds it.
    """
    handle = path.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        handle.close()
        raise
    return handle


def cut_torn_line(path: Path) -> None:
    """Ends a journal at its last whole line, so that the next entry does not grow onto half of one."""
    if path.exists():
        content = path.read_bytes()
        with path.open("r+b") as handle:
            handle.truncate(content.rfind(b"\n") + 1)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all; floats that are not finite are refused."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, *, error: type[InputError] = InputError) -> Any:
    """Reads a JSON file.

    Raises:
        error: the file is missing or is not JSON.
    """
    try:
        return json.loads(place_of(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error("file not found", value=str(path)) from None
    except (ValueError, RecursionError) as cause:  # a number of thousands of digits is a ValueError too
        raise error(f"not a JSON file ({cause})", value=str(path)) from None


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In which settings a stored file differs from what is wanted now, for an error."""
    names = [name for name in sorted({*stored, *wanted}) if stored.get(name) != wanted.get(name)]
    return "; ".join(f"{name} was {stored.get(name)!r}, now {wanted.get(name)!r}" for name in names)[:800]


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with place_of(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
