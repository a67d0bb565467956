"""Reciprocal rank fusion, with expected values as arithmetic."""

import numpy as np
import pytest

from toolrec.errors import ConfigError
from toolrec.recommenders import Fusion, ScoringRecommender


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
    assert [(item.item_index, item.score) for item in ranked] == [
        (1, round(61 / 61 + 61 / 62, 4)),
        (3, round(61 / 63 + 61 / 61, 4)),
        (2, round(61 / 62, 4)),
    ]


def test_equal_scores_are_ordered_by_item_index():
    ranked = Fusion([Fixed([5, 2]), Fixed([2, 5])]).recommend([], k=2)
    assert [item.item_index for item in ranked] == [2, 5]


def test_positions_are_counted_after_seen_items_are_masked():
    fusion = Fusion([Fixed([1, 2, 3])])
    assert [(i.item_index, i.score) for i in fusion.recommend([1], k=3)] == [(2, 1.0), (3, round(61 / 62, 4))]
    assert [i.item_index for i in fusion.recommend([1], k=3, mask_seen=False)] == [1, 2, 3]


def test_items_on_no_list_are_not_recommended():
    assert len(Fusion([Fixed([4])]).recommend([], k=5)) == 1


def test_neighbouring_positions_stay_apart_after_rounding():
    ranked = Fusion([Fixed(list(range(60, 0, -1)), num_items=60)]).recommend([], k=60)
    assert [item.item_index for item in ranked] == list(range(60, 10, -1)), "the first 50 of the member, in its order"


def test_no_member_is_refused():
    with pytest.raises(ConfigError, match="member"):
        Fusion([])
