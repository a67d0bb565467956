"""`toolrec view`: the page on localhost, its data read from the run folders as they are asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from toolrec.errors import RunFolderError, ToolRecError
from toolrec.report.compare import compare_json
from toolrec.report.overview import overview_json
from toolrec.report.page import as_json, content_security_policy, open_sources, runs_json, served_page
from toolrec.report.source import RunSource
from toolrec.runs.folder import part_sizes
from toolrec.runs.run import load_run

HOST = "127.0.0.1"
LIVE_S = 2.0
"""A run that goes on is read again after so many seconds at the earliest."""


class LiveSources:
    """The runs of a served page. One that goes on is opened anew when somebody asks and it has grown, or its status changed."""

    def __init__(self, runs: Sequence[Path]) -> None:
        self._sources = open_sources(runs)
        self._states = [source.run.status for source in self._sources]
        self._read_s = [time.monotonic()] * len(self._sources)
        self._lock = threading.Lock()

    def all(self) -> list[RunSource]:
        """Every run, as it is now."""
        return [self.get(number) for number in range(len(self._sources))]

    def get(self, number: int) -> RunSource:
        """One run by its number on the command line, from 0.

        Raises:
            RunFolderError: there is no such run.
        """
        with self._lock:
            if not 0 <= number < len(self._sources):
                raise RunFolderError("the page has no such run", value=number)
            source = self._sources[number]
            is_due = time.monotonic() - self._read_s[number] >= LIVE_S
            if is_due and self._has_changed(number):
                fresh = RunSource(load_run(source.run.place), dataset=source.stored_dataset)
                fresh.warnings = source.warnings
                self._sources[number] = source = fresh
            if is_due:
                self._read_s[number] = time.monotonic()
            return source

    def _has_changed(self, number: int) -> bool:
        """A running run changes without new users too: what it spends and what fails."""
        source, before = self._sources[number], self._states[number]
        self._states[number] = source.run.status
        return before == "running" or before != self._states[number] or part_sizes(source.path) != source.sizes


def build_app(runs: Sequence[Path]) -> FastAPI:
    """The application: the page, and the same parts that a written page has inside, under `/data/`.

    Raises:
        RunFolderError: a folder is no run, or it is damaged.
        ConfigError: the runs cannot be compared.
    """
    live = LiveSources(runs)
    app = FastAPI(title="toolrec view", docs_url=None, redoc_url=None, openapi_url=None)
    # A page of another site that resolves to this machine must not read the runs.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    text = served_page()
    headers = {
        "Content-Security-Policy": content_security_policy(connects=True),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    @app.exception_handler(ToolRecError)
    async def refused(request: Request, error: ToolRecError) -> Response:
        return Response(as_json({"error": str(error)}), status_code=404, media_type="application/json")

    @app.get("/")
    async def page() -> Response:
        return Response(text, media_type="text/html; charset=utf-8", headers=headers)

    async def answer(make: Any) -> Response:
        return Response(await run_in_threadpool(lambda: as_json(make())), media_type="application/json", headers=headers)

    @app.get("/data/runs")
    async def runs_part() -> Response:
        return await answer(lambda: runs_json(live.all()))

    @app.get("/data/compare")
    async def compare_part() -> Response:
        sources = live.all()
        if len(sources) < 2:
            raise HTTPException(404)
        return await answer(lambda: compare_json(sources))

    @app.get("/data/run/{number}/overview")
    async def overview_part(number: int) -> Response:
        return await answer(lambda: overview_json(live.get(number)))

    @app.get("/data/run/{number}/users")
    async def users_part(number: int) -> Response:
        return await answer(lambda: live.get(number).users_json())

    @app.get("/data/run/{number}/block/{key}")
    async def block_part(number: int, key: str) -> Response:
        return await answer(lambda: live.get(number).block_json(key))

    @app.get("/data/run/{number}/messages/{user_index}")
    async def messages_part(number: int, user_index: int) -> Response:
        return await answer(lambda: live.get(number).messages_json(user_index))

    return app
