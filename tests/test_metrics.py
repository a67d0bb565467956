import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.metrics import metric_names, pad_lists, positions_of, values_of


def values(lists, targets, names, *, length=10):
    position_B = positions_of(pad_lists(lists, length=length), np.array(targets))
    return values_of(position_B, names)


@pytest.mark.parametrize(
    ("position", "k", "recall", "ndcg", "mrr"),
    [
        pytest.param(1, 5, 1, 1 / math.log2(2), 1 / 1, id="first"),
        pytest.param(3, 5, 1, 1 / math.log2(4), 1 / 3, id="in the middle"),
        pytest.param(5, 5, 1, 1 / math.log2(6), 1 / 5, id="last within k"),
        pytest.param(6, 5, 0, 0, 0, id="first beyond k"),
        pytest.param(0, 5, 0, 0, 0, id="absent"),
        pytest.param(20, 20, 1, 1 / math.log2(21), 1 / 20, id="last of twenty"),
    ],
)
def test_values_of_one_position(position, k, recall, ndcg, mrr):
    got = values_of(np.array([position]), [f"recall@{k}", f"ndcg@{k}", f"mrr@{k}"])
    assert got.tolist() == [[pytest.approx(recall), pytest.approx(ndcg), pytest.approx(mrr)]]


@pytest.mark.parametrize(
    ("items", "target", "position"),
    [
        pytest.param([4, 5, 6], 4, 1, id="target first"),
        pytest.param([4, 5, 6], 6, 3, id="target last"),
        pytest.param([4, 5, 6], 7, 0, id="target absent"),
        pytest.param([], 7, 0, id="empty list"),
        pytest.param([0, 0, 6], 6, 3, id="empty slots keep their places"),
        pytest.param([0, 0, 0], 0, 0, id="an empty slot is never a hit"),
        pytest.param([5, 4, 5], 5, 1, id="a target twice counts at its first place"),
        pytest.param(list(range(1, 15)), 12, 0, id="beyond the list's length"),
    ],
)
def test_position(items, target, position):
    assert positions_of(pad_lists([items], length=10), np.array([target])).tolist() == [position]


def test_positions_of_lists_without_a_slot():
    assert positions_of(np.zeros((2, 0), dtype=int), np.array([1, 2])).tolist() == [0, 0]


def test_k_beyond_the_list_finds_what_the_list_holds():
    assert values([[4, 5]], [5], ["recall@20", "mrr@20"]).tolist() == [[1, 1 / 2]]


def test_several_targets():
    position_BT = positions_of(pad_lists([[7, 4, 5], [1, 2, 3]], length=10), np.array([[4, 9, 7], [3, 0, 0]]))
    assert position_BT.tolist() == [[2, 0, 1], [3, -1, -1]]
    first, second = values_of(position_BT, ["recall@10", "ndcg@10", "mrr@10", "recall@1", "ndcg@1"])
    gains = [1 / math.log2(place + 1) for place in (1, 2, 3)]
    assert first == pytest.approx([2 / 3, (gains[0] + gains[1]) / sum(gains), 1, 1 / 3, 1])
    assert second == pytest.approx([1, gains[2], 1 / 3, 0, 0])


def test_a_list_of_ten_has_no_figure_at_twenty():
    assert metric_names(10) == ["recall@5", "ndcg@5", "mrr@5", "recall@10", "ndcg@10", "mrr@10"]
    assert metric_names(20)[-3:] == ["recall@20", "ndcg@20", "mrr@20"]
    assert metric_names(4) == []


lists_and_targets = st.lists(
    st.tuples(st.lists(st.integers(1, 40), unique=True, max_size=20), st.integers(1, 40)), min_size=1, max_size=8
)


@given(lists_and_targets)
@settings(max_examples=80, deadline=None)
def test_agrees_with_pytrec_eval(cases):
    names = metric_names(20)
    run = {str(u): {str(item): float(100 - place) for place, item in enumerate(items)} for u, (items, _) in enumerate(cases)}
    wanted = {str(u): {str(target): 1} for u, (_, target) in enumerate(cases)}
    judged = pytrec_eval.RelevanceEvaluator(wanted, {"recall_5,10,20", "ndcg_cut_5,10,20", "recip_rank"}).evaluate(run)
    got = values([items for items, _ in cases], [target for _, target in cases], names, length=20)
    for row, (items, target) in enumerate(cases):
        theirs = judged.get(str(row), {})  # it leaves users with an empty list out
        for column, name in enumerate(names):
            metric, _, k = name.partition("@")
            if metric == "mrr":
                expected = theirs.get("recip_rank", 0.0) if target in items[: int(k)] else 0.0
            else:
                expected = theirs.get(f"{'ndcg_cut' if metric == 'ndcg' else metric}_{k}", 0.0)
            assert got[row, column] == pytest.approx(expected), name


@given(st.integers(0, 25), st.sampled_from([5, 10, 20]))
def test_values_are_ordered_and_bounded(position, k):
    recall, ndcg, mrr = values_of(np.array([position]), [f"recall@{k}", f"ndcg@{k}", f"mrr@{k}"])[0]
    assert 0 <= mrr <= ndcg <= recall <= 1


@given(st.permutations(range(1, 21)), st.sampled_from([5, 10, 20]))
def test_no_figure_of_several_targets_is_above_1(positions, k):
    """Not by the last bit either, which intervals would refuse."""
    figures = values_of(np.array([positions[:15]]), [f"recall@{k}", f"ndcg@{k}", f"mrr@{k}"])[0]
    assert (figures <= 1).all() and values_of(np.array([range(1, 15)]), ["ndcg@10"]) <= 1
