"""Neutral names: every item has one of its own, attributes stay, and the way back is the item's index."""

from __future__ import annotations

import pytest

from toolrec.data import AttributeSpec, Pool
from toolrec.data.obscure import obscured
from toolrec.data.pool import MOVIES

NUM_ITEMS = 120


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(
        item_ids=["", *(f"m{i}" for i in range(1, NUM_ITEMS + 1))],
        titles=["", *(f"Film {i}, The (1999)" for i in range(1, NUM_ITEMS + 1))],
        attributes=[AttributeSpec(name="genre", kind="category")],
        values={"genre": ["Drama", "War"] * (NUM_ITEMS // 2)},
        domain=MOVIES,
    )


@pytest.mark.parametrize(
    ("what", "has_ids", "has_titles"), [("titles", True, False), ("ids", False, True), ("both", False, False)]
)
def test_what_is_asked_for_is_replaced_and_nothing_else(pool, what, has_ids, has_titles):
    other = obscured(pool, what)
    assert (other.item_ids == pool.item_ids, other.titles == pool.titles) == (has_ids, has_titles)
    assert len(set(other.item_ids)) == len(set(other.titles)) == NUM_ITEMS + 1
    for index in range(1, NUM_ITEMS + 1):
        assert other.index_of(other.item_ids[index]) == index
        assert other.values("genre", index) == pool.values("genre", index)
    if not has_ids:
        assert other.index_of("m1") is None
    assert pool.index_of("m1") == 1  # the pool itself is as it was


def test_names_are_the_same_every_time_and_do_not_follow_the_order(pool):
    names = obscured(pool, "both").titles[1:]
    assert names == obscured(pool, "both").titles[1:]
    numbers = [int(name.removeprefix("Movie ")) for name in names]
    assert sorted(numbers) == list(range(1, NUM_ITEMS + 1)) and numbers != sorted(numbers)
    assert obscured(pool, None) is pool
