"""Downloads a source once: streamed, with a checksum, into the user's cache folder; whole or not at all."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import requests

from toolrec.errors import DataError
from toolrec.files import atomic_file
from toolrec.progress import track

GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens"
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to get: its name below a base URL, and the MD5 that its publisher gives."""

    file_name: str
    md5: str


MOVIELENS = {
    "ml-100k": Download(file_name="ml-100k.zip", md5="0e33842e24a9c977be4e0107933c0723"),
    "ml-1m": Download(file_name="ml-1m.zip", md5="c4d9eecfca2ab87c1945afe126590906"),
}


def cache_folder() -> Path:
    """Where downloads are kept: `TOOLREC_CACHE`, else `~/.cache/toolrec`."""
    given = os.environ.get("TOOLREC_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "toolrec"


def fetch(download: Download, *, base_url: str = GROUPLENS_URL, cache: Path | None = None) -> Path:
    """The downloaded file, from the cache where it is already there and whole.

    Args:
        download: what to get.
        base_url: a mirror may stand in for GroupLens.
        cache: None for `cache_folder()`.

    Raises:
        DataError: no network, a refusal, or content of another checksum; the message says what to do by hand.
        StorageError: the cache cannot be written.
    """
    path = (cache or cache_folder()) / download.file_name
    if path.is_file() and _md5(path) == download.md5:
        return path
    url = f"{base_url.rstrip('/')}/{download.file_name}"
    hint = f"get {url} by hand and give it with --source PATH (a folder or the zip)"
    with atomic_file(path) as temporary:
        try:
            _stream(url, temporary, download.file_name)
        except requests.RequestException as error:
            raise DataError(f"cannot download {download.file_name} ({_reason(error)})", hint=hint) from None
        found = _md5(temporary)
        if found != download.md5:
            raise DataError(f"the download of {download.file_name} has another checksum than published", value=f"md5 {found}",
                            allowed=f"md5 {download.md5}", hint=hint)  # fmt: skip
    return path


def _stream(url: str, path: Path, name: str) -> None:
    with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)) as response:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length") or 0)
        with path.open("wb") as handle, track(f"download {name}", total=total // 1024, unit="KiB") as progress:
            for chunk in response.iter_content(_CHUNK_BYTES):
                handle.write(chunk)
                progress.advance(len(chunk) // 1024)


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "no connection to the server"


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
