"""Folders at URLs, as `s3://bucket/data/ml-1m`: named and joined like paths, never opened like them."""

from __future__ import annotations

import re
from pathlib import Path, PosixPath
from typing import NoReturn

from toolrec.errors import ConfigError

_URL = re.compile(r"^(?:[a-z0-9]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE = "file://"


def is_url(text: object) -> bool:
    """Whether this is a URL, as a text or as a `Url`."""
    return isinstance(text, Url) or (isinstance(text, str) and _URL.match(text) is not None)


class Url(PosixPath):
    """A folder at a URL where settings and arguments hold a path; `toolrec.storage` reads and writes what is there.

    Whatever opens it like a path raises a ConfigError: a command that knows nothing of URLs says so in one sentence.
    """

    def __str__(self) -> str:
        first, *rest = self.parts
        return f"{first}//{'/'.join(rest)}"

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __fspath__(self) -> NoReturn:
        raise ConfigError("no URL can be given here", value=str(self), hint="give a folder of this machine or of a shared mount")

    def is_absolute(self) -> bool:
        """Always: every node finds the same under a URL."""
        return True

    def absolute(self) -> Url:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> Url:
        """Itself."""
        return self


def place_of(text: str | Path) -> Path:
    """A path, or a `Url` where the text is a URL; `file://` gives a path.

    Raises:
        ConfigError: the URL names no bucket, or holds a password.
    """
    if isinstance(text, Path) or not is_url(text):
        return Path(text) if isinstance(text, str) else text
    if text.lower().startswith(_FILE):
        return Path(text[len(_FILE) :])
    scheme, _, rest = text.partition("://")
    authority = rest.partition("/")[0]
    if ":" in authority.rpartition("@")[0]:
        raise ConfigError("a URL with a password in it", value=f"{scheme}://…", hint="credentials come from the environment")
    if not authority or re.search(r"[?#\0]|(^|/)\.\.?(/|$)", rest):
        shown, mark, _ = text.partition("?")  # what comes behind it may sign the URL
        raise ConfigError(
            "not the URL of a folder", value=f"{shown}{mark and '?…'}", allowed="s3://BUCKET/FOLDER, gs://…, abfss://…"
        )
    return Url(f"{scheme.lower()}:", *(part for part in rest.split("/") if part))
