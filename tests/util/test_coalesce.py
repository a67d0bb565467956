"""Requests that travel together: what goes alone, what waits, what an error or a cancellation does to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from toolrec.util.coalesce import Coalescer


class Receiver:
    """Doubles numbers; a batch is answered when the test lets it."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.gate.wait()
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * number for number in numbers]


async def until(receiver: Receiver, num_batches: int) -> None:
    while len(receiver.batches) < num_batches:
        await asyncio.sleep(0)


async def test_a_lone_request_goes_at_once():
    receiver = Receiver()
    assert await Coalescer(receiver, max_batch=4)(3) == 6
    assert receiver.batches == [[3]]


async def test_those_that_ask_together_go_together_and_each_gets_its_own_answer():
    receiver = Receiver()
    ask = Coalescer(receiver, max_batch=100)
    assert await asyncio.gather(*(ask(n) for n in range(10))) == [2 * n for n in range(10)]
    assert receiver.batches == [list(range(10))]


async def test_what_comes_while_one_batch_is_under_way_makes_the_next():
    receiver = Receiver(is_open=False)
    ask = Coalescer(receiver, max_batch=100)
    first = asyncio.create_task(ask(1))
    await until(receiver, 1)
    later = [asyncio.create_task(ask(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0)
    assert receiver.batches == [[1]]
    receiver.gate.set()
    assert await first == 2
    assert await asyncio.gather(*later) == [4, 6, 8]
    assert receiver.batches == [[1], [2, 3, 4]]


async def test_a_request_waits_for_company_as_long_as_it_may():
    receiver = Receiver()
    ask = Coalescer(receiver, max_batch=100, gather_s=lambda: 0.5)
    first = asyncio.create_task(ask(1))
    for _ in range(20):  # turns of the event loop
        await asyncio.sleep(0)
    assert receiver.batches == []
    assert await asyncio.gather(first, ask(2)) == [2, 4]
    assert receiver.batches == [[1, 2]]


async def test_a_full_batch_waits_for_nobody():
    receiver = Receiver()
    ask = Coalescer(receiver, max_batch=2, gather_s=lambda: 60.0)
    async with asyncio.timeout(5.0):
        assert await asyncio.gather(ask(1), ask(2)) == [2, 4]


async def test_those_who_waited_for_a_batch_under_way_have_waited_enough():
    receiver = Receiver(is_open=False)
    wait_s = [0.0]
    ask = Coalescer(receiver, max_batch=100, gather_s=lambda: wait_s[0])
    first = asyncio.create_task(ask(1))
    await until(receiver, 1)
    wait_s[0] = 0.02
    second = asyncio.create_task(ask(2))
    await asyncio.sleep(0.03)
    assert receiver.batches == [[1]]
    receiver.gate.set()
    await first
    for _ in range(20):  # turns of the event loop, not another wait
        await asyncio.sleep(0)
    assert receiver.batches == [[1], [2]]
    assert await second == 4


async def test_full_batches_go_out_beside_one_another():
    receiver = Receiver(is_open=False)
    ask = Coalescer(receiver, max_batch=2)
    waiting = [asyncio.create_task(ask(n)) for n in range(5)]
    await until(receiver, 2)
    assert receiver.batches == [[0, 1], [2, 3]]
    receiver.gate.set()
    assert await asyncio.gather(*waiting) == [0, 2, 4, 6, 8]


async def test_a_request_that_cannot_be_answered_fails_alone():
    receiver = Receiver()
    ask = Coalescer(receiver, max_batch=100)
    answers = await asyncio.gather(*(ask(n) for n in (12, 13, 14)), return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (24, ValueError, 28)
    assert receiver.batches == [[12, 13, 14], [12], [13], [14]]


async def test_a_batch_that_is_never_answered_holds_nobody_back_for_long():
    receiver = Receiver(is_open=False)
    ask = Coalescer(receiver, max_batch=100, hold_s=0.01)
    stuck = asyncio.create_task(ask(1))
    await until(receiver, 1)
    receiver.gate = asyncio.Event()
    receiver.gate.set()  # for what comes now; the first batch waits on
    async with asyncio.timeout(20):
        assert await asyncio.gather(*(ask(n) for n in (2, 3))) == [4, 6]
    assert not stuck.done()
    stuck.cancel()


async def test_a_caller_that_gives_up_takes_nobody_with_it():
    receiver = Receiver(is_open=False)
    ask = Coalescer(receiver, max_batch=100)
    one, other = asyncio.create_task(ask(1)), asyncio.create_task(ask(2))
    await until(receiver, 1)
    one.cancel()
    receiver.gate.set()
    assert await other == 4
    with pytest.raises(asyncio.CancelledError):
        await one
