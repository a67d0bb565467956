"""A user whose actor died goes on after its last completed round, and its trace is that of an unbroken run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolrec.errors import LLMUnavailableError
from toolrec.llm.scripted import ScriptedLLM, calling
from toolrec.records import Round, Trace


def timeless(trace: Trace) -> Trace:
    rounds = tuple(replace(done, duration_s=0.0) for done in trace.rounds)
    return replace(trace, rounds=rounds, started_s=0.0, ended_s=0.0)


def retrieve(attribute: str, k: int = 5):
    return ("retrieve", {"attribute": attribute, "k": k})


RANK = ("rank", {"attribute": "mood", "k": 3})
SCRIPTS = {
    "plain": [calling(retrieve("genre")), calling(RANK), "<m12>\n<m11>", calling(("finish", {"items": ["m12", "m30"]}))],
    "parallel": [
        calling(retrieve("genre"), ("rank", "{broken"), RANK, retrieve("none"), retrieve("genre")),
        "<m12>\n<m11>",
        "hm",
        calling(retrieve("release_year")),
        calling(("finish", {"items": ["m99", "Film 12, The"]})),
        calling(("finish", {"items": ["m40", "Film 12, The"]}), retrieve("none")),
    ],
    "forced": [calling(*[retrieve("genre", k) for k in range(1, 9)]), calling(("finish", {"items": ["m12"]}))],
    "invalid": [calling(retrieve("genre")), "hm", "hm", "hm", "hm"],
    "failing": [calling(retrieve("genre")), "hm", LLMUnavailableError("gone")],
    "plain talk": ["Retrieve[genre, 4]", "Finish[<m12>, <m14>]"],
}


@pytest.mark.parametrize("policy", ["as_given", "final_rank"])
@pytest.mark.parametrize("name", SCRIPTS)
async def test_every_cut_point_leads_to_the_same_trace(build, task, name, policy):
    script = [*SCRIPTS[name], *(["<m14>\n<m12>"] if policy == "final_rank" else [])]
    options = {"finish_policy": policy, "rounds": 5}
    llm = ScriptedLLM(script)
    rounds: list[Round] = []
    calls_after: list[int] = [0]

    async def on_round(done: Round) -> None:
        rounds.append(done)
        calls_after.append(len(llm.calls))

    whole = await build(llm, **options).run(task, on_round=on_round)
    assert tuple(rounds) == whole.rounds
    for cut in range(len(rounds) + 1):
        rest = ScriptedLLM(script[calls_after[cut] :])
        told: list[Round] = []

        async def on_new_round(done: Round, told: list[Round] = told) -> None:
            told.append(done)

        resumed = await build(rest, **options).run(task, previous_rounds=rounds[:cut], on_round=on_new_round)
        assert timeless(resumed) == timeless(whole), f"cut after round {cut}"
        assert [done.number for done in told] == [done.number for done in rounds[cut:]]
        assert [call.messages for call in rest.calls] == [call.messages for call in llm.calls[calls_after[cut] :]]


ATTRIBUTES = ("none", "genre", "release_year", "director", "Genre")
tool_calls = st.one_of(
    st.tuples(
        st.just("retrieve"), st.fixed_dictionaries({"attribute": st.sampled_from(ATTRIBUTES), "k": st.sampled_from([1, 5, 60])})
    ),
    st.tuples(st.just("rank"), st.fixed_dictionaries({"attribute": st.sampled_from(["mood", "pace"]), "k": st.just(3)})),
    st.tuples(
        st.just("finish"),
        st.fixed_dictionaries({"items": st.lists(st.sampled_from(["m1", "m9", "m30", "m99", "Film 12, The", "x"]), max_size=4)}),
    ),
    st.tuples(st.sampled_from(["rank", "search"]), st.just("{")),
)
replies = st.one_of(
    st.lists(tool_calls, min_size=1, max_size=4).map(lambda calls: calling(*calls)),
    st.sampled_from(["", "hm", "<m12>\n<m30>", "Retrieve[genre, 3]"]),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(replies, max_size=14), cut=st.integers(0, 9), protocol=st.sampled_from(["tools", "text"]))
async def test_any_conversation_can_be_cut_anywhere(build, task, script, cut, protocol):
    llm = ScriptedLLM(script)
    calls_after = [0]

    async def on_round(done: Round) -> None:
        calls_after.append(len(llm.calls))

    whole = await build(llm, protocol=protocol).run(task, on_round=on_round)
    cut = min(cut, len(whole.rounds))
    rest = ScriptedLLM(script[calls_after[cut] :])
    resumed = await build(rest, protocol=protocol).run(task, previous_rounds=whole.rounds[:cut])
    if whole.error and "no more replies" in whole.error:
        # The script's own end is told with its length, which differs.
        whole, resumed = without_error(whole), without_error(resumed)
    assert timeless(resumed) == timeless(whole)
    assert all(1 <= item <= 60 and item not in task.history for item in whole.completed_items)
    assert len(set(whole.completed_items)) == len(whole.completed_items) <= 10


def without_error(trace: Trace) -> Trace:
    last = replace(trace.rounds[-1], observation=None)
    return replace(trace, error=None, rounds=(*trace.rounds[:-1], last))
