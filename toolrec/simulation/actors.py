"""The actors that simulate users."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from toolrec import garbage
from toolrec.coalesce import Coalescer
from toolrec.data import Pool, load_dataset
from toolrec.llm import LLM, LLMConfig, OpenAIChat
from toolrec.llm.caller import CALLER, Caller
from toolrec.llm.gate import Gate, keep_in_step
from toolrec.llm.place import PLACE, Place, move_on
from toolrec.llm.stores import ReplyStores
from toolrec.parts import load_part
from toolrec.records import Completion, Message, Round, UserTask
from toolrec.simulation.governor_actor import exchange_with
from toolrec.simulation.memory_actor import HeldRound, SharedMemory, held_round
from toolrec.simulation.metrics import TimedRetriever, llm_seconds
from toolrec.simulation.round_codec import decode_round
from toolrec.simulation.rows import Row, trace_rows
from toolrec.surrogate import Strategy, SurrogateConfig
from toolrec.tools.base import Retriever, Tool
from toolrec.tools.remote import ServedTools, ServeRetriever
from toolrec.tools.retrieval import RetrievalTool
from toolrec.turns import Turns, away

log = logging.getLogger(__name__)

MESSAGE_ROUNDS = 64
"""Rounds that go to the shared memory in one message at most."""

LAST_REPORT_S = 6.0
"""How long an actor that comes to rest tries to reach the governor; less than the driver waits for the actor."""

USERS_AT_WORK = 64
"""Users that one actor works on at once; the others wait for the LLM, or for their turn."""

DEFAULT_STRATEGY = "toolrec.surrogate:Surrogate"
DEFAULT_RANK_TOOL = "toolrec.tools.rank:RankTool"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTools:
    """Retrieval tools inside the simulation actor, without Serve: folders of the data set and the recommenders."""

    dataset: str
    recommenders: str
    attributes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSpec:
    """All that a simulation actor needs beside the pool.

    `strategy` and `rank_tool` name parts that stand in for the package's own (see `toolrec.parts`); `run` is the run
    folder's name, for Prometheus.
    """

    surrogate: SurrogateConfig
    llm: LLMConfig
    tools: ServedTools | LocalTools
    strategy: str = DEFAULT_STRATEGY
    rank_tool: str = DEFAULT_RANK_TOOL
    run: str = ""
    stores: ReplyStores = field(default_factory=ReplyStores)


class Simulation:
    """Runs many users at once in one process; knows nothing of targets.

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
        self._turns = Turns(USERS_AT_WORK)
        self._llm = AwayLLM(spec.stores.wrap(spec.llm, None if spec.stores.replay else OpenAIChat(spec.llm, self._gate)))
        tools: dict[str, Tool] = {
            "retrieve": RetrievalTool(
                retriever=TimedRetriever(_retriever(spec, gathering), spec.run), pool=pool, config=spec.surrogate
            ),
            "rank": load_part("tool", spec.rank_tool)(llm=self._llm, pool=pool, config=spec.surrogate),
        }
        strategy = load_part("strategy", spec.strategy)
        self._strategy: Strategy = strategy(config=spec.surrogate, pool=pool, llm=self._llm, tools=tools)
        garbage.settle()

    async def ready(self) -> bool:
        """Answers once the actor is up, and takes its part in the run's flow from then on."""
        if self._in_step is None:
            self._in_step = asyncio.create_task(keep_in_step(self._gate, self._exchange))
            self._in_step.add_done_callback(end_out_of_step)
        return True

    async def run_user(self, task: UserTask, previous_rounds: list[bytes]) -> tuple[Row, list[Row]]:
        """Simulates one user, after the rounds that an earlier attempt completed; gives the rows of its trace."""
        user = asyncio.current_task()
        assert user is not None
        self._users.add(user)
        user.add_done_callback(self._users.discard)
        async with self._turns.taken():
            return await self._run(task, previous_rounds)

    async def _run(self, task: UserTask, previous_rounds: list[bytes]) -> tuple[Row, list[Row]]:
        rounds = [decode_round(line) for line in previous_rounds]
        CALLER.set(Caller(max_failed_requests=self._spec.llm.user_max_failed_requests))
        PLACE.set(Place(user_id=task.user_id, attempt=task.attempt, round=len(rounds) + 1))
        trace = await self._strategy.run(task, previous_rounds=list(rounds), on_round=self._keeper(task, rounds))
        return trace_rows(trace)

    async def rest(self) -> None:
        """Ends all users that are left: nothing is asked after this, and all that was is reported to the governor."""
        users = set(self._users)
        for user in users:
            user.cancel()
        if users:
            await asyncio.wait(users)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORT_S):
                await self._report()

    async def _report(self) -> None:
        """Tells the governor all requests so far, also one that has just been lost and starts again."""
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
            move_on()
            missing = [done]
            while missing:
                sent = [self._record(held_round(task.user_index, task.attempt, one)) for one in missing]
                held = (await asyncio.gather(*sent))[-1] if len(sent) > 1 else await sent[0]
                if held == SharedMemory.REFUSED:
                    raise asyncio.CancelledError("a later attempt of this user has begun")
                missing = rounds[held:]  # a memory that began anew lacks the earlier ones

        return keep


class Gathering:
    """How long messages to other actors may wait for company: a hundredth of what an LLM call takes, which nobody notices."""

    SHARE = 0.01
    LONGEST_S = 0.02
    LEARNING_RATE = 0.05

    def __init__(self) -> None:
        self._call_s = 0.0

    def took(self, call_s: float) -> None:
        """An LLM call took so long."""
        self._call_s += self.LEARNING_RATE * (call_s - self._call_s)

    def __call__(self) -> float:
        """Seconds."""
        return min(self.SHARE * self._call_s, self.LONGEST_S)


class AwayLLM:
    """An LLM whose caller is away from its turn while it waits for the reply."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm

    async def complete(
        self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] | None = None, stop: Sequence[str] | None = None
    ) -> Completion:
        """As the LLM itself."""
        async with away():
            return await self._llm.complete(messages, tools=tools, stop=stop)


def end_out_of_step(in_step: asyncio.Task[None]) -> None:
    """Ends this process where its exchange with the governor broke: its gate would let nothing through for ever.

    The driver puts another actor in its place.
    """
    if not in_step.cancelled() and in_step.exception() is not None:
        log.critical("the exchange with the governor broke; this actor ends", exc_info=in_step.exception())
        os._exit(1)


def _recorder(memory: ActorHandle) -> Callable[[Sequence[HeldRound]], Awaitable[list[int]]]:
    async def record(rounds: Sequence[HeldRound]) -> list[int]:
        held: list[int] = await memory.record.remote(rounds)
        return held

    return record


def _retriever(spec: SimulationSpec, gathering: Gathering) -> Retriever:
    if isinstance(spec.tools, ServedTools):
        return ServeRetriever(spec.tools, mask_seen=spec.surrogate.mask_seen, gather_s=gathering)
    import torch

    from toolrec.recommenders import load_recommenders
    from toolrec.tools.local import LocalRetriever

    torch.set_num_threads(1)
    dataset = load_dataset(Path(spec.tools.dataset))
    recommenders = load_recommenders(Path(spec.tools.recommenders), dataset)
    recommenders.pop("popularity")
    kept = spec.tools.attributes
    members = {name: r for name, r in recommenders.items() if kept is None or name == "backbone" or name in kept}
    return LocalRetriever(members, mask_seen=spec.surrogate.mask_seen)


SimulationActor: Any = ray.remote(num_cpus=0.2, max_concurrency=20_000)(Simulation)
