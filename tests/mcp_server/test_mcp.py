"""The MCP server: an official client calls every tool, over each transport; the desk behind it keeps the memory's rules."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from toolrec.cli import run_command
from toolrec.data import Dataset, load_dataset
from toolrec.errors import ConfigError, ToolError
from toolrec.llm.embedded.server import open_listener
from toolrec.mcp_server.config import McpConfig
from toolrec.mcp_server.server import LOOPBACK, Desk, build_server, opened_llm, opened_retriever, serve_http, url_of
from toolrec.runs.run import load_run
from toolrec.tools.base import Retriever

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["attributes", "look_up", "begin", "retrieve", "rank", "finish"]


@pytest.fixture(scope="module")
def config(demo_folder: Path, demo_recommenders: Path) -> McpConfig:
    return McpConfig(dataset=demo_folder, recommenders=demo_recommenders)


@pytest.fixture(scope="module")
def retriever(config: McpConfig, demo: Dataset) -> Iterator[Retriever]:
    with opened_retriever(config, demo) as lists:
        yield lists


@asynccontextmanager
async def opened_desk(config: McpConfig, demo: Dataset, retriever: Retriever) -> AsyncIterator[Desk]:
    async with opened_llm(config) as llm:
        yield Desk(config, demo, retriever, llm)


def ids_in(text: str) -> list[str]:
    return re.findall(r"^\d+\. <([^>]+)>", text, flags=re.MULTILINE)


async def visit_with(client: Any, dataset: Dataset) -> None:
    """Calls every tool, as an agent would."""
    assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS

    async def said(name: str, **arguments: Any) -> str:
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result.content
        return "\n".join(part.text for part in result.content)

    facts = (await client.call_tool("attributes", {})).structured_content["result"]
    assert [fact["name"] for fact in facts] == list(dataset.pool.attributes) and all(fact["can_retrieve"] for fact in facts)
    found = (await client.call_tool("look_up", {"items": ["m003", dataset.pool.titles[5], "no such film"]})).structured_content
    assert [item["item_id"] for item in found["result"]] == ["m003", dataset.pool.item_ids[5], None]
    begun = await said("begin", user_id="u0003")
    visit = re.search(r"Visit: (\w+)", begun)[1]
    assert ids_in(begun) == [dataset.pool.item_ids[item] for item in dataset.history(3, "test")[-10:]]
    retrieved = ids_in(await said("retrieve", visit=visit, attribute="genre", k=15))
    seen = {dataset.pool.item_ids[item] for item in dataset.history(3, "test")}
    assert len(retrieved) == 15 and not set(retrieved) & seen
    ranked = ids_in(await said("rank", visit=visit, attribute="mood", k=12))
    assert len(ranked) == 12 and set(ranked) <= set(retrieved)
    refused = await said("finish", visit=visit, items=["m9999", *ranked[:9]])
    assert refused.startswith("Not accepted:") and "m9999" in refused
    assert ids_in(await said("finish", visit=visit, items=ranked[:10])) == ranked[:10]
    over = await client.call_tool("retrieve", {"visit": visit, "attribute": "genre"})
    assert over.is_error and "the visit has ended" in over.content[0].text


class TestAnOfficialClient:
    async def test_in_memory(self, config: McpConfig, demo: Dataset, retriever: Retriever):
        mcp = pytest.importorskip("mcp.client", reason="the package mcp is not installed")
        async with opened_desk(config, demo, retriever) as desk, mcp.Client(build_server(desk)) as client:
            await visit_with(client, demo)

    async def test_over_http_on_loopback(self, config: McpConfig, demo: Dataset, retriever: Retriever):
        mcp = pytest.importorskip("mcp.client", reason="the package mcp is not installed")
        async with opened_desk(config, demo, retriever) as desk:
            with open_listener(LOOPBACK, 0) as listener:
                serving = asyncio.create_task(serve_http(build_server(desk), listener))
                try:
                    async with mcp.Client(url_of(listener)) as client:
                        await visit_with(client, demo)
                finally:
                    serving.cancel()
                    await asyncio.wait([serving])

    async def test_over_the_commands_standard_input_and_output(self, config: McpConfig, demo: Dataset):
        stdio = pytest.importorskip("mcp.client.stdio", reason="the package mcp is not installed")
        from mcp.client import Client

        flags = ["mcp", str(config.dataset), "--recommenders", str(config.recommenders), "--tools", "local"]
        command = stdio.StdioServerParameters(
            command=sys.executable, args=["-m", "toolrec", *flags], env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        )
        async with Client(command) as client:
            await visit_with(client, demo)


class TestTheDesk:
    async def test_lists_are_those_of_the_simulation(
        self, config: McpConfig, demo: Dataset, retriever: Retriever, small_run: Path
    ):
        run = load_run(small_run)
        async with opened_desk(config, demo, retriever) as desk:
            for user_id in run.users["user_id"].head(3):
                visit = re.search(r"Visit: (\w+)", desk.begin(user_id, None))[1]
                for done in run.trace(user_id).rounds:
                    assert done.call is not None
                    if done.call.name == "finish":
                        text = await desk.call(visit, "finish", {"items": list(done.call.items)})
                        assert text.startswith("The list is accepted.")
                        continue
                    text = await desk.call(visit, done.call.name, {"attribute": done.call.attribute, "k": done.call.k})
                    assert text == done.observation.text

    async def test_a_history_of_titles_is_a_user_too(self, config: McpConfig, demo: Dataset, retriever: Retriever):
        async with opened_desk(config, demo, retriever) as desk:
            begun = desk.begin(None, [demo.pool.titles[7], "m009"])
            assert ids_in(begun) == ["m007", "m009"]
            visit = re.search(r"Visit: (\w+)", begun)[1]
            listed = ids_in(await desk.call(visit, "retrieve", {"attribute": "none", "k": 50}))
            assert len(listed) == 50 and not {"m007", "m009"} & set(listed)

    async def test_what_a_client_gets_wrong_is_told(self, config: McpConfig, demo: Dataset, retriever: Retriever):
        async with opened_desk(config, demo, retriever) as desk:
            neither, nobody, strange = (None, None), ("nobody", None), (None, ["no such film"])
            for user_id, history in (neither, ("u0001", ["m001"]), nobody, strange, (None, ["m001"] * 201)):
                with pytest.raises(ToolError):
                    desk.begin(user_id, history)
            with pytest.raises(ToolError, match="no such visit"):
                await desk.call("nowhere", "retrieve", {})
            visit = re.search(r"Visit: (\w+)", desk.begin("u0001", None))[1]
            assert "nothing to rank yet" in await desk.call(visit, "rank", {"attribute": "genre", "k": 5})
            assert "allowed: none, genre" in await desk.call(visit, "retrieve", {"attribute": "director", "k": 5})
            assert "1 to 50" in await desk.call(visit, "retrieve", {"attribute": "genre", "k": 51})

    async def test_the_oldest_visit_is_forgotten(self, config: McpConfig, demo: Dataset, retriever: Retriever):
        async with opened_desk(config.replaced(max_visits=2), demo, retriever) as desk:
            visits = [re.search(r"Visit: (\w+)", desk.begin(f"u000{user}", None))[1] for user in (1, 2, 3)]
            with pytest.raises(ToolError, match="may have been forgotten"):
                await desk.call(visits[0], "retrieve", {})
            assert ids_in(await desk.call(visits[1], "retrieve", {"attribute": "none"}))


class TestTheCommand:
    @pytest.mark.parametrize("mode", ["deploy", "attach:", "somewhere"])
    def test_another_source_of_tools_is_refused(self, mode: str):
        with pytest.raises(ConfigError, match=r"unknown source of tools"):
            McpConfig(dataset=Path("data"), tools={"mode": mode})

    def test_without_the_package_it_says_how_to_install_it(
        self, config: McpConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setitem(sys.modules, "mcp", None)
        for name in [name for name in sys.modules if name.startswith("mcp.")]:
            monkeypatch.delitem(sys.modules, name)
        assert run_command(["mcp", str(config.dataset)]) == 2
        assert "pip install 'toolrec[mcp]'" in capsys.readouterr().err

    def test_an_attribute_without_a_recommender_is_refused(self, config: McpConfig):
        unknown = config.replaced(**{"tools.attributes": ("director",)})
        with pytest.raises(ConfigError, match="no recommender"), opened_retriever(unknown, load_dataset(config.dataset)):
            pass
