"""Polls the governor for the driver, passes snapshots on, and stops a run whose endpoint stays down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray.actor import ActorHandle
from ray.exceptions import RayError

from toolrec.errors import RunStoppedError
from toolrec.llm.flow.governor import EXCHANGE_INTERVAL_S, FlowSettings, FlowSnapshot
from toolrec.runs.control import ControlFile
from toolrec.simulation.flow.endpoint_notes import endpoint_notes

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5

LEAVING_S = 10.0
"""Seconds for which a run that is ending waits for an actor's answer."""

Answer = TypeVar("Answer")

Listener = Callable[[FlowSnapshot], None]
"""Called with every snapshot; an exception that it raises ends the run."""


class FlowWatch:
    """Polls the governor and keeps the latest `FlowSnapshot`.

    Args:
        governor: the governor actor.
        settings: the limits that the run begins with.
        outage_timeout_s: seconds for which the endpoint may be down before the run stops.
        max_failed_requests: failed requests over all users before the run stops; None for no limit.
        control: the file by which limits are changed during the run; None if they cannot be.
    """

    def __init__(
        self,
        governor: ActorHandle,
        settings: FlowSettings,
        *,
        outage_timeout_s: float,
        max_failed_requests: int | None = None,
        control: ControlFile | None = None,
    ) -> None:
        self.latest = FlowSnapshot(settings=settings)
        self.listeners: list[Listener] = []
        self._noted: set[str] = set()
        self._governor = governor
        self._settings = settings
        self._outage_timeout_s = outage_timeout_s
        self._max_failed_requests = max_failed_requests
        self._control = control

    async def run(self, over: asyncio.Event) -> None:
        """Polls until `over` is set, and once more after that.

        Raises:
            RunStoppedError: the endpoint was down for too long, or too many requests failed.
        """
        try:
            while not over.is_set():
                await until_leaving(self.poll(), over)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await over.wait()
            await until_leaving(self.poll(), over)
        except TimeoutError:
            log.warning("the governor says nothing any more; its last word stands")

    async def poll(self) -> FlowSnapshot:
        """Fetches a snapshot; the latest one is kept while the governor cannot be reached.

        Raises:
            RunStoppedError: the endpoint was down for too long, or too many requests failed.
        """
        changed = None if self._control is None else self._control.changed()
        if changed is not None:
            log.info("limits are now %s", changed)
            self._settings = changed
        try:
            await self._look()
        except RayError as error:
            log.warning("the governor is away (%s); limits stay as they are", type(error).__name__)
            return self.latest
        for kind, note in endpoint_notes(self.latest.counts).items():
            if kind not in self._noted:
                self._noted.add(kind)
                log.warning("%s", note)
        for listener in self.listeners:
            listener(self.latest)
        self._check(self.latest)
        return self.latest

    async def _look(self) -> None:
        snapshot: FlowSnapshot = await self._governor.snapshot.remote()
        if self.latest.governor not in ("", snapshot.governor):
            log.warning("the governor was restarted; it goes on with what is known")
            await self._governor.restore.remote(self._settings, self.latest.clients)
            snapshot = await self._governor.snapshot.remote()
        elif snapshot.settings != self._settings:
            await self._governor.retune.remote(self._settings)
            snapshot = await self._governor.snapshot.remote()
        self.latest = snapshot

    async def last(self) -> FlowSnapshot:
        """The final snapshot, after every client had the time to report; no limit is checked."""
        await asyncio.sleep(2 * EXCHANGE_INTERVAL_S)
        try:
            async with asyncio.timeout(LEAVING_S):
                await self._look()
        except (RayError, TimeoutError) as error:
            log.warning("the governor says nothing any more (%s); its last word stands", type(error).__name__)
        return self.latest

    def _check(self, snapshot: FlowSnapshot) -> None:
        if snapshot.outage_s > self._outage_timeout_s:
            raise RunStoppedError(
                f"the LLM endpoint has been down for {snapshot.outage_s:.0f} s: {_listed(snapshot)}",
                hint="mend it and run the same command with --resume",
            )
        if self._max_failed_requests is not None and snapshot.num_failures > self._max_failed_requests:
            raise RunStoppedError(
                f"{snapshot.num_failures} requests to the LLM endpoint failed: {_listed(snapshot)}",
                allowed=self._max_failed_requests,
                hint="--resume goes on",
            )


async def until_leaving(call: Awaitable[Answer], over: asyncio.Event) -> Answer:
    """Awaits an actor's answer, without limit while the run goes on, and for `LEAVING_S` once it is `over`.

    Raises:
        TimeoutError: there was no answer in time.
    """
    answer, leaving = asyncio.ensure_future(call), asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait((answer, leaving), return_when=asyncio.FIRST_COMPLETED)
        answered, _ = await asyncio.wait((answer,), timeout=LEAVING_S)
        if not answered:
            raise TimeoutError(f"no answer in {LEAVING_S:g} s")
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()


def llm_counts(snapshot: FlowSnapshot) -> dict[str, int]:
    """What happened on the way to the endpoint, by kind.

    `http_requests` are all requests that ended: as many as `completions` and all `failed:KIND` and
    `sent_again_without_parameter` together.
    """
    counts = {"http_requests": snapshot.num_requests, "completions": snapshot.num_calls, **snapshot.counts}
    for kind, count in snapshot.failures.items():
        counts["sent_again_without_parameter" if kind == "parameter_refused" else f"failed:{kind}"] = count
    return {kind: count for kind, count in counts.items() if count}


def _listed(snapshot: FlowSnapshot) -> str:
    """Failures by kind, most first."""
    kinds = sorted(snapshot.failures.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{kind} {count}" for kind, count in kinds) or "no failure is known"
