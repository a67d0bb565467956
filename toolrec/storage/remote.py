"""One folder of a bucket: its objects by name, with bounded retries and errors of ours.

Retries live here alone: those of the libraries below are off where they can be turned off.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from toolrec.errors import ConfigError, InputError, RemoteStorageError
from toolrec.util.urls import Url

log = logging.getLogger(__name__)

PATIENCE_VARIABLE = "TOOLREC_STORAGE_PATIENCE_S"
"""Seconds for which one object is tried again, in the environment of each node."""
PATIENCE_S = 120.0
LONGEST_WAIT_S = 15.0
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
SMALL_BYTES = 8 * 1024**2
"""Objects up to this size are written from memory in one request."""

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
}
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError, ValueError, TypeError)
_FINAL_NUMBERS = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOENT, errno.ENOSPC, errno.EDQUOT}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError")

Result = TypeVar("Result")


class TakenError(Exception):
    """An object that was to be made is there already."""


class TruncatedError(Exception):
    """Fewer or more bytes came than the object has."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One object: its size, and what is another for another content."""

    num_bytes: int
    version: str


class RemoteFolder:
    """The objects below one URL, by their names relative to it.

    Every method raises a RemoteStorageError where the bucket is missing, refuses, or does not answer in time.

    Attributes:
        url: the folder.
        patience_s: how long one object is tried again; `TOOLREC_STORAGE_PATIENCE_S`, or 120 s, if not given.

    Raises:
        ConfigError: this kind of URL is not known, or needs a package that is not installed.
    """

    def __init__(self, url: Url, *, patience_s: float | None = None) -> None:
        self.url = url
        self.patience_s = _patience_s() if patience_s is None else patience_s
        self._system, self._root = _opened(url)

    def __str__(self) -> str:
        return str(self.url)

    def files(self) -> dict[str, RemoteFile]:
        """All objects below the folder; empty where there are none."""

        def find() -> dict[str, Any]:
            self._system.invalidate_cache()
            found: dict[str, Any] = self._system.find(self._root, detail=True)
            return found

        found = self._tried("list", "", find)
        root = PurePosixPath(self._root)
        listed = {}
        for name, about in found.items():
            if about.get("type") == "directory" or name.endswith("/"):  # a console's mark for a folder
                continue
            relative = PurePosixPath(self._system._strip_protocol(name)).relative_to(root)
            if ".." in relative.parts:  # it would be written beside the folder
                continue
            listed[relative.as_posix()] = RemoteFile(int(about.get("size") or 0), _version(about))
        return listed

    def read(self, name: str) -> bytes:
        """The content of a small object."""

        def cat() -> bytes:
            content: bytes = self._system.cat_file(self._path(name))
            return content

        return self._tried("read", name, cat)

    def find(self, name: str) -> bytes | None:
        """As `read`; None where there is no such object."""
        try:
            return self.read(name)
        except RemoteStorageError as error:
            if error.is_missing:
                return None
            raise

    def download(self, name: str, to: Path, *, num_bytes: int) -> None:
        """Copies an object into a file, and makes sure of its size."""

        def get() -> None:
            to.parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._path(name), str(to))
            if to.stat().st_size != num_bytes:
                raise TruncatedError(f"{to.stat().st_size:,} of {num_bytes:,} bytes came")

        self._tried("read", name, get)

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, whole or not at all; one that is there is replaced."""
        self._tried("write", name, lambda: self._system.pipe_file(self._path(name), content))

    def create(self, name: str, content: bytes) -> None:
        """Writes an object that is not there yet.

        Raises:
            TakenError: it is there, with another content.
        """
        try:
            self._tried("write", name, lambda: self._created(self._path(name), content))
        except FileExistsError:
            # The answer to an earlier try may have been lost on its way.
            if self.find(name) != content:
                raise TakenError(name) from None

    def upload(self, name: str, path: Path, *, is_new: bool = False) -> None:
        """Writes an object from a file, whole or not at all.

        Args:
            is_new: whether it is only made and never replaced; for files that fit into memory.

        Raises:
            TakenError: likewise, and it is there with another content.
        """
        if is_new:
            self.create(name, path.read_bytes())
        elif path.stat().st_size <= SMALL_BYTES:
            self.write(name, path.read_bytes())
        else:
            self._tried("write", name, lambda: self._system.put_file(str(path), self._path(name)))

    def delete(self, name: str) -> None:
        """Removes an object; one that is not there is none to remove."""
        with contextlib.suppress(FileNotFoundError):
            self._tried("delete", name, lambda: self._system.rm_file(self._path(name)), passes=(FileNotFoundError,))

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _created(self, path: str, content: bytes) -> None:
        self._system.pipe_file(path, content, mode="create")

    def _tried(
        self,
        verb: str,
        name: str,
        act: Callable[[], Result],
        *,
        passes: tuple[type[Exception], ...] = (FileExistsError,),
    ) -> Result:
        place = f"{self.url}/{name}" if name else str(self.url)

        def tell(state: RetryCallState) -> None:
            if state.attempt_number == 1:
                reason = reason_of(state.outcome.exception()) if state.outcome else ""
                log.warning("cannot %s %s (%s); trying again for up to %.0f s", verb, place, reason, self.patience_s)

        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_WAIT_S),
            stop=stop_after_delay(self.patience_s),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(act)
        except passes:
            raise
        except InputError:
            raise
        except Exception as error:  # each library below has errors of its own; every one ends as ours
            raise self._error(verb, place, error) from error

    def _error(self, verb: str, place: str, error: Exception) -> RemoteStorageError:
        reason = reason_of(error)
        if isinstance(error, FileNotFoundError):
            hint = "is the bucket's name right, and is it there?"
            return RemoteStorageError(f"nothing to {verb} here ({reason})", value=place, hint=hint, is_missing=True)
        if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS:
            hint = "the credentials in the environment of this node need leave to list, read, write and delete there"
            return RemoteStorageError(f"no permission to {verb} here ({reason})", value=place, hint=hint)
        if _is_passing(error):
            message = f"the storage did not {verb} this within {self.patience_s:.0f} s ({reason})"
            return RemoteStorageError(message, value=place, hint="try again later")
        return RemoteStorageError(f"cannot {verb} here ({reason})", value=place)


@contextlib.contextmanager
def at_the_start(kind: type[InputError]) -> Iterator[None]:
    """What a bucket refuses before any work has been done is bad input, and not an end that can be resumed."""
    try:
        yield
    except RemoteStorageError as error:
        raise kind(error.message, value=error.value, hint=error.hint) from error


def reason_of(error: BaseException | None) -> str:
    """An exception of a library below in one line."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}"[:300] if text else name


def _is_passing(error: BaseException) -> bool:
    """Whether another try may do better."""
    if not isinstance(error, Exception) or isinstance(error, (_FINAL, InputError)) or type(error).__name__ in _NO_CREDENTIALS:
        return False
    return not (isinstance(error, OSError) and error.errno in _FINAL_NUMBERS)


def _version(about: dict[str, Any]) -> str:
    for name in ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created"):
        if about.get(name):
            return str(about[name])
    return ""


def _patience_s() -> float:
    given = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        return max(float(given), 0.0) if given else PATIENCE_S
    except ValueError:
        raise ConfigError(f"{PATIENCE_VARIABLE} is not a number of seconds", value=given) from None


def _opened(url: Url) -> tuple[Any, str]:
    """The file system of a URL, and the folder's path in it."""
    import fsspec

    scheme = str(url).partition("://")[0]
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a"):
        theirs = fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
        timeouts = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S, "retries": {"max_attempts": 0}}
        options = {"config_kwargs": {**timeouts, **theirs}}
    try:
        system, root = fsspec.core.url_to_fs(str(url), **options)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "another package")
        raise ConfigError(f"{scheme}:// needs {package} ({error})", value=str(url), hint=f"pip install {package}") from None
    except ValueError as error:
        raise ConfigError(f"this kind of URL is not known ({error})", value=str(url), allowed="s3://, gs://, abfss://") from None
    if hasattr(system, "retries"):
        system.retries = 1
    return system, root
