"""The embedded endpoint: chat completions by rules, for where there is no LLM. Not a language model."""

from __future__ import annotations

from toolrec.llm.embedded.options import EmbeddedOptions
from toolrec.llm.embedded.server import EmbeddedServer, run_in_thread

__all__ = ["EmbeddedOptions", "EmbeddedServer", "run_in_thread"]
