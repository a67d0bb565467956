"""The guard before the HTTP door: who may come in, how often, and with how much; every refusal in one JSON shape."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from toolrec.errors import ConfigError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

HEALTH_PATH = "/healthz"
RANK_PATH = "/v1/rank"
DOCS_PATH = "/docs"
OPENAPI_PATH = "/openapi.json"
MIN_TOKEN_CHARACTERS = 16
MAX_CLIENTS = 10_000
"""Addresses whose buckets are remembered; the one that was quiet for longest is forgotten first."""
STRANGERS_BOUND = 10
"""How many clients' worth of guesses all strangers have together; at 1 a single address could lock every new client out."""
BODY_TIMEOUT_S = 30.0
"""How long a request's body may take to arrive."""
_HOST = re.compile(r"^(\[[0-9A-Fa-f:.]{2,45}\]|[^\s:@/\[\]]{1,255})(?::\d{1,5})?$")
_OPEN_HINT = "set the application's token_env to the name of an environment variable that holds a token"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorRules:
    """What the guard lets through.

    Args:
        token: the bearer token that every request but the one for health needs; None answers this machine alone.
        max_body_bytes: the longest body.
        requests_per_minute: what one client address may ask on average; None for no bound.
        burst: what it may ask at once.
        max_in_progress: requests that are worked on at once, rank requests apart.
        max_ranks_in_progress: rank requests that are worked on at once.
    """

    token: str | None = None
    max_body_bytes: int = 512 * 1024
    requests_per_minute: float | None = None
    burst: int = 1
    max_in_progress: int = 1000
    max_ranks_in_progress: int = 1000

    def __repr__(self) -> str:
        return f"DoorRules(token={'***' if self.token else None}, max_body_bytes={self.max_body_bytes})"


def read_token(variable: str | None) -> str | None:
    """The token in an environment variable, None where no variable is named.

    Raises:
        ConfigError: it is not set, too short to be a secret, or cannot stand in a header.
    """
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the environment variable {variable} holds no usable token",
            allowed=f"at least {MIN_TOKEN_CHARACTERS} printable ASCII characters without spaces",
            hint="set it where the ingress replicas run",
        )
    return token


def check_address(host: str | None, token: str | None) -> None:
    """Whether the application may be served on the host that Serve's HTTP proxies listen on (None: no proxies).

    Raises:
        ConfigError: others than this machine can reach it, and there is no token.
    """
    if host is not None and token is None and not is_loopback(host):
        raise ConfigError("served beyond this machine, the application needs a bearer token", value=host, hint=_OPEN_HINT)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.casefold() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def error_body(reason: str) -> bytes:
    """The one shape of an error; plain ASCII, whatever the reason quotes."""
    return json.dumps({"detail": reason}).encode()


class Refusal(Exception):
    """A request that is not let through; the text is the reason that the client is told."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class TokenBuckets:
    """A token bucket for each client; the least recently used is forgotten beyond `MAX_CLIENTS`.

    Args:
        per_minute: tokens that come back in a minute.
        burst: tokens of a full bucket.
    """

    def __init__(self, *, per_minute: float, burst: int) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: str, *, now_s: float) -> float:
        """Takes a token and gives 0, or takes none and gives the seconds until there is one."""
        level, since_s = self._buckets.pop(client, (float(self._burst), now_s))
        level = min(self._burst, level + (now_s - since_s) * self._per_s)
        taken = 1.0 if level >= 1 else 0.0
        self._buckets[client] = (level - taken, now_s)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - level) / self._per_s

    def give_back(self, client: str) -> None:
        """Puts a token back that was taken for nothing."""
        level, since_s = self._buckets[client]
        self._buckets[client] = (level + 1, since_s)

    def __len__(self) -> int:
        return len(self._buckets)


class Strangers:
    """One bucket of guesses for all clients that have not shown the right token yet.

    An address costs nothing where a header may name it (Serve's proxies take a loopback peer's word for it), so a bucket
    for each address alone bounds no guessing. Clients that have shown the token are not held back by others' guesses.

    Args:
        per_minute: guesses that come back in a minute.
        burst: guesses of the full bucket.
    """

    def __init__(self, *, per_minute: float, burst: int) -> None:
        self._guesses = TokenBuckets(per_minute=per_minute, burst=burst)
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, client: str, *, now_s: float) -> float:
        """Takes a guess and gives 0, or takes none and gives the seconds until there is one; nothing for a known client."""
        return 0.0 if client in self._known else self._guesses.wait_s("", now_s=now_s)

    def was_right(self, client: str) -> None:
        """After `wait_s`: what was shown is the token, so it was no guess; the longest unseen client may be forgotten."""
        if client in self._known:
            self._known.move_to_end(client)
            return
        self._guesses.give_back("")
        self._known[client] = None
        if len(self._known) > MAX_CLIENTS:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)


class Door:
    """The guard as an ASGI middleware.

    In this order: rate by client address, guesses of all strangers together (so that tokens cannot be guessed at speed),
    token or own machine, requests in progress, kind of body, its size. Bodies are taken in here, up to their bound, so that
    nothing behind has to count. Rank requests, which wait for an LLM, are counted apart: they hold nothing else up.

    Args:
        app: what is guarded.
        rules: gives the rules; asked at the first request, when a replica knows them.
    """

    def __init__(self, app: ASGIApp, *, rules: Callable[[], DoorRules]) -> None:
        self._app = app
        self._find_rules = rules
        self._rules: DoorRules | None = None
        self._buckets: TokenBuckets | None = None
        self._strangers: Strangers | None = None
        self._in_progress: Counter[bool] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses the request, or passes it on with its body taken in."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rules = self._known_rules()
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            if not self._check(rules, scope, headers):
                await _send(send, 200, b'{"status": "ok"}', {})
                return
            is_rank = _route(scope) == RANK_PATH
            bound = rules.max_ranks_in_progress if is_rank else rules.max_in_progress
            if self._in_progress[is_rank] >= bound:
                raise Refusal(503, "too many requests in progress; try again in 1 s", retry_after="1")
        except Refusal as refusal:
            await _refuse(send, refusal)
            return
        self._in_progress[is_rank] += 1
        try:
            try:
                body = await _read_body(scope, headers, receive, limit=rules.max_body_bytes)
            except Refusal as refusal:
                await _refuse(send, refusal)
                return
            await self._app(scope, _replayed(body, receive), send)
        finally:
            self._in_progress[is_rank] -= 1

    def _known_rules(self) -> DoorRules:
        if self._rules is None:
            self._rules = rules = self._find_rules()
            if rules.requests_per_minute is not None:
                self._buckets = TokenBuckets(per_minute=rules.requests_per_minute, burst=rules.burst)
                self._strangers = Strangers(
                    per_minute=STRANGERS_BOUND * rules.requests_per_minute, burst=STRANGERS_BOUND * rules.burst
                )
        return self._rules

    def _check(self, rules: DoorRules, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the caller may see all; False for one who may only ask for health.

        Raises:
            Refusal: neither, or too often.
        """
        if self._buckets is None or self._strangers is None:
            return _check_caller(rules, scope, headers)
        client, now_s = _bucket_of(_client(scope)), time.monotonic()
        _refuse_for(self._buckets.wait_s(client, now_s=now_s), "too many requests")
        if rules.token is None or b"authorization" not in headers:
            return _check_caller(rules, scope, headers)
        # Taken before the token is looked at: a guess beyond the bound must not learn whether it was right.
        _refuse_for(self._strangers.wait_s(client, now_s=now_s), "too many wrong tokens")
        may_see_all = _check_caller(rules, scope, headers)
        if may_see_all:
            self._strangers.was_right(client)
        return may_see_all


async def _refuse(send: Send, refusal: Refusal) -> None:
    await _send(send, refusal.status, error_body(refusal.reason), refusal.headers)


def _route(scope: Scope) -> str:
    """The path inside the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _refuse_for(wait_s: float, reason: str) -> None:
    """Refuses where there is something to wait for."""
    if wait_s > 0:
        seconds = max(1, math.ceil(wait_s))
        raise Refusal(429, f"{reason}; try again in {seconds} s", retry_after=str(seconds))


def _check_caller(rules: DoorRules, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether the caller may see all; False for one who may only ask for health.

    Raises:
        Refusal: neither.
    """
    route = _route(scope)
    if rules.token is not None:
        # A browser cannot send a token with the address of a page; the page says nothing of what is served.
        # With a token it is looked at like any other request: the answer must not pass a wrong one for right.
        is_page = scope["method"] == "GET" and (route in (DOCS_PATH, OPENAPI_PATH) or route.startswith(f"{DOCS_PATH}/"))
        if is_page and b"authorization" not in headers:
            return True
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Compared whether or not the kind is right: the answer's time says nothing.
        if hmac.compare_digest(given.strip(), rules.token.encode()) and kind.lower() == b"bearer":
            return True
        reason = "a bearer token is needed; send it as `Authorization: Bearer …`"
        refusal = Refusal(401, reason, www_authenticate="Bearer")
    else:
        # The host is looked at as well: a page in a browser, or a proxy on this machine, comes from loopback too.
        host = headers.get(b"host", b"").decode("latin-1")
        if is_loopback(_client(scope)) and (not host or is_loopback(_host_name(host))):
            return True
        refusal = Refusal(403, f"without a token only this machine is answered; {_OPEN_HINT}")
    if route == HEALTH_PATH:
        return False
    raise refusal


def _client(scope: Scope) -> str:
    """The client's address; empty where the server does not tell, which is nobody's own machine."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _bucket_of(client: str) -> str:
    """Whose bucket an address draws on: an IPv6 subscriber has 2^64 addresses and one bucket, this machine likewise."""
    if is_loopback(client):
        return "localhost"
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; empty where it is none."""
    match = _HOST.match(host)
    return match.group(1).strip("[]") if match else ""


async def _read_body(scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, *, limit: int) -> bytes:
    """The whole body.

    Raises:
        Refusal: it is no JSON by its name, too long by its header or by what came, or too slow.
    """
    too_long = Refusal(413, f"the body is longer than {limit} bytes", connection="close")
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise Refusal(400, "the content-length is no number", connection="close")
    # Python refuses to read numbers of thousands of digits.
    if len(declared) > 15 or int(declared) > limit:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            is_open = True
            while is_open:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "the body broke off", connection="close")
                body += message.get("body", b"")
                is_open = message.get("more_body", False)
                if len(body) > limit:
                    raise too_long
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive within {BODY_TIMEOUT_S:g} s", connection="close") from None
    if body and headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        # Also keeps out what a form on a foreign page can make a browser send.
        raise Refusal(415, "the body must be JSON, with `Content-Type: application/json`")
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body at once, and then what comes after it."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _send(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    start = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
