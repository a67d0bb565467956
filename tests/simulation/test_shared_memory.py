"""The shared memory without Ray: attempts, gaps, late writes, a restart in the middle."""

from __future__ import annotations

from toolrec.records import Round, Usage
from toolrec.simulation.memory_actor import SharedMemory


def a_round(number: int) -> Round:
    usage = {"decide": Usage(num_calls=1, num_attempts=1, prompt_tokens=10 * number, completion_tokens=1)}
    return Round(number=number, thought="", call=None, observation=None, messages=(), usage=usage, counts={}, duration_s=0.0)


async def test_a_new_attempt_gets_the_rounds_of_the_earlier_one():
    memory = SharedMemory()
    assert await memory.record(7, 1, [a_round(1)]) == 1
    assert await memory.record(7, 1, [a_round(2)]) == 2
    assert [r.number for r in await memory.begin(7, 2)] == [1, 2]


async def test_late_writes_of_an_older_attempt_are_refused():
    memory = SharedMemory()
    await memory.record(7, 1, [a_round(1)])
    await memory.begin(7, 2)
    assert await memory.record(7, 1, [a_round(2)]) == SharedMemory.REFUSED
    assert [r.number for r in await memory.begin(7, 2)] == [1]


async def test_a_round_sent_twice_is_held_and_charged_once():
    memory = SharedMemory()
    await memory.record(7, 1, [a_round(1)])
    assert await memory.record(7, 1, [a_round(1)]) == 1
    assert len(await memory.drain_spend()) == 1


async def test_a_restarted_memory_says_what_is_missing_and_takes_it():
    fresh = SharedMemory()
    rounds = [a_round(1), a_round(2), a_round(3)]
    held = await fresh.record(7, 1, [rounds[2]])
    assert held == 0
    assert await fresh.record(7, 1, rounds[held:]) == 3


async def test_users_do_not_see_each_other_and_forgotten_ones_are_gone():
    memory = SharedMemory()
    await memory.record(1, 1, [a_round(1)])
    await memory.record(2, 1, [a_round(1), a_round(2)])
    await memory.forget([1])
    assert await memory.begin(1, 1) == []
    assert len(await memory.begin(2, 1)) == 2
    assert await memory.num_users() == 1


async def test_spend_is_drained_once():
    memory = SharedMemory()
    await memory.record(7, 1, [a_round(1), a_round(2)])
    assert [(e["round"], e["prompt_tokens"]) for e in await memory.drain_spend()] == [(1, 10), (2, 20)]
    assert await memory.drain_spend() == []
