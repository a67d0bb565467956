import numpy as np
import pytest

from toolrec.evaluation.baselines import BLOCK_USERS, KEPT_EVALUATIONS, RememberedLists, recommend_for, row_name
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


def test_remembered_lists_are_those_made_anew_and_cost_nothing(recommenders, dataset):
    remembered = RememberedLists().by("weights")
    first = remembered(recommenders, dataset, [3, 1], split="test")
    scored = recommenders["backbone"].num_scored
    first["backbone"][:] = 0  # what a caller does to its lists is its own affair
    again = remembered(recommenders, dataset, [3, 1], split="test")
    assert recommenders["backbone"].num_scored == scored
    expected = recommend_for(recommenders, dataset, [3, 1], split="test")
    assert list(again) == list(expected)
    assert all((again[name] == expected[name]).all() for name in expected)


def test_what_decides_on_a_list_is_told_apart(recommenders, dataset, hand):
    shorter = hand.dataset()
    shorter.items = shorter.items.copy()
    shorter.items[:4] = [30, 29, 5, 27]  # the first user's history is another one
    memory = RememberedLists()
    alone = {"backbone": recommenders["backbone"]}
    asked = [
        (recommenders, dataset, [1, 2], {"split": "test"}),
        (recommenders, dataset, [2, 1], {"split": "test"}),
        (recommenders, dataset, [1, 2], {"split": "valid"}),
        (recommenders, dataset, [1, 2], {"split": "test", "mask_seen": False}),
        (recommenders, shorter, [1, 2], {"split": "test"}),
        (alone, dataset, [1, 2], {"split": "test"}),
        (alone, dataset, [1, 2], {"split": "test", "fusions": {"learned": recommenders["genre"]}}),
    ]
    assert len(asked) < KEPT_EVALUATIONS
    for _ in range(2):
        for members, data, users, how in asked:
            found, expected = memory.by("a")(members, data, users, **how), recommend_for(members, data, users, **how)
            assert list(found) == list(expected)
            assert all((found[name] == expected[name]).all() for name in expected), how
    other = {"backbone": Preference("backbone", [20])}
    assert memory.by("b")(other, dataset, [1, 2], split="test")["backbone"][0, 0] == 20, "other weights"


def test_few_evaluations_are_kept(dataset):
    backbone = Preference("backbone", [5])
    remembered = RememberedLists().by("weights")
    for users in [[1], [2], [3], [4], [1, 2], [1, 3], [1, 4], [2, 3], [2, 4]]:
        remembered({"backbone": backbone}, dataset, users, split="test")
    scored = backbone.num_scored
    remembered({"backbone": backbone}, dataset, [2, 4], split="test")
    assert backbone.num_scored == scored
    remembered({"backbone": backbone}, dataset, [1], split="test")
    assert backbone.num_scored > scored
