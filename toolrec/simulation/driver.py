"""The driver: streams users to simulation actors in a bounded window and writes what comes back."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from toolrec.data import Pool
from toolrec.errors import ConfigError, RecordingError, RunStoppedError, StorageError, ToolRecError
from toolrec.llm.budget import Budget
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.llm.flow import FlowSettings
from toolrec.records import FINISHED, Trace, UserTask
from toolrec.simulation.actors import SimulationActor, SimulationSpec
from toolrec.simulation.endpoint_actor import EmbeddedEndpointActor, free_port_task
from toolrec.simulation.failures import Failure, ending_of
from toolrec.simulation.flow_watch import LEAVING_S, FlowWatch
from toolrec.simulation.governor_actor import GovernorActor
from toolrec.simulation.held_users import HeldUsers, TraceRows
from toolrec.simulation.live import RunWatch
from toolrec.simulation.memory_actor import MemoryActor
from toolrec.simulation.memory_link import MemoryLink, cause_of
from toolrec.simulation.rows import Row, trace_rows
from toolrec.simulation.run_folder import RunFolder
from toolrec.tools.remote import is_lost_tool

log = logging.getLogger(__name__)

LOST_ACTOR = (RayActorError, OutOfMemoryError, ActorUnschedulableError, NodeDiedError)
"""What a call brings whose actor is gone: only the first of these is an actor error to Ray."""

ACTOR_WAIT_S = 180.0
"""How long the run waits for its actors: to start, and to come back when none is left."""

START_TRIES = 3
"""Processes that are started for a simulation actor, where the ones before were killed on their way."""

TOOL_WAIT_S = 2.0
"""How long a user waits before its next attempt after a tool was lost and did not come back in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """How users are spread over actors; none of it changes a result.

    Args:
        concurrency: users in flight, over all actors.
        num_actors: simulation actors; None for one a core, spread over the nodes.
        max_attempts: attempts a user gets when actors die.
        block_users: finished users that are written together.
        block_interval_s: or this many seconds after the last block.
        flow: what may be asked of the LLM endpoint, over all actors.
        outage_timeout_s: seconds for which the endpoint may be down before the run stops, resumable.
        max_failed_requests: failed requests to the endpoint before the run stops, resumable; None for no limit.
        budget: what the run may spend.
    """

    concurrency: int = 64
    num_actors: int | None = None
    max_attempts: int = 5
    block_users: int = 200
    block_interval_s: float = 2.0
    flow: FlowSettings = field(default_factory=FlowSettings)
    outage_timeout_s: float = 600.0
    max_failed_requests: int | None = None
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts", "block_users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if not (math.isfinite(self.outage_timeout_s) and self.outage_timeout_s > 0):
            raise ConfigError("outage_timeout_s must be a positive number of seconds", value=self.outage_timeout_s)
        if self.max_failed_requests is not None and self.max_failed_requests < 0:
            raise ConfigError("max_failed_requests must be at least 0", value=self.max_failed_requests)
        if self.num_actors is not None and self.num_actors < 1:
            raise ConfigError("num_actors must be at least 1", value=self.num_actors)


class Crew:
    """The actors of one run: simulations on the nodes, one shared memory, an embedded endpoint a node where needed.

    `on_loss` is told of each simulation actor that is lost.

    Args:
        spec: the simulations' settings; its LLM's base URL is replaced where `embedded` is given.
        pool: the item pool directory.
        config: how many actors.
        embedded: the embedded endpoint's options; None where the LLM is elsewhere.
        rounds_path: where the shared memory writes the rounds of users in flight; None for nowhere.
    """

    def __init__(
        self,
        spec: SimulationSpec,
        pool: Pool,
        config: SimulationConfig,
        *,
        embedded: EmbeddedOptions | None,
        rounds_path: Path | None = None,
    ) -> None:
        # On the driver's node, where the run folder is: what it writes there is read again by its restart and by a resumed run.
        here = _on(ray.get_runtime_context().get_node_id())
        self.memory = MemoryActor.options(scheduling_strategy=here).remote(None if rounds_path is None else str(rounds_path))
        self.governor = GovernorActor.remote(config.flow, config.concurrency, config.budget)
        self._endpoints: list[ActorHandle] = []
        self._pool_ref = ray.put(pool)
        places = _places(config)
        # Any actor may come to hold all users, when others are lost: no connection limit stands below the gate's.
        spec = replace(spec, llm=replace(spec.llm, concurrency=config.concurrency))
        self._specs = {node: self._spec_on(node, spec, embedded) for node in dict.fromkeys(places)}
        starting = [(self._simulation_on(node), node) for node in places]
        self._node_of = {self._started(actor, node): node for actor, node in starting}
        _await_start(self.memory.ready.remote(), "the shared memory")
        self._in_flight = dict.fromkeys(self._node_of, 0)
        self._replacing: set[asyncio.Task[None]] = set()
        self.on_loss: Callable[[Failure], None] | None = None

    def _simulation_on(self, node: str) -> ActorHandle:
        # Ray's own restarts would fetch the pool anew from a reference that it does not keep: lost actors are replaced here.
        return SimulationActor.options(scheduling_strategy=_on(node)).remote(
            self._specs[node], self._pool_ref, self.memory, self.governor
        )

    def _started(self, actor: ActorHandle, node: str) -> ActorHandle:
        """The actor once it answers, or another in its place where its process is lost on the way."""
        for tries_left in reversed(range(START_TRIES)):
            try:
                _await_start(actor.ready.remote(), "a simulation actor")
            except ToolRecError as error:
                if tries_left == 0 or not _is_killed(error.__cause__):
                    raise
                actor = self._simulation_on(node)
            else:
                break
        return actor

    def _spec_on(self, node: str, spec: SimulationSpec, embedded: EmbeddedOptions | None) -> SimulationSpec:
        if embedded is None:
            return spec
        for tries_left in reversed(range(START_TRIES)):
            # The port is the endpoint's for good, so that its restart is found again.
            port = ray.get(free_port_task.options(scheduling_strategy=_on(node)).remote())
            endpoint = EmbeddedEndpointActor.options(scheduling_strategy=_on(node)).remote(port, embedded)
            try:
                base_url: str = _await_start(endpoint.base_url.remote(), "the embedded endpoint")
            except ToolRecError as error:
                ray.kill(endpoint)
                # Another process of the node may have been quicker at this port; one that found no place finds none again.
                if tries_left == 0 or error.__cause__ is None:
                    raise
            else:
                break
        self._endpoints.append(endpoint)
        return replace(spec, llm=replace(spec.llm, base_url=base_url))

    async def run_user(self, task: UserTask, previous_rounds: list[bytes]) -> TraceRows:
        """Runs a user on the least busy actor.

        Raises:
            RayError: one of `LOST_ACTOR`: the actor was lost with the user in flight; it takes no user until it is back.
        """
        actor = await self._least_busy()
        self._in_flight[actor] += 1
        try:
            rows: TraceRows = await actor.run_user.remote(task, previous_rounds)
            return rows
        except LOST_ACTOR as error:
            # An error that the actor itself reports (a tool's replica is gone) says that the actor is well.
            if not isinstance(error, RayTaskError):
                self._lost(actor)
            raise
        finally:
            if actor in self._in_flight:
                self._in_flight[actor] -= 1

    async def rest(self) -> None:
        """Ends what the simulation actors are at; one that does not answer in time is killed."""
        await asyncio.gather(*(self._end_users(actor) for actor in self._in_flight))

    async def _end_users(self, actor: ActorHandle) -> None:
        try:
            async with asyncio.timeout(LEAVING_S):
                await actor.rest.remote()
        except (RayError, TimeoutError) as error:
            log.warning("a simulation actor did not come to rest (%s); it is killed", type(error).__name__)
            ray.kill(actor)

    async def _least_busy(self) -> ActorHandle:
        deadline_s = time.monotonic() + ACTOR_WAIT_S
        while not self._in_flight:
            if time.monotonic() > deadline_s:
                raise RunStoppedError("all simulation actors were lost and none came back", hint="--resume goes on")
            await asyncio.sleep(0.1)
        return min(self._in_flight, key=self._in_flight.__getitem__)

    def _lost(self, actor: ActorHandle) -> None:
        node = self._node_of.pop(actor, None)
        if node is None:  # another of its users said so already
            return
        del self._in_flight[actor]
        if self.on_loss is not None:
            self.on_loss(Failure(kind="simulation_actor_lost", reason=f"on node {node}; its users go on elsewhere"))
        ray.kill(actor)  # it may only be out of reach: nothing of it shall go on beside its users' new attempts
        replacing = asyncio.create_task(self._replace(node))
        self._replacing.add(replacing)
        replacing.add_done_callback(self._replacing.discard)

    async def _replace(self, lost_on: str) -> None:
        for tries_left in reversed(range(START_TRIES)):
            node = self._place_instead_of(lost_on)
            if node is None:
                log.warning("no node of this run is left for a new simulation actor")
                return
            actor = self._simulation_on(node)
            try:
                await actor.ready.remote()
            except LOST_ACTOR as error:
                if tries_left == 0 or not _is_killed(error):
                    log.warning("no new simulation actor on node %s (%s); the others go on", node, type(error).__name__)
                    return
            else:
                self._node_of[actor] = node
                self._in_flight[actor] = 0
                return

    def _place_instead_of(self, node: str) -> str | None:
        """The same node, or where it is gone the one with the fewest simulation actors of those that the run began on."""
        alive = {entry["NodeID"] for entry in ray.nodes() if entry["Alive"]}
        if node in alive:
            return node
        num_actors = Counter(self._node_of.values())
        return min((other for other in self._specs if other in alive), key=num_actors.__getitem__, default=None)

    def stop(self) -> None:
        """Ends all actors."""
        for actor in (*self._in_flight, *self._endpoints, self.memory, self.governor):
            ray.kill(actor)


class Driver:
    """Runs users to their end, whatever happens to one of them, and commits their rows in blocks.

    `is_endpoint_proven`: see `HeldUsers`.
    """

    def __init__(
        self,
        crew: Crew,
        folder: RunFolder,
        config: SimulationConfig,
        watch: RunWatch,
        flow: FlowWatch | None = None,
        *,
        is_endpoint_proven: bool = False,
    ) -> None:
        self._crew, self._folder, self._config, self._watch = crew, folder, config, watch
        self._flow = flow
        crew.on_loss = watch.failed
        self._rows: list[TraceRows] = []
        self._held = HeldUsers(config.concurrency, is_endpoint_proven=is_endpoint_proven)
        self._writing = asyncio.Lock()
        self._over = asyncio.Event()
        self._memory = MemoryLink(crew.memory, folder, self._over)

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
                if self._flow is not None:
                    group.create_task(self._flow.run(self._over))
                try:
                    await self._stream(tasks)
                finally:
                    self._over.set()
            self._rows += self._held.take_rest()
        finally:  # also after Ctrl-C: what is finished is kept
            await self.flush()

    async def flush(self) -> None:
        """Commits what is finished and journals what was spent; one block at a time, never half of one."""
        async with self._writing:
            # A cancellation waits for the block: a thread that goes on writing would meet the next one's files, and what
            # the memory has told of the spend it does not tell again.
            await _to_the_end(self._write())

    async def _write(self) -> None:
        rows = list(self._rows)
        users = [user_row for user_row, _ in rows]
        if users:
            await asyncio.to_thread(self._folder.commit, users, [row for _, round_rows in rows for row in round_rows])
            del self._rows[: len(rows)]
        await self._memory.journal_spend()
        if users:
            await self._memory.forget([row["user_index"] for row in users])

    async def rest(self) -> None:
        """Ends users that a stop or an error left under way: from then on nothing more is spent."""
        await self._crew.rest()

    async def journal_spend(self) -> None:
        """Journals the rounds that have ended since the last block; the run is over."""
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
        self._rows += self._held.take(rows)

    def _ended(self, row: Row) -> None:
        kind = ending_of(row["ended_by"], row["counts"])
        self._watch.user_ended(kind)
        if row["ended_by"] not in FINISHED:
            self._watch.failed(
                Failure(
                    kind=kind,
                    reason=row["error"] or "",
                    user_id=row["user_id"],
                    user_index=row["user_index"],
                    attempt=row["attempt"],
                    round=row["num_rounds"] or None,
                    is_end=True,
                )
            )

    def _goes_on(self, task: UserTask, kind: str, reason: str) -> None:
        """An attempt that came to nothing, of a user that begins another one."""
        self._watch.failed(
            Failure(kind=kind, reason=reason, user_id=task.user_id, user_index=task.user_index, attempt=task.attempt)
        )

    async def _attempts(self, task: UserTask) -> TraceRows:
        started_s = time.time()
        for attempt in itertools.count(task.attempt):
            previous = await self._memory.begin(task.user_index, attempt) if attempt > 1 else []
            now = replace(task, attempt=attempt)
            is_last = attempt - task.attempt + 1 >= self._config.max_attempts
            try:
                return await self._crew.run_user(now, previous)
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


def _is_killed(error: BaseException | None) -> bool:
    """Whether an actor's process ended from outside, so that another may do better."""
    return isinstance(error, LOST_ACTOR) and not getattr(error, "actor_init_failed", False)


async def _to_the_end(work: Awaitable[None]) -> None:
    """Awaits `work` even through a cancellation, which is passed on afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _said(error: RayTaskError) -> str:
    cause = error.cause
    return f"{type(cause).__name__}: {cause}"[:500]


def _void(task: UserTask, kind: str, error: str, started_s: float) -> TraceRows:
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


def _await_start(ref: Any, what: str) -> Any:
    """The result of an actor's first call.

    Raises:
        ToolRecError: an actor cannot be made, or finds no place; or what it says itself.
    """
    _, waiting = ray.wait([ref], timeout=ACTOR_WAIT_S)
    if waiting:
        raise ToolRecError(
            f"{what} did not start within {ACTOR_WAIT_S:.0f} s", hint="see `ray status`: are CPUs free on every node?"
        )
    try:
        return ray.get(ref)
    except (*LOST_ACTOR, RayTaskError) as error:
        if isinstance(error, RayTaskError) and isinstance(cause := cause_of(error), ToolRecError):
            raise cause from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ToolRecError(f"{what} could not be made: {lines[-1] if lines else error}") from error


def _places(config: SimulationConfig) -> list[str]:
    """The node of each simulation actor: one a core, node by node."""
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
