"""Running the embedded endpoint: alone for the command line, or in a thread beside a run."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn

from toolrec.errors import ConfigError, LLMUnavailableError
from toolrec.llm.embedded.app import build_asgi_app
from toolrec.llm.embedded.options import EmbeddedOptions

BACKLOG = 4096
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection, so that they never send into a closing one."""


class EmbeddedServer:
    """A running endpoint; `base_url` ends in `/v1`."""

    def __init__(self, server: uvicorn.Server, thread: threading.Thread, base_url: str) -> None:
        self._server = server
        self._thread = thread
        self.base_url = base_url

    @property
    def is_running(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ends the endpoint; open connections are closed."""
        self._server.should_exit = True
        self._thread.join(STOP_TIMEOUT_S)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_in_thread(
    options: EmbeddedOptions | None = None, host: str = LOOPBACK, port: int = 0, *, api_key: str | None = None
) -> EmbeddedServer:
    """Starts the endpoint in a thread of its own; port 0 takes a free one.

    Args:
        api_key: the only key taken, for tests; None takes any.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    listener = open_listener(host, port)
    server = uvicorn.Server(_config(options, api_key))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="embedded-endpoint", daemon=True)
    thread.start()
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > give_up_s:
            server.should_exit = True
            listener.close()
            raise LLMUnavailableError("the embedded endpoint did not start", value=f"{host}:{port}")
        time.sleep(0.005)
    return EmbeddedServer(server, thread, base_url_of(listener))


def serve_forever(options: EmbeddedOptions | None, listener: socket.socket) -> None:
    """Answers requests on the listener until the process is interrupted."""
    uvicorn.Server(_config(options)).run(sockets=[listener])


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket: connections wait in its backlog until the endpoint runs.

    Raises:
        ConfigError: the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"cannot listen there: {reason}", value=f"{host}:{port}", hint="choose another --port, or 0 for a free one"
        ) from None
    listener.set_inheritable(False)
    return listener


def base_url_of(listener: socket.socket) -> str:
    """The base URL that clients use for this listener."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = LOOPBACK
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _config(options: EmbeddedOptions | None, api_key: str | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        build_asgi_app(options, api_key=api_key),
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        server_header=False,
        date_header=False,
    )
