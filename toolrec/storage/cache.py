"""Folders at URLs on this node: fetched once, checked, and kept in the node's cache.

<cache>/folders/<hash>/NAME   a data set or recommenders, by URL and manifest; another manifest is another folder
<cache>/runs/<hash>/NAME      a run that this node's driver writes
<cache>/copies/<hash>/NAME    a run that is read here
<cache>/made/<hash>/NAME      a data set or recommenders on their way up
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from toolrec.errors import InputError, RemoteStorageError
from toolrec.storage.remote import RemoteFile, RemoteFolder, at_the_start
from toolrec.util.files import atomic_file, atomic_folder, locked, storage_errors
from toolrec.util.urls import Url

CACHE_VARIABLE = "TOOLREC_CACHE_DIR"
_KNOWN = ".copied.json"
_AT_ONCE = 16

Kind = Literal["folders", "runs", "copies", "made"]


def cache_folder() -> Path:
    """This node's cache: `TOOLREC_CACHE_DIR`, else `toolrec` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "toolrec"


def place_in_cache(kind: Kind, url: Url, *more: bytes) -> Path:
    """Where this node keeps what lies at a URL."""
    digest = hashlib.sha256(b"\n".join([str(url).encode(), *more])).hexdigest()[:24]
    return cache_folder() / kind / digest / (url.name or "folder")


def on_this_node(place: Path, *, manifest: str, check: Callable[[Path], object], error: type[InputError]) -> Path:
    """The folder itself; or of a URL this node's copy, which the first process that asks for it downloads.

    Args:
        place: a folder, or a `Url`.
        manifest: the file that says what the folder holds. A copy belongs to its content.
        check: reads a copy; raises an InputError where it is damaged. A damaged copy is fetched once more.
        error: what is raised where the URL cannot be read.

    Raises:
        error: there is nothing at the URL, it cannot be read, or it is damaged there.
        StorageError: the cache cannot be written.
    """
    if not isinstance(place, Url):
        return place
    with at_the_start(error):
        remote = RemoteFolder(place)
        try:
            about = remote.read(manifest)
        except RemoteStorageError as missing:
            if not missing.is_missing:
                raise
            raise error(
                f"no {manifest} at this URL", value=str(place), hint="is it whole, and the bucket's name right?"
            ) from None
        folder = place_in_cache("folders", place, about)
        if folder.is_dir():
            return folder
        with storage_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = locked(folder.with_name(f".{folder.name}.lock"), waits=True)
        with lock:
            if not folder.is_dir():  # another process may have been quicker
                _fetch(remote, folder, {manifest: about}, check)
    return folder


def _fetch(remote: RemoteFolder, folder: Path, given: Mapping[str, bytes], check: Callable[[Path], object]) -> None:
    for tries_left in (1, 0):
        try:
            with atomic_folder(folder) as temporary:
                files = {name: about for name, about in remote.files().items() if name not in given}
                download_all(remote, files, temporary)
                for name, content in given.items():
                    (temporary / name).write_bytes(content)
                check(temporary)
                return
        except InputError as damaged:
            if tries_left == 0:
                message = f"what lies at this URL is damaged, or was replaced meanwhile ({damaged.message})"
                raise type(damaged)(message, value=str(remote), hint="write it there again") from None


def download_all(remote: RemoteFolder, files: Mapping[str, RemoteFile], folder: Path) -> None:
    """Copies objects into a folder, several at once.

    Raises:
        RemoteStorageError: one cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="download") as threads:
        copying = [
            threads.submit(remote.download, name, folder / name, num_bytes=about.num_bytes) for name, about in files.items()
        ]
        try:
            for one in copying:
                one.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def refreshed_copy(url: Url, *, manifest: str, error: type[InputError]) -> Path:
    """A copy of a folder that grows, brought up to what is at the URL now; what has not changed is not fetched again.

    Args:
        manifest: the file without which nothing is there.

    Raises:
        error: nothing is there, or it cannot be read.
        StorageError: the cache cannot be written.
    """
    folder = place_in_cache("copies", url)
    with at_the_start(error), storage_errors(folder):
        remote = RemoteFolder(url)
        files = remote.files()
        if manifest not in files:
            raise error(f"no {manifest} at this URL", value=str(url), hint="is it the folder's URL, and the bucket's name right?")
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock"), waits=True):
            known = _known(folder)
            for path in [path for path in folder.rglob("*") if path.is_file() and path.name != _KNOWN]:
                if path.relative_to(folder).as_posix() not in files:
                    path.unlink()
            new = {
                name: about
                for name, about in files.items()
                if known.get(name) != [about.num_bytes, about.version] or not (folder / name).is_file()
            }
            _replace_all(remote, new, folder)
            state = {name: [about.num_bytes, about.version] for name, about in files.items()}
            with atomic_file(folder / _KNOWN) as temporary:
                temporary.write_text(json.dumps(state), encoding="utf-8")
    return folder


def _replace_all(remote: RemoteFolder, files: Mapping[str, RemoteFile], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as arrived:
        download_all(remote, files, Path(arrived))
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(arrived) / name).replace(folder / name)


def _known(folder: Path) -> dict[str, list[object]]:
    try:
        known = json.loads((folder / _KNOWN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
