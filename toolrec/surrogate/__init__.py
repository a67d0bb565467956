"""The LLM that plays a user: prompts, reply parsing, the loop.

The loop is imported when it is first named, so that the settings cost nothing to import.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolrec.surrogate.config import FinishPolicy, ReplyProtocol, SurrogateConfig

if TYPE_CHECKING:
    from toolrec.surrogate.base import OnRound, Strategy
    from toolrec.surrogate.loop import Surrogate
    from toolrec.tools.templates import prompt_hashes

__all__ = [
    "FinishPolicy",
    "OnRound",
    "ReplyProtocol",
    "Strategy",
    "Surrogate",
    "SurrogateConfig",
    "prompt_hashes",
]

_LAZY = {
    "OnRound": "toolrec.surrogate.base",
    "Strategy": "toolrec.surrogate.base",
    "Surrogate": "toolrec.surrogate.loop",
    "prompt_hashes": "toolrec.tools.templates",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
