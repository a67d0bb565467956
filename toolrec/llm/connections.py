"""The HTTP connections below the OpenAI client, and the way past it for the requests that differ in their body alone."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies

import aiohttp
import httpx2
import openai
from multidict import CIMultiDict
from yarl import URL

from toolrec.llm.config import LLMConfig
from toolrec.llm.flow.gate import KEEP_ALIVE_S
from toolrec.llm.replies import UnusableReplyError

CONNECT_TIMEOUT_S = 30.0

MAX_REPLY_BYTES = 8_000_000
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Prepared:
    """Where the OpenAI client sends a POST, and its headers without those of one body; they hold the key."""

    url: URL = field(repr=False)
    headers: CIMultiDict[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status, read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes


def http_client(config: LLMConfig) -> Connections | BoundedClient:
    """What the OpenAI client sends through: `Connections`, or where the environment names a proxy for it, its own way."""
    if not config.is_local and {"http", "https", "all"} & getproxies().keys():
        limits = httpx2.Limits(
            max_connections=config.concurrency, max_keepalive_connections=config.concurrency, keepalive_expiry=KEEP_ALIVE_S
        )
        timeout = httpx2.Timeout(config.timeout_s, connect=min(config.timeout_s, CONNECT_TIMEOUT_S), pool=None)
        return BoundedClient(limits=limits, timeout=timeout)
    return Connections(limit=config.concurrency, timeout_s=config.timeout_s, is_tls=config.base_url.startswith("https:"))


class BoundedClient(openai.DefaultAioHttpClient):
    """The OpenAI client's own way over aiohttp, for proxies; answers are read whole, up to `MAX_REPLY_BYTES`.

    A few kilobytes can unpack to what fills the memory and holds all users up.
    """

    async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        """The answer.

        Raises:
            UnusableReplyError: it is too large.
        """
        response = await super().send(request, **{**how, "stream": True})
        try:
            content = await read_bounded(response.aiter_bytes())
        finally:
            await response.aclose()
        headers = httpx2.Headers(response.headers)
        headers.pop("content-encoding", None)
        return httpx2.Response(response.status_code, headers=headers, content=content, request=request)


class Connections(httpx2.AsyncClient):
    """aiohttp at once, without httpx2's transports between; answers are read whole, up to `MAX_REPLY_BYTES`.

    Proxies of the environment are not used, and cookies are not kept. One per event loop.

    Args:
        limit: connections at once.
        timeout_s: seconds without a byte.
        is_tls: whether the endpoint speaks TLS; its certificates are checked as httpx2 does (`SSL_CERT_FILE`).

    Attributes:
        prepared: the latest POST that the OpenAI client has built; None before the first.
    """

    def __init__(self, *, limit: int, timeout_s: float, is_tls: bool = True) -> None:
        super().__init__(transport=httpx2.AsyncBaseTransport(), timeout=timeout_s, trust_env=False, follow_redirects=True)
        self.prepared: Prepared | None = None
        self._limit, self._timeout_s = limit, timeout_s
        self._tls: ssl.SSLContext | bool = httpx2.create_ssl_context() if is_tls else True
        self._session: aiohttp.ClientSession | None = None

    def build_request(self, method: str, url: httpx2.URL | str, **parts: Any) -> httpx2.Request:
        """A request of the OpenAI client."""
        request = super().build_request(method, url, **parts)
        if request.method == "POST":
            self.prepared = _prepared(request)
        return request

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """The answer to the OpenAI client's request.

        Raises:
            UnusableReplyError: it is too large.
            aiohttp.ClientError, OSError: there is none.
        """
        answer = await self.exchange(_prepared(request), request.content, method=request.method)
        # aiohttp reads bytes that are no UTF-8 as lone surrogates.
        headers = [
            (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
            for name, value in answer.headers.items()
            if name.lower() not in _OF_THE_WAY
        ]
        return httpx2.Response(answer.status, headers=headers, content=answer.content, request=request)

    async def exchange(self, prepared: Prepared, content: bytes, *, method: str = "POST") -> Answer:
        """The answer to a request that is prepared but for its body.

        Raises:
            UnusableReplyError: it is too large.
            aiohttp.ClientError, OSError: there is none.
        """
        session = self._session or self._open()
        url, headers = prepared.url, prepared.headers
        for _ in range(MAX_REDIRECTS + 1):
            async with session.request(method, url, headers=headers, data=content or None, allow_redirects=False) as response:
                read = await read_bounded(response.content.iter_any())
            moved = _moved(method, response)
            if moved is None:
                break
            if moved.origin() != url.origin():
                headers = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _NO_SECRETS)
            url = moved
        return Answer(response.status, response.headers, read)

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
        await super().aclose()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=KEEP_ALIVE_S, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(self._timeout_s, CONNECT_TIMEOUT_S), sock_read=self._timeout_s
            ),
        )
        return self._session


def _moved(method: str, response: aiohttp.ClientResponse) -> URL | None:
    """Where a redirect leads that keeps the request as it is; None for every other answer."""
    location = response.headers.get("location")
    is_kept = response.status in (307, 308) or (method == "GET" and response.status in (301, 302))
    if not location or not is_kept:
        return None
    try:
        moved = response.url.join(URL(location))
    except ValueError:
        return None
    return moved if moved.scheme in ("http", "https") and moved.host else None


_NO_SECRETS = frozenset(("accept", "content-type", "user-agent"))
"""Headers that follow a redirect to another origin; any other may hold a key."""


async def read_bounded(parts: AsyncIterator[bytes]) -> bytes:
    """An answer's body.

    Raises:
        UnusableReplyError: it is larger than `MAX_REPLY_BYTES`.
    """
    content = bytearray()
    async for part in parts:
        content += part
        if len(content) > MAX_REPLY_BYTES:
            raise UnusableReplyError(f"the answer is larger than {MAX_REPLY_BYTES / 1e6:g} MB")
    return bytes(content)


_OF_THE_BODY = frozenset((b"host", b"content-length", b"accept-encoding", b"connection"))
"""Headers that aiohttp writes by itself."""

_OF_THE_WAY = frozenset(("content-encoding", "content-length", "transfer-encoding"))
"""Headers of an answer on its way; here it is unpacked and whole."""


def _prepared(request: httpx2.Request) -> Prepared:
    headers = CIMultiDict(
        (name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw if name.lower() not in _OF_THE_BODY
    )
    return Prepared(URL(str(request.url), encoded=True), headers)
