"""The driver with slow actors and a slow disk in place of the real ones: no finished user is lost on any way out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError, NodeDiedError, OutOfMemoryError

from toolrec.errors import RunStoppedError, StorageError
from toolrec.records import UserTask
from toolrec.runs.failures import FailureLog, read_failures
from toolrec.simulation.actor_pool import START_TRIES, ActorPool, nodes_for_missing_actors
from toolrec.simulation.config import SimulationConfig
from toolrec.simulation.driver import Driver
from toolrec.simulation.flow.outage import OUTAGE_USERS
from toolrec.simulation.monitor.live import RunWatch


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

    def check_in_place(self) -> None:
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
        self.ended: list[int] = []
        self.lost: set[int] = set()
        self.loss: Exception = ActorDiedError()
        self.failure_kind, self.http_status = "unavailable", 503

    async def run_user(self, task: UserTask, previous: list[Any]) -> tuple[dict[str, Any], list[Any]]:
        await asyncio.sleep(0.01 * (task.user_index % 3))
        if task.user_index in self.lost and task.attempt == 1:
            raise self.loss
        ended_by = "llm_failure" if task.user_index in self.failing else self.ended_by
        failure = {"error": "the endpoint says no", "failure_kind": self.failure_kind, "http_status": self.http_status}
        about = {"user_index": task.user_index, "user_id": task.user_id, "attempt": task.attempt, "num_rounds": 2}
        self.ended.append(task.user_index)  # nothing is awaited between here and the driver
        return {**about, "ended_by": ended_by, **failure, "counts": []}, []

    async def follow_nodes(self, over: asyncio.Event) -> None:
        await over.wait()


def drive(
    actor_pool: SlowCrew,
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
        running = asyncio.create_task(Driver(actor_pool, folder, config, watch).run(tasks))  # type: ignore[arg-type]
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
    folder, actor_pool = SlowFolder(), SlowCrew()
    with pytest.raises(asyncio.CancelledError):
        drive(actor_pool, folder, 5000, stop_after_s=stop_after_s)
    assert 0 < len(actor_pool.ended) < 5000
    assert sorted(folder.users) == sorted(actor_pool.ended)


def test_a_full_disk_stops_the_run():
    with pytest.raises((StorageError, BaseExceptionGroup)) as caught:
        drive(SlowCrew(), SlowFolder(is_full=True), 60)
    assert isinstance(first(caught.value), StorageError)


def test_a_block_that_found_the_disk_full_is_tried_once_more_on_the_way_out():
    folder, actor_pool = SlowFolder(is_full=True, stays_full=False), SlowCrew()
    with pytest.raises((StorageError, BaseExceptionGroup)) as caught:
        drive(actor_pool, folder, 60)
    assert isinstance(first(caught.value), StorageError)
    assert len(actor_pool.ended) >= 5  # the block that failed is among them
    assert sorted(folder.users) == sorted(actor_pool.ended)


def test_an_endpoint_that_fails_for_everyone_stops_the_run_and_nobody_counts():
    folder = SlowFolder()
    with pytest.raises((RunStoppedError, BaseExceptionGroup)) as caught:
        drive(SlowCrew("llm_failure"), folder, 500)
    assert "the endpoint says no" in str(first(caught.value))
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
    actor_pool = SlowCrew(failing=frozenset({4, 9}))
    actor_pool.lost = {9, 11}
    watch = drive(actor_pool, SlowFolder(), 60, failures=FailureLog(tmp_path))
    facts = watch.facts()
    assert facts.num_done == 60 and facts.num_in_flight == 0
    assert facts.ended == {"finish": 58, "llm_failure": 2}
    assert facts.faults == {"actor_lost": 2}
    written = [
        tuple(entry.get(name) for name in ("user_id", "user_index", "kind", "failure_kind", "http_status", "is_end"))
        for entry in read_failures(tmp_path)
    ]
    assert sorted(written) == [
        ("11", 11, "actor_lost", "actor_lost", None, False),
        ("4", 4, "llm_failure", "unavailable", 503, True),
        ("9", 9, "actor_lost", "actor_lost", None, False),
        ("9", 9, "llm_failure", "unavailable", 503, True),
    ]


def test_a_stopped_run_has_nobody_under_way():
    watch = RunWatch(num_users=5000)
    folder, actor_pool = SlowFolder(), SlowCrew()
    config = SimulationConfig(concurrency=8)
    tasks = [UserTask(user_index=u, user_id=str(u), history=(1,)) for u in range(1, 5001)]

    async def go() -> None:
        running = asyncio.create_task(Driver(actor_pool, folder, config, watch).run(tasks))  # type: ignore[arg-type]
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
    folder, actor_pool = SlowFolder(), SlowCrew()
    actor_pool.lost, actor_pool.loss = {30, 31}, loss
    watch = drive(actor_pool, folder, 60)
    assert sorted(folder.users) == list(range(1, 61))
    assert watch.facts().faults == {"actor_lost": 2}


def chosen(cpus: dict[str, int], at_work: dict[str, int], **how: int) -> list[str]:
    return nodes_for_missing_actors(cpus, at_work, SimulationConfig(**how))


def test_simulation_actors_are_one_a_core_and_spread_over_the_nodes():
    assert chosen({"a": 2, "b": 4, "head": 0}, {}) == ["a", "b", "b", "a", "b", "b"]
    assert chosen({"a": 2, "b": 2}, {}, concurrency=3) == ["a", "b", "a"]
    assert chosen({"a": 2, "b": 2}, {}, num_actors=3) == ["a", "b", "a"]
    assert chosen({"a": 1}, {}, num_actors=3) == ["a", "a", "a"]
    assert chosen({"head": 0}, {}) == []


def test_a_node_that_joins_gets_actors_and_a_lost_one_is_made_up_for():
    assert chosen({"a": 2, "new": 2}, {"a": 2}) == ["new", "new"]
    assert chosen({"a": 2, "new": 2}, {"a": 2}, concurrency=3) == ["new"]
    assert chosen({"a": 2, "new": 2}, {"a": 2}, num_actors=2) == []
    assert chosen({"b": 2}, {"b": 1}, num_actors=2) == ["b"]
    assert chosen({"a": 2}, {"a": 2, "b": 2}) == [], "a node that is only left alone for a while counts on"


class Starting:
    """A simulation actor that starts, or meets `error`."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.ready = self

    async def remote(self) -> bool:
        if self.error is not None:
            raise self.error
        return True


@pytest.mark.parametrize(
    ("errors", "num_tries", "is_barred"),
    [
        ([], 1, False),
        ([ActorUnschedulableError("its process was killed")], 2, False),
        ([ActorUnschedulableError("its process was killed")] * START_TRIES, START_TRIES, True),
        ([TimeoutError()], 1, True),
    ],
)
async def test_a_node_on_which_no_actor_starts_is_left_alone_for_a_while(
    errors: list[Exception], num_tries: int, is_barred: bool
):
    tried: list[Exception | None] = []

    def start_on(node: str) -> Starting:
        tried.append(errors[len(tried)] if len(tried) < len(errors) else None)
        return Starting(tried[-1])

    actor_pool = ActorPool.__new__(ActorPool)
    actor_pool._config = SimulationConfig(concurrency=1)
    actor_pool._specs, actor_pool._preparing = {"a": None}, asyncio.Lock()  # type: ignore[dict-item]
    actor_pool._starting, actor_pool._node_of, actor_pool._in_flight = {}, {}, {}
    actor_pool._failed_starts, actor_pool._barred_until_s = Counter(), {}
    actor_pool._is_one_missing, actor_pool._without_actors_since_s = False, None
    actor_pool._simulation_on = start_on  # type: ignore[assignment,method-assign]
    actor_pool._nodes = lambda: {"a": 1}
    over = asyncio.Event()
    following = asyncio.create_task(actor_pool.follow_nodes(over))
    for _ in range(500):
        await asyncio.sleep(0.01)
        if actor_pool._in_flight or actor_pool._barred_until_s:
            break
    over.set()
    await following
    assert len(tried) == num_tries
    assert list(actor_pool._in_flight.values()) == ([] if is_barred else [0])
    assert ("a" in actor_pool._barred_until_s) == is_barred


@pytest.mark.parametrize("failure_kind", ["messages_refused", "context_too_long"])
def test_users_whose_messages_alone_are_refused_are_failed_users_and_a_resumed_run_of_them_ends(failure_kind: str):
    for num_users in (2, 2 * OUTAGE_USERS):
        folder, actor_pool = SlowFolder(), SlowCrew("llm_failure")
        actor_pool.failure_kind = failure_kind
        drive(actor_pool, folder, num_users)
        assert sorted(folder.users) == list(range(1, num_users + 1))
