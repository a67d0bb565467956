"""The HTTP connections below the OpenAI client: aiohttp at once, without the layers that would lie in between."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

from toolrec.llm.gate import KEEP_ALIVE_S
from toolrec.llm.replies import UnusableReplyError

CONNECT_TIMEOUT_S = 30.0

MAX_REPLY_BYTES = 8_000_000


class Connections(httpx2.AsyncClient):
    """What `openai.AsyncOpenAI` sends its requests through; one per event loop.

    Answers are read whole, up to `MAX_REPLY_BYTES`: a few kilobytes can unpack to what fills the memory and holds all
    users up. Cookies are not kept.

    Args:
        limit: connections at once.
        timeout_s: seconds without a byte.
        trust_env: whether a proxy that the environment names is used.
    """

    def __init__(self, *, limit: int, timeout_s: float, trust_env: bool) -> None:
        super().__init__(transport=_NoTransport(), timeout=timeout_s, trust_env=False, follow_redirects=True)
        self._limit, self._timeout_s, self._reads_env = limit, timeout_s, trust_env
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, httpx2.URL] = {}
        self._proxies: dict[str, str | None] = {}

    def build_request(self, method: str, url: httpx2.URL | str, **parts: Any) -> httpx2.Request:
        """A request; one with nothing but headers and bytes is put together without httpx2's merging of defaults."""
        content, headers = parts.get("content"), parts.get("headers")
        if not isinstance(content, bytes) or not isinstance(url, str) or parts.get("params") or parts.get("files"):
            return super().build_request(method, url, **parts)
        parsed = self._urls.get(url)
        if parsed is None:
            parsed = self._urls[url] = httpx2.URL(url)
        request = httpx2.Request(method, parsed, headers=headers, stream=httpx2.ByteStream(content))
        request.read()
        return request

    async def send(self, request: httpx2.Request, **_: Any) -> httpx2.Response:
        """The answer, read to its end.

        Raises:
            UnusableReplyError: it is too large.
            aiohttp.ClientError, OSError: there is none.
        """
        session = self._session or self._open()
        content = bytearray()
        async with session.request(
            request.method,
            str(request.url),
            headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
            data=request.content or None,
            proxy=self._proxy_for(request.url),
        ) as response:
            async for part in response.content.iter_any():
                content += part
                if len(content) > MAX_REPLY_BYTES:
                    raise UnusableReplyError(f"the answer is larger than {MAX_REPLY_BYTES / 1e6:g} MB")
        headers = [(name, value) for name, value in response.raw_headers if name.lower() not in _NOT_KEPT]
        return httpx2.Response(response.status, headers=headers, content=bytes(content), request=request)

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
        await super().aclose()

    def _open(self) -> aiohttp.ClientSession:
        certificates: ssl.SSLContext = httpx2.create_ssl_context()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=KEEP_ALIVE_S, ssl=certificates),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=min(self._timeout_s, CONNECT_TIMEOUT_S), sock_read=self._timeout_s
            ),
        )
        return self._session

    def _proxy_for(self, url: httpx2.URL) -> str | None:
        if not self._reads_env:
            return None
        origin = f"{url.scheme}://{url.host}"
        if origin not in self._proxies:
            is_direct = proxy_bypass(url.host)
            self._proxies[origin] = None if is_direct else getproxies().get(url.scheme) or getproxies().get("all")
        return self._proxies[origin]


_NOT_KEPT = frozenset((b"content-encoding", b"content-length", b"transfer-encoding"))
"""Headers of the answer on its way, which is unpacked and whole here."""


class _NoTransport(httpx2.AsyncBaseTransport):
    """Never asked: `Connections` sends by itself."""
