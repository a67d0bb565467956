"""Prompt templates: jinja files inside the package, rendered with data that is never evaluated."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import jinja2

_PACKAGE = Path(__file__).parent.parent
_FOLDERS = (_PACKAGE / "surrogate" / "prompts", _PACKAGE / "tools" / "prompts")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDERS),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, **values: object) -> str:
    """Renders a prompt template; every name that it uses must be given."""
    return _environment().get_template(name).render(**values).strip()


def prompt_hashes() -> dict[str, str]:
    """SHA-256 of every prompt template by file name, for a run's manifest."""
    files = sorted(path for folder in _FOLDERS for path in folder.glob("*.jinja"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
