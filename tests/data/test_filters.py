from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolrec.data.filters import FilterConfig, chronological, item_id_keys, keep, timestamp_kind
from toolrec.errors import ConfigError, DataError

pairs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=120)


def arrays(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users, items, ratings = (np.array(column) for column in zip(*rows, strict=True))
    return users, items, ratings.astype(np.float32)


@given(pairs, st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_core_invariant(rows: list[tuple[int, int, int]], k_users: int, k_items: int, min_rating: int) -> None:
    users, items, ratings = arrays(rows)
    config = FilterConfig(min_rating=min_rating, k_core_users=k_users, k_core_items=k_items)
    try:
        kept, report = keep(users, items, ratings, chronological(users, None, None), config)
    except DataError as error:
        assert "no item is left" in str(error)
        return
    assert np.unique(users[kept], return_counts=True)[1].min() >= max(3, k_users)
    assert np.unique(items[kept], return_counts=True)[1].min() >= k_items
    assert ratings[kept].min() >= min_rating
    assert len({(u, i) for u, i in zip(users[kept], items[kept], strict=True)}) == len(kept) == report.interactions_after
    assert np.all(np.diff(users[kept]) >= 0)


@given(pairs)
@settings(max_examples=100, deadline=None)
def test_users_are_never_dropped_silently(rows: list[tuple[int, int, int]]) -> None:
    users, items, _ = arrays(rows)
    try:
        kept, report = keep(users, items, None, chronological(users, None, None), FilterConfig())
    except DataError:
        return
    assert report.users_before == len(np.unique(users[kept])) + report.short_users
    assert report.interactions_before - report.repeated_pairs >= report.interactions_after


def test_core_is_the_largest_one() -> None:
    # Users 0 to 2 with items 0 to 3 are a 3-core; user 3 hangs on by two items, item 4 by one user.
    rows = [(u, i) for u in range(3) for i in range(4)] + [(0, 4), (3, 0), (3, 1)]
    users, items = (np.array(column) for column in zip(*rows, strict=True))
    config = FilterConfig(k_core_users=3, k_core_items=3)
    kept, report = keep(users, items, None, chronological(users, None, None), config)
    assert len(kept) == 3 * 4
    assert (report.k_core_items, report.short_users, report.k_core_users) == (1, 1, 0)


def test_rare_items_go_once() -> None:
    # Item 8 is rare; without it users 1 and 2 are short, and items 2 and 9 stay with the one interaction of user 0.
    rows = [(0, 1), (0, 2), (0, 9), (1, 1), (1, 2), (1, 8), (2, 9), (2, 1)]
    users, items = (np.array(column) for column in zip(*rows, strict=True))
    kept, report = keep(users, items, None, chronological(users, None, None), FilterConfig(min_item_interactions=2))
    assert items[kept].tolist() == [1, 2, 9]
    assert (report.rare_items, report.short_users, report.k_core_items) == (1, 2, 0)


def test_nothing_left() -> None:
    users, items = np.array([0, 0, 1]), np.array([0, 1, 2])
    with pytest.raises(
        DataError, match="no user and no item is left after filtering: dropped users with fewer than 3 interactions: 2"
    ):
        keep(users, items, None, chronological(users, None, None), FilterConfig())


def test_first_of_a_repeated_pair_is_the_oldest() -> None:
    users, items = np.array([0, 0, 0, 0]), np.array([5, 6, 7, 5])
    times = np.array([40.0, 20.0, 30.0, 10.0])
    order = chronological(users, times, None)
    kept, report = keep(users, items, None, order, FilterConfig())
    assert items[kept].tolist() == [5, 6, 7]
    assert times[kept].tolist() == [10.0, 20.0, 30.0]
    assert report.repeated_pairs == 1
    kept, report = keep(users, items, None, order, FilterConfig(repeats="keep"))
    assert (items[kept].tolist(), report.repeated_pairs) == ([5, 6, 7, 5], 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60))
def test_order_is_by_user_time_and_then_source(rows: list[tuple[int, int]]) -> None:
    users, times = (np.array(column) for column in zip(*rows, strict=True))
    order = chronological(users, times.astype(float), None)
    assert order.tolist() == sorted(range(len(rows)), key=lambda row: (users[row], times[row], row))


def test_ties_by_item_id_are_by_number_where_ids_are_numbers() -> None:
    assert item_id_keys(["10", "9", "2"]).tolist() == [2, 1, 0]
    assert item_id_keys(["b10", "b9", "a"]).tolist() == [1, 2, 0]
    users, times = np.zeros(3, dtype=int), np.zeros(3)
    assert chronological(users, times, item_id_keys(["10", "9", "2"])).tolist() == [2, 1, 0]
    assert chronological(users, times, None).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        (None, "none"),
        ([978_300_760, 978_302_109, 978_301_968], "unix_seconds"),
        ([978_300_760_000, 978_302_109_000, 978_301_968_000], "unix_milliseconds"),
        ([1, 2, 1], "position"),
        ([0, 2, 0], "position"),
        ([1, 3, 1], "unknown"),
        ([0.5, 1, 1], "unknown"),
        ([-1, 1, 1], "unknown"),
    ],
)
def test_timestamp_kind(times: list[float] | None, kind: str) -> None:
    assert timestamp_kind(np.array([0, 0, 1]), None if times is None else np.array(times, dtype=float)) == kind


@pytest.mark.parametrize(
    "settings_",
    [{"min_item_interactions": 0}, {"k_core_users": 0}, {"k_core_items": -1}, {"tie_break": "x"}, {"repeats": "x"},
     {"min_rating": float("nan")}],
)  # fmt: skip
def test_settings_are_checked(settings_: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FilterConfig(**settings_)  # type: ignore[arg-type]


def test_minimum_rating_needs_ratings() -> None:
    users = np.array([0, 0, 0])
    with pytest.raises(ConfigError, match="has none"):
        keep(users, users, None, users, FilterConfig(min_rating=3))
