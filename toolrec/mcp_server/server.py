"""The MCP server: retrieve, rank, item look-up and the pool's attributes, through the tools and the memory of the simulation.

A client begins a visit for one user, of the data set or with a history of its own, and names the visit in every later call.
The visit's memory holds marked candidates, as a surrogate's does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from toolrec import __version__
from toolrec.connect import connected
from toolrec.data import Dataset, load_dataset
from toolrec.errors import DataError, LLMError, ToolError
from toolrec.grammar import clean
from toolrec.llm import LLMConfig, OpenAIChat
from toolrec.llm.embedded import run_in_thread
from toolrec.llm.embedded.policy import LABEL, MODEL_NAME
from toolrec.llm.embedded.server import open_listener
from toolrec.mcp_server.config import McpConfig
from toolrec.memory import PoolDirectory
from toolrec.recommenders import load_recommenders, recommenders_manifest
from toolrec.records import UserTask
from toolrec.simulation.actors import retriever_for
from toolrec.simulation.config import ToolsSettings
from toolrec.simulation.tool_deployment import ToolsRequest, chosen_attributes, tools_for
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.session import AgentEnded, AgentParts, ToolSession
from toolrec.tools.base import Retriever
from toolrec.tools.build import build_tools
from toolrec.tools.lines import history_lines
from toolrec.util.extras import needed
from toolrec.util.progress import stage

PURPOSE = "toolrec mcp"
LOOPBACK = "127.0.0.1"
PATH = "/mcp"
MAX_CALLS = 1_000
"""Tool calls of one visit."""
MAX_ENTRIES = 200
"""Entries of one look-up, and items of a history that a client gives."""
NUM_EXAMPLES = 5


class AttributeFacts(TypedDict):
    """One attribute of the pool."""

    name: str
    kind: str
    description: str
    num_values: int
    coverage: float
    examples: list[str]
    can_retrieve: bool


class FoundItem(TypedDict):
    """What an entry of a look-up stands for."""

    entry: str
    match: str
    item_id: str | None
    title: str | None
    attributes: dict[str, list[str]]
    reason: str


class Desk:
    """What the MCP tools do, without MCP: texts of `ToolError` are for the client.

    Args:
        config: the server's settings.
        dataset: pool and histories.
        retriever: where lists come from.
        llm: who ranks.
    """

    def __init__(self, config: McpConfig, dataset: Dataset, retriever: Retriever, llm: OpenAIChat) -> None:
        surrogate = config.answers.extended(
            SurrogateConfig,
            protocol="tools",
            rounds=MAX_CALLS,
            list_length=config.list_length,
            user_timeout_s=None,
        )
        tools = build_tools(retriever, rank_tool=config.tools.rank_tool, llm=llm, pool=dataset.pool, config=surrogate)
        self._parts = AgentParts(config=surrogate, pool=dataset.pool, tools=tools)
        self._config = config
        self._dataset = dataset
        self._directory = PoolDirectory.of(dataset.pool)
        self._retrievable = frozenset(retriever.attributes)
        self._visits: OrderedDict[str, ToolSession] = OrderedDict()

    def attributes(self) -> list[AttributeFacts]:
        """The pool's attributes."""
        pool = self._dataset.pool
        return [
            AttributeFacts(
                name=name,
                kind=spec.kind,
                description=clean(spec.description, limit=300),
                num_values=spec.num_values,
                coverage=round(pool.coverage(name), 4),
                examples=self._examples(name),
                can_retrieve=name in self._retrievable,
            )
            for name, spec in pool.attributes.items()
        ]

    def _examples(self, attribute: str) -> list[str]:
        """Some values, those of the first items that have one."""
        found: dict[str, None] = {}
        for item in range(1, self._dataset.num_items + 1):
            found |= dict.fromkeys(self._dataset.pool.values(attribute, item))
            if len(found) >= NUM_EXAMPLES:
                break
        return list(found)[:NUM_EXAMPLES]

    def look_up(self, entries: Sequence[str]) -> list[FoundItem]:
        """What ids and titles stand for, by the rules of the memory's check."""
        if not 1 <= len(entries) <= MAX_ENTRIES:
            raise ToolError("look up some items at a time", value=len(entries), allowed=f"1 to {MAX_ENTRIES}")
        pool, found = self._dataset.pool, []
        for entry in entries:
            match = self._directory.find(entry)
            item = match.item_index
            found.append(
                FoundItem(
                    entry=clean(entry, limit=200),
                    match=match.kind,
                    item_id=pool.item_ids[item] if item else None,
                    title=pool.titles[item] if item else None,
                    attributes={name: list(values) for name, values in pool.fields(item)} if item else {},
                    reason=match.reason,
                )
            )
        return found

    def begin(self, user_id: str | None, history: Sequence[str] | None) -> str:
        """A visit for a user of the data set, or for a history of ids and titles, oldest first."""
        task = self._task(user_id, history)
        visit = uuid.uuid4().hex[:16]
        self._visits[visit] = ToolSession(self._parts, task, tells_rounds=False)
        while len(self._visits) > self._config.max_visits:
            self._visits.popitem(last=False)
        lines = history_lines(self._directory, task.history, task.ratings, length=self._config.answers.prompt_history_length)
        attributes = ", ".join(("none", *self._parts.attributes))
        return f"Visit: {visit}\nAttributes: {attributes}\n\nHistory (oldest first):\n{lines}"

    async def call(self, visit: str, name: str, arguments: dict[str, Any]) -> str:
        """A tool call of a visit, or its finish."""
        session = self._visits.get(visit)
        if session is None:
            raise ToolError("no such visit; it may have been forgotten", value=clean(visit, limit=80), hint="begin one")
        self._visits.move_to_end(visit)
        try:
            text = await session.call(name, arguments)
        except AgentEnded:
            ended = session.trace()
            raise ToolError(f"the visit has ended: {ended.error or ended.ended_by}", hint="begin another one") from None
        if not session.is_over:
            return text
        titles = [self._directory.line(item) for item in session.trace().final_items if item]
        return "\n".join([text, *(f"{number}. {line}" for number, line in enumerate(titles, start=1))])

    def _task(self, user_id: str | None, history: Sequence[str] | None) -> UserTask:
        if (user_id is None) == (history is None):
            raise ToolError("give either user_id or history")
        if user_id is not None:
            try:
                user = self._dataset.user_index_of(user_id)
                items = self._dataset.history(user, self._config.split)
            except DataError as error:
                raise ToolError(clean(str(error), limit=300)) from None
            ratings = self._dataset.history_ratings(user, self._config.split)
            return UserTask(
                user_index=user,
                user_id=user_id,
                history=tuple(items.tolist()),
                ratings=None if ratings is None else tuple(ratings.tolist()),
            )
        assert history is not None
        if not 1 <= len(history) <= MAX_ENTRIES:
            raise ToolError("a history has some items", value=len(history), allowed=f"1 to {MAX_ENTRIES}")
        found = [self._directory.find(entry) for entry in history]
        unknown = [match.reason for match in found if not match.item_index]
        if unknown:
            raise ToolError("; ".join(unknown[:5]), hint="give ids of the pool, as look_up shows them")
        return UserTask(user_index=0, user_id="", history=tuple(match.item_index for match in found))


def build_server(desk: Desk) -> Any:
    """The server with its tools.

    Raises:
        ConfigError: the package mcp is not installed.
    """
    module = needed("mcp.server.mcpserver", extra="mcp", purpose=PURPOSE)
    from mcp.server.mcpserver.exceptions import ToolError as McpToolError

    server = module.MCPServer(
        "toolrec",
        version=__version__,
        instructions=(
            "Find the item that a user would choose next: begin a visit for a user, retrieve candidates by attributes, rank "
            "them, and finish with a list. Only items of the pool are accepted."
        ),
    )

    @contextlib.contextmanager
    def told() -> Iterator[None]:
        try:
            yield
        except (ToolError, LLMError) as error:
            raise McpToolError(clean(str(error), limit=500)) from None

    @server.tool()
    async def attributes() -> list[AttributeFacts]:
        """The attributes that the items of the pool have, and whether there is a retrieval tool for each."""
        return desk.attributes()

    @server.tool()
    async def look_up(items: list[str]) -> list[FoundItem]:
        """Find items of the pool by id, by title, or by `<id> title` as lists show them."""
        with told():
            return desk.look_up(items)

    @server.tool()
    async def begin(user_id: str | None = None, history: list[str] | None = None) -> str:
        """Begin a visit for a user of the data set, or for a history of ids or titles, oldest first. Gives the visit's id."""
        with told():
            return desk.begin(user_id, history)

    @server.tool()
    async def retrieve(visit: str, attribute: str = "none", k: int = 20) -> str:
        """Retrieve the k items (1 to 50) that suit the visit's user best by an attribute; `none` is the plain recommender."""
        with told():
            return await desk.call(visit, "retrieve", {"attribute": attribute, "k": k})

    @server.tool()
    async def rank(visit: str, attribute: str, k: int = 20) -> str:
        """Rank all items that the visit has retrieved so far by any attribute that a language model knows; the first k."""
        with told():
            return await desk.call(visit, "rank", {"attribute": attribute, "k": k})

    @server.tool()
    async def finish(visit: str, items: list[str]) -> str:
        """End the visit with a final list of ids, best first. Each is checked against the pool and the history."""
        with told():
            return await desk.call(visit, "finish", {"items": items})

    return server


@contextlib.contextmanager
def opened_retriever(config: McpConfig, dataset: Dataset) -> Iterator[Retriever]:
    """Where the lists come from for as long as the block runs.

    Raises:
        InputError: the recommenders or the application do not fit the data set.
    """
    folder = (config.recommenders or Path("recommenders") / dataset.path.absolute().name).absolute()
    manifest = recommenders_manifest(folder)
    chosen_attributes(config.tools.attributes, dataset, manifest)
    request = ToolsRequest(
        tools=ToolsSettings(mode=config.tools.mode, attributes=config.tools.attributes),
        dataset=str(dataset.path.absolute()),
        recommenders=str(folder),
        dataset_checksum=dataset.checksum,
        recommenders_checksum=manifest["checksum"],
        app_name="",
    )
    with contextlib.ExitStack() as stack:
        if config.tools.mode == "local":
            load_recommenders(folder, dataset)  # refuses a wrong or damaged folder with its own words
        else:
            stack.enter_context(connected(config.ray.address or "auto"))
        tools = stack.enter_context(tools_for(request, on_own_ray=False))
        yield retriever_for(tools, mask_seen=config.answers.mask_seen)


@contextlib.asynccontextmanager
async def opened_llm(config: McpConfig) -> AsyncIterator[OpenAIChat]:
    """Who ranks: the endpoint that is given, or the embedded rules.

    Raises:
        ConfigError: only one of address and model is given.
    """
    config.llm.refuse_half_an_endpoint()
    with contextlib.ExitStack() as stack:
        if config.llm.base_url is None:
            stage(f"ranking: {LABEL}")
            endpoint = stack.enter_context(run_in_thread())
            llm = config.llm.extended(LLMConfig, base_url=endpoint.base_url, model=MODEL_NAME, api_key_env="")
        else:
            stage(f"ranking: {config.llm.model}")
            llm = config.llm.extended(LLMConfig)
        async with OpenAIChat(llm) as chat:
            yield chat


def serve(config: McpConfig) -> None:
    """Offers the tools until the client leaves (stdio) or the process is told to stop (http).

    Raises:
        InputError: something given is wrong.
        ConfigError: the package mcp is not installed, or the port is taken.
    """
    needed("mcp.server.mcpserver", extra="mcp", purpose=PURPOSE)
    dataset = load_dataset(config.dataset)
    stage(f"tools: {config.tools.mode}")
    with opened_retriever(config, dataset) as retriever:
        asyncio.run(_serve(config, dataset, retriever))


async def _serve(config: McpConfig, dataset: Dataset, retriever: Retriever) -> None:
    async with opened_llm(config) as llm:
        server = build_server(Desk(config, dataset, retriever, llm))
        if config.transport == "stdio":
            stage("MCP on standard input and output")
            await server.run_stdio_async()
            return
        with open_listener(LOOPBACK, config.port) as listener:
            stage(f"MCP at {url_of(listener)}")
            await serve_http(server, listener)


def url_of(listener: socket.socket) -> str:
    """Where clients find the server."""
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}{PATH}"


async def serve_http(server: Any, listener: socket.socket) -> None:
    """Answers streamable HTTP until the process is told to stop. Requests with another host's name are refused by mcp."""
    import uvicorn

    app = server.streamable_http_app(streamable_http_path=PATH, host=LOOPBACK)
    settings = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    await uvicorn.Server(settings).serve(sockets=[listener])
