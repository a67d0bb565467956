"""Users' own parts: a strategy, a tool or a recommender, by import path or by the name of an installed entry point.

part            what it is called with                        what it gives                    entry point group
strategy        (config=, pool=, llm=, tools=)                a `surrogate.base.Strategy`      toolrec.strategies
tool            (llm=, pool=, config=)                        a `tools.base.Tool`              toolrec.tools
recommender     (dataset)                                     a `recommenders.base.Recommender` toolrec.recommenders
application     Serve's typed builder arguments               a Serve application              toolrec.applications
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from toolrec.errors import ConfigError

Kind = Literal["strategy", "tool", "recommender", "application"]
_GROUPS: dict[Kind, str] = {
    "strategy": "toolrec.strategies",
    "tool": "toolrec.tools",
    "recommender": "toolrec.recommenders",
    "application": "toolrec.applications",
}


def load_part(kind: Kind, name: str) -> Callable[..., Any]:
    """Finds a part.

    Args:
        kind: what it is to be.
        name: `package.module:attribute`, found from the current folder too, or an entry point's name.

    Raises:
        ConfigError: there is nothing of that name, or it cannot be called.
    """
    part = _by_path(kind, name) if ":" in name else _by_entry_point(kind, name)
    if not callable(part):
        raise ConfigError(f"this {kind} cannot be called", value=name, allowed="a class or a function that makes one")
    found: Callable[..., Any] = part
    return found


def _by_path(kind: Kind, name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module_name, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # TypeError: a name that begins with a dot
        raise ConfigError(f"no {kind} here ({error})", value=name, allowed="package.module:attribute") from error


def _by_entry_point(kind: Kind, name: str) -> Any:
    points = importlib.metadata.entry_points(group=_GROUPS[kind])
    if name not in points.names:
        known = ", ".join(sorted(points.names)) or "none is installed"
        raise ConfigError(f"no {kind} of this name", value=name, allowed=f"package.module:attribute, or an entry point ({known})")
    return points[name].load()
