"""The actor pool: the actors of one run on their nodes, started, replaced when they are lost, and ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
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
from toolrec.runs.failures import Failure
from toolrec.simulation.actors import SimulationActor, SimulationSpec
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.endpoint_actor import EmbeddedEndpointActor, free_port_task
from toolrec.simulation.flow.governor_actor import GovernorActor
from toolrec.simulation.flow.outage import TraceRows
from toolrec.simulation.flow.watch import LEAVING_S
from toolrec.simulation.memory.actor import MemoryActor
from toolrec.simulation.memory.link import cause_of
from toolrec.util.progress import stage

log = logging.getLogger(__name__)

LOST_ACTOR = (RayActorError, OutOfMemoryError, ActorUnschedulableError, NodeDiedError)
"""What a call brings whose actor is gone: only the first of these is an actor error to Ray."""

NODES_INTERVAL_S = 2.0
"""How often the run looks for nodes that have joined or gone."""

BARRED_S = 30.0
"""How long a node is left alone on which simulation actors do not start."""

TELL_AFTER_S, TELL_INTERVAL_S = 10.0, 30.0
"""When a run that waits for resources says so first, and how often again."""

START_TRIES = 3
"""Processes that are started for a simulation actor, where the ones before were killed on their way."""


class ActorPool:
    """The actors of one run: simulations on the nodes, one shared memory, an embedded endpoint a node where needed.

    The nodes may change while it runs: `follow_nodes` starts simulations on those that join, and in place of lost ones.
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
        # That node is the one that the run cannot lose, so the governor is there too.
        here = _on(ray.get_runtime_context().get_node_id())
        self.memory = MemoryActor.options(scheduling_strategy=here).remote(None if rounds_path is None else str(rounds_path))
        self.governor = GovernorActor.options(scheduling_strategy=here, num_cpus=0).remote(
            config.flow, config.concurrency, config.budget
        )
        self._config, self._embedded = config, embedded
        self._endpoints: list[ActorHandle] = []
        self._pool_ref = ray.put(pool)
        # Any actor may come to hold all users, when others are lost: no connection limit stands below the gate's.
        self._spec = replace(spec, llm=spec.llm.replaced(concurrency=config.concurrency))
        self._specs: dict[str, SimulationSpec] = {}
        self._nodes = cpus_by_node
        self._preparing = asyncio.Lock()
        self._starting: dict[asyncio.Task[None], str] = {}
        self._failed_starts: Counter[str] = Counter()
        self._barred_until_s: dict[str, float] = {}
        self._is_one_missing = False
        self._node_of = self._first_actors()
        _await_start(self.memory.ready.remote(), "the shared memory", config.resource_timeout_s)
        self._in_flight = dict.fromkeys(self._node_of, 0)
        self._without_actors_since_s: float | None = None
        self.on_loss: Callable[[Failure], None] | None = None

    def _first_actors(self) -> dict[ActorHandle, str]:
        nodes = nodes_for_missing_actors(_awaited_cpus(self._config.resource_timeout_s), Counter(), self._config)
        self._specs = {node: self._spec_on(node) for node in dict.fromkeys(nodes)}
        starting = [(self._simulation_on(node), node) for node in nodes]
        started: dict[ActorHandle, str] = {}
        for number, (actor, node) in enumerate(starting, start=1):
            try:
                started[self._started(actor, node)] = node
            except ToolRecError:
                # A node that has just been lost is no error while there are others.
                if node in cpus_by_node() or (number == len(starting) and not started):
                    raise
        return started

    def _simulation_on(self, node: str) -> ActorHandle:
        # Ray's own restarts would fetch the pool anew from a reference that it does not keep: lost actors are replaced here.
        return SimulationActor.options(scheduling_strategy=_on(node)).remote(
            self._specs[node], self._pool_ref, self.memory, self.governor
        )

    def _started(self, actor: ActorHandle, node: str) -> ActorHandle:
        """The actor once it answers, or another in its place where its process is lost on the way."""
        for tries_left in reversed(range(START_TRIES)):
            try:
                _await_start(actor.ready.remote(), "a simulation actor", self._config.resource_timeout_s)
            except ToolRecError as error:
                if tries_left == 0 or not _is_killed(error.__cause__):
                    raise
                actor = self._simulation_on(node)
            else:
                break
        return actor

    def _spec_on(self, node: str) -> SimulationSpec:
        spec = self._spec
        if self._embedded is None:
            return spec
        for tries_left in reversed(range(START_TRIES)):
            # The port is the endpoint's for good, so that its restart is found again.
            port = ray.get(free_port_task.options(scheduling_strategy=_on(node)).remote())
            endpoint = EmbeddedEndpointActor.options(scheduling_strategy=_on(node)).remote(port, self._embedded)
            try:
                base_url: str = _await_start(endpoint.base_url.remote(), "the embedded endpoint", self._config.resource_timeout_s)
            except ToolRecError as error:
                ray.kill(endpoint)
                # Another process of the node may have been quicker at this port; one that found no place finds none again.
                if tries_left == 0 or error.__cause__ is None:
                    raise
            else:
                break
        self._endpoints.append(endpoint)
        return replace(spec, llm=spec.llm.replaced(base_url=base_url))

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
        while not self._in_flight:
            since_s = self._without_actors_since_s
            if since_s is not None and time.monotonic() - since_s > self._config.resource_timeout_s:
                raise RunStoppedError(
                    f"no node is left to simulate on, and none joined in {self._config.resource_timeout_s:.0f} s",
                    hint="--resume goes on; --resource-timeout-s waits longer",
                )
            await asyncio.sleep(0.1)
        return min(self._in_flight, key=self._in_flight.__getitem__)

    def _lost(self, actor: ActorHandle) -> None:
        node = self._node_of.pop(actor, None)
        if node is None:  # another of its users said so already
            return
        del self._in_flight[actor]
        if not self._in_flight:
            self._without_actors_since_s = time.monotonic()
        if self.on_loss is not None:
            self.on_loss(Failure(kind="simulation_actor_lost", reason=f"on node {node}; its users go on elsewhere"))
        ray.kill(actor)  # it may only be out of reach: nothing of it shall go on beside its users' new attempts
        self._is_one_missing = True

    async def follow_nodes(self, over: asyncio.Event) -> None:
        """Until the run is over, keeps as many simulation actors as the nodes are good for at each time."""
        told_s = looked_s = 0.0
        try:
            while not over.is_set():
                await asyncio.sleep(0.1)
                now_s = time.monotonic()
                if self._is_one_missing or now_s - looked_s > NODES_INTERVAL_S:
                    self._is_one_missing, looked_s = False, now_s
                    await self._keep_up()
                since_s = self._without_actors_since_s
                if since_s is not None and now_s - max(since_s + TELL_AFTER_S - TELL_INTERVAL_S, told_s) > TELL_INTERVAL_S:
                    told_s = now_s
                    log.warning(
                        "no simulation actor is left: waiting for a node with a free CPU, for %.0f s at most",
                        self._config.resource_timeout_s,
                    )
        finally:
            for starting in list(self._starting):
                starting.cancel()

    async def _keep_up(self) -> None:
        try:
            cpus = await asyncio.to_thread(self._nodes)
        except RayError as error:
            log.warning("Ray does not say which nodes there are (%s); the actors stay as they are", type(error).__name__)
            return
        for actor, node in list(self._node_of.items()):
            if node not in cpus:  # one without users learns it from no call
                self._lost(actor)
        for node in self._specs.keys() - cpus.keys():
            del self._specs[node]
        now_s = time.monotonic()
        usable = {node: count for node, count in cpus.items() if self._barred_until_s.get(node, now_s) <= now_s}
        at_work = Counter(self._node_of.values()) + Counter(self._starting.values())
        for node in nodes_for_missing_actors(usable, at_work, self._config):
            starting = asyncio.create_task(self._start_on(node))
            self._starting[starting] = node
            starting.add_done_callback(self._starting.pop)

    async def _start_on(self, node: str) -> None:
        """One more simulation actor on a node; where it does not start, the node is left alone for a while."""
        actor: ActorHandle | None = None
        try:
            async with self._preparing:
                if node not in self._specs:
                    self._specs[node] = await asyncio.to_thread(self._spec_on, node)
                actor = self._simulation_on(node)
            async with asyncio.timeout(self._config.resource_timeout_s):
                await actor.ready.remote()
        except (RayError, ToolRecError, TimeoutError) as error:
            self._did_not_start(node, error)
        except asyncio.CancelledError:
            if actor is not None:
                ray.kill(actor)
            raise
        else:
            self._failed_starts.pop(node, None)
            self._node_of[actor] = node
            self._in_flight[actor] = 0
            self._without_actors_since_s = None

    def _did_not_start(self, node: str, error: Exception) -> None:
        self._failed_starts[node] += 1
        if self._failed_starts[node] >= START_TRIES or not _is_killed(error):
            self._failed_starts.pop(node)
            self._barred_until_s[node] = time.monotonic() + BARRED_S
            log.warning("no new simulation actor on node %s (%s); the others go on", node, type(error).__name__)
        self._is_one_missing = True

    def stop(self) -> None:
        """Ends all actors."""
        for actor in (*self._in_flight, *self._endpoints, self.memory, self.governor):
            ray.kill(actor)


def _is_killed(error: BaseException | None) -> bool:
    """Whether an actor's process ended from outside, so that another may do better."""
    return isinstance(error, LOST_ACTOR) and not getattr(error, "actor_init_failed", False)


def _await_start(ref: Any, what: str, timeout_s: float) -> Any:
    """The result of an actor's first call.

    Raises:
        RunStoppedError: it finds no place in time.
        ToolRecError: it cannot be made; or what it says itself.
    """
    waiting, waited_s = [ref], 0.0
    while waiting and waited_s < timeout_s:
        if waited_s:
            stage(f"waiting for {what}: {free_resources()}")
        wait_s = min(timeout_s - waited_s, TELL_INTERVAL_S if waited_s else TELL_AFTER_S)
        _, waiting = ray.wait([ref], timeout=wait_s)
        waited_s += wait_s
    if waiting:
        raise RunStoppedError(
            f"{what} did not start within {timeout_s:.0f} s: {free_resources()}",
            hint="free some CPUs or add a node, and run again with --resume; --resource-timeout-s waits longer",
        )
    try:
        return ray.get(ref)
    except (*LOST_ACTOR, RayTaskError) as error:
        if isinstance(error, RayTaskError) and isinstance(cause := cause_of(error), ToolRecError):
            raise cause from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ToolRecError(f"{what} could not be made: {lines[-1] if lines else error}") from error


def free_resources() -> str:
    """What is free on the nodes, for a message."""
    every, free = ray.cluster_resources(), ray.available_resources()
    shown = [f"{free.get(name, 0):g} of {every[name]:g} {name}s are free" for name in ("CPU", "GPU") if every.get(name)]
    return ", ".join(shown) or "no node has a CPU"


def cpus_by_node() -> dict[str, int]:
    """The whole CPUs of each node that is alive."""
    return {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}


def _awaited_cpus(timeout_s: float) -> dict[str, int]:
    """The CPUs of the nodes once there are some.

    Raises:
        RunStoppedError: there are none in time.
    """
    began_s = time.monotonic()
    told_s = began_s + TELL_AFTER_S - TELL_INTERVAL_S
    while not any((cpus := cpus_by_node()).values()):
        if time.monotonic() - began_s > timeout_s:
            raise RunStoppedError(
                f"no node of this Ray has a CPU to simulate on, and none joined in {timeout_s:.0f} s",
                hint="add a worker node and run again with --resume; --resource-timeout-s waits longer",
            )
        if time.monotonic() - told_s > TELL_INTERVAL_S:
            told_s = time.monotonic()
            stage(f"waiting for a node with a CPU to simulate on, for {timeout_s:.0f} s at most")
        time.sleep(0.5)
    return cpus


def nodes_for_missing_actors(cpus: Mapping[str, int], at_work: Mapping[str, int], config: SimulationConfig) -> list[str]:
    """The nodes for the simulation actors that are missing: one a core, or as many as are asked for, spread evenly.

    Args:
        cpus: CPUs by node, of those that can be used.
        at_work: actors that each node has, or that start there.
    """
    usable = [node for node in sorted(cpus) if cpus[node] > 0]
    if not usable:
        return []
    wanted = config.num_actors if config.num_actors is not None else min(sum(cpus[node] for node in usable), config.concurrency)
    counts = Counter(at_work)
    chosen: list[str] = []
    for _ in range(wanted - sum(at_work.values())):
        emptiest = min(usable, key=lambda node: counts[node] / cpus[node])
        counts[emptiest] += 1
        chosen.append(emptiest)
    return chosen


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)
