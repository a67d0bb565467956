"""The shared memory without Ray: attempts, gaps, late writes, a restart in the middle, its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolrec.errors import FailureKind, StorageError
from toolrec.records import Observation, RankedItem, Round, ToolCall, Usage
from toolrec.runs.round_codec import decode_round, encode_round
from toolrec.simulation.memory import actor as memory_actor
from toolrec.simulation.memory.actor import REWRITE_BYTES, HeldRound, SharedMemory, held_round, spend_in_flight

RETRIEVE = ToolCall(name="retrieve", attribute="genre", k=5)


def a_round(number: int, *, call: ToolCall | None = RETRIEVE) -> Round:
    usage = {"decide": Usage(num_calls=1, num_attempts=1, prompt_tokens=10 * number, completion_tokens=1)}
    return Round(number=number, thought="", call=call, observation=None, messages=(), usage=usage, counts={}, duration_s=0.0)


def sent(user_index: int, attempt: int, *numbers: int) -> list[HeldRound]:
    return [held_round(user_index, attempt, a_round(number)) for number in numbers]


async def numbers_of(memory: SharedMemory, user_index: int, attempt: int) -> list[int]:
    return [decode_round(line).number for line in await memory.begin(user_index, attempt)]


async def test_a_new_attempt_gets_the_rounds_of_the_earlier_one():
    memory = SharedMemory()
    assert await memory.record(sent(7, 1, 1)) == [1]
    assert await memory.record(sent(7, 1, 2)) == [2]
    assert await numbers_of(memory, 7, 2) == [1, 2]


async def test_one_message_carries_rounds_of_many_users():
    memory = SharedMemory()
    assert await memory.record([*sent(7, 1, 1, 2), *sent(8, 1, 1), *sent(9, 1, 3)]) == [1, 2, 1, 0]


async def test_late_writes_of_an_older_attempt_are_refused():
    memory = SharedMemory()
    await memory.record(sent(7, 1, 1))
    await memory.begin(7, 2)
    assert await memory.record(sent(7, 1, 2)) == [SharedMemory.REFUSED]
    assert await numbers_of(memory, 7, 2) == [1]


async def test_a_round_sent_twice_is_held_and_charged_once():
    memory = SharedMemory()
    await memory.record(sent(7, 1, 1))
    assert await memory.record(sent(7, 1, 1)) == [1]
    assert len(await memory.drain_spend()) == 1


async def test_a_round_that_came_to_nothing_is_charged_but_nobody_goes_on_after_it():
    memory = SharedMemory()
    failed = held_round(7, 1, a_round(2, call=None))
    assert await memory.record([*sent(7, 1, 1), failed]) == [1, 2]
    assert len(await memory.drain_spend()) == 2
    assert await numbers_of(memory, 7, 2) == [1]


async def test_a_memory_that_began_anew_says_what_is_missing_and_takes_it():
    fresh = SharedMemory()
    rounds = sent(7, 1, 1, 2, 3)
    [held] = await fresh.record([rounds[2]])
    assert held == 0
    assert (await fresh.record(rounds[held:]))[-1] == 3


async def test_users_do_not_see_each_other_and_forgotten_ones_are_gone():
    memory = SharedMemory()
    await memory.record([*sent(1, 1, 1), *sent(2, 1, 1, 2)])
    await memory.forget([1])
    assert await memory.begin(1, 1) == []
    assert await numbers_of(memory, 2, 1) == [1, 2]
    assert await memory.num_users() == 1


async def test_spend_is_drained_once_and_says_for_which_tool_it_was():
    memory = SharedMemory()
    await memory.record(sent(7, 1, 1, 2))
    spend = [(e["round"], e["tool"], e["prompt_tokens"]) for e in await memory.drain_spend()]
    assert spend == [(1, "Retrieve[genre]", 10), (2, "Retrieve[genre]", 20)]
    assert await memory.drain_spend() == []


async def test_a_restart_reads_what_was_written_and_still_refuses_older_attempts(tmp_path: Path):
    path = str(tmp_path / "rounds.jsonl")
    first = SharedMemory(path)
    await first.record([*sent(1, 1, 1), *sent(2, 1, 1, 2), *sent(3, 1, 1)])
    await first.begin(2, 2)
    await first.record(sent(2, 2, 3))
    await first.forget([3])
    for _ in range(2):  # a restart writes the file anew: the next one reads the same
        again = SharedMemory(path)
        assert await again.num_users() == 2
        spend = {(e["user_index"], e["attempt"], e["round"]) for e in await again.drain_spend()}
        assert spend >= {(1, 1, 1), (2, 1, 1), (2, 1, 2), (2, 2, 3)}
        assert await again.record(sent(2, 1, 4)) == [SharedMemory.REFUSED]
    assert await numbers_of(again, 1, 2) == [1]
    assert await numbers_of(again, 2, 3) == [1, 2, 3]
    assert await again.begin(3, 1) == []


async def test_what_a_round_without_an_action_cost_outlives_every_restart_until_it_is_told(tmp_path: Path):
    path = str(tmp_path / "rounds.jsonl")
    first = SharedMemory(path)
    await first.record([*sent(7, 1, 1), held_round(7, 1, a_round(2, call=None))])
    for _ in range(3):
        again = SharedMemory(path)
        assert await numbers_of(again, 7, 1) == [1]
    assert [e["round"] for e in await again.drain_spend()] == [1, 2]


async def test_nobody_goes_on_after_a_gap(tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    await SharedMemory(str(path)).record(sent(1, 1, 1, 2, 3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:30] + lines[2])
    assert await numbers_of(SharedMemory(str(path)), 1, 2) == [1]


async def test_a_full_disk_leaves_what_is_held_in_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    monkeypatch.setattr(memory_actor, "REWRITE_BYTES", 0)
    memory = SharedMemory(str(tmp_path / "rounds.jsonl"))
    await memory.record([*sent(1, 1, 1), *sent(2, 1, 1)])

    def full(path: Path) -> None:
        raise StorageError("no space left", value=str(path))

    monkeypatch.setattr(memory_actor, "atomic_file", full)
    await memory.forget([1])
    assert "no longer written" in caplog.text
    assert await memory.record(sent(2, 1, 2)) == [2]
    assert await numbers_of(memory, 2, 2) == [1, 2]


async def test_a_memory_whose_file_cannot_be_used_says_so_at_every_call(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder", tmp_path / "file" / "rounds.jsonl"):
        memory = SharedMemory(str(path))
        for call in (memory.ready(), memory.begin(1, 2), memory.record(sent(1, 1, 1)), memory.drain_spend()):
            with pytest.raises(StorageError, match="the rounds in flight cannot be kept") as caught:
                await call
            assert str(path) in str(caught.value)
    with pytest.raises(StorageError, match="Is a directory"):
        spend_in_flight(tmp_path / "folder")


async def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    await SharedMemory(str(path)).record(sent(1, 1, 1, 2))
    path.write_bytes(path.read_bytes()[:-20])
    again = SharedMemory(str(path))
    assert await numbers_of(again, 1, 1) == [1]
    assert await again.record(sent(1, 1, 2)) == [2]
    assert await numbers_of(SharedMemory(str(path)), 1, 2) == [1, 2]


async def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_actor, "REWRITE_BYTES", 2_000)
    path = tmp_path / "rounds.jsonl"
    memory = SharedMemory(str(path))
    await memory.record(sent(999, 1, 1))
    for user_index in range(1, 200):
        await memory.record(sent(user_index, 1, 1, 2))
        await memory.forget([user_index])
    assert path.stat().st_size < 4_000
    assert await numbers_of(SharedMemory(str(path)), 999, 2) == [1]


async def test_the_file_of_a_thousand_users_stays_within_its_bound(tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    memory = SharedMemory(str(path))
    number_of_rounds, in_flight, block = 4, 64, 32
    rounds = [held_round(0, 1, replace(a_round(number), thought="x" * 3_400)) for number in range(1, number_of_rounds + 1)]
    user_bytes = sum(len(done.line) for done in rounds)
    largest = 0
    for user_index in range(1, 1001):
        await memory.record([done._replace(user_index=user_index) for done in rounds])
        largest = max(largest, path.stat().st_size)
        if user_index > in_flight and user_index % block == 0:
            await memory.forget(range(user_index - in_flight - block, user_index - in_flight))
    held_bytes = user_bytes * (in_flight + block)
    assert largest < REWRITE_BYTES + 2 * held_bytes + 2 * block * user_bytes < 1000 * user_bytes


texts = st.text(max_size=20)
usages = st.dictionaries(texts, st.builds(Usage, num_calls=st.integers(0, 9), prompt_tokens=st.integers(0, 10**9)), max_size=2)
counts = st.dictionaries(texts, st.integers(0, 99), max_size=2)
calls = st.builds(
    ToolCall,
    name=st.sampled_from(["retrieve", "rank", "finish"]),
    attribute=st.none() | texts,
    k=st.none() | st.integers(1, 50),
    items=st.lists(texts, max_size=3).map(tuple),
    call_id=texts,
)
ranked = st.builds(RankedItem, item_index=st.integers(1, 10**6), score=st.floats(allow_nan=False, allow_infinity=False))
observations = st.builds(
    Observation,
    text=texts,
    items=st.lists(ranked, max_size=3).map(tuple),
    mark=texts,
    error=st.none() | texts,
    failure_kind=st.none() | st.sampled_from(get_args(FailureKind)),
    http_status=st.none() | st.integers(100, 599),
    is_repeat=st.booleans(),
    usage=usages,
    counts=counts,
)
rounds = st.builds(
    Round,
    number=st.integers(1, 99),
    thought=texts,
    call=st.none() | calls,
    observation=st.none() | observations,
    messages=st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), max_size=3).map(tuple),
    usage=usages,
    counts=counts,
    duration_s=st.floats(0, 1e6),
)


@given(rounds)
def test_a_round_comes_back_as_it_was_in_one_line(done: Round):
    line = encode_round(done)
    assert b"\n" not in line
    assert decode_round(line) == done


def test_a_round_of_before_a_field_was_added_to_the_usage_is_read():
    line = json.loads(encode_round(a_round(3)))
    line["usage"]["decide"].pop()
    assert decode_round(json.dumps(line).encode()) == a_round(3)


def test_a_round_of_before_observations_had_a_failure_kind_is_read():
    done = replace(a_round(3), observation=Observation(text="1. <a> A", mark="Retrieve[genre]"))
    line = json.loads(encode_round(done))
    del line["observation"]["failure_kind"], line["observation"]["http_status"]
    assert decode_round(json.dumps(line).encode()) == done


def test_what_no_encoding_can_hold_comes_back_too():
    assert decode_round(encode_round(a_round(1, call=ToolCall(name="finish", items=("\ud800",))))).call.items == ("\ud800",)
