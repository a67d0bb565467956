"""What robustness experiments spoil: replies between the endpoint and the surrogate, and histories."""

from __future__ import annotations

import json
from collections import Counter
from types import MappingProxyType

import numpy as np
import pytest

from toolrec.data import Dataset
from toolrec.llm.scripted import ScriptedLLM
from toolrec.memory import Memory, PoolDirectory
from toolrec.records import Completion, LLMToolCall
from toolrec.stress.config import StressSettings
from toolrec.stress.histories import LONG_ITEMS, SHORT_ITEMS, with_hard_histories
from toolrec.stress.replies import SpoilingLLM, other_form, with_faults

FAULTS = ("typo", "synonym", "swap", "invented")
ASK = [{"role": "user", "content": "rank these"}]
NATIVE = MappingProxyType({"tools": [{"type": "function"}]})


def spoiling(demo: Dataset, reply: Completion | str, *, fault: str, share: float = 1.0, is_checked: bool = True) -> SpoilingLLM:
    stress = StressSettings(reply_fault=fault, reply_fault_share=share)
    return SpoilingLLM(ScriptedLLM(lambda _: reply), demo.pool, stress, is_checked=is_checked)


def finish_call(items: list[str]) -> Completion:
    return Completion(text="", tool_calls=(LLMToolCall(id="c1", name="finish", arguments=json.dumps({"items": items})),))


async def entries_of(llm: SpoilingLLM) -> tuple[list[str], Counter[str]]:
    reply = await llm.complete(ASK, **NATIVE)
    return json.loads(reply.tool_calls[0].arguments)["items"], Counter(reply.counts)


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_entry_of_a_finish_is_replaced_at_a_share_of_one(demo: Dataset, fault: str):
    ids = demo.pool.item_ids[1:11]
    entries, counts = await entries_of(spoiling(demo, finish_call(ids), fault=fault))
    assert all(entry not in ids for entry in entries)
    assert counts["injected"] == len(ids)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_same_conversation_meets_the_same_faults(demo: Dataset, fault: str):
    reply = finish_call(demo.pool.item_ids[1:11])
    first, again = [await entries_of(spoiling(demo, reply, fault=fault, share=0.5)) for _ in range(2)]
    assert first == again
    assert 0 < first[1]["injected"] < 10


async def test_a_call_that_gives_no_list_stays_as_it_is(demo: Dataset):
    call = LLMToolCall(id="c1", name="retrieve", arguments='{"attribute": "genre", "k": 20}')
    said = f"I think of <{demo.pool.item_ids[1]}>"
    reply = await spoiling(demo, Completion(text=said, tool_calls=(call,)), fault="invented").complete(ASK, **NATIVE)
    assert reply.tool_calls == (call,)
    assert reply.text == said
    assert reply.counts == {}


async def test_lines_of_a_ranking_and_a_written_finish_are_lists(demo: Dataset):
    ids = demo.pool.item_ids[1:4]
    ranking = await spoiling(demo, "\n".join(f"<{i}>" for i in ids), fault="invented").complete(ASK)
    assert ranking.counts["injected"] == len(ids)
    text = f"Thought 1: <{ids[0]}> it is\nAction 1: Finish[<{ids[0]}>, <{ids[1]}>]"
    written = await spoiling(demo, text, fault="invented").complete(ASK, stop=["\nObservation"])
    assert written.counts["injected"] == 2
    assert written.text.startswith(f"Thought 1: <{ids[0]}> it is")


@pytest.mark.parametrize("is_checked", [True, False])
async def test_no_invented_entry_is_taken_for_an_item(demo: Dataset, is_checked: bool):
    llm = spoiling(demo, finish_call(demo.pool.item_ids[1:]), fault="invented", is_checked=is_checked)
    entries, counts = await entries_of(llm)
    memory = Memory(PoolDirectory.of(demo.pool), [], is_checked=is_checked)
    assert set(memory.check_entries(entries, length=len(entries)).items) == {0}
    assert counts["injected"] == demo.num_items
    assert counts["injected_wrong"] == 0


async def test_memory_repairs_titles_and_refuses_swaps(demo: Dataset):
    ids = demo.pool.item_ids[1:]
    memory = Memory(PoolDirectory.of(demo.pool), [])
    found = {}
    for fault in ("typo", "synonym", "swap"):
        entries, _ = await entries_of(spoiling(demo, finish_call(ids), fault=fault))
        items = [memory.check_entries([entry], length=1).items[0] for entry in entries]
        found[fault] = np.mean([item == meant for meant, item in enumerate(items, start=1)])
    assert found["typo"] > 0.9
    assert found["synonym"] > 0.8
    assert found["swap"] == 0


def test_nothing_stands_between_where_nothing_is_spoilt(demo: Dataset):
    llm = ScriptedLLM([])
    assert with_faults(llm, demo.pool, StressSettings(), is_checked=True) is llm
    assert with_faults(llm, demo.pool, StressSettings(reply_fault="typo"), is_checked=True) is llm


@pytest.mark.parametrize(
    ("title", "other"),
    [
        ("Matrix, The (1999)", "The Matrix"),
        ("The Golden Candle (1977)", "Golden Candle"),
        ("War and Peace", "War & Peace"),
        ("Heat", "HEAT"),
    ],
)
def test_another_form_of_a_title(title: str, other: str):
    assert other_form(title) == other


def hard(demo: Dataset, kind: str) -> Dataset:
    return with_hard_histories(demo, StressSettings(histories=kind))


def test_hard_histories_leave_targets_and_training_alone(demo: Dataset):
    for kind in ("contradictory", "rare", "shuffled", "short", "long"):
        other = hard(demo, kind)
        assert (other.targets("test") == demo.targets("test")).all()
        assert all((a == b).all() for a, b in zip(other.train_sequences(), demo.train_sequences(), strict=True))
        assert (other.history(7, "test") == hard(demo, kind).history(7, "test")).all(), "made anew it is the same"
    assert with_hard_histories(demo, StressSettings()) is demo


def test_shuffled_short_and_long_histories(demo: Dataset):
    own = demo.history(7, "test")
    assert sorted(hard(demo, "shuffled").history(7, "test")) == sorted(own)
    assert (hard(demo, "short").history(7, "test") == own[-SHORT_ITEMS:]).all()
    long = hard(demo, "long")
    assert len(long.history(7, "test")) == LONG_ITEMS
    assert set(long.history(7, "test")) <= set(own)
    if demo.has_ratings:
        assert len(long.history_ratings(7, "test")) == LONG_ITEMS


def test_contradictory_and_rare_histories_have_strange_items_at_every_second_place(demo: Dataset):
    for kind in ("contradictory", "rare"):
        own, mixed = demo.history(7, "test"), hard(demo, kind).history(7, "test")
        assert (mixed[-1::-2] == own[-1::-2]).all()
        assert not set(mixed[-2::-2]) & set(own)
