"""The actors that simulate users."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle

from toolrec.data import Pool, load_dataset
from toolrec.llm import LLM, LLMConfig, OpenAIChat
from toolrec.llm.flow.gate import Gate, keep_in_step
from toolrec.llm.stores.config import ReplyStores
from toolrec.records import Completion, Message, Round, UserTask
from toolrec.runs.round_codec import decode_round
from toolrec.runs.rows import Row
from toolrec.simulation.config import DEFAULT_RANK_TOOL
from toolrec.simulation.flow.governor_actor import exchange_with
from toolrec.simulation.memory.actor import HeldRound, SharedMemory, held_round
from toolrec.simulation.monitor.prometheus import TimedRetriever, llm_seconds
from toolrec.simulation.user import simulate_user
from toolrec.stress.config import StressSettings
from toolrec.stress.replies import with_faults
from toolrec.surrogate import Strategy, SurrogateConfig
from toolrec.surrogate.strategies import load_strategy
from toolrec.tools.base import Retriever
from toolrec.tools.build import build_tools
from toolrec.tools.remote import ServedTools, ServeRetriever
from toolrec.util import heap
from toolrec.util.coalesce import Coalescer, at_once
from toolrec.util.urls import place_of
from toolrec.util.work_slots import WorkSlots, away

log = logging.getLogger(__name__)

MESSAGE_ROUNDS = 64
"""Rounds that go to the shared memory in one message at most."""

LAST_REPORT_S = 6.0
"""How long an actor that comes to rest tries to reach the governor; less than the driver waits for the actor."""

USERS_AT_WORK = 64
"""Users that one actor works on at once; the others wait for the LLM, or for their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTools:
    """Retrieval tools inside the simulation actor, without Serve: folders of the data set and the recommenders."""

    dataset: str
    recommenders: str
    attributes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """All that a simulation actor needs beside the pool.

    `rank_tool` names the part that ranks (see `toolrec.util.plugins`); `run` is the run folder's name, for Prometheus.
    """

    surrogate: SurrogateConfig
    llm: LLMConfig
    tools: ServedTools | LocalTools
    rank_tool: str = DEFAULT_RANK_TOOL
    run: str = ""
    stores: ReplyStores = field(default_factory=ReplyStores)
    stress: StressSettings = field(default_factory=StressSettings)


class Simulation:
    """Simulates many users at once in one process; it does not know their targets.

    Args:
        spec: settings.
        pool: the item pool directory (from the object store).
        memory: the shared memory actor.
        governor: shares the LLM endpoint among all simulations.
    """

    def __init__(self, spec: SimulationSpec, pool: Pool, memory: ActorHandle, governor: ActorHandle) -> None:
        self._spec = spec
        gathering = Gathering()
        self._record = Coalescer(_recorder(memory), max_batch=MESSAGE_ROUNDS, gather_s=gathering)
        self._exchange = exchange_with(governor, uuid.uuid4().hex)
        self._in_step: asyncio.Task[None] | None = None
        self._users: set[asyncio.Task[Any]] = set()
        self._gate = Gate(limit=None, on_completion=[llm_seconds(spec.run), gathering.took])
        self._work_slots = WorkSlots(USERS_AT_WORK)
        llm = spec.stores.wrap(spec.llm, None if spec.stores.replay else OpenAIChat(spec.llm, self._gate))
        self._llm = AwayLLM(with_faults(llm, pool, spec.stress, is_checked=spec.surrogate.memory_check))
        lists = retriever_for(spec.tools, mask_seen=spec.surrogate.mask_seen, gather_s=gathering)
        timed = TimedRetriever(lists, spec.run)
        tools = build_tools(timed, rank_tool=spec.rank_tool, llm=self._llm, pool=pool, config=spec.surrogate)
        strategy = load_strategy(spec.surrogate.strategy)
        self._strategy: Strategy = strategy(config=spec.surrogate, pool=pool, llm=self._llm, tools=tools)
        heap.settle()

    async def ready(self) -> bool:
        """Returns once the actor has started; from then on its client follows the run's flow control."""
        if self._in_step is None:
            self._in_step = asyncio.create_task(keep_in_step(self._gate, self._exchange))
            self._in_step.add_done_callback(end_out_of_step)
        return True

    async def run_user(self, task: UserTask, previous_rounds: list[bytes]) -> tuple[Row, list[Row]]:
        """Simulates one user, after the rounds that an earlier attempt completed; returns the rows of its trace."""
        user = asyncio.current_task()
        assert user is not None
        self._users.add(user)
        user.add_done_callback(self._users.discard)
        async with self._work_slots.taken():
            return await self._run(task, previous_rounds)

    async def _run(self, task: UserTask, previous_rounds: list[bytes]) -> tuple[Row, list[Row]]:
        rounds = [decode_round(line) for line in previous_rounds]
        return await simulate_user(
            self._strategy,
            task,
            config=self._spec.surrogate,
            max_failed_requests=self._spec.llm.user_max_failed_requests,
            keep=self._keeper(task, rounds),
            previous_rounds=list(rounds),
        )

    async def rest(self) -> None:
        """Ends all users that are left, and reports all requests so far to the governor."""
        users = set(self._users)
        for user in users:
            user.cancel()
        if users:
            await asyncio.wait(users)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_S):
                await self._report()

    async def _report(self) -> None:
        """Reports all requests so far, also to a governor that is restarting."""
        while True:
            try:
                await self._exchange(self._gate.report())
            except ConnectionError:
                await asyncio.sleep(0.2)
            else:
                return

    def _keeper(self, task: UserTask, rounds: list[Round]) -> Callable[[Round], Awaitable[None]]:
        """Gives each round to the shared memory before the next one begins."""

        async def keep(done: Round) -> None:
            rounds.append(done)
            missing = [done]
            while missing:
                sent = [self._record(held_round(task.user_index, task.attempt, one)) for one in missing]
                held = (await asyncio.gather(*sent))[-1] if len(sent) > 1 else await sent[0]
                if held == SharedMemory.REFUSED:
                    raise asyncio.CancelledError("a later attempt of this user has begun")
                missing = rounds[held:]  # a memory that began anew lacks the earlier ones

        return keep


class Gathering:
    """How long messages to other actors wait to be batched: a hundredth of an LLM call's time, which costs little."""

    SHARE = 0.01
    LONGEST_S = 0.02
    LEARNING_RATE = 0.05

    def __init__(self) -> None:
        self._call_s = 0.0

    def took(self, call_s: float) -> None:
        """Takes the seconds of an LLM call into the running mean."""
        self._call_s += self.LEARNING_RATE * (call_s - self._call_s)

    def __call__(self) -> float:
        """Seconds."""
        return min(self.SHARE * self._call_s, self.LONGEST_S)


class AwayLLM:
    """An LLM whose caller gives up its work slot while it waits for the reply."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        form = {} if response_format is None else {"response_format": response_format}
        async with away():
            return await self._llm.complete(messages, tools=tools, stop=stop, **form)


def end_out_of_step(in_step: asyncio.Task[None]) -> None:
    """Ends this process if its exchange with the governor broke, because its gate would then let nothing through.

    The driver replaces the actor.
    """
    if not in_step.cancelled() and in_step.exception() is not None:
        log.critical("the exchange with the governor broke; this actor ends", exc_info=in_step.exception())
        os._exit(1)


def _recorder(memory: ActorHandle) -> Callable[[Sequence[HeldRound]], Awaitable[list[int]]]:
    async def record(rounds: Sequence[HeldRound]) -> list[int]:
        held: list[int] = await memory.record.remote(rounds)
        return held

    return record


def retriever_for(tools: ServedTools | LocalTools, *, mask_seen: bool, gather_s: Callable[[], float] = at_once) -> Retriever:
    """Where lists come from: an application's deployments, or recommenders that are loaded into this process."""
    if isinstance(tools, ServedTools):
        return ServeRetriever(tools, mask_seen=mask_seen, gather_s=gather_s)
    import torch

    from toolrec.recommenders import load_recommenders
    from toolrec.tools.local import LocalRetriever, tool_members

    torch.set_num_threads(1)
    dataset = load_dataset(tools.dataset)
    members = tool_members(load_recommenders(place_of(tools.recommenders), dataset), tools.attributes)
    return LocalRetriever(members, mask_seen=mask_seen)


SimulationActor: Any = ray.remote(num_cpus=0.2, max_concurrency=20_000)(Simulation)
