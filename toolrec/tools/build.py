"""The tools of one run."""

from __future__ import annotations

from typing import Any

from toolrec.data import Pool
from toolrec.llm.base import LLM
from toolrec.tools.base import Retriever, Tool
from toolrec.tools.retrieval import RetrievalTool
from toolrec.util.plugins import load_plugin


def build_tools(retriever: Retriever, *, rank_tool: str, llm: LLM, pool: Pool, config: Any) -> dict[str, Tool]:
    """`retrieve` and `rank` by name.

    Args:
        retriever: where lists come from.
        rank_tool: the part that ranks, see `toolrec.util.plugins`.
        llm: who ranks.
        pool: the item pool directory.
        config: the tools' settings.

    Raises:
        ConfigError: there is no such rank tool.
    """
    return {
        "retrieve": RetrievalTool(retriever=retriever, pool=pool, config=config),
        "rank": load_plugin("tool", rank_tool)(llm=llm, pool=pool, config=config),
    }
