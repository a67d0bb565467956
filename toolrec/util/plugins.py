"""Plug-ins: a user's own strategy, tool or recommender, by import path or by the name of an installed entry point.

plug-in         what it is called with                        what it gives                    entry point group
strategy        (config=, pool=, llm=, tools=)                a `surrogate.base.Strategy`      toolrec.strategies
tool            (llm=, pool=, config=)                        a `tools.base.Tool`              toolrec.tools
recommender     (dataset)                                     a `recommenders.base.Recommender` toolrec.recommenders
application     Serve's typed builder arguments               a Serve application              toolrec.applications
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
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

OWN: dict[Kind, Mapping[str, str]] = {
    "strategy": {
        "toolrec": "toolrec.surrogate.loop:Surrogate",
        "llmrank": "toolrec.surrogate.strategies.llmrank:LLMRank",
        "chat-rec": "toolrec.surrogate.strategies.chat_rec:ChatRec",
        "plan-once": "toolrec.surrogate.strategies.plan_once:PlanOnce",
        "zero-shot": "toolrec.surrogate.strategies.zero_shot:ZeroShot",
        "no-cot": "toolrec.surrogate.strategies.ablations:NoThoughts",
        "retrieval-only": "toolrec.surrogate.strategies.ablations:RetrievalOnly",
        "rank-only": "toolrec.surrogate.strategies.ablations:RankOnly",
        "one-tool": "toolrec.surrogate.strategies.ablations:OneTool",
    },
}
"""The package's own parts that have a name."""


def load_plugin(kind: Kind, name: str) -> Callable[..., Any]:
    """Finds a plug-in.

    Args:
        kind: what it makes.
        name: one of the package's own, `package.module:attribute`, found from the current folder too, or an entry point's name.

    Raises:
        ConfigError: there is nothing of that name, or it cannot be called.
    """
    path = OWN.get(kind, {}).get(name, name)
    found = _by_path(kind, path) if ":" in path else _by_entry_point(kind, name)
    if not callable(found):
        raise ConfigError(f"this {kind} cannot be called", value=name, allowed="a class or a function that makes one")
    plugin: Callable[..., Any] = found
    return plugin


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
        own = OWN.get(kind, {})
        known = ", ".join(sorted(points.names)) or "none is installed"
        allowed = f"{''.join(f'{one}, ' for one in own)}package.module:attribute, or an entry point ({known})"
        raise ConfigError(f"no {kind} of this name", value=name, allowed=allowed, hint=_nearest(name, own))
    return points[name].load()


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from rapidfuzz import process

    found = process.extractOne(name, list(known), score_cutoff=60)
    return f"did you mean {found[0]}?" if found else None
