"""Figures by group of users: history length, breadth of taste, how well the target is known, cold-start users and items.

Shapes: `B` users, `G` groups, `V` attribute values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolrec.data import Dataset, Pool, Split
from toolrec.evaluation.statistics import Resampling, difference_intervals, paired_p_values, score_intervals

NUM_GROUPS = 3
FEW_ITEMS = 5
"""A user with fewer items in training is a cold-start user."""

COLD_USERS, COLD_ITEMS = "cold_users", "cold_items"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedGroups:
    """A grouping into groups that have names: each user's place in `labels`."""

    labels: tuple[str, ...]
    place_B: np.ndarray


def cold_start_groups(
    dataset: Dataset, user_indexes: Sequence[int], target_B: np.ndarray, count_I: np.ndarray
) -> dict[str, NamedGroups]:
    """Cold-start users and items, where the data set has some.

    Args:
        dataset: of the users.
        user_indexes: who is grouped.
        target_B: their targets; of several the first.
        count_I: how often each item occurs in training.
    """
    found = {}
    num_B = dataset.num_trained[np.asarray(user_indexes, dtype=np.int64)]
    place_B = np.where(num_B == 0, 0, np.where(num_B < FEW_ITEMS, 1, 2))
    if (place_B < 2).any():
        labels = ("none (new users)", f"1 to {FEW_ITEMS - 1}", f"{FEW_ITEMS} or more")
        found[COLD_USERS] = NamedGroups(labels=labels, place_B=place_B)
    is_new_B = count_I[target_B] == 0
    if is_new_B.any():
        found[COLD_ITEMS] = NamedGroups(labels=("never (cold items)", "at least once"), place_B=np.where(is_new_B, 0, 1))
    return found


def group_values(
    dataset: Dataset, user_indexes: Sequence[int], target_B: np.ndarray, split: Split, count_I: np.ndarray
) -> dict[str, np.ndarray]:
    """What users are grouped by: name -> a number for each.

    `taste_breadth` is the effective number of values of the first category attribute in the history (the exponential of
    the entropy), `target_count` how often the target occurs in training: few is a cold item.
    """
    histories = [dataset.history(int(user), split) for user in user_indexes]
    values = {"history_length": np.array([len(history) for history in histories], dtype=np.float64)}
    attribute = first_category(dataset.pool)
    if attribute is not None:
        breadth = _Breadth(dataset.pool, attribute)
        values["taste_breadth"] = np.array([breadth.of(history) for history in histories])
    values["target_count"] = count_I[target_B].astype(np.float64)
    return values


def first_category(pool: Pool) -> str | None:
    """The attribute that `taste_breadth` is about."""
    return next((name for name, spec in pool.attributes.items() if spec.kind in ("category", "categories")), None)


class _Breadth:
    def __init__(self, pool: Pool, attribute: str) -> None:
        vocabulary, self._offsets, self._value_ids = pool.categories(attribute)
        self._num_values = len(vocabulary)

    def of(self, history: np.ndarray) -> float:
        held = [self._value_ids[self._offsets[item] : self._offsets[item + 1]] for item in history]
        count_V = np.bincount(np.concatenate(held), minlength=self._num_values) if held else np.zeros(1)
        share = count_V[count_V > 0] / max(count_V.sum(), 1)
        return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def figures_by_group(
    group_by: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    *,
    row: str,
    reference: str,
    resampling: Resampling,
    named: Mapping[str, NamedGroups] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Each grouping's groups, about a third of the users each, lowest values first, and groups that have names.

    Args:
        group_by: of `group_values`.
        values: row name -> every user's value of the figure that is grouped.
        row: compared to `reference` within each group.
        reference: the other row.
        resampling: how intervals and tests are drawn.
        named: of `cold_start_groups`; their groups have a `label`, and those without a user are left out.

    Returns:
        Name -> groups with `low` and `high` (the values they hold), `num_users`, `means` and `intervals` by row, and
        `difference` of `row` to `reference` where both are there.
    """
    groups: list[tuple[str, str | None, np.ndarray]] = [
        (name, None, members_B) for name, value_B in group_by.items() for members_B in _thirds(value_B)
    ]
    group_by = dict(group_by)
    for name, grouping in (named or {}).items():
        group_by[name] = grouping.place_B.astype(np.float64)
        places = np.unique(grouping.place_B)
        groups += [(name, grouping.labels[int(place)], grouping.place_B == place) for place in places]
    difference_B = values[row] - values[reference] if row in values and reference in values else None
    p_G = np.full(len(groups), np.nan)
    if difference_B is not None and groups:
        # Users outside of a group count as 0, whose sign does not matter: one call tests all groups.
        p_G = paired_p_values(np.stack([difference_B * members_B for _, _, members_B in groups], axis=1), resampling)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in group_by}
    for (name, label, members_B), p_value in zip(groups, p_G, strict=True):
        value_BM = np.stack([value_B[members_B] for value_B in values.values()], axis=1)
        low_M, high_M = score_intervals(value_BM, resampling)
        group: dict[str, Any] = {
            **({} if label is None else {"label": label}),
            "low": float(group_by[name][members_B].min()),
            "high": float(group_by[name][members_B].max()),
            "num_users": int(members_B.sum()),
            "means": {key: float(value_B[members_B].mean()) for key, value_B in values.items()},
            "intervals": {
                key: None if np.isnan(low) else [float(low), float(high)]
                for key, low, high in zip(values, low_M, high_M, strict=True)
            },
        }
        if difference_B is not None and group["num_users"] > 1:
            inside = difference_B[members_B][:, None]
            low_M, high_M = difference_intervals(inside, np.array([p_value]), resampling)
            group["difference"] = {
                "row": row,
                "reference": reference,
                "mean": float(inside.mean()),
                "low": float(low_M[0]),
                "high": float(high_M[0]),
                "p_value": float(p_value),
            }
        found[name].append(group)
    return found


def _thirds(value_B: np.ndarray) -> list[np.ndarray]:
    """Who is in which group; users with the same value are never parted, so there can be fewer groups."""
    edges = np.unique(np.quantile(value_B, np.arange(1, NUM_GROUPS) / NUM_GROUPS, method="lower"))
    group_B = np.searchsorted(edges, value_B, side="left")
    return [group_B == group for group in np.unique(group_B)]
