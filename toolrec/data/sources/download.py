"""Downloads a source once: streamed, resumed where it broke off, with a checksum, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import requests

from toolrec.errors import DataError
from toolrec.util.files import storage_errors
from toolrec.util.progress import track

GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to get: its name below a base URL, and the MD5 that its publisher gives; None where its content changes."""

    file_name: str
    md5: str | None
    base_url: str = GROUPLENS_URL


def cache_folder() -> Path:
    """Where downloads are kept: `TOOLREC_CACHE`, else `~/.cache/toolrec`."""
    given = os.environ.get("TOOLREC_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "toolrec"


def fetch(download: Download, *, base_url: str | None = None, cache: Path | None = None) -> Path:
    """The downloaded file, from the cache where it is already there and whole.

    What a broken download left is kept as `NAME.part`, and the next one goes on behind it.

    Args:
        download: what to get.
        base_url: a mirror in place of the publisher's address.
        cache: None for `cache_folder()`.

    Raises:
        DataError: no network, a refusal, or content of another checksum; the message says what to do by hand.
        StorageError: the cache cannot be written.
    """
    path = (cache or cache_folder()) / download.file_name
    if path.is_file() and download.md5 in (None, _md5(path)):
        return path
    url = f"{(base_url or download.base_url).rstrip('/')}/{download.file_name}"
    hint = f"get {url} by hand and give it with --source PATH (a folder or the zip)"
    part = path.with_name(f"{path.name}.part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _stream(url, part, download.file_name)
        except requests.RequestException as error:
            if part.exists() and not part.stat().st_size:
                part.unlink()
            raise DataError(f"cannot download {download.file_name} ({_reason(error)})", hint=hint) from None
        found = _md5(part)
        if download.md5 is not None and found != download.md5:
            part.unlink()
            raise DataError(f"the download of {download.file_name} has another checksum than published", value=f"md5 {found}",
                            allowed=f"md5 {download.md5}", hint=hint)  # fmt: skip
        part.replace(path)
    return path


def _stream(url: str, path: Path, name: str) -> None:
    """Appends what is missing of a file; begins anew where the server cannot go on in the middle."""
    have = path.stat().st_size if path.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), headers=headers) as response:
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is there already; the checksum decides
        response.raise_for_status()
        is_resumed = have > 0 and response.status_code == requests.codes.partial_content
        total = int(response.headers.get("Content-Length") or 0) + (have if is_resumed else 0)
        done = have // 1024 if is_resumed else 0
        received = have if is_resumed else 0
        with path.open("ab" if is_resumed else "wb") as handle, track(
            f"download {name}", total=total // 1024, unit="KiB", done=done
        ) as progress:  # fmt: skip
            for chunk in response.iter_content(_CHUNK_BYTES):
                handle.write(chunk)
                received += len(chunk)
                progress.advance(len(chunk) // 1024)
        if total and received < total:
            raise requests.exceptions.ChunkedEncodingError("too short")


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off; the next try goes on where it stopped"
    return "no connection to the server"


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
