"""The HTTP connections below the OpenAI client, and the way past it for the requests that differ in their body alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from multidict import CIMultiDict
from yarl import URL

from toolrec.llm.gate import KEEP_ALIVE_S
from toolrec.llm.replies import UnusableReplyError

CONNECT_TIMEOUT_S = 30.0

MAX_REPLY_BYTES = 8_000_000


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


class Connections(httpx2.AsyncClient):
    """What `openai.AsyncOpenAI` sends its requests through: aiohttp at once, without httpx2's transports between.

    Answers are read whole, up to `MAX_REPLY_BYTES`: a few kilobytes can unpack to what fills the memory and holds all
    users up. Cookies are not kept. One per event loop.

    Args:
        limit: connections at once.
        timeout_s: seconds without a byte.
        trust_env: whether a proxy that the environment names is used.

    Attributes:
        prepared: the latest POST as the OpenAI client has built it; None before the first.
    """

    def __init__(self, *, limit: int, timeout_s: float, trust_env: bool) -> None:
        super().__init__(transport=httpx2.AsyncBaseTransport(), timeout=timeout_s, trust_env=False, follow_redirects=True)
        self.prepared: Prepared | None = None
        self._limit, self._timeout_s, self._reads_env = limit, timeout_s, trust_env
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

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
        headers = [(name, value) for name, value in answer.headers.items() if name.lower() not in _OF_THE_WAY]
        return httpx2.Response(answer.status, headers=headers, content=answer.content, request=request)

    async def exchange(self, prepared: Prepared, content: bytes, *, method: str = "POST") -> Answer:
        """The answer to a request that is prepared but for its body.

        Raises:
            UnusableReplyError: it is too large.
            aiohttp.ClientError, OSError: there is none.
        """
        session = self._session or self._open()
        read = bytearray()
        async with session.request(
            method, prepared.url, headers=prepared.headers, data=content or None, proxy=self._proxy_for(prepared.url)
        ) as response:
            async for part in response.content.iter_any():
                read += part
                if len(read) > MAX_REPLY_BYTES:
                    raise UnusableReplyError(f"the answer is larger than {MAX_REPLY_BYTES / 1e6:g} MB")
        return Answer(response.status, response.headers, bytes(read))

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
        await super().aclose()

    def _open(self) -> aiohttp.ClientSession:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._limit, keepalive_timeout=KEEP_ALIVE_S, ssl=httpx2.create_ssl_context(trust_env=self._reads_env)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(self._timeout_s, CONNECT_TIMEOUT_S), sock_read=self._timeout_s
            ),
        )
        return self._session

    def _proxy_for(self, url: URL) -> str | None:
        if not self._reads_env:
            return None
        scheme, host = url.scheme, url.host or ""
        origin = f"{scheme}://{host}"
        if origin not in self._proxies:
            self._proxies[origin] = None if proxy_bypass(host) else getproxies().get(scheme) or getproxies().get("all")
        return self._proxies[origin]


_OF_THE_BODY = frozenset((b"host", b"content-length", b"accept-encoding", b"connection"))
"""Headers that aiohttp writes by itself."""

_OF_THE_WAY = frozenset(("content-encoding", "content-length", "transfer-encoding"))
"""Headers of an answer on its way; here it is unpacked and whole."""


def _prepared(request: httpx2.Request) -> Prepared:
    headers = CIMultiDict(
        (name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw if name.lower() not in _OF_THE_BODY
    )
    return Prepared(URL(str(request.url), encoded=True), headers)
