"""What every recommender keeps to, whichever it is."""

import numpy as np
import pytest

from toolrec.errors import DataError
from toolrec.recommenders import Fusion, Recommender, load_recommenders, pad_histories, top_k

NUM_ITEMS = 24
ATTRIBUTES = ("colour", "tags", "size")
NAMES = ("popularity", "backbone", *ATTRIBUTES, "fusion")
OVER_BERT4REC = ("bert4rec backbone", "bert4rec tags")
SCORE_NOISE = 1e-12
"""What batches may change of a score; lists, whose scores have 4 decimals, they may not change at all."""
HISTORIES = [[1, 3, 5], [2, 4], [7], [], [2, 6, 8, 10, 12, 14, 16, 18], [1], [11, 9, 13, 1]] * 5


@pytest.fixture(scope="session", params=NAMES + OVER_BERT4REC)
def recommender(request, recommenders, bert4rec_recommenders):
    if request.param in OVER_BERT4REC:
        return bert4rec_recommenders[request.param.removeprefix("bert4rec ")]
    if request.param == "fusion":
        return Fusion([recommenders["backbone"], *(recommenders[name] for name in ATTRIBUTES)])
    return recommenders[request.param]


class TestEveryRecommender:
    def test_keeps_the_protocol_and_its_name(self, recommender):
        assert isinstance(recommender, Recommender)
        assert recommender.name in NAMES

    def test_scores_are_float64_of_the_whole_pool_and_padding_is_never_an_item(self, recommender):
        score_BI = recommender.score(pad_histories(HISTORIES[:3]))
        assert score_BI.shape == (3, NUM_ITEMS + 1)
        assert score_BI.dtype == np.float64
        assert np.all(score_BI[:, 0] == -np.inf)
        assert np.isfinite(score_BI[:, 1:]).all()

    def test_seen_items_are_masked_unless_asked_for(self, recommender):
        history = [2, 4, 6]
        masked = {item.item_index for item in recommender.recommend(history, k=NUM_ITEMS)}
        assert masked == set(range(1, NUM_ITEMS + 1)) - set(history)
        unmasked = {item.item_index for item in recommender.recommend(history, k=NUM_ITEMS, mask_seen=False)}
        assert unmasked == set(range(1, NUM_ITEMS + 1))

    def test_lists_are_best_first_with_ties_by_item_index(self, recommender):
        ranked = recommender.recommend([3], k=NUM_ITEMS)
        keys = [(-item.score, item.item_index) for item in ranked]
        assert keys == sorted(keys)
        decimals = 12 if recommender.name == "fusion" else 4
        assert all(item.score == round(item.score, decimals) for item in ranked)

    def test_a_k_beyond_the_pool_gives_what_there_is(self, recommender):
        assert len(recommender.recommend([1, 2], k=10 * NUM_ITEMS)) == NUM_ITEMS - 2

    def test_a_shorter_list_is_the_beginning_of_a_longer_one(self, recommender):
        assert recommender.recommend([1, 3], k=5) == recommender.recommend([1, 3], k=15)[:5]

    def test_a_history_without_items_gets_the_popular_ones(self, recommender, recommenders):
        empty = [item.item_index for item in recommender.recommend([], k=10)]
        assert empty == [item.item_index for item in recommenders["popularity"].recommend([], k=10)]

    def test_padding_in_a_history_is_no_item(self, recommender):
        assert recommender.recommend([0, 1, 3, 0], k=8) == recommender.recommend([1, 3], k=8)

    def test_a_history_longer_than_the_model_reads_is_cut_and_still_masked(self, recommender):
        history = [*range(2, 21, 2), 1, 3, 5, 7, 9, 11]  # the model reads 6
        score_BI = recommender.score(pad_histories([history, history[-6:]]))
        np.testing.assert_allclose(score_BI[0], score_BI[1], rtol=0, atol=SCORE_NOISE)
        assert not {item.item_index for item in recommender.recommend(history, k=NUM_ITEMS)} & set(history)

    @pytest.mark.parametrize("size", [1, 7, 32, 35])
    def test_lists_do_not_depend_on_the_batch(self, recommender, size):
        alone = [recommender.recommend(history, k=12) for history in HISTORIES]
        together = []
        for start in range(0, len(HISTORIES), size):
            together.extend(recommender.recommend_many(HISTORIES[start : start + size], k=12))
        assert together == alone

    def test_scores_do_not_depend_on_padding_or_the_batch_beyond_the_last_bits(self, recommender):
        together = recommender.score(pad_histories(HISTORIES))
        alone = np.concatenate([recommender.score(pad_histories([history])) for history in HISTORIES])
        np.testing.assert_allclose(together, alone, rtol=0, atol=SCORE_NOISE)

    @pytest.mark.parametrize("wrong", [-1, NUM_ITEMS + 1])
    def test_an_item_that_the_pool_does_not_have_is_refused(self, recommender, wrong):
        with pytest.raises(DataError, match=str(wrong)):
            recommender.recommend([1, wrong], k=5)

    def test_no_histories_give_no_lists(self, recommender):
        assert recommender.recommend_many([], k=5) == []

    def test_a_numpy_history_is_as_good_as_a_list(self, recommender):
        assert recommender.recommend(np.array([1, 3], dtype=np.int32), k=5) == recommender.recommend([1, 3], k=5)


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("name", ["backbone", *ATTRIBUTES])
def test_the_checkerboard_is_learned(recommenders, bert4rec_recommenders, kind, name):
    members = recommenders if kind == "sasrec" else bert4rec_recommenders
    for history in ([1, 3, 5, 7], [2, 4, 6, 8]):
        ranked = [item.item_index for item in members[name].recommend(history, k=5)]
        assert sum(item % 2 == history[0] % 2 for item in ranked) >= 4, f"{name}: {history} gives {ranked}"


def test_popularity_counts_the_training_split(recommenders, dataset):
    score_I = recommenders["popularity"].score(np.zeros((1, 1), dtype=np.int64))[0]
    for item in (1, 2, NUM_ITEMS):
        assert score_I[item] == sum(int((sequence == item).sum()) for sequence in dataset.train_sequences())


def test_lists_are_those_of_the_scores(recommenders):
    for recommender in recommenders.values():
        score_BI = recommender.score(pad_histories([[1, 3]]))
        assert top_k(score_BI, k=6, seen=[[1, 3]])[0] == recommender.recommend([1, 3], k=6)


def test_loaded_twice_gives_the_same_lists(recommenders, trained, dataset):
    again = load_recommenders(trained, dataset)
    assert list(again) == list(recommenders)
    for name, recommender in again.items():
        assert recommender.recommend_many(HISTORIES, k=12) == recommenders[name].recommend_many(HISTORIES, k=12)


def test_a_kept_state_gives_the_same_list_as_a_new_one(trained, dataset):
    first = load_recommenders(trained, dataset)["colour"]
    lists = [first.recommend([1, 3, 5], k=9) for _ in range(2)]
    fresh = load_recommenders(trained, dataset, names=["colour"])["colour"]
    assert lists == [fresh.recommend([1, 3, 5], k=9)] * 2
