from typing import get_args

import pytest

from toolrec.report.fates import CAUSES, NEAREST_FIRST, SHORT, Fate, FateKind, Sighting, fate_of, nearest_fate


def sightings(*lists):
    return [Sighting(round=number, mark=mark, position=position) for number, mark, position in lists]


def fate(*lists, **given):
    values = {"is_hit": False, "is_finished": True, "is_masked": False, "num_rounds": 4, "list_length": 10, **given}
    return fate_of(sightings(*lists), **values)


GENRE = (2, "Retrieve[genre]", 4)


@pytest.mark.parametrize(
    ("lists", "given", "kind", "round"),
    [
        pytest.param([(1, "Retrieve[none]", 0), GENRE], {"is_hit": True}, "hit", 2, id="a hit"),
        pytest.param([(1, "Retrieve[none]", 0)], {"is_hit": True}, "hit", 0, id="a hit that no tool brought"),
        pytest.param([(1, "Retrieve[none]", 0)], {}, "not_brought", 0, id="no tool brought it"),
        pytest.param([], {"is_masked": True}, "masked", 0, id="in the history"),
        pytest.param([(1, "Retrieve[none]", 11), (3, "Retrieve[genre]", 15)], {}, "too_deep", 1, id="never among the first ten"),
        pytest.param([GENRE], {}, "left_out", 4, id="the finish left it out"),
        pytest.param([GENRE, (3, "Rank[genre]", 3)], {}, "left_out", 4, id="the ranking kept it, the finish did not"),
        pytest.param([GENRE, (3, "Rank[genre]", 15)], {}, "ranked_out", 3, id="a ranking moved it back"),
        pytest.param([GENRE, (3, "Rank[genre]", 0)], {}, "ranked_out", 3, id="a ranking dropped it"),
        pytest.param([GENRE, (3, "Retrieve[mood]", 0)], {}, "left_out", 4, id="another retrieval takes nothing away"),
        pytest.param([(1, "Rank[none]", 0), GENRE], {}, "left_out", 4, id="a ranking before it was there"),
        pytest.param([GENRE], {"is_finished": False}, "failed", 4, id="the user failed with it in memory"),
        pytest.param([], {"is_finished": False, "is_hit": True}, "failed", 4, id="the user failed"),
    ],
)
def test_where_a_target_went(lists, given, kind, round):
    found = fate(*lists, **given)
    assert (found.kind, found.round) == (kind, round)


def test_the_first_tool_and_the_best_position_are_told():
    assert fate((1, "Retrieve[none]", 12), GENRE, (3, "Rank[genre]", 11)) == Fate(
        kind="ranked_out", round=3, mark="Retrieve[none]", brought_round=1, position=4
    )


def test_of_several_targets_the_one_nearest_to_a_hit_tells_of_the_user():
    fates = [Fate(kind=kind) for kind in ("not_brought", "left_out", "too_deep")]
    assert nearest_fate(fates) is fates[1]
    assert sorted(NEAREST_FIRST) == sorted(get_args(FateKind))


WHERE = {
    "hit": "",
    "not_brought": "no tool brought it",
    "too_deep": "too deep in every list, nearest in round 2",
    "ranked_out": "ranked out, round 2",
    "left_out": "left out at the end, round 2",
    "failed": "user failed, round 2",
    "masked": "masked",
}


@pytest.mark.parametrize("kind", get_args(FateKind))
def test_every_kind_has_words(kind):
    """`Fate.round` is 0 where no round has to do with it."""
    found = Fate(kind=kind, round=0 if kind in ("not_brought", "masked") else 2, position=14)
    assert found.where == WHERE[kind]
    why = found.why(list_length=10, failure="llm_failure")
    assert (why == "") == (kind == "hit")
    assert kind == "hit" or found.where.startswith(SHORT[kind])


def test_a_target_that_was_too_deep_is_told_with_its_best_position():
    why = fate((1, "Retrieve[none]", 14), (3, "Retrieve[genre]", 12)).why(list_length=10)
    assert why == "every tool that returned it listed it beyond the first 10, at best at position 12"


def test_every_finished_users_miss_has_one_cause():
    assert len(set(CAUSES)) == len(CAUSES)
    assert {*CAUSES, "hit", "failed"} == set(get_args(FateKind))
