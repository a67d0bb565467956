"""`toolrec mcp --tools attach:APP` answers with the application's lists."""

from __future__ import annotations

import asyncio
from pathlib import Path

from toolrec.data import Dataset
from toolrec.mcp_server.config import McpConfig
from toolrec.mcp_server.server import opened_retriever


def test_attached_tools_give_the_lists_of_local_ones(
    shared_application: str, demo: Dataset, demo_folder: Path, demo_recommenders: Path
):
    lists = []
    for mode in (f"attach:{shared_application}", "local"):
        config = McpConfig(dataset=demo_folder, recommenders=demo_recommenders, tools={"mode": mode})
        with opened_retriever(config, demo) as retriever:
            lists.append(asyncio.run(_first(retriever, demo.history(3, "test").tolist())))
    assert lists[0] == lists[1]


async def _first(retriever, history: list[int]) -> list[list[int]]:
    found = [await retriever.retrieve(name, history, k=10) for name in ("none", "genre")]
    return [[item.item_index for item in items] for items in found]
