import numpy as np
import pytest

from toolrec.evaluation.coverage import MAX_MARKS, listed, sources_of_hits, tool_lists

TEN = list(range(11, 21))


def retrieved(hand, items, mark="Retrieve[genre]", round=1):
    return [hand.candidate(item, mark, round, place) for place, item in enumerate(items, start=1)]


def sources(hand, rows, targets=None):
    users = hand.users_frame(rows)
    return sources_of_hits(users, [[t] for t in targets or users["user_index"].tolist()], list_length=10)


def test_ceiling_is_the_share_of_targets_among_the_candidates(hand, users):
    given = users.assign(final_items=[[1, 5, 6], [7, 0, 2], TEN, []])
    ceiling = sources_of_hits(given, [[1], [2], [3], [4]], list_length=10)["ceiling"]
    # Users 1, 3 and 4 had their target; 2 distinct items (1 and 9), 0, 11 (ten and one more), 1.
    assert ceiling == {"recall": 3 / 4, "num_hits": 3, "mean_candidates": (2 + 0 + 11 + 1) / 4}


def test_every_target_of_a_user_counts(hand):
    row = hand.user_row(1, [*TEN[:9], 2], candidates=[hand.candidate(1), hand.candidate(2)])
    found = sources_of_hits(hand.users_frame([row]), [[1, 2, 3, 0]], list_length=10)
    assert found["ceiling"] == {"recall": 2 / 3, "num_hits": 2, "mean_candidates": 2}
    assert (found["surrogate"]["num_hits"], found["equal_lists"]["num_full_lists"]) == (1, 1)


def test_hits_count_for_the_first_mark_once_and_for_any_mark_each(hand):
    twice = [hand.candidate(1, "Rank[genre]", 3), hand.candidate(1, "Retrieve[none]", 1), hand.candidate(1, "Rank[genre]", 4)]
    rows = [
        hand.user_row(1, [1], candidates=twice),
        hand.user_row(2, [5, 2], candidates=[hand.candidate(2, "Rank[genre]", 2)]),
        hand.user_row(3, [3], candidates=[hand.candidate(9)]),
        hand.user_row(4, [9], candidates=[hand.candidate(4, "Retrieve[year]")]),
    ]
    hits = sources(hand, rows)
    assert hits["surrogate"]["num_hits"] == 3
    assert hits["surrogate"]["by_first_mark"] == {"Rank[genre]": 1, "Retrieve[none]": 1, "no tool": 1}
    assert hits["surrogate"]["by_any_mark"] == {"Rank[genre]": 2, "Retrieve[none]": 1, "no tool": 1}
    assert hits["found_by_mark"] == {"Rank[genre]": 2, "Retrieve[none]": 1, "Retrieve[year]": 1}
    assert hits["surrogate"]["share_of_ceiling"] == 3 / 3


@pytest.mark.parametrize(
    ("final", "in_order", "as_set"),
    [
        pytest.param(TEN, 1, 1, id="the list itself"),
        pytest.param(TEN[::-1], 0, 1, id="another order"),
        pytest.param([*TEN[:9], 21], 0, 0, id="one item of its own"),
        pytest.param(TEN[:9], None, None, id="a short list is not compared"),
        pytest.param([*TEN[:9], 0], None, None, id="an empty slot is not compared"),
    ],
)
def test_lists_equal_to_one_tools_first_ten(hand, final, in_order, as_set):
    equal = sources(hand, [hand.user_row(1, final, candidates=retrieved(hand, [*TEN, 25, 26]))])["equal_lists"]
    assert equal["in_order"]["any_tool"] == equal["in_order"]["any_retrieval"] == in_order
    assert equal["as_set"]["any_tool"] == as_set
    assert equal["num_full_lists"] == (0 if in_order is None else 1)
    assert equal["num_in_order_by_mark"] == ({"Retrieve[genre]": 1} if in_order else {})
    assert equal["num_as_set_by_mark"] == ({"Retrieve[genre]": 1} if as_set else {})


def test_a_rank_tools_list_is_no_retrieval_tools(hand):
    rows = [hand.user_row(1, TEN, candidates=[*retrieved(hand, TEN[::-1]), *retrieved(hand, TEN, "Rank[genre]", 2)])]
    rows.append(hand.user_row(2, TEN, candidates=retrieved(hand, TEN[1:])))
    equal = sources(hand, rows)["equal_lists"]
    assert equal["in_order"] == {"any_tool": 1 / 2, "any_retrieval": 0.0}
    assert equal["num_as_set_by_mark"] == {"Rank[genre]": 1, "Retrieve[genre]": 1}


def test_two_calls_of_one_tool_are_two_lists(hand):
    candidates = [*retrieved(hand, [1, 2], round=1), *retrieved(hand, [2, 3], round=4)][::-1]
    assert tool_lists(candidates) == [("Retrieve[genre]", [1, 2]), ("Retrieve[genre]", [2, 3])]


def test_nothing_to_count_gives_no_share(hand):
    hits = sources(hand, [hand.user_row(1, [])])
    assert hits["ceiling"]["recall"] == 0
    assert hits["surrogate"]["share_of_ceiling"] is None
    assert hits["equal_lists"]["in_order"]["any_tool"] is None


def test_counts_are_listed_largest_first_and_a_long_tail_is_summed():
    counts = {f"Retrieve[made up {n}]": 1 for n in range(MAX_MARKS + 5)} | {"Retrieve[none]": 7}
    shown = listed(counts)
    assert next(iter(shown.items())) == ("Retrieve[none]", 7)
    assert shown["other"] == 6 and sum(shown.values()) == MAX_MARKS + 5 + 7


def test_arrays_as_parquet_gives_them_are_read(hand, users):
    given = users.assign(
        candidates=[np.array(c, dtype=object) for c in users["candidates"]],
        final_items=[np.array(items, dtype=np.int32) for items in users["final_items"]],
    )
    assert sources_of_hits(given, [[1], [2], [3], [4]], list_length=10) == sources_of_hits(
        users, [[1], [2], [3], [4]], list_length=10
    )


def test_what_a_tool_brought_alone_and_what_was_left_out(hand):
    both = [hand.candidate(1, "Retrieve[none]"), hand.candidate(1, "Retrieve[genre]", 2), hand.candidate(1, "Rank[genre]", 3)]
    ranked = [hand.candidate(2, "Retrieve[genre]"), hand.candidate(2, "Rank[genre]", 2)]
    rows = [
        hand.user_row(1, [1], candidates=both),
        hand.user_row(2, [2], candidates=ranked),
        hand.user_row(3, [9], candidates=[hand.candidate(3, "Retrieve[genre]")]),
        hand.user_row(4, [4], candidates=[]),
    ]
    hits = sources(hand, rows)
    genre = {"brought": 3, "brought_alone": 2, "brought_alone_and_hit": 1, "left_out": 1}
    assert hits["contributions"]["Retrieve[genre]"] == genre
    assert hits["contributions"]["Retrieve[none]"]["brought_alone"] == 0
    assert hits["contributions"]["Rank[genre]"] == {"brought": 2, "brought_alone": 0, "brought_alone_and_hit": 0, "left_out": 0}
    assert hits["surrogate"]["num_hits_no_tool_brought"] == 1
