"""Folders that are made here and put at a URL when they are whole: data sets and recommenders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from toolrec.errors import InputError, RemoteStorageError
from toolrec.storage.cache import place_in_cache
from toolrec.storage.remote import RemoteFolder, at_the_start
from toolrec.util.urls import Url

_UNFINISHED = ".toolrec-unfinished"
"""An object that is there while a folder is being put in place: what an upload that broke off left may be replaced."""


def making_place(place: Path) -> Path:
    """Where a folder is made: itself, or of a URL a folder of the same name in the cache."""
    return place_in_cache("made", place) if isinstance(place, Url) else place


def refuse_other_objects(url: Url, *, is_ours: Callable[[set[str]], bool], error: type[InputError]) -> None:
    """Makes sure, before any work, that a folder can be put at a URL, and replaces at most one of its kind.

    Args:
        is_ours: whether objects of these names, and no others, are a folder of the kind.

    Raises:
        error: something else is there, or it cannot be written.
    """
    with at_the_start(error):
        remote = RemoteFolder(url)
        files = remote.files()
        if files and _UNFINISHED not in files and not is_ours(set(files)):
            raise error("something else is at this URL, and is not replaced", value=str(url), hint="give another --out")
        remote.write(_UNFINISHED, b"")
        if _UNFINISHED not in files:
            remote.delete(_UNFINISHED)


def upload_folder(folder: Path, url: Url, *, manifest: str) -> None:
    """Puts a folder at a URL in place of what is there, and removes it here.

    The manifest goes first and comes last: who reads meanwhile finds no folder, and never a mixture of two.

    Raises:
        RemoteStorageError: it could not be written; the folder stays here.
    """
    remote = RemoteFolder(url)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    try:
        remote.write(_UNFINISHED, b"")
        there = remote.files()
        there.pop(_UNFINISHED)
        for name in sorted(there.keys() & {manifest}) + sorted(there.keys() - files.keys() - {manifest}):
            remote.delete(name)
        for name in [*(name for name in files if name != manifest), manifest]:
            remote.upload(name, files[name])
        remote.delete(_UNFINISHED)
    except RemoteStorageError as failed:
        raise RemoteStorageError(
            failed.message, value=failed.value, hint=f"all of it is in {folder}: copy it by hand"
        ) from failed
    shutil.rmtree(folder)
