"""The driver with slow actors and a slow disk in place of the real ones: no finished user is lost on any way out."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError, NodeDiedError, OutOfMemoryError

from toolrec.errors import RunStoppedError, StorageError
from toolrec.records import UserTask
from toolrec.simulation import crew as crew_module
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.crew import Crew
from toolrec.simulation.driver import Driver
from toolrec.simulation.failures import FailureLog, read_failures
from toolrec.simulation.held_users import OUTAGE_USERS
from toolrec.simulation.live import RunWatch


class SlowFolder:
    """Takes its time to commit, and notices blocks that overlap."""

    def __init__(self, *, is_full: bool = False, stays_full: bool = True) -> None:
        self.users: list[int] = []
        self.is_full, self.stays_full = is_full, stays_full
        self._busy = False

    def commit(self, user_rows: list[dict[str, Any]], round_rows: list[dict[str, Any]]) -> None:
        assert not self._busy, "two blocks at the same time"
        self._busy = True
        time.sleep(0.05)
        self._busy = False
        if self.is_full:
            self.is_full = self.stays_full
            raise StorageError("no space left on the disk")
        self.users += [row["user_index"] for row in user_rows]

    def journal(self, entries: list[dict[str, Any]]) -> None:
        pass


class Remote:
    """A method of an actor that answers after a moment."""

    def __init__(self, value: Any, wait_s: float) -> None:
        self.value, self.wait_s = value, wait_s

    async def remote(self, *_: Any) -> Any:
        await asyncio.sleep(self.wait_s)
        return self.value


class SlowCrew:
    """Users end after a moment, as `ended_by` says of each."""

    def __init__(self, ended_by: str = "finish", failing: frozenset[int] = frozenset()) -> None:
        self.memory = SimpleNamespace(drain_spend=Remote([], 0.03), forget=Remote(None, 0.03), begin=Remote([], 0.0))
        self.ended_by, self.failing = ended_by, failing
        self.lost: set[int] = set()
        self.loss: Exception = ActorDiedError()
        self.error = "LLMRefusedError: 401"

    async def run_user(self, task: UserTask, previous: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        await asyncio.sleep(0.01 * (task.user_index % 3))
        if task.user_index in self.lost and task.attempt == 1:
            raise self.loss
        ended_by = "llm_failure" if task.user_index in self.failing else self.ended_by
        error = self.error
        about = {"user_index": task.user_index, "user_id": task.user_id, "attempt": task.attempt, "num_rounds": 2}
        return {**about, "ended_by": ended_by, "error": error, "counts": []}, []


def drive(
    crew: SlowCrew,
    folder: SlowFolder,
    num_users: int,
    *,
    stop_after_s: float | None = None,
    failures: FailureLog | None = None,
) -> RunWatch:
    config = SimulationConfig(concurrency=8, block_users=5, block_interval_s=0.05)
    tasks = [UserTask(user_index=u, user_id=str(u), history=(1,)) for u in range(1, num_users + 1)]

    watch = RunWatch(num_users=num_users, failures=failures)

    async def go() -> None:
        running = asyncio.create_task(Driver(crew, folder, config, watch).run(tasks))  # type: ignore[arg-type]
        if stop_after_s is not None:
            await asyncio.sleep(stop_after_s)
            running.cancel()
        await running

    asyncio.run(go())
    return watch


def first(error: BaseException) -> BaseException:
    """The first error of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@pytest.mark.parametrize("repeat", range(5))
def test_every_user_is_committed_once(repeat: int):
    folder = SlowFolder()
    drive(SlowCrew(), folder, 60 + repeat)
    assert sorted(folder.users) == list(range(1, 61 + repeat))


@pytest.mark.parametrize("stop_after_s", [0.08, 0.11, 0.14, 0.17])
def test_a_cancelled_run_keeps_every_finished_user_once(stop_after_s: float):
    folder = SlowFolder()
    with pytest.raises(asyncio.CancelledError):
        drive(SlowCrew(), folder, 5000, stop_after_s=stop_after_s)
    assert len(set(folder.users)) == len(folder.users) > 0


def test_a_full_disk_stops_the_run():
    with pytest.raises((StorageError, BaseExceptionGroup)) as caught:
        drive(SlowCrew(), SlowFolder(is_full=True), 60)
    assert isinstance(first(caught.value), StorageError)


def test_a_block_that_found_the_disk_full_is_tried_once_more_on_the_way_out():
    folder = SlowFolder(is_full=True, stays_full=False)
    with pytest.raises((StorageError, BaseExceptionGroup)) as caught:
        drive(SlowCrew(), folder, 60)
    assert isinstance(first(caught.value), StorageError)
    assert len(set(folder.users)) == len(folder.users) >= 5  # the block that failed is among them


def test_an_endpoint_that_fails_for_everyone_stops_the_run_and_nobody_counts():
    folder = SlowFolder()
    with pytest.raises((RunStoppedError, BaseExceptionGroup)) as caught:
        drive(SlowCrew("llm_failure"), folder, 500)
    assert "401" in str(first(caught.value))
    assert folder.users == []


def test_a_last_user_that_fails_is_a_failed_user():
    folder = SlowFolder()
    drive(SlowCrew(failing=frozenset({59, 60})), folder, 60)
    assert sorted(folder.users) == list(range(1, 61))


def test_a_handful_of_users_that_all_fail_is_an_outage_too():
    folder = SlowFolder()
    with pytest.raises(RunStoppedError, match="for 3 users in a row"):
        drive(SlowCrew("llm_failure"), folder, 3)
    assert folder.users == []


def test_single_failures_of_the_endpoint_count_as_failed_users():
    folder = SlowFolder()
    drive(SlowCrew(failing=frozenset(range(1, OUTAGE_USERS - 2))), folder, 60)
    assert sorted(folder.users) == list(range(1, 61))


def test_the_watch_counts_every_user_once_and_writes_each_failure(tmp_path: Path):
    crew = SlowCrew(failing=frozenset({4, 9}))
    crew.lost = {9, 11}
    watch = drive(crew, SlowFolder(), 60, failures=FailureLog(tmp_path))
    facts = watch.facts()
    assert facts.num_done == 60 and facts.num_in_flight == 0
    assert facts.ended == {"finish": 58, "llm_failure": 2}
    assert facts.faults == {"actor_lost": 2}
    written = [
        tuple(entry.get(name) for name in ("user_id", "user_index", "kind", "attempt", "round", "is_end"))
        for entry in read_failures(tmp_path)
    ]
    assert sorted(written) == [
        ("11", 11, "actor_lost", 1, None, False),
        ("4", 4, "llm_failure", 1, 2, True),
        ("9", 9, "actor_lost", 1, None, False),
        ("9", 9, "llm_failure", 2, 2, True),
    ]


def test_a_stopped_run_has_nobody_under_way():
    watch = RunWatch(num_users=5000)
    folder, crew = SlowFolder(), SlowCrew()
    config = SimulationConfig(concurrency=8)
    tasks = [UserTask(user_index=u, user_id=str(u), history=(1,)) for u in range(1, 5001)]

    async def go() -> None:
        running = asyncio.create_task(Driver(crew, folder, config, watch).run(tasks))  # type: ignore[arg-type]
        while watch.facts().num_done < 20:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(go())
    assert watch.facts().num_in_flight == 0
    assert watch.facts().num_done == len(folder.users)


@pytest.mark.parametrize(
    "loss", [OutOfMemoryError("by the memory monitor"), ActorUnschedulableError("gone"), NodeDiedError("gone")]
)
def test_an_actor_that_is_lost_in_any_way_costs_an_attempt_and_not_the_run(loss: Exception):
    folder, crew = SlowFolder(), SlowCrew()
    crew.lost, crew.loss = {30, 31}, loss
    watch = drive(crew, folder, 60)
    assert sorted(folder.users) == list(range(1, 61))
    assert watch.facts().faults == {"actor_lost": 2}


class Starting:
    """A simulation actor that starts, or meets `error`."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.ready = self

    async def remote(self) -> bool:
        if self.error is not None:
            raise self.error
        return True


async def test_an_actor_of_a_node_that_is_gone_is_replaced_on_another(monkeypatch: pytest.MonkeyPatch):
    alive = {"a": True, "b": True, "c": True}
    monkeypatch.setattr(crew_module.ray, "nodes", lambda: [{"NodeID": node, "Alive": up} for node, up in alive.items()])
    tried: list[str] = []

    def start_on(node: str) -> Starting:
        tried.append(node)
        if node != "a":
            return Starting(None)
        alive["a"] = False  # Ray notices it with this one
        return Starting(ActorUnschedulableError("the node is gone"))

    crew = Crew.__new__(Crew)
    crew._specs = dict.fromkeys(alive)  # type: ignore[arg-type]
    crew._node_of, crew._in_flight = {Starting(None): "b"}, {}  # type: ignore[dict-item]
    crew._simulation_on = start_on  # type: ignore[assignment,method-assign]
    await crew._replace("a")
    assert tried == ["a", "c"]
    assert list(crew._node_of.values()) == ["b", "c"]
    assert list(crew._in_flight.values()) == [0]


@pytest.mark.parametrize("error", ["MessagesRefusedError: the content filter", "ContextTooLongError: the messages do not fit"])
def test_users_whose_messages_alone_are_refused_are_failed_users_and_a_resumed_run_of_them_ends(error: str):
    for num_users in (2, 2 * OUTAGE_USERS):
        folder, crew = SlowFolder(), SlowCrew("llm_failure")
        crew.error = error
        drive(crew, folder, num_users)
        assert sorted(folder.users) == list(range(1, num_users + 1))
