"""The LLM room: one client for OpenAI-like endpoints, and the rules that stand in where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolrec.llm.base import LLM
from toolrec.llm.config import LLMConfig

if TYPE_CHECKING:
    from toolrec.llm.client import OpenAIChat

__all__ = ["LLM", "LLMConfig", "OpenAIChat"]


def __getattr__(name: str) -> Any:
    """Loads the client on first use: openai takes long to import, and most of the package only needs the words."""
    if name == "OpenAIChat":
        from toolrec.llm.client import OpenAIChat

        return OpenAIChat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
