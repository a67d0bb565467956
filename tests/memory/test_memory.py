"""The check that every list passes, and the candidates' marks."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES
from toolrec.memory import Memory, PoolDirectory, newest_first
from toolrec.records import RankedItem

TITLES = ["Alpha, The (1990)", "Beta", "Gamma; Delta", "Alpha, The (1991)", "", "{{ 7 }}", "12", "Beta Two"]
SMALL = Pool(
    item_ids=["", *(str(i) for i in range(1, len(TITLES) + 1))],
    titles=["", *TITLES],
    attributes=[AttributeSpec(name="genre", kind="category")],
    values={"genre": ["Drama"] * len(TITLES)},
    domain=MOVIES,
)


def ranked(*items: int) -> list[RankedItem]:
    return [RankedItem(item_index=item, score=1.0) for item in items]


@pytest.fixture
def memory(pool):
    return Memory(PoolDirectory.of(pool), history=[4])


@pytest.mark.parametrize(
    ("entry", "item", "kind"),
    [
        ("<m1>", 1, "exact"),
        ("m1", 1, "exact"),
        ("< m1 >", 1, "exact"),
        ("<m1> The Shawshank Redemption", 1, "exact"),
        ("<m1> a fine film", 1, "exact"),
        ("<1984>", 10, "exact"),
        ("1984", 10, "exact"),
        ("The Shawshank Redemption", 1, "title"),
        ("<The Shawshank Redemption>", 1, "title"),
        ("<m99> The Shawshank Redemption", 1, "title"),
        ("Shawshnak Redemption", 1, "near"),
        ("<m2> The Shawshank Redemption", 0, "mismatch"),
        ("Sabrina", 0, "ambiguous"),
        ("<m99>", 0, "unknown"),
        ("0", 0, "unknown"),
        ("", 0, "unknown"),
        ("<m99> Casablanca", 0, "unknown"),
    ],
)
def test_what_an_entry_stands_for(pool, entry, item, kind):
    match = PoolDirectory.of(pool).find(entry)
    assert (match.item_index, match.kind) == (item, kind)
    assert bool(match.reason) == (item == 0)


def test_refused_entries_leave_their_slots_empty_and_are_named(memory):
    checked = memory.check_entries(["<m1>", "<m99>", "Heat", "<m1>", "<m2> Heat", "m3"], length=10)
    assert checked.items == (1, 0, 0, 0, 0, 3)
    assert checked.counts == {
        "memory_exact": 2,
        "memory_unknown": 1,
        "memory_seen": 1,
        "memory_duplicate": 1,
        "memory_mismatch": 1,
    }
    assert len(checked.refused) == 3  # a repeat is dropped without a word
    assert "<m99>" in checked.reason and "Heat" in checked.reason and "history" in checked.reason


def test_seen_items_count_where_they_are_not_masked(pool):
    memory = Memory(PoolDirectory.of(pool), history=[4], mask_seen=False)
    assert memory.check_entries(["<m4>"], length=10).items == (4,)


def test_without_the_check_only_exact_ids_are_read_and_nothing_is_refused(pool):
    memory = Memory(PoolDirectory.of(pool), history=[4], is_checked=False)
    checked = memory.check_entries(["<m1>", "Toy Story", "<m99>", "<m2> Heat", "<m4>"], length=10)
    assert checked.items == (1, 0, 0, 2, 0)
    assert checked.refused == ()


def test_a_title_that_came_apart_at_its_commas_is_put_together(memory):
    entries = ["Good", "the Bad and the Ugly", "The (1966)", "Shawshank Redemption", "The (1994)", "Toy Story (1995)"]
    assert memory.check_entries(entries, length=10).items == (7, 1, 2)


def test_entries_beyond_the_list_are_cut(memory):
    checked = memory.check_entries(["m1", "m2", "m3"], length=2)
    assert checked.items == (1, 2)
    assert checked.counts["list_cut"] == 1


def test_among_names_the_only_items_allowed(memory):
    checked = memory.check_entries(["m1", "m2"], length=5, among={2})
    assert checked.items == (0, 2)
    assert "not one of the candidates" in checked.reason


def test_a_retrievers_list_is_checked_too(memory):
    kept, counts = memory.check_items(ranked(1, 4, 99, 1, 0, -3, 2))
    assert [item.item_index for item in kept] == [1, 2]
    assert counts == {"memory_seen": 1, "memory_unknown": 3, "memory_duplicate": 1}


def test_candidates_keep_their_marks_and_the_newest_come_first(memory):
    memory.store(ranked(1, 2), mark="Retrieve[none]", round=1)
    memory.store(ranked(2, 3), mark="Retrieve[genre]", round=2)
    assert [(c.item_index, c.mark, c.round, c.position) for c in memory.candidates] == [
        (1, "Retrieve[none]", 1, 1),
        (2, "Retrieve[none]", 1, 2),
        (2, "Retrieve[genre]", 2, 1),
        (3, "Retrieve[genre]", 2, 2),
    ]
    assert newest_first(memory.candidates) == [2, 3, 1]


def test_the_completed_list_is_filled_by_reciprocal_rank_fusion(memory):
    memory.store(ranked(1, 2, 3), mark="Retrieve[none]", round=1)
    memory.store(ranked(3, 5), mark="Retrieve[genre]", round=2)
    # 3: 1/63 + 1/61; 1: 1/61; 2 and 5: 1/62 each, the smaller index first.
    assert memory.completed([0, 6, 0], length=10) == (6, 3, 1, 2, 5)
    assert memory.completed([0, 6, 0], length=3) == (6, 3, 1)
    assert memory.completed([], length=1) == (3,)


def test_nothing_in_memory_completes_nothing(memory):
    assert memory.completed([0, 0], length=10) == ()


def test_one_directory_is_shared_by_all_that_work_on_a_pool(pool):
    first = PoolDirectory.of(pool)
    assert PoolDirectory.of(pool) is first
    assert PoolDirectory.of(copy.deepcopy(pool)) is not first
    assert first.line(1) == "<m1> Shawshank Redemption, The (1994) | genre: Drama"


entries = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from([*TITLES, *(f"<{i}>" for i in range(12)), "<1> Beta", "alpha", "Alpha, The"]),
        st.integers(-2, 12).map(str),
    ),
    max_size=15,
)
lists = st.lists(st.lists(st.integers(-3, 20), max_size=8), max_size=4)


@settings(deadline=None)
@given(entries, lists, st.sets(st.integers(1, 8), max_size=4), st.booleans(), st.booleans())
def test_nothing_outside_the_pool_ever_gets_in(written, brought, history, mask_seen, is_checked):
    memory = Memory(PoolDirectory.of(SMALL), history, mask_seen=mask_seen, is_checked=is_checked)
    for number, items in enumerate(brought, start=1):
        kept, _ = memory.check_items(ranked(*items))
        memory.store(kept, mark=f"Retrieve[{number}]", round=number)
    checked = memory.check_entries(written, length=10)
    given_items = [item for item in checked.items if item]
    completed = memory.completed(checked.items, length=10)
    barred = history if mask_seen else set()
    for items in (given_items, completed, [c.item_index for c in memory.candidates]):
        assert all(1 <= item <= SMALL.num_items and item not in barred for item in items)
    assert len(set(given_items)) == len(given_items)
    assert len(set(completed)) == len(completed) <= 10
    assert list(completed[: len(given_items)]) == given_items
    assert len(checked.items) <= 10
