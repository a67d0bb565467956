"""summary.json: one row a recommender with its figures, and beside the rows what the run did.

Shapes: `B` users, `K` list length, `T` targets, `M` figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolrec.data import Dataset, Split
from toolrec.data.obscure import obscured
from toolrec.errors import RunFolderError
from toolrec.evaluation.analyses.beyond_accuracy import BeyondAccuracy
from toolrec.evaluation.analyses.groups import cold_start_groups, figures_by_group, first_category, group_values
from toolrec.evaluation.analyses.leaks import count_leaks
from toolrec.evaluation.baselines import ATTRIBUTE_PREFIX, BACKBONE, POPULARITY
from toolrec.evaluation.behaviour import behaviour_of, counts_of, is_finished, tokens_of, wall_s_of
from toolrec.evaluation.coverage import sources_of_hits
from toolrec.evaluation.differences import describe_differences
from toolrec.evaluation.statistics import (
    Resampling,
    holm,
    paired_p_values,
    score_intervals,
)
from toolrec.metrics import all_metric_names, metric_names, pad_lists, positions_of, values_of
from toolrec.recommenders.fusion.learned import FUSION, RANKER, SCORE_FUSION, TOOLS_RANKER
from toolrec.surrogate.config import DEFAULT_STRATEGY

LOOP_BY_PATH = "toolrec.surrogate:Surrogate"
"""How runs of earlier versions name the default strategy."""

SCHEMA_VERSION = 1
SURROGATE = "surrogate"
COMPLETED = "surrogate_completed"
NO_LLM = "(no LLM)"
FUSIONS = {
    FUSION: f"fusion of the tools {NO_LLM}",
    SCORE_FUSION: f"score fusion {NO_LLM}",
    RANKER: f"ranker with neighbours {NO_LLM}",
    TOOLS_RANKER: f"ranker of the tools' lists {NO_LLM}",
}
"""The rows that put all tools together, and how tables call them."""

GROUPED_METRIC = "ndcg@10"
"""The figure that is given by group of users."""

STRONGEST = "strongest_fusion"
"""The protocol's entry for the fusion that was best on validation; reciprocal rank fusion where none was learned."""

UNREACHABLE = "unreachable_targets"
"""The protocol's entry for targets that masking keeps off every list; absent where there are none."""

DEFAULT_LIST_LENGTH = 10
EMBEDDED_MODEL_START = "toolrec-rules"
"""How the embedded endpoint's model names begin: its rows say that no LLM was asked."""

BESIDE_ROWS = (
    "schema_version",
    "users_per_s",
    "wall_s",
    "protocol",
    "counts",
    "behaviour",
    "tokens",
    "hits",
    "groups",
    "leaks",
    "statistics",
)
"""The top-level keys of a summary that are not rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    name: str
    label: str
    list_BK: np.ndarray
    position_BT: np.ndarray

    @property
    def metrics(self) -> list[str]:
        return metric_names(self.list_BK.shape[1])

    def values(self, metrics: Sequence[str]) -> np.ndarray:
        return values_of(self.position_BT, metrics)


def rows_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The recommenders' rows of a summary, in the order of the table."""
    return {name: row for name, row in summary.items() if name not in BESIDE_ROWS}


def references_of(protocol: Mapping[str, Any]) -> tuple[str, str]:
    """The two rows to which tables compare every other, user by user: the backbone and the strongest fusion."""
    return BACKBONE, str(protocol.get(STRONGEST) or FUSION)


def _compared_to(protocol: Mapping[str, Any]) -> list[str]:
    """All rows that others are compared to: reciprocal rank fusion too where another one is the strongest."""
    return list(dict.fromkeys([BACKBONE, FUSION, *references_of(protocol)]))


def summarise(
    users: pd.DataFrame,
    dataset: Dataset,
    baseline_lists: Mapping[str, np.ndarray],
    *,
    protocol: Mapping[str, Any],
    rounds: pd.DataFrame | None = None,
    messages: Iterable[pd.DataFrame] | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Any]:
    """The whole of summary.json as plain values.

    Every user counts: the lists of a user who failed are a miss in all-user figures, whatever they hold; each row's
    `finished_users` gives the same figures over the users that finished, for every row on the same users.

    Args:
        users: one row a user, in the documented columns of the run folder.
        dataset: the data set of the run; gives the targets.
        baseline_lists: row name -> `list_BK`, along `users`.
        protocol: what was run; `split` is needed, `model` and `list_length` are used, all of it is kept and
            shown. `strongest_fusion` names the fusion that tables compare to.
        rounds: the rounds' ROUND_COLUMNS, for tool calls by mark.
        messages: blocks of rounds with LEAK_COLUMNS, in which the target is looked for; `leaks` is None without them.
        resampling: how intervals and tests are drawn.

    Raises:
        RunFolderError: no user, the same user twice, or lists of another number of users.
    """
    _check(users, baseline_lists)
    resampling = resampling or Resampling()
    target_BT = dataset.all_targets(protocol["split"])[users["user_index"].to_numpy(dtype=np.int64)].astype(np.int64)
    finished_B = is_finished(users)
    repeats = _repeats(users, target_BT, dataset, protocol["split"])
    unreachable = len(repeats) if protocol.get("mask_seen", True) else 0
    if unreachable:
        protocol = {**protocol, UNREACHABLE: f"{unreachable:,} of {len(users):,} (they are in the history, which is masked)"}
    rows = _surrogate_rows(users, target_BT, finished_B, protocol)
    rows += [
        _Row(name=name, label=_label(name), list_BK=list_BK, position_BT=positions_of(list_BK, target_BT))
        for name, list_BK in _ordered(baseline_lists).items()
    ]
    analysed = _analysed(rows, users, target_BT[:, 0], dataset, protocol, resampling)
    given = users.assign(final_items=pd.Series(_given_lists(users, "final_items", finished_B), index=users.index))
    wall_s = wall_s_of(users)
    by_row = _rows_as_json(rows, finished_B, resampling, protocol)
    for name, beyond in analysed.beyond_accuracy.items():
        by_row[name]["beyond_accuracy"] = beyond
    return {
        **by_row,
        "schema_version": SCHEMA_VERSION,
        "users_per_s": len(users) / wall_s if wall_s > 0 else None,
        "wall_s": wall_s,
        "protocol": dict(protocol),
        "counts": counts_of(users),
        "behaviour": behaviour_of(users, rounds),
        "tokens": tokens_of(users),
        "hits": {
            **sources_of_hits(given, target_BT.tolist(), list_length=_list_length(protocol)),
            "num_unreachable_targets": unreachable,
        },
        "groups": analysed.groups,
        "leaks": None if messages is None else _leaks(messages, users, target_BT, dataset, repeats, protocol),
        "statistics": resampling.as_json(),
    }


def user_figures(
    users: pd.DataFrame, dataset: Dataset, baseline_lists: Mapping[str, np.ndarray], *, protocol: Mapping[str, Any]
) -> pd.DataFrame:
    """Every row's list for every user, with the target and its figures: all that a paired test needs.

    Args:
        users, dataset, baseline_lists, protocol: as in `summarise`.

    Returns:
        One row for each recommender and user: `recommender`, `user_index`, `target`, `items` (best first, 0 for an empty
        slot), `position` of the target (0 where it is absent), and the figures that the list is long enough for. Of several
        targets, `target` and `position` are the first's, and the figures those of all. The list of a user who failed is
        empty.
    """
    target_BT = dataset.all_targets(protocol["split"])[users["user_index"].to_numpy(dtype=np.int64)].astype(np.int64)
    rows = _surrogate_rows(users, target_BT, is_finished(users), protocol)
    rows += [
        _Row(name=name, label=_label(name), list_BK=list_BK, position_BT=positions_of(list_BK, target_BT))
        for name, list_BK in _ordered(baseline_lists).items()
    ]
    return pd.concat([_figures_of(row, users["user_index"], target_BT) for row in rows], ignore_index=True)


def list_figures(name: str, list_BK: np.ndarray, user_indexes: np.ndarray, dataset: Dataset, *, split: Split) -> pd.DataFrame:
    """Rows like those of `user_figures` for lists that no run is about."""
    target_BT = dataset.all_targets(split)[user_indexes].astype(np.int64)
    row = _Row(name=name, label=name, list_BK=list_BK, position_BT=positions_of(list_BK, target_BT))
    return _figures_of(row, pd.Series(user_indexes), target_BT)


def _figures_of(row: _Row, user_indexes: pd.Series, target_BT: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "recommender": row.name,
            "user_index": user_indexes.to_numpy(dtype=np.int32),
            "target": target_BT[:, 0].astype(np.int32),
            "items": [items.tolist() for items in row.list_BK.astype(np.int32)],
            "position": row.position_BT[:, 0].astype(np.int16),
        }
    )
    value_BM = row.values(row.metrics)
    return frame.assign(**{metric: value_BM[:, column] for column, metric in enumerate(row.metrics)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Analysed:
    beyond_accuracy: dict[str, dict[str, Any]]
    groups: dict[str, Any]


def _analysed(
    rows: list[_Row],
    users: pd.DataFrame,
    target_B: np.ndarray,
    dataset: Dataset,
    protocol: Mapping[str, Any],
    resampling: Resampling,
) -> _Analysed:
    user_indexes, split = users["user_index"].tolist(), protocol["split"]
    beyond = BeyondAccuracy(dataset, user_indexes, split)
    groups = figures_by_group(
        group_values(dataset, user_indexes, target_B, split, beyond.count_I),
        {row.name: row.values([GROUPED_METRIC])[:, 0] for row in rows if GROUPED_METRIC in row.metrics},
        row=SURROGATE,
        reference=BACKBONE,
        resampling=resampling,
        named=cold_start_groups(dataset, user_indexes, target_B, beyond.count_I),
    )
    return _Analysed(
        beyond_accuracy={row.name: beyond.of(row.list_BK) for row in rows},
        groups={"metric": GROUPED_METRIC, "taste_attribute": first_category(dataset.pool), "by": groups},
    )


def _leaks(
    messages: Iterable[pd.DataFrame],
    users: pd.DataFrame,
    target_BT: np.ndarray,
    dataset: Dataset,
    repeats: set[int],
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    user_indexes = [int(user) for user in users["user_index"]]
    return count_leaks(
        messages,
        dict(zip(user_indexes, users["attempt"].astype(int), strict=True)),
        {user: [item for item in row if item] for user, row in zip(user_indexes, target_BT.tolist(), strict=True)},
        repeats=repeats,
        pool=obscured(dataset.pool, protocol.get("obscure")),
    )


def _check(users: pd.DataFrame, baseline_lists: Mapping[str, np.ndarray]) -> None:
    if users.empty:
        raise RunFolderError("the run has no user to evaluate", hint="continue it with --resume")
    twice = users["user_index"][users["user_index"].duplicated()]
    if not twice.empty:
        raise RunFolderError("the run holds the same user twice", value=int(twice.iloc[0]))
    for name, list_BK in baseline_lists.items():
        if len(list_BK) != len(users):
            raise RunFolderError(f"{name} has lists for another number of users", value=len(list_BK), allowed=len(users))


def _repeats(users: pd.DataFrame, target_BT: np.ndarray, dataset: Dataset, split: Split) -> set[int]:
    """Users with a target that is in their history already; masking keeps it off every list."""
    pairs = zip(users["user_index"], target_BT, strict=True)
    return {int(user) for user, targets in pairs if np.isin(targets, dataset.history(int(user), split)).any()}


def _list_length(protocol: Mapping[str, Any]) -> int:
    return int(protocol.get("list_length") or DEFAULT_LIST_LENGTH)


def _given_lists(users: pd.DataFrame, column: str, finished_B: np.ndarray) -> list[list[int]]:
    return [[int(item) for item in items] if finished else [] for items, finished in zip(users[column], finished_B, strict=True)]


def _surrogate_rows(
    users: pd.DataFrame, target_BT: np.ndarray, finished_B: np.ndarray, protocol: Mapping[str, Any]
) -> list[_Row]:
    length = _list_length(protocol)
    rows = []
    for name, column in ((SURROGATE, "final_items"), (COMPLETED, "completed_items")):
        list_BK = pad_lists(_given_lists(users, column, finished_B), length=length)
        label = _label(name, model=str(protocol.get("model", "")), strategy=str(protocol.get("strategy") or DEFAULT_STRATEGY))
        rows.append(_Row(name=name, label=label, list_BK=list_BK, position_BT=positions_of(list_BK, target_BT)))
    return rows


def _label(name: str, *, model: str = "", strategy: str = DEFAULT_STRATEGY) -> str:
    if name in (SURROGATE, COMPLETED):
        by_whom = "embedded rules, not an LLM" if model.startswith(EMBEDDED_MODEL_START) else model
        own = SURROGATE if strategy in (DEFAULT_STRATEGY, LOOP_BY_PATH) else f"{SURROGATE} {strategy}"
        kind = own if name == SURROGATE else f"{own}, completed"
        return f"{kind} ({by_whom})" if by_whom else kind
    if name.startswith(ATTRIBUTE_PREFIX):
        return f"attribute {name.removeprefix(ATTRIBUTE_PREFIX)}"
    return FUSIONS.get(name, name)


def _ordered(baseline_lists: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    attributes = [name for name in baseline_lists if name not in (BACKBONE, *FUSIONS, POPULARITY)]
    order = [BACKBONE, *attributes, *FUSIONS, POPULARITY]
    return {name: baseline_lists[name] for name in order if name in baseline_lists}


def _rows_as_json(
    rows: list[_Row], finished_B: np.ndarray, resampling: Resampling, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    references = _compared_to(protocol)
    value_BM = np.concatenate([row.values(row.metrics) for row in rows], axis=1)
    figures = [(row.name, metric) for row in rows for metric in row.metrics]
    pairs = [
        _Pair(row=row.name, reference=reference.name, metric=metric)
        for reference in rows
        if reference.name in references
        for row in rows
        if row is not reference
        for metric in row.metrics
        if metric in reference.metrics
    ]
    column = {key: index for index, key in enumerate(figures)}
    minuend = [column[pair.row, pair.metric] for pair in pairs]
    subtrahend = [column[pair.reference, pair.metric] for pair in pairs]
    difference_BM = value_BM[:, minuend] - value_BM[:, subtrahend]

    result = {row.name: _row_as_json(row, finished_B, references) for row in rows}
    for (name, metric), low, high in zip(figures, *score_intervals(value_BM, resampling), strict=True):
        result[name]["intervals"][metric] = _interval(low, high)
    compared = _compared(difference_BM, pairs, references_of(protocol), resampling)
    for pair, difference in zip(pairs, compared, strict=True):
        result[pair.row][f"difference_to_{pair.reference}"][pair.metric] = difference
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    row: str
    reference: str
    metric: str


def _compared(
    difference_BM: np.ndarray, pairs: Sequence[_Pair], references: Sequence[str], resampling: Resampling
) -> list[dict[str, Any]]:
    """What is known of each difference, in the order of `pairs`."""
    p_M = paired_p_values(difference_BM, resampling)
    return describe_differences(difference_BM, p_M, _holm_by_table(p_M, pairs, references), resampling)


def _holm_by_table(p_M: np.ndarray, pairs: Sequence[_Pair], references: Sequence[str]) -> np.ndarray:
    """Holm's correction. A family is a figure's table: all rows against both of the tables' references.

    Two rows that are compared both ways are one test. A reference that no table shows makes a family of its own.
    """
    families: dict[tuple[str, str], dict[frozenset[str], list[int]]] = {}
    for column, pair in enumerate(pairs):
        family = families.setdefault((pair.metric, "" if pair.reference in references else pair.reference), {})
        family.setdefault(frozenset((pair.row, pair.reference)), []).append(column)
    corrected_M = np.full(len(p_M), np.nan)
    for family in families.values():
        tests = list(family.values())
        for columns, corrected in zip(tests, holm(p_M[[columns[0] for columns in tests]]), strict=True):
            corrected_M[columns] = corrected
    return corrected_M


def _row_as_json(row: _Row, finished_B: np.ndarray, references: Sequence[str]) -> dict[str, Any]:
    return {
        "label": row.label,
        "num_users": len(row.position_BT),
        **_means(row, np.ones(len(finished_B), dtype=bool)),
        "intervals": {},
        **{f"difference_to_{reference}": {} for reference in references},
        "finished_users": {"num_users": int(finished_B.sum()), **_means(row, finished_B)},
    }


def _means(row: _Row, kept_B: np.ndarray) -> dict[str, float | None]:
    """Every figure by name; None where the row's lists are too short for it or nobody is left."""
    means: dict[str, float | None] = dict.fromkeys(all_metric_names())
    if kept_B.any():
        mean_M = row.values(row.metrics)[kept_B].mean(axis=0)
        means.update({metric: float(mean) for metric, mean in zip(row.metrics, mean_M, strict=True)})
    return means


def _interval(low: float, high: float) -> list[float] | None:
    return None if np.isnan(low) or np.isnan(high) else [float(low), float(high)]
