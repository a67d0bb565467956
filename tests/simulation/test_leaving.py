"""The way out of a run that stops, without Ray: nothing is spent any more, and what was spent is booked once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayError

from toolrec.data import DomainWords, Pool
from toolrec.llm import LLMConfig
from toolrec.llm.flow.governor import Allowance, ClientReport, FlowSettings, FlowSnapshot
from toolrec.pipeline import _drive
from toolrec.records import Round, ToolCall, Usage, UserTask
from toolrec.runs.folder import RunFolder
from toolrec.simulation import actors
from toolrec.simulation.actors import Simulation, SimulationSpec, end_out_of_step
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.budget_watch import journal_unfinished, spent_so_far
from toolrec.simulation.flow.watch import FlowWatch
from toolrec.simulation.memory.actor import SharedMemory, held_round
from toolrec.simulation.monitor.live import RunWatch
from toolrec.surrogate import SurrogateConfig
from toolrec.tools.remote import ServedTools

MANIFEST = {"schema_version": 1, "resume_key": "k", "settings": {}}
A_REPLY = Usage(num_calls=1, num_attempts=1, prompt_tokens=100, completion_tokens=10)


class Endless:
    """A strategy whose users wait for ever."""

    begun: asyncio.Event

    def __init__(self, **_: Any) -> None:
        Endless.begun = asyncio.Event()

    async def run(self, task: UserTask, **_: Any) -> None:
        Endless.begun.set()
        await asyncio.Event().wait()


def any_tool(**_: Any) -> None:
    """A tool that nobody calls."""


def local(actor: object) -> Any:
    """An actor's interface to an object of this process."""

    class Local:
        def __getattr__(self, name: str) -> Any:
            return SimpleNamespace(remote=getattr(actor, name))

    return Local()


class RestartingGovernor:
    """Away for the first report, and takes those after it."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.reports: list[ClientReport] = []

    async def exchange(self, _: str, report: ClientReport) -> Allowance:
        self.num_asked += 1
        if self.num_asked == 1:
            raise RayError("it starts again")
        self.reports.append(report)
        return Allowance(limit=1)


class BusyCrew:
    """A user whose every round is a paid reply, for as long as it is let; `more` waits for the next two."""

    def __init__(self, memory: SharedMemory, first_round: int) -> None:
        self.memory = local(memory)
        self.on_loss: Any = None
        self.num_replies = 0
        self.is_at_rest = False
        self.began = asyncio.Event()
        self._memory, self._next = memory, first_round

    async def run_user(self, task: UserTask, previous: list[bytes]) -> Any:
        await self.reply(task.attempt)
        self.began.set()
        await asyncio.Event().wait()

    async def reply(self, attempt: int) -> None:
        if self.is_at_rest:
            return
        call = ToolCall(name="retrieve", attribute="a", k=1)
        done = Round(
            number=self._next,
            thought="",
            call=call,
            observation=None,
            messages=(),
            usage={"decide": A_REPLY},
            counts={},
            duration_s=0.1,
        )
        self._next += 1
        self.num_replies += 1
        await self._memory.record([held_round(1, attempt, done)])

    async def follow_nodes(self, over: asyncio.Event) -> None:
        await over.wait()

    async def rest(self) -> None:
        await self.reply(1)  # one that came in meanwhile
        self.is_at_rest = True


class LastLook:
    """A flow that ends with one more reply of each simulation that is not at rest."""

    def __init__(self, actor_pool: BusyCrew, attempt: int) -> None:
        self.listeners: list[Any] = []
        self.latest = FlowSnapshot(settings=FlowSettings())
        self._crew, self._attempt = actor_pool, attempt

    async def run(self, over: asyncio.Event) -> None:
        await over.wait()

    async def last(self) -> FlowSnapshot:
        await self._crew.reply(self._attempt)
        num = self._crew.num_replies
        usage = Usage(num_calls=num, num_attempts=num, prompt_tokens=100 * num, completion_tokens=10 * num)
        return FlowSnapshot(settings=FlowSettings(), usage=usage)


async def stopped_session(folder: RunFolder) -> int:
    """A session of one user that is stopped; the number of replies that it paid for."""
    actor_pool = BusyCrew(SharedMemory(str(folder.rounds_in_flight)), 1)
    flow: Any = LastLook(actor_pool, 1)
    driver = Driver(actor_pool, folder, SimulationConfig(), RunWatch(num_users=1), flow)  # type: ignore[arg-type]
    tasks = iter([UserTask(user_index=1, user_id="1", history=(1,))])
    running = asyncio.create_task(_drive(driver, tasks, flow, folder, Usage()))
    await actor_pool.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return actor_pool.num_replies


async def test_what_a_stopped_session_spent_is_booked_once_also_after_its_rounds_are_told_again(tmp_path: Path):
    run = tmp_path / "run"
    folder = RunFolder.create(run, MANIFEST)
    num_replies = await stopped_session(folder)
    folder.close()
    assert num_replies == 2
    assert spent_so_far(run).prompt_tokens == 200

    folder = RunFolder.resume(run, MANIFEST)
    before = spent_so_far(run)
    memory = SharedMemory(str(folder.rounds_in_flight))
    folder.journal(await memory.drain_spend())
    journal_unfinished(folder, before=before, session=Usage())
    folder.close()
    assert spent_so_far(run).prompt_tokens == 200


async def test_a_simulation_at_rest_has_nobody_under_way():
    spec = SimulationSpec(
        surrogate=SurrogateConfig(strategy=f"{__name__}:Endless"),
        llm=LLMConfig(base_url="http://127.0.0.1:9/v1", model="none", api_key_env=""),
        tools=ServedTools(app_name="none", deployments={}, dataset_checksum="", recommenders_checksum=""),
        rank_tool=f"{__name__}:any_tool",
    )
    pool = Pool(item_ids=["", "1"], titles=["", "one"], attributes=[], values={}, domain=DomainWords())
    governor = RestartingGovernor()
    simulation = Simulation(spec, pool, local(SharedMemory()), local(governor))
    users = [
        asyncio.create_task(simulation.run_user(UserTask(user_index=u, user_id=str(u), history=(1,)), [])) for u in (1, 2, 3)
    ]
    await Endless.begun.wait()
    await simulation.rest()
    assert all(user.cancelled() for user in users)
    assert (governor.num_asked, len(governor.reports)) == (2, 1)
    await simulation.rest()  # nobody is left
    assert len(governor.reports) == 2


async def test_an_actor_out_of_step_ends_and_one_that_is_stopped_does_not(monkeypatch: pytest.MonkeyPatch):
    ended: list[int] = []
    monkeypatch.setattr(actors.os, "_exit", ended.append)
    stopped: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(60))
    stopped.cancel()
    await asyncio.wait([stopped])
    end_out_of_step(stopped)
    assert ended == []

    async def broken() -> None:
        raise ValueError("a report that nobody understands")

    task = asyncio.create_task(broken())
    await asyncio.wait([task])
    end_out_of_step(task)
    assert ended == [1]


async def silent() -> None:
    """What never answers."""
    await asyncio.Event().wait()


async def test_a_silent_governor_does_not_hold_up_the_way_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("toolrec.simulation.flow.watch.LEAVING_S", 0.01)
    actor = SimpleNamespace(snapshot=SimpleNamespace(remote=silent))
    flow = FlowWatch(actor, FlowSettings(), outage_timeout_s=60.0)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        assert await flow.last() == flow.latest
        over = asyncio.Event()
        running = asyncio.create_task(flow.run(over))  # hangs in its first look
        await asyncio.sleep(0)
        over.set()
        await running


class Muted(SharedMemory):
    """A shared memory that takes rounds and tells nothing while it `is_mute`; `answered` counts what it was asked and told."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.is_mute = asyncio.Event()
        self.asked, self.answered = asyncio.Event(), 0

    async def drain_spend(self) -> list[dict[str, Any]]:
        self.asked.set()
        while self.is_mute.is_set():
            await asyncio.sleep(0.01)
        self.answered += 1
        return await super().drain_spend()


@pytest.fixture
def driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Muted, BusyCrew, Driver, RunFolder]]:
    """A driver that asks its memory, which is mute, again and again, of a user that never ends."""
    monkeypatch.setattr("toolrec.simulation.flow.watch.LEAVING_S", 0.05)
    folder = RunFolder.create(tmp_path / "run", MANIFEST)
    memory = Muted(str(folder.rounds_in_flight))
    memory.is_mute.set()
    actor_pool = BusyCrew(memory, 1)
    config = SimulationConfig(block_interval_s=0.01)
    yield memory, actor_pool, Driver(actor_pool, folder, config, RunWatch(num_users=1)), folder  # type: ignore[arg-type]
    folder.close()


def under_way(driver: Driver) -> asyncio.Task[None]:
    """The driver at one user."""
    return asyncio.create_task(driver.run(iter([UserTask(user_index=1, user_id="1", history=(1,))])))


async def test_a_run_with_a_silent_memory_ends_and_journals_what_that_has_written(
    driven: tuple[Muted, BusyCrew, Driver, RunFolder], caplog: pytest.LogCaptureFixture
):
    memory, actor_pool, driver, folder = driven
    running = under_way(driver)
    await actor_pool.began.wait()
    await memory.asked.wait()  # the block under way hangs too
    running.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await running
        await actor_pool.reply(1)
        await driver.journal_spend()
    assert actor_pool.num_replies == 2
    assert spent_so_far(folder.path).prompt_tokens == 200
    [said] = [record.message for record in caplog.records]
    assert "no answer in 0.05 s" in said and "the rounds that it has written to in_flight.jsonl are journalled" in said


async def test_nothing_is_journalled_of_a_silent_memory_whose_file_is_lost_and_that_is_said(
    driven: tuple[Muted, BusyCrew, Driver, RunFolder], caplog: pytest.LogCaptureFixture
):
    _, _, driver, folder = driven
    folder.rounds_in_flight.unlink()
    folder.rounds_in_flight.mkdir()
    async with asyncio.timeout(20):
        await driver.journal_spend()
    assert "nothing that was spent since the last block is journalled: the rounds in flight cannot be kept" in caplog.text


async def test_a_memory_that_is_away_during_the_run_is_waited_for(
    driven: tuple[Muted, BusyCrew, Driver, RunFolder], caplog: pytest.LogCaptureFixture
):
    memory, actor_pool, driver, folder = driven
    running = under_way(driver)
    await memory.asked.wait()
    await asyncio.sleep(0.3)
    assert not running.done()
    memory.is_mute.clear()
    async with asyncio.timeout(20):
        while not memory.answered:
            await asyncio.sleep(0.01)
        await actor_pool.reply(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert spent_so_far(folder.path).prompt_tokens == 200
    assert not caplog.records
