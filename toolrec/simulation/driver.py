"""The driver: streams users to simulation actors in a bounded window and writes what comes back."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from toolrec.data import Pool
from toolrec.errors import ConfigError, ToolRecError
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.progress import Progress
from toolrec.records import Round, Trace, UserTask
from toolrec.simulation.actors import EmbeddedEndpointActor, SimulationActor, SimulationSpec, free_port_task
from toolrec.simulation.memory_actor import MemoryActor
from toolrec.simulation.rows import Row, trace_rows
from toolrec.simulation.run_folder import RunFolder

log = logging.getLogger(__name__)

ACTOR_WAIT_S = 180.0
"""How long the run waits for a simulation actor to come back when none is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How users are spread over actors; none of it changes a result.

    Args:
        concurrency: users in flight, over all actors.
        num_actors: simulation actors; None for one a core, spread over the nodes.
        max_attempts: attempts a user gets when actors die.
        block_users: finished users that are written together.
        block_interval_s: or this many seconds after the last block.
    """

    concurrency: int = 64
    num_actors: int | None = None
    max_attempts: int = 5
    block_users: int = 200
    block_interval_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "block_users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if self.num_actors is not None and self.num_actors < 1:
            raise ConfigError("num_actors must be at least 1", value=self.num_actors)


class Crew:
    """The actors of one run: simulations on the nodes, one shared memory, an embedded endpoint a node where needed.

    Args:
        spec: the simulations' settings; its LLM's base URL is replaced where `embedded` is given.
        pool: the item pool directory.
        config: how many actors.
        embedded: the embedded endpoint's options; None where the LLM is elsewhere.
    """

    def __init__(self, spec: SimulationSpec, pool: Pool, config: SimulationConfig, *, embedded: EmbeddedOptions | None) -> None:
        self.memory = MemoryActor.remote()
        self._in_flight: dict[ActorHandle, int] = {}
        self._returning: dict[ActorHandle, asyncio.Task[None]] = {}
        self._endpoints: list[ActorHandle] = []
        pool_ref = ray.put(pool)
        places = _places(config)
        per_actor = max(config.concurrency // len(places), 1) + 1
        spec = replace(spec, llm=replace(spec.llm, concurrency=2 * per_actor))
        specs = {node: self._spec_on(node, spec, embedded) for node in dict.fromkeys(places)}
        for node in places:
            actor = SimulationActor.options(scheduling_strategy=_on(node)).remote(specs[node], pool_ref, self.memory)
            self._in_flight[actor] = 0
        ray.get([actor.ready.remote() for actor in self._in_flight])

    def _spec_on(self, node: str, spec: SimulationSpec, embedded: EmbeddedOptions | None) -> SimulationSpec:
        if embedded is None:
            return spec
        port = ray.get(free_port_task.options(scheduling_strategy=_on(node)).remote())
        endpoint = EmbeddedEndpointActor.options(scheduling_strategy=_on(node)).remote(port, embedded)
        self._endpoints.append(endpoint)
        return replace(spec, llm=replace(spec.llm, base_url=ray.get(endpoint.base_url.remote())))

    async def run_user(self, task: UserTask, previous_rounds: list[Round]) -> tuple[Row, list[Row]]:
        """Runs a user on the least busy actor.

        Raises:
            RayActorError: the actor was lost with the user in flight; it takes no user until it is back.
        """
        actor = await self._least_busy()
        self._in_flight[actor] += 1
        try:
            rows: tuple[Row, list[Row]] = await actor.run_user.remote(task, previous_rounds)
            return rows
        except RayActorError:
            if actor not in self._returning:
                self._returning[actor] = asyncio.create_task(self._await_return(actor))
            raise
        finally:
            self._in_flight[actor] -= 1

    def simulations(self) -> list[ActorHandle]:
        """The simulation actors."""
        return list(self._in_flight)

    async def _least_busy(self) -> ActorHandle:
        deadline_s = time.monotonic() + ACTOR_WAIT_S
        while True:
            here = [actor for actor in self._in_flight if actor not in self._returning]
            if here:
                return min(here, key=self._in_flight.__getitem__)
            if time.monotonic() > deadline_s:
                raise ToolRecError("all simulation actors were lost and none came back", value=f"{ACTOR_WAIT_S:.0f} s")
            await asyncio.sleep(0.1)

    async def _await_return(self, actor: ActorHandle) -> None:
        while True:
            try:
                await actor.ready.remote()
                break
            except RayActorError:
                await asyncio.sleep(0.5)
        del self._returning[actor]

    def stop(self) -> None:
        """Ends all actors."""
        for actor in (*self._in_flight, *self._endpoints, self.memory):
            ray.kill(actor)


class Driver:
    """Runs users to their end, whatever happens to one of them, and commits their rows in blocks."""

    def __init__(self, crew: Crew, folder: RunFolder, config: SimulationConfig, progress: Progress) -> None:
        self._crew, self._folder, self._config, self._progress = crew, folder, config, progress
        self._user_rows: list[Row] = []
        self._round_rows: list[Row] = []
        self._failed = 0

    async def run(self, tasks: Iterable[UserTask]) -> None:
        """Simulates all users of `tasks`.

        Raises:
            StorageError: the run folder cannot be written; the run is resumable.
        """
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write_regularly())
                await self._stream(tasks)
                writer.cancel()
        except asyncio.CancelledError:  # Ctrl-C: what is finished is kept
            await self.flush()
            raise
        await self.flush()

    async def flush(self) -> None:
        """Commits what is finished and journals what was spent."""
        user_rows, self._user_rows = self._user_rows, []
        round_rows, self._round_rows = self._round_rows, []
        self._folder.journal(await self._crew.memory.drain_spend.remote())
        if user_rows:
            await asyncio.to_thread(self._folder.commit, user_rows, round_rows)
            await self._crew.memory.forget.remote([row["user_index"] for row in user_rows])

    async def _write_regularly(self) -> None:
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            due = time.monotonic() - last_s >= self._config.block_interval_s
            if due or len(self._user_rows) >= self._config.block_users:
                await self.flush()
                last_s = time.monotonic()

    async def _stream(self, tasks: Iterable[UserTask]) -> None:
        window = asyncio.Semaphore(self._config.concurrency)
        async with asyncio.TaskGroup() as users:
            for task in tasks:
                await window.acquire()
                users.create_task(self._one(task, window))

    async def _one(self, task: UserTask, window: asyncio.Semaphore) -> None:
        try:
            user_row, round_rows = await self._attempts(task)
        finally:
            window.release()
        self._user_rows.append(user_row)
        self._round_rows.extend(round_rows)
        self._failed += user_row["ended_by"] not in ("finish", "forced_finish")
        self._progress.advance(note=f"{self._failed} failed" if self._failed else "")

    async def _attempts(self, task: UserTask) -> tuple[Row, list[Row]]:
        started_s = time.time()
        for attempt in itertools.count(task.attempt):
            previous = await self._crew.memory.begin.remote(task.user_index, attempt) if attempt > task.attempt else []
            try:
                return await self._crew.run_user(replace(task, attempt=attempt), previous)
            except RayActorError as error:
                log.warning("user %s: its simulation actor was lost (%s)", task.user_id, type(error).__name__)
                if attempt - task.attempt + 1 >= self._config.max_attempts:
                    return _void(replace(task, attempt=attempt), "actor_lost", str(error), started_s)
            except RayTaskError as error:
                # The one place where a user's unforeseen failure is kept from the others: it is counted and shown.
                log.warning("user %s failed: %s", task.user_id, error.cause)
                return _void(replace(task, attempt=attempt), "internal_error", _said(error), started_s)
        raise AssertionError("unreachable")


def _said(error: RayTaskError) -> str:
    cause = error.cause
    return f"{type(cause).__name__}: {cause}"[:500]


def _void(task: UserTask, kind: str, error: str, started_s: float) -> tuple[Row, list[Row]]:
    """The rows of a user that came to nothing for a reason of ours: it stays in every figure, as a miss."""
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
            usage={},
            counts={kind: 1},
            started_s=started_s,
            ended_s=time.time(),
        )
    )


def _places(config: SimulationConfig) -> list[str]:
    """The node of each simulation actor: one a core, fewest users a node first."""
    nodes = [(node["NodeID"], int(node["Resources"].get("CPU", 0))) for node in ray.nodes() if node["Alive"]]
    slots = [node for node, cpus in sorted(nodes) for _ in range(cpus)]
    if not slots:
        raise ToolRecError("no node of this Ray has a CPU to simulate on")
    if config.num_actors is None:
        return slots[: max(config.concurrency, 1)]
    # Round-robin over nodes, so that a few actors do not crowd on the first one.
    ordered = [node for node, _ in sorted(nodes) if node in slots]
    return [ordered[i % len(ordered)] for i in range(config.num_actors)]


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)
