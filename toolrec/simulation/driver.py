"""The driver: streams users to simulation actors in a bounded window and writes their rows."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Iterable
from dataclasses import replace

from ray.exceptions import RayTaskError

from toolrec.errors import FailureKind, RecordingError, StorageError
from toolrec.records import FINISHED, Trace, UserTask
from toolrec.runs.failures import Failure, ending_of
from toolrec.runs.folder import RunFolder
from toolrec.runs.rows import Row, trace_rows
from toolrec.simulation.actor_pool import LOST_ACTOR, ActorPool
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.flow.outage import OutageDetector, TraceRows
from toolrec.simulation.flow.watch import FlowWatch
from toolrec.simulation.memory.link import MemoryLink, cause_of
from toolrec.simulation.monitor.live import RunWatch
from toolrec.tools.remote import is_lost_tool

log = logging.getLogger(__name__)

TOOL_WAIT_S = 2.0
"""How long a user waits before its next attempt after a tool was lost and did not come back in time."""


class Driver:
    """Runs all users, whatever happens to single ones, and commits their rows in blocks.

    `is_endpoint_proven`: see `OutageDetector`.
    """

    def __init__(
        self,
        actor_pool: ActorPool,
        folder: RunFolder,
        config: SimulationConfig,
        watch: RunWatch,
        flow: FlowWatch | None = None,
        *,
        is_endpoint_proven: bool = False,
    ) -> None:
        self._actor_pool, self._folder, self._config, self._watch = actor_pool, folder, config, watch
        self._flow = flow
        actor_pool.on_loss = watch.failed
        self._rows: list[TraceRows] = []
        self._outage = OutageDetector(config.concurrency, is_endpoint_proven=is_endpoint_proven)
        self._writing = asyncio.Lock()
        self._over = asyncio.Event()
        self._memory = MemoryLink(actor_pool.memory, folder, self._over)

    async def run(self, tasks: Iterable[UserTask]) -> None:
        """Simulates all users of `tasks`.

        Raises:
            StorageError: the run folder cannot be written; the run is resumable.
            RunStoppedError: the LLM endpoint fails for one user after the other; they are not committed, so that a
                resumed run simulates them; or it is down, or fails too often.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write_regularly())
                group.create_task(self._actor_pool.follow_nodes(self._over))
                if self._flow is not None:
                    group.create_task(self._flow.run(self._over))
                try:
                    await self._stream(tasks)
                finally:
                    self._over.set()
            self._rows += self._outage.take_rest()
        finally:  # also after Ctrl-C: what is finished is kept
            await self.flush()

    async def flush(self) -> None:
        """Commits finished users and journals spend, one complete block at a time."""
        async with self._writing:
            # A cancellation waits for the block: a thread that goes on writing would meet the next one's files, and what
            # the memory has told of the spend it does not tell again.
            await _to_the_end(self._write())

    async def _write(self) -> None:
        self._folder.check_in_place()  # also where nothing is due: whoever removed it wants no more to be spent
        rows = list(self._rows)
        users = [user_row for user_row, _ in rows]
        if users:
            await asyncio.to_thread(self._folder.commit, users, [row for _, round_rows in rows for row in round_rows])
            del self._rows[: len(rows)]
        await self._memory.journal_spend()
        if users:
            await self._memory.forget([row["user_index"] for row in users])

    async def rest(self) -> None:
        """Ends users in flight after a stop or an error: nothing more is spent."""
        await self._actor_pool.rest()

    async def journal_spend(self) -> None:
        """Journals rounds that ended since the last block, at the end of the run."""
        self._over.set()
        await self._memory.journal_spend()

    async def _write_regularly(self) -> None:
        last_s = time.monotonic()
        while not self._over.is_set():
            await asyncio.sleep(0.1)
            due = time.monotonic() - last_s >= self._config.block_interval_s
            if due or len(self._rows) >= self._config.block_users:
                await self.flush()
                last_s = time.monotonic()

    async def _stream(self, tasks: Iterable[UserTask]) -> None:
        window = asyncio.Semaphore(self._config.concurrency)
        async with asyncio.TaskGroup() as users:
            for task in tasks:
                await window.acquire()
                users.create_task(self._one(task, window))

    async def _one(self, task: UserTask, window: asyncio.Semaphore) -> None:
        self._watch.user_began()
        try:
            rows = await self._attempts(task)
        finally:
            self._watch.user_left()
            window.release()
        self._ended(rows[0])
        self._rows += self._outage.take(rows)

    def _ended(self, row: Row) -> None:
        kind = ending_of(row["ended_by"], row["failure_kind"])
        self._watch.user_ended(kind)
        if row["ended_by"] not in FINISHED:
            self._watch.failed(
                Failure(
                    kind=kind,
                    reason=row["error"] or "",
                    failure_kind=row["failure_kind"],
                    http_status=row["http_status"],
                    user_id=row["user_id"],
                    user_index=row["user_index"],
                    attempt=row["attempt"],
                    round=row["num_rounds"] or None,
                    is_end=True,
                )
            )

    def _goes_on(self, task: UserTask, kind: FailureKind, reason: str) -> None:
        """Records a failed attempt of a user that begins another one."""
        self._watch.failed(
            Failure(
                kind=kind,
                reason=reason,
                failure_kind=kind,
                user_id=task.user_id,
                user_index=task.user_index,
                attempt=task.attempt,
            )
        )

    async def _attempts(self, task: UserTask) -> TraceRows:
        started_s = time.time()
        for attempt in itertools.count(task.attempt):
            previous = await self._memory.begin(task.user_index, attempt) if attempt > 1 else []
            now = replace(task, attempt=attempt)
            is_last = attempt - task.attempt + 1 >= self._config.max_attempts
            try:
                return await self._actor_pool.run_user(now, previous)
            except RayTaskError as error:
                if isinstance(cause := cause_of(error), (RecordingError, StorageError)):
                    raise cause from None  # every user would meet it
                # The one place where a user's unforeseen failure is kept from the others: it is counted and shown.
                is_lost = is_lost_tool(error)
                if not is_lost or is_last:
                    return _void(now, "tool_lost" if is_lost else "internal_error", _said(error), started_s)
                self._goes_on(now, "tool_lost", _said(error))
                await asyncio.sleep(TOOL_WAIT_S)
            except LOST_ACTOR as error:
                if is_last:
                    return _void(now, "actor_lost", str(error), started_s)
                self._goes_on(now, "actor_lost", type(error).__name__)
        raise AssertionError("unreachable")


async def _to_the_end(work: Awaitable[None]) -> None:
    """Awaits `work` to its end; a cancellation in between is raised afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _said(error: RayTaskError) -> str:
    cause = error.cause
    return f"{type(cause).__name__}: {cause}"[:500]


def _void(task: UserTask, kind: FailureKind, error: str, started_s: float) -> TraceRows:
    """The rows of a user that failed because of a process of ours: it counts as a miss in every figure."""
    return trace_rows(
        Trace(
            user_index=task.user_index,
            user_id=task.user_id,
            attempt=task.attempt,
            opening=(),
            rounds=(),
            final_items=(),
            completed_items=(),
            candidates=(),
            ended_by="cancelled",
            error=error[:500],
            failure_kind=kind,
            usage={},
            counts={kind: 1},
            started_s=started_s,
            ended_s=time.time(),
        )
    )
