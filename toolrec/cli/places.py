"""Arguments and options that take a folder or its URL."""

from __future__ import annotations

from typing import Any

from toolrec.util.urls import place_of

PLACE: dict[str, Any] = {"parser": place_of, "metavar": "PATH"}
"""Keyword arguments of typer's `Option` and `Argument`."""
