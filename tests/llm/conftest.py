"""Endpoints on loopback: the embedded one, and one that fails by script."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from toolrec.grammar import ItemLine, item_ids_in, render_item_line
from toolrec.llm import LLMConfig
from toolrec.llm.embedded import EmbeddedOptions, EmbeddedServer, run_in_thread
from toolrec.llm.embedded.app import answer
from toolrec.llm.embedded.policy import MODEL_NAME

Step = dict[str, Any]


def reply(content: Any = "fine", *, message: Step | None = None, finish_reason: str = "stop", usage: Step | None = None) -> Step:
    """A step that answers with a chat completion."""
    body: Step = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **(message or {})}, "finish_reason": finish_reason}
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return {"status": 200, "json": body}


def error(status: int, message: str = "no", *, code: str | None = None, param: str | None = None, **headers: str) -> Step:
    """A step that answers with an error in OpenAI's form."""
    body = {"error": {"message": message, "type": "some_error", "code": code, "param": param}}
    return {"status": status, "json": body, "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


class FaultServer:
    """A real HTTP server that goes through a script, one step a request; the last one stays.

    A step is an answer (`status`, `json` or `raw`, `headers`, `delay_s`), or a `fault`: `reset`, `close`, `hang`, `truncate`;
    or a function from the request's body to a step.
    """

    def __init__(self, script: list[Step | Callable[[Step], Step]]) -> None:
        self.script = script
        self.requests: list[Step] = []
        self.headers: list[str] = []
        self.has_request = asyncio.Event()
        self.in_flight = 0
        self.max_in_flight = 0
        self.base_url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> FaultServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next((int(h.split(":")[1]) for h in head.lower().split("\r\n") if h.startswith("content-length:")), 0)
                body = json.loads(await reader.readexactly(length)) if length else {}
                self.requests.append(body)
                self.headers.append(head)
                self.has_request.set()
                step = self.script[min(len(self.requests), len(self.script)) - 1]
                self.in_flight += 1
                self.max_in_flight = max(self.max_in_flight, self.in_flight)
                try:
                    goes_on = await self._answer(step(body) if callable(step) else step, writer)
                finally:
                    self.in_flight -= 1
                if not goes_on:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, step: Step, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(step.get("delay_s", 0))
        fault = step.get("fault")
        if fault == "hang":
            await asyncio.sleep(30)
        if fault == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        if fault == "close":
            return False
        raw = step.get("bytes") or step["raw"].encode() if "bytes" in step or "raw" in step else json.dumps(step["json"]).encode()
        headers = {"content-type": "application/json", "content-length": str(len(raw)), **step.get("headers", {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"HTTP/1.1 {step['status']} X\r\n{lines}\r\n".encode() + (raw[: len(raw) // 2] if fault == "truncate" else raw)
        )
        await writer.drain()
        return fault != "truncate"


Served = Callable[..., Awaitable[FaultServer]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Served]:
    """Starts fault servers: `server = await serve(step, step, …)`."""
    started: list[FaultServer] = []

    async def start(*script: Step) -> FaultServer:
        started.append(await FaultServer(list(script)).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def quick() -> Callable[..., LLMConfig]:
    """A config with waits of milliseconds and no key."""

    def build(base_url: str, **settings: Any) -> LLMConfig:
        defaults: dict[str, Any] = {
            "model": "m",
            "api_key_env": "",
            "min_wait_s": 0.001,
            "max_wait_s": 0.01,
            "timeout_s": 5.0,
            "total_timeout_s": 10.0,
            "max_attempts": 3,
        }
        return LLMConfig(base_url=base_url, **{**defaults, **settings})

    return build


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServer]:
    with run_in_thread(EmbeddedOptions()) as server:
        yield server


@pytest.fixture(scope="session")
def steps() -> Any:
    """The makers of script steps, for test files that cannot import this one."""

    class Steps:
        reply = staticmethod(reply)
        error = staticmethod(error)

    return Steps


GENRES = ("Drama", "Comedy", "Action", "Sci-Fi", "Romance", "Thriller")


class World:
    """A made-up pool in the prompt grammar, and a surrogate's conversation with the embedded rules over it."""

    tools: ClassVar[list[Step]] = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in ("retrieve", "rank", "finish")
    ]

    def item(self, number: int, genres: Sequence[str] = (), year: int | None = None, **fields: object) -> ItemLine:
        draw = random.Random(number)
        genres = tuple(genres) or tuple(draw.sample(GENRES, draw.choice([1, 2])))
        shown = {"genre": genres, "release_year": (str(year or 1970 + number % 30),)}
        shown.update({name: (str(value),) for name, value in fields.items()})
        return ItemLine(item_id=str(number), title=f"Story, The {number} (1999)", fields=tuple(shown.items()))

    def lines(self, items: Sequence[ItemLine]) -> str:
        return "\n".join(render_item_line(replace(item, number=n)) for n, item in enumerate(items, start=1))

    def drama_history(self) -> list[ItemLine]:
        return [self.item(n, ["Drama"] if n % 10 < 7 else ["Comedy"], year=1990 + n % 3, rating=3 + n % 3) for n in range(1, 11)]

    def task(self, history: Sequence[ItemLine], *, attributes: str = "none, genre, release_year", rounds: int = 7) -> str:
        return (
            f"What would this user choose next?\n\nAttributes: {attributes}\nRounds: {rounds}\nList length: 10\n\n"
            f"History (oldest first):\n{self.lines(history)}\n"
        )

    def observation(self, mark: str, items: Sequence[ItemLine], *, left: int) -> str:
        last = "\nFinish now: give your list." if left == 0 else ""
        return f"{mark} returned {len(items)} items:\n{self.lines(items)}\nRounds left: {left}{last}"

    def retrieved(self, mark: str, k: int) -> list[ItemLine]:
        numbers = random.Random(mark).sample(range(100, 160), k)
        return [self.item(number, score=f"{5 - place / 10:.4f}") for place, number in enumerate(numbers)]

    def converse(self, *, is_native: bool, history: Sequence[ItemLine] | None = None, rounds: int = 7) -> Conversation:
        """Plays the tools' part until the rules finish."""
        messages: list[Step] = [
            {"role": "system", "content": "There are Retrieve[attribute, K], Rank[attribute, K] and Finish[list]."},
            {"role": "user", "content": self.task(history or self.drama_history(), rounds=rounds)},
        ]
        calls: list[str] = []
        while True:
            request: Step = {"model": MODEL_NAME, "messages": messages}
            request |= {"tools": self.tools} if is_native else {"stop": ["Observation"]}
            message = answer(request, EmbeddedOptions())["choices"][0]["message"]
            action, items = _action_of(message)
            messages = [*messages, message]
            if action is None:
                return Conversation(calls, items, request, message)
            calls.append(action)
            left = rounds - len(calls)
            text = self.observation(action, self.retrieved(action, 20), left=left)
            if is_native:
                messages.append({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": text})
            else:
                messages.append({"role": "user", "content": f"Observation {len(calls)}:\n{text}"})


@dataclass
class Conversation:
    """`calls` as in `Retrieve[genre, 20]`, the final list, the last request and the last message."""

    calls: list[str]
    items: list[str]
    request: Step
    message: Step


def _action_of(message: Step) -> tuple[str | None, list[str]]:
    if message.get("tool_calls"):
        function = message["tool_calls"][0]["function"]
        arguments = json.loads(function["arguments"])
        if function["name"] == "finish":
            return None, arguments["items"]
        return f"{function['name'].capitalize()}[{arguments['attribute']}, {arguments['k']}]", []
    action = message["content"].rpartition("\n")[2].split(": ", 1)[1]
    return (None, item_ids_in(action)) if action.startswith("Finish") else (action, [])


@pytest.fixture(scope="session")
def world() -> World:
    return World()
