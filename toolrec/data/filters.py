"""Filters and order: which interactions stay, and in which order a user's items stand. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from toolrec.errors import ConfigError, DataError

TieBreak = Literal["source_order", "item_id"]
TIE_BREAKS: tuple[TieBreak, ...] = ("source_order", "item_id")
Repeats = Literal["first", "keep"]
REPEATS: tuple[Repeats, ...] = ("first", "keep")
"""What happens when a user comes back to an item: with seen items masked, a repeated target could never be hit."""

MIN_USER_INTERACTIONS = 3
"""One for each part of the leave-one-out split; a user with fewer has no history, or no target. Other splits need others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterConfig:
    """Which interactions stay.

    Applied in this order: interactions before `since` or from `until` on (Unix seconds); those below `min_rating`; of a
    repeated (user, item) pair all but the first, unless `repeats` is `keep`; items with fewer than `min_item_interactions`
    (once); then, again and again until nothing changes, users with too few interactions for the split, items with fewer than
    `k_core_items` and users with fewer than `k_core_users`.
    """

    min_rating: float | None = None
    since: float | None = None
    until: float | None = None
    min_item_interactions: int = 1
    k_core_users: int = 1
    k_core_items: int = 1
    repeats: Repeats = "first"
    tie_break: TieBreak = "source_order"

    def __post_init__(self) -> None:
        for name in ("min_item_interactions", "k_core_users", "k_core_items"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", value=getattr(self, name))
        if self.min_rating is not None and not np.isfinite(self.min_rating):
            raise ConfigError("min_rating must be a number", value=self.min_rating)
        if self.tie_break not in TIE_BREAKS:
            raise ConfigError("unknown tie-break", value=self.tie_break, allowed=TIE_BREAKS)
        if self.repeats not in REPEATS:
            raise ConfigError("unknown way with repeats", value=self.repeats, allowed=REPEATS)


@dataclass(slots=True, kw_only=True)
class FilterReport:
    """What the filters took, for the manifest and the person."""

    interactions_before: int = 0
    users_before: int = 0
    items_before: int = 0
    outside_time: int = 0
    below_min_rating: int = 0
    repeated_pairs: int = 0
    rare_items: int = 0
    k_core_items: int = 0
    k_core_users: int = 0
    short_users: int = 0
    interactions_after: int = 0
    users_after: int = 0
    items_after: int = 0
    sentences: list[str] = field(default_factory=list)


def keep(
    users: np.ndarray,
    items: np.ndarray,
    ratings: np.ndarray | None,
    order: np.ndarray,
    config: FilterConfig,
    *,
    seconds: np.ndarray | None = None,
    min_user_interactions: int = MIN_USER_INTERACTIONS,
) -> tuple[np.ndarray, FilterReport]:
    """Applies the filters.

    Args:
        users: user codes, 0-based.
        items: item codes, 0-based.
        ratings: along them, or None.
        order: row numbers by user, oldest first; says which of a repeated pair is the first.
        config: the filters.
        seconds: Unix seconds along them, where they have real times.
        min_user_interactions: users with fewer have no target.

    Returns:
        Row numbers that stay, in the order of `order`, and what was taken.

    Raises:
        ConfigError: a minimum rating where there are no ratings.
        DataError: nothing is left.
    """
    report = FilterReport(interactions_before=len(users), users_before=len(np.unique(users)), items_before=len(np.unique(items)))
    rows = order
    if config.since is not None or config.until is not None:
        if seconds is None:
            raise ConfigError("a filter by time needs real times, and this source has none", value="--since, --until")
        at = seconds[rows]
        rows = rows[
            (at >= (-np.inf if config.since is None else config.since))
            & (at < (np.inf if config.until is None else config.until))
        ]
        report.outside_time = len(order) - len(rows)
    num_timely = len(rows)
    if config.min_rating is not None:
        if ratings is None:
            raise ConfigError("a minimum rating needs ratings, and this source has none", value=config.min_rating)
        rows = rows[ratings[rows] >= config.min_rating]
        report.below_min_rating = num_timely - len(rows)
    if config.repeats == "first":
        firsts = first_of_pairs(users[rows], items[rows])
        report.repeated_pairs = len(rows) - len(firsts)
        rows = rows[firsts]
    frequent, report.rare_items = _frequent(items[rows], config.min_item_interactions)
    rows = _core(rows[frequent], users, items, config, report, min_user_interactions)
    report.interactions_after = len(rows)
    report.users_after, report.items_after = len(np.unique(users[rows])), len(np.unique(items[rows]))
    report.sentences = _sentences(report, config, min_user_interactions)
    if not len(rows):
        raise DataError(
            "no user and no item is left after filtering: " + ("; ".join(report.sentences) or "the source has none"),
            hint="loosen the filters",
        )
    return rows, report


def chronological(
    users: np.ndarray, timestamps: np.ndarray | None, tie_keys: np.ndarray | None, parts: np.ndarray | None = None
) -> np.ndarray:
    """Row numbers by user, oldest first.

    Args:
        users: user codes.
        timestamps: along them; None keeps the source's order within a user.
        tie_keys: what orders equal timestamps; None keeps the source's order.
        parts: a given split: a user's training comes before validation, and this before test, whatever the times say.
    """
    keys = [key for key in (tie_keys, timestamps, parts) if key is not None]
    return np.lexsort([*keys, users])  # stable: what is equal in all keys stays in source order


def item_id_keys(item_ids: list[str]) -> np.ndarray:
    """The place of each item id among all: by number where all are whole numbers, else by text."""
    if all(item_id.isascii() and item_id.isdigit() for item_id in item_ids):
        order = sorted(range(len(item_ids)), key=lambda code: (int(item_ids[code]), item_ids[code]))
    else:
        order = sorted(range(len(item_ids)), key=lambda code: item_ids[code])
    keys = np.empty(len(item_ids), dtype=np.int64)
    keys[order] = np.arange(len(item_ids))
    return keys


def timestamp_kind(users: np.ndarray, timestamps: np.ndarray | None) -> str:
    """What the timestamps seem to be: `none`, `unix_seconds`, `unix_milliseconds`, `position` or `unknown`.

    `position` is a whole number no larger than the number of the user's interactions. 0 stands for what is not known.
    """
    if timestamps is None:
        return "none"
    known = timestamps[timestamps != 0]
    if not len(known):
        return "unknown"
    low, high = float(known.min()), float(known.max())
    # 10^8 s is 1973 and 10^11 s is the year 5138: in between, seconds are the only sensible reading.
    if low >= 1e11:
        return "unix_milliseconds"
    if low >= 1e8 and high < 1e11:
        return "unix_seconds"
    lengths = np.bincount(users)
    if timestamps.min() >= 0 and np.all(timestamps == np.rint(timestamps)) and np.all(timestamps <= lengths[users]):
        return "position"
    return "unknown"


def first_of_pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Row numbers, ascending, at which a (user, item) pair stands for the first time."""
    if not len(users):
        return np.empty(0, dtype=np.int64)
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    _, firsts = np.unique(pairs, return_index=True)
    return np.sort(firsts)


def _frequent(codes: np.ndarray, minimum: int) -> tuple[np.ndarray, int]:
    """A mask of rows whose code occurs often enough, and how many codes do not."""
    counts = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    return counts[codes] >= minimum, int(np.sum((counts > 0) & (counts < minimum)))


def _core(
    rows: np.ndarray, users: np.ndarray, items: np.ndarray, config: FilterConfig, report: FilterReport, min_user_interactions: int
) -> np.ndarray:
    while True:
        num_before = len(rows)
        # Short users go first, so that they are counted as short and not as outside the core.
        frequent, dropped = _frequent(users[rows], min_user_interactions)
        rows, report.short_users = rows[frequent], report.short_users + dropped
        frequent, dropped = _frequent(items[rows], config.k_core_items)
        rows, report.k_core_items = rows[frequent], report.k_core_items + dropped
        frequent, dropped = _frequent(users[rows], config.k_core_users)
        rows, report.k_core_users = rows[frequent], report.k_core_users + dropped
        if len(rows) == num_before:
            return rows


def _sentences(report: FilterReport, config: FilterConfig, min_user_interactions: int) -> list[str]:
    told = (
        (report.outside_time, "interactions outside the time that was asked for"),
        (report.below_min_rating, f"interactions rated below {config.min_rating}"),
        (report.repeated_pairs, "interactions of a user with an item that the user had before"),
        (report.rare_items, f"items with fewer than {config.min_item_interactions} interactions"),
        (report.k_core_items, f"items outside the core, with fewer than {config.k_core_items} interactions"),
        (report.k_core_users, f"users outside the core, with fewer than {config.k_core_users} interactions"),
        (report.short_users, f"users with fewer than {min_user_interactions} interactions"),
    )
    return [f"dropped {what}: {count:,}" for count, what in told if count]
