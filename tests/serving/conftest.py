"""The HTTP door in this process: the real routes behind their real guard, over recommenders without Serve."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from toolrec.data import Dataset
from toolrec.recommenders import Popularity
from toolrec.serving.deployments import RankedLists
from toolrec.serving.door import ASGIApp, DoorRules
from toolrec.serving.ingress import Answers, build_api
from toolrec.tools.remote import ToolList


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Handle:
    """What the routes use of a deployment's handle: `retrieve.remote(…)` and `rank.remote(…)`, to be awaited."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.retrieve = self.rank = self
        self._call = call

    async def remote(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class Caller:
    """Sends requests to the application as an ASGI server would; every call is a whole request."""

    def __init__(self, answers: Answers, rules: DoorRules, loop: asyncio.AbstractEventLoop) -> None:
        self.app: ASGIApp = build_api(lambda: answers, lambda: rules)
        self._answers, self._rules, self._loop = answers, rules, loop

    def under(self, **rules: Any) -> Caller:
        """The same application under other rules."""
        return Caller(self._answers, replace(self._rules, **rules), self._loop)

    def over(self, answers: Answers) -> Caller:
        """Other answers under the same rules."""
        return Caller(answers, self._rules, self._loop)

    def get(self, path: str, **request: Any) -> Reply:
        return self.send("GET", path, **request)

    def post(self, path: str, body: Any, **request: Any) -> Reply:
        return self.send("POST", path, [body if isinstance(body, bytes) else json.dumps(body).encode()], **request)

    def send(self, method: str, path: str, parts: list[bytes] | None = None, **request: Any) -> Reply:
        return self._loop.run_until_complete(self._send(method, path, parts or [b""], **request))

    async def _send(
        self,
        method: str,
        path: str,
        parts: list[bytes],
        *,
        client: str | None = "127.0.0.1",
        headers: dict[str, str] | None = None,
        root_path: str = "",
        query: str = "",
    ) -> Reply:
        sent: dict[str, str] = {"host": "127.0.0.1:8000", "content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": root_path + path,
            "raw_path": (root_path + path).encode("utf-8", "replace"),
            "query_string": query.encode(),
            "root_path": root_path,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
            "client": (client, 50_000) if client else None,
            "server": ("127.0.0.1", 8000),
        }
        rest = list(parts)
        self.num_received = 0
        start: dict[str, Any] = {}
        body = bytearray()

        async def receive() -> dict[str, Any]:
            if not rest:
                return {"type": "http.disconnect"}
            self.num_received += 1
            part = rest.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(rest)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert not start
                start.update(message)
            else:
                body.extend(message.get("body", b""))

        await self.app(scope, receive, send)
        named = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], named, bytes(body))


@pytest.fixture(scope="session")
def answers(demo: Dataset) -> Answers:
    """Popularity in the place of trained members: what is tested is in front of them."""
    popularity = Popularity(np.arange(demo.num_items + 1, dtype=np.float64))

    def retrieve(history: list[int], k: int, mask_seen: bool) -> ToolList:
        items = popularity.recommend(history, k=k, mask_seen=mask_seen)
        return [item.item_index for item in items], [item.score for item in items]

    def rank(attribute: str, k: int, context: Any) -> RankedLists:
        """The candidates as they came: what an LLM makes of them is the rank tool's matter."""
        items = [candidate.item_index for candidate in context.candidates]
        return items[:k], [1.0 / position for position, _ in enumerate(items[:k], start=1)], items[60:]

    return Answers(
        demo,
        tools={"none": Handle(retrieve), "genre": Handle(retrieve)},
        rank=Handle(rank),
        description={"dataset_checksum": demo.checksum, "recommenders_checksum": "0" * 8, "deployments": {}},
    )


@pytest.fixture(scope="session")
def caller(answers: Answers) -> Iterator[Caller]:
    loop = asyncio.new_event_loop()
    yield Caller(answers, DoorRules(), loop)
    loop.close()
