"""The deadline of one user: when it cuts a block short, and what does not count."""

from __future__ import annotations

import asyncio

import pytest

from toolrec.util.deadline import Deadline, deadline, uncounted


async def test_a_block_that_hangs_is_cut_short():
    with pytest.raises(TimeoutError):
        async with deadline(0.01) as left:
            await asyncio.Event().wait()
    assert left.is_over


async def test_a_timeout_of_somebody_else_is_told_apart():
    with pytest.raises(TimeoutError):
        async with deadline(60.0) as left:
            raise TimeoutError
    assert not left.is_over


async def test_without_a_bound_nothing_ends():
    async with deadline(None) as left:
        with uncounted():
            await asyncio.sleep(0.01)
    assert left.uncounted_s >= 0.01


async def test_waiting_does_not_count_and_what_follows_does():
    with pytest.raises(TimeoutError):
        async with deadline(0.02) as left:
            with uncounted(), uncounted():
                await asyncio.sleep(0.1)
            reached = not left.is_over
            await asyncio.Event().wait()
    assert reached
    assert left.uncounted_s >= 0.1


async def test_calls_that_wait_at_the_same_time_wait_once():
    async def wait() -> None:
        with uncounted():
            await asyncio.sleep(0.05)

    loop = asyncio.get_running_loop()
    async with deadline(60.0) as left:
        began_s = loop.time()
        await asyncio.gather(wait(), wait(), wait())
        elapsed_s = loop.time() - began_s
    assert 0.05 <= left.uncounted_s <= elapsed_s


async def test_a_call_that_outlives_its_user_stops_nothing():
    proceed, is_in = asyncio.Event(), asyncio.Event()

    async def outlive() -> None:
        with uncounted():
            is_in.set()
            await proceed.wait()
        with uncounted():
            await asyncio.sleep(0)

    async with deadline(60.0) as left:
        call = asyncio.create_task(outlive())
        await is_in.wait()
    proceed.set()
    await call
    assert isinstance(left, Deadline)
    assert not left.is_over


async def test_a_user_is_cancelled_from_outside_as_ever():
    async def user() -> None:
        async with deadline(60.0):
            with uncounted():
                await asyncio.Event().wait()

    task = asyncio.create_task(user())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
