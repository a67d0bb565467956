import numpy as np
import pytest

from toolrec.evaluation.baselines import BLOCK_USERS, recommend_for, row_name
from toolrec.recommenders import Fusion, ScoringRecommender


class Preference(ScoringRecommender):
    """Likes the items of `order` best, then the others by index; counts the histories it scored."""

    def __init__(self, name: str, order: list[int], *, num_items: int = 30) -> None:
        super().__init__(name, num_items=num_items)
        self.scores = np.zeros(num_items + 1)
        self.scores[order] = np.arange(len(order), 0, -1)
        self.num_scored = 0

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        self.num_scored += len(history_BL)
        return np.tile(self.scores, (len(history_BL), 1))


@pytest.fixture
def recommenders():
    return {
        "backbone": Preference("backbone", [5, 6, 7]),
        "genre": Preference("genre", [6, 30, 5]),
        "popularity": Preference("popularity", [9]),
    }


def test_rows_lists_and_fusion_of_all_but_popularity(recommenders, dataset):
    lists = recommend_for(recommenders, dataset, [3, 1], split="test")
    assert list(lists) == ["backbone", "attribute:genre", "popularity", "fusion"]
    assert lists["backbone"].shape == (2, 20)
    assert lists["backbone"][0, :5].tolist() == [5, 6, 7, 1, 2]
    assert lists["attribute:genre"][1, :3].tolist() == [6, 5, 1]  # 30 is in everyone's history
    fused = Fusion([recommenders["backbone"], recommenders["genre"]]).recommend_many([[30, 29, 28, 27]], k=20)
    assert lists["fusion"][0].tolist() == [item.item_index for item in fused[0]]


def test_seen_items_stay_where_they_are_not_masked(recommenders, dataset):
    lists = recommend_for(recommenders, dataset, [1], split="test", mask_seen=False)
    assert lists["attribute:genre"][0, :3].tolist() == [6, 30, 5]


def test_histories_end_before_the_target_of_the_split(recommenders, dataset):
    recommenders = {"backbone": Preference("backbone", [27, 1])}
    assert recommend_for(recommenders, dataset, [2], split="valid")["backbone"][0, 0] == 27
    assert recommend_for(recommenders, dataset, [2], split="test")["backbone"][0, 0] == 1


def test_a_user_is_scored_once_for_the_row_and_the_fusion(hand, recommenders):
    num_users = BLOCK_USERS + 3
    dataset = hand.dataset(targets=[1 + user % 26 for user in range(num_users)])
    # Different histories, so that no two users share a list.
    items = dataset.items.copy()
    items[::5] = 1 + np.arange(num_users) % 26
    dataset.items = items
    recommend_for(recommenders, dataset, list(range(1, num_users + 1)), split="test")
    assert recommenders["backbone"].num_scored <= num_users


def test_a_pool_smaller_than_the_list_leaves_slots_empty(dataset):
    lists = recommend_for({"backbone": Preference("backbone", [3])}, dataset, [1], split="test", length=40)
    assert lists["backbone"][0, 0] == 3
    assert lists["backbone"][0, 26:].tolist() == [0] * 14  # 30 items, 4 of them seen


def test_an_attribute_cannot_take_another_rows_name():
    assert row_name("surrogate") == "attribute:surrogate"
    assert row_name("counts") == "attribute:counts"
    assert row_name("backbone") == "backbone"
