"""A real HTTP server on loopback that answers by the embedded rules, except where a seed says that it fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.embedded.app import answer

TRANSPORT = ("429", "429 with Retry-After", "500", "503", "reset", "hang", "truncated", "broken off", "no choices")
"""Faults for which the client asks again by itself."""

MODEL = ("wrong ids", "prose", "1 MB")
"""Replies that are the model's fault: completions all the same."""

COUNTED_AS = {
    "429": "failed:429",
    "429 with Retry-After": "failed:429",
    "500": "failed:500",
    "503": "failed:503",
    "reset": "failed:connection",
    "hang": "failed:timeout",
    "truncated": "failed:malformed",
    "broken off": "failed:connection",
    "no choices": "failed:malformed",
    "good": "completions",
    **dict.fromkeys(MODEL, "completions"),
}
"""How each appears in a run's counts."""

PROSE = "Well, as an assistant I would rather talk about the weather than choose a film. "


class FaultEndpoint:
    """`with FaultEndpoint(share=0.3, seed=1) as endpoint:`; in a thread with an event loop of its own.

    What becomes of a request depends on the seed, its messages, and how often these came before: on nothing else.

    Args:
        share: share of requests that get one of `kinds`.
        seed: seed of the choice.
        kinds: the faults, equally often; `hang` a quarter as often as others, for it takes the client's whole timeout.
        latency_s: seconds before a good reply.
        is_down: whether it refuses every connection's request by closing it, until `is_down` is set otherwise.
        most_in_flight: further requests at a time get 429; None for no limit.
        refused: whether a user with such a history gets HTTP 400 for whatever it asks.
        most_bytes: longer requests are refused as too long for the context; None for no limit.
        headers: sent with every good reply.

    Attributes:
        is_undecided: while set, those who would be refused get no answer at all.
        log: for each request that came (by its messages' hash), what became of it, in order.
        users: the same hashes by the user's history, as it stands in every prompt about that user.
        counts: how often each thing happened.
    """

    def __init__(
        self,
        *,
        share: float = 0.0,
        seed: int = 0,
        kinds: tuple[str, ...] = (*TRANSPORT, *MODEL),
        latency_s: float = 0.0,
        is_down: bool = False,
        most_in_flight: int | None = None,
        refused: Callable[[str], bool] = lambda history: False,
        most_bytes: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.share, self.seed, self.latency_s, self.is_down = share, seed, latency_s, is_down
        self.most_in_flight, self.most_bytes, self.headers = most_in_flight, most_bytes, headers or {}
        self.refused, self.is_undecided = refused, False
        self.log: dict[str, list[str]] = defaultdict(list)
        self.users: dict[str, set[str]] = defaultdict(set)
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self.max_in_flight = 0
        self.has_request = threading.Event()
        self.base_url = ""
        self._kinds = kinds
        self._weights = [0.25 if kind == "hang" else 1.0 for kind in kinds]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._end: asyncio.Event | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> FaultEndpoint:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    @property
    def num_requests(self) -> int:
        """All that came."""
        return self.counts.total()

    def counted(self) -> dict[str, int]:
        """The same in the words of a run's counts."""
        told: Counter[str] = Counter()
        for kind, count in self.counts.items():
            told[COUNTED_AS[kind]] += count
        return dict(told)

    def out_of_attempts(self, num_attempts: int) -> set[str]:
        """Histories of users one of whose calls failed so often in a row."""
        ended = {
            key for key, kinds in self.log.items() if len(kinds) >= num_attempts and set(kinds[:num_attempts]) <= set(TRANSPORT)
        }
        return {history for history, keys in self.users.items() if keys & ended}

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=8 * 1024 * 1024, backlog=4096)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._end.wait()
        server.close()
        for writer in self._open:
            writer.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = json.loads(await reader.readexactly(length))
                self.has_request.set()
                self.in_flight += 1
                self.max_in_flight = max(self.max_in_flight, self.in_flight)
                try:
                    goes_on = await self._answer(body, length, writer)
                finally:
                    self.in_flight -= 1
                if not goes_on:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, body: dict[str, Any], length: int, writer: asyncio.StreamWriter) -> bool:
        if self.is_down:
            self.counts["reset"] += 1
            return _reset(writer)
        if self.most_bytes is not None and length > self.most_bytes:
            self.counts["too long"] += 1
            return await _send(writer, 400, _error("the prompt is too long", code="context_length_exceeded"))
        if self.most_in_flight is not None and self.in_flight > self.most_in_flight:
            self.counts["429"] += 1
            return await _send(writer, 429, _error("too many at a time"))
        if self.refused(history_of(body["messages"])):
            self.counts["undecided" if self.is_undecided else "refused"] += 1
            if self.is_undecided:
                return await self._hang()
            return await _send(writer, 400, _error("something in the messages is not allowed"))
        kind = self._choose(body["messages"])
        self.counts[kind] += 1
        if kind == "reset":
            return _reset(writer)
        if kind == "hang":
            return await self._hang()
        if kind[:3].isdigit():
            headers = {"retry-after": "0.05"} if "Retry-After" in kind else {}
            return await _send(writer, int(kind[:3]), _error("try again"), headers)
        if kind == "no choices":
            return await _send(writer, 200, {"choices": []})
        await asyncio.sleep(self.latency_s)
        reply = answer(body, EmbeddedOptions())
        if kind in MODEL:
            _spoil(reply["choices"][0]["message"], kind)
        if kind == "truncated":
            return await _send(writer, 200, reply, cut=True)
        if kind == "broken off":
            await _send(writer, 200, reply, cut=True, claims_all=True)
            return False
        return await _send(writer, 200, reply, self.headers)

    async def _hang(self) -> bool:
        assert self._end is not None
        await self._end.wait()
        return False

    def _choose(self, messages: list[dict[str, Any]]) -> str:
        key = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
        before = len(self.log[key])
        draw = random.Random(f"{self.seed} {key} {before}")
        kind = draw.choices(self._kinds, self._weights)[0] if draw.random() < self.share else "good"
        self.log[key].append(kind)
        self.users[history_of(messages)].add(key)
        return kind


def history_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The history in a conversation's opening, or in a rank prompt."""
    text: str = messages[1]["content"]
    return text.split("History (oldest first):\n", 1)[1].split("\n\n", 1)[0].strip()


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: dict[str, Any],
    headers: dict[str, str] | None = None,
    *,
    cut: bool = False,
    claims_all: bool = False,
) -> bool:
    raw = json.dumps(body).encode()
    sent = raw[: len(raw) // 2] if cut else raw
    told = {"content-type": "application/json", "content-length": len(raw if claims_all else sent), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + sent)
    await writer.drain()
    return True


def _error(message: str, *, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "fault", "code": code, "param": None}}


def _spoil(message: dict[str, Any], kind: str) -> None:
    """Turns a good reply into one of the model's faults."""
    calls = message.pop("tool_calls", None)
    if kind == "wrong ids":
        names = [f"no-such-item-{number}" for number in range(10)]
        if calls:
            arguments = json.dumps({"items": names})
            message["tool_calls"] = [{**calls[0], "function": {"name": "finish", "arguments": arguments}}]
        else:
            message["content"] = "\n".join(f"<{name}>" for name in names)
    else:
        message["content"] = PROSE * (1 if kind == "prose" else 1024 * 1024 // len(PROSE))
