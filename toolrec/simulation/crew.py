"""The crew: the actors of one run on their nodes, started, replaced when they are lost, and ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnschedulableError, NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from toolrec.data import Pool
from toolrec.errors import RunStoppedError, ToolRecError
from toolrec.llm.embedded import EmbeddedOptions
from toolrec.records import UserTask
from toolrec.simulation.actors import SimulationActor, SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.endpoint_actor import EmbeddedEndpointActor, free_port_task
from toolrec.simulation.failures import Failure
from toolrec.simulation.flow_watch import LEAVING_S
from toolrec.simulation.governor_actor import GovernorActor
from toolrec.simulation.held_users import TraceRows
from toolrec.simulation.memory_actor import MemoryActor
from toolrec.simulation.memory_link import cause_of

log = logging.getLogger(__name__)

LOST_ACTOR = (RayActorError, OutOfMemoryError, ActorUnschedulableError, NodeDiedError)
"""What a call brings whose actor is gone: only the first of these is an actor error to Ray."""

ACTOR_WAIT_S = 180.0
"""How long the run waits for its actors: to start, and to come back when none is left."""

START_TRIES = 3
"""Processes that are started for a simulation actor, where the ones before were killed on their way."""


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


def _is_killed(error: BaseException | None) -> bool:
    """Whether an actor's process ended from outside, so that another may do better."""
    return isinstance(error, LOST_ACTOR) and not getattr(error, "actor_init_failed", False)


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
