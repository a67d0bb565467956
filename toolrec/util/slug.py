"""Names from elsewhere as names of files, folders and deployments."""

from __future__ import annotations

import re

MAX_CHARACTERS = 40


def slug(name: str, *, default: str = "") -> str:
    """The name in lower case, with `-` for every run of characters that is not `a-z` or `0-9`; at most 40 characters.

    Two names can have one slug: put a number or a digest beside it where they must stay apart.

    Args:
        default: stands for a name of which nothing is left.
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_CHARACTERS].rstrip("-") or default
