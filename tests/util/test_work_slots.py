"""WorkSlots: who works when, and what a task that hangs, ends or is cancelled does to the others."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from toolrec.util.deadline import deadline
from toolrec.util.work_slots import WorkSlots, away


class Log:
    """Tasks that work in two steps, with an answer to wait for in between."""

    def __init__(self, slots: WorkSlots) -> None:
        self.slots = slots
        self.steps: list[str] = []
        self.answer = asyncio.Event()

    async def task(self, name: str) -> None:
        async with self.slots.taken():
            self.steps.append(f"{name} begins")
            await asyncio.sleep(0)
            self.steps.append(f"{name} asks")
            async with away():
                await self.answer.wait()
            self.steps.append(f"{name} reads")
            await asyncio.sleep(0)
            self.steps.append(f"{name} ends")


async def test_each_gets_through_before_the_next_begins():
    log = Log(WorkSlots(1))
    log.answer.set()
    await asyncio.gather(*(log.task(name) for name in "ab"))
    assert log.steps == [f"{name} {step}" for pair in (("begins", "asks"), ("reads", "ends")) for name in "ab" for step in pair]


async def test_who_waits_for_an_answer_leaves_the_turn_to_others():
    log = Log(WorkSlots(1))
    tasks = [asyncio.create_task(log.task(name)) for name in "abc"]
    async with asyncio.timeout(10.0):
        while len(log.steps) < 6:
            await asyncio.sleep(0)
    assert log.steps == [f"{name} {step}" for name in "abc" for step in ("begins", "asks")]
    log.answer.set()
    await asyncio.gather(*tasks)
    assert log.steps[6:] == [f"{name} {step}" for name in "abc" for step in ("reads", "ends")]


async def test_as_many_work_at_once_as_there_are_slots():
    slots, at_work, most = WorkSlots(3), 0, 0

    async def work() -> None:
        nonlocal at_work, most
        async with slots.taken():
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0.001)
            at_work -= 1

    await asyncio.gather(*(work() for _ in range(10)))
    assert most == 3


async def test_one_that_hangs_makes_room():
    slots, never = WorkSlots(1, hold_s=0.02), asyncio.Event()

    async def hang() -> None:
        async with slots.taken():
            await never.wait()

    stuck = asyncio.create_task(hang())
    await asyncio.sleep(0)
    async with asyncio.timeout(5.0), slots.taken():
        assert not stuck.done()
    never.set()
    await stuck
    assert await _free_of(slots) == 1  # its slot was given back once


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_an_error_gives_the_turn_back(error: type[BaseException]):
    slots = WorkSlots(1)
    with pytest.raises(error):
        async with slots.taken(), away():
            raise error
    with pytest.raises(error):
        async with slots.taken():
            raise error
    assert await _free_of(slots) == 1


async def test_one_that_is_cancelled_waits_for_no_turn():
    slots, log = WorkSlots(1), []

    async def work() -> None:
        async with slots.taken():
            try:
                async with away():
                    log.append("asks")
                    await asyncio.Event().wait()
            finally:
                log.append("is gone")

    async with slots.taken():
        async with away():
            cancelled = asyncio.create_task(work())
            await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert log == ["asks", "is gone"]
    assert await _free_of(slots) == 1


async def test_one_that_is_cancelled_in_the_queue_takes_no_turn():
    slots = WorkSlots(1)

    async def work() -> None:
        async with slots.taken():
            raise AssertionError("it had a slot")

    async with slots.taken():
        waiting = asyncio.create_task(work())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await _free_of(slots) == 1


async def test_several_calls_of_one_task_are_away_together():
    slots, answers = WorkSlots(1), [asyncio.Event(), asyncio.Event()]

    async def ask(answer: asyncio.Event) -> None:
        async with away():
            await answer.wait()

    async with slots.taken():
        asking = [asyncio.create_task(ask(answer)) for answer in answers]
        await asyncio.sleep(0)
        assert await _free_of(slots) == 1
        answers[0].set()
        await asyncio.sleep(0)
        assert await _free_of(slots) == 1  # one still waits
        answers[1].set()
        await asyncio.gather(*asking)
        assert await _free_of(slots) == 0
    assert await _free_of(slots) == 1


async def test_a_call_that_comes_back_to_a_turn_that_another_holds_waits_for_nobody():
    slots = WorkSlots(1, hold_s=60.0)
    first, second = asyncio.Event(), asyncio.Event()

    async def ask(answer: asyncio.Event) -> None:
        async with away():
            await answer.wait()

    async with slots.taken():
        one = asyncio.create_task(ask(first))
        await asyncio.sleep(0)
        first.set()
        await one
        two = asyncio.create_task(ask(second))
        three = asyncio.create_task(ask(second))
        await asyncio.sleep(0)
        second.set()
        async with asyncio.timeout(10.0):
            await asyncio.gather(two, three)


async def test_without_slots_nobody_is_away():
    async with away():
        pass


async def test_waiting_for_a_turn_is_not_held_against_a_user():
    slots = WorkSlots(1, hold_s=60.0)

    async def work() -> float:
        async with deadline(0.02) as left, slots.taken():
            pass
        return left.uncounted_s

    async with slots.taken():
        waiting = asyncio.create_task(work())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting > 0.0


async def _free_of(slots: WorkSlots) -> int:
    """WorkSlots that can be taken now."""
    taken = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            async with contextlib.AsyncExitStack() as stack:
                while True:
                    await stack.enter_async_context(slots.taken())
                    taken += 1
    return taken
