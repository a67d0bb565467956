"""The embedded endpoint: an OpenAI-like server that answers by rules. It is not a language model.

The server is imported when it is first named, so that the settings do not load uvicorn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from toolrec.llm.embedded.options import EmbeddedOptions

if TYPE_CHECKING:
    from toolrec.llm.embedded.server import EmbeddedServer, run_in_thread

__all__ = ["EmbeddedOptions", "EmbeddedServer", "run_in_thread"]


def __getattr__(name: str) -> Any:
    if name in ("EmbeddedServer", "run_in_thread"):
        return getattr(importlib.import_module("toolrec.llm.embedded.server"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
