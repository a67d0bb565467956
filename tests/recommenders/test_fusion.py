"""Reciprocal rank fusion: expected values as arithmetic, and against trectools."""

import itertools

import numpy as np
import pandas as pd
import pytest
import trectools.fusion
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.errors import ConfigError
from toolrec.recommenders import Fusion, ScoringRecommender
from toolrec.recommenders.fusion.rrf import reciprocal_rank_fusion


class Fixed(ScoringRecommender):
    """Gives its items in this order; all other items are never recommended."""

    def __init__(self, order, num_items=9):
        super().__init__("fixed", num_items=num_items)
        self.order = order

    def score(self, history_BL):
        score_BI = np.full((len(history_BL), self.num_items + 1), -np.inf)
        for place, item in enumerate(self.order):
            score_BI[:, item] = -float(place)
        return score_BI


def test_scores_are_sums_of_inverted_positions():
    ranked = Fusion([Fixed([1, 2, 3]), Fixed([3, 1])]).recommend([], k=9)
    assert [item.item_index for item in ranked] == [1, 3, 2]
    assert [item.score for item in ranked] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])


def test_equal_scores_are_ordered_by_item_index():
    ranked = Fusion([Fixed([5, 2]), Fixed([2, 5])]).recommend([], k=2)
    assert [item.item_index for item in ranked] == [2, 5]


def test_positions_are_counted_after_seen_items_are_masked():
    fusion = Fusion([Fixed([1, 2, 3])])
    ranked = fusion.recommend([1], k=3)
    assert [item.item_index for item in ranked] == [2, 3]
    assert [item.score for item in ranked] == pytest.approx([1 / 61, 1 / 62])
    assert [i.item_index for i in fusion.recommend([1], k=3, mask_seen=False)] == [1, 2, 3]


def test_items_on_no_list_are_not_recommended():
    assert len(Fusion([Fixed([4])]).recommend([], k=5)) == 1


def test_only_the_first_50_of_a_member_are_fused_in_its_order():
    ranked = Fusion([Fixed(list(range(60, 0, -1)), num_items=60)]).recommend([], k=60)
    assert [item.item_index for item in ranked] == list(range(60, 10, -1))


def with_positions(*positions: int, item: int) -> list[list[int]]:
    """Lists that hold `item` at these positions, each behind items of its own."""
    return [[1000 * (item * 10 + n) + place for place in range(1, p)] + [item] for n, p in enumerate(positions)]


def test_sums_that_differ_beyond_the_fourth_decimal_are_told_apart():
    # 61 times the sums: 2.792208 and 2.792166, which are equal to 4 decimals.
    lists = [*with_positions(1, 1, 17, item=9), *with_positions(2, 6, 9, item=3)]
    order = [item.item_index for item in reciprocal_rank_fusion(lists) if item.item_index in (3, 9)]
    assert order == [9, 3]


def test_equal_sums_tie_in_whatever_order_they_are_added():
    for positions in itertools.permutations((1, 7, 30)):
        lists = [*with_positions(*positions, item=2), *with_positions(30, 1, 7, item=1)]
        fused = {item.item_index: item.score for item in reciprocal_rank_fusion(lists)}
        assert fused[1] == fused[2]


def test_an_item_named_twice_counts_where_it_stands_first():
    assert reciprocal_rank_fusion([[4, 5, 4]]) == reciprocal_rank_fusion([[4, 5]])


@pytest.mark.parametrize("lists", [[], [[]], [[], []]])
def test_nothing_fuses_to_nothing(lists):
    assert reciprocal_rank_fusion(lists) == []


@given(st.lists(st.lists(st.integers(1, 30), unique=True, max_size=20), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_agrees_with_trectools(lists):
    runs = [trec_run(items) for items in lists if items]
    ours = {item.item_index: item.score for item in reciprocal_rank_fusion(lists)}
    if not runs:
        assert ours == {}
        return
    theirs = trectools.fusion.reciprocal_rank_fusion(runs).run_data
    assert ours == pytest.approx(dict(zip(theirs["docid"].astype(int), theirs["score"], strict=True)), abs=1e-12)


def trec_run(items: list[int]) -> trectools.TrecRun:
    rows = [("1", "Q0", str(item), place, float(-place), "list") for place, item in enumerate(items, start=1)]
    run = trectools.TrecRun(None)
    run.load_run_from_dataframe(pd.DataFrame(rows, columns=["query", "q0", "docid", "rank", "score", "system"]))
    return run


def test_no_member_is_refused():
    with pytest.raises(ConfigError, match="member"):
        Fusion([])
