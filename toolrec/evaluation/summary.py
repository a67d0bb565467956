"""summary.json: one row a recommender with its figures, and beside the rows what the run did.

Shapes: `B` users, `K` list length, `M` figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolrec.data import Dataset
from toolrec.errors import RunFolderError
from toolrec.evaluation.baselines import ATTRIBUTE_PREFIX, BACKBONE, POPULARITY
from toolrec.evaluation.behaviour import behaviour_of, counts_of, is_finished, tokens_of, wall_s_of
from toolrec.evaluation.coverage import sources_of_hits
from toolrec.evaluation.metrics import all_metric_names, metric_names, pad_lists, positions_of, values_of
from toolrec.evaluation.statistics import Resampling, bootstrap_intervals, paired_p_values
from toolrec.recommenders.learned_fusion import FUSION, RANKER, SCORE_FUSION

SCHEMA_VERSION = 1
SURROGATE = "surrogate"
COMPLETED = "surrogate_completed"
FUSIONS = {
    FUSION: "fusion of the tools (no LLM)",
    SCORE_FUSION: "score fusion (no LLM)",
    RANKER: "ranker (no LLM)",
}
"""The rows that put all tools together, and how tables call them."""

STRONGEST = "strongest_fusion"
"""The protocol's entry for the fusion that was best on validation; reciprocal rank fusion where none was learned."""

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
    "statistics",
)
"""The top-level keys of a summary that are not rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    name: str
    label: str
    position_B: np.ndarray
    list_length: int

    @property
    def metrics(self) -> list[str]:
        return metric_names(self.list_length)

    def values(self, metrics: Sequence[str]) -> np.ndarray:
        return values_of(self.position_B, metrics)


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
        resampling: how intervals and tests are drawn.

    Raises:
        RunFolderError: no user, the same user twice, or lists of another number of users.
    """
    _check(users, baseline_lists)
    resampling = resampling or Resampling()
    target_B = dataset.targets(protocol["split"])[users["user_index"].to_numpy(dtype=np.int64)].astype(np.int64)
    finished_B = is_finished(users)
    rows = _surrogate_rows(users, target_B, finished_B, protocol)
    rows += [
        _Row(name=name, label=_label(name), position_B=positions_of(list_BK, target_B), list_length=list_BK.shape[1])
        for name, list_BK in _ordered(baseline_lists).items()
    ]
    given = users.assign(final_items=pd.Series(_given_lists(users, "final_items", finished_B), index=users.index))
    wall_s = wall_s_of(users)
    return {
        **_rows_as_json(rows, finished_B, resampling, _compared_to(protocol)),
        "schema_version": SCHEMA_VERSION,
        "users_per_s": len(users) / wall_s if wall_s > 0 else None,
        "wall_s": wall_s,
        "protocol": dict(protocol),
        "counts": counts_of(users),
        "behaviour": behaviour_of(users, rounds),
        "tokens": tokens_of(users),
        "hits": sources_of_hits(given, target_B.tolist(), list_length=_list_length(protocol)),
        "statistics": resampling.as_json(),
    }


def _check(users: pd.DataFrame, baseline_lists: Mapping[str, np.ndarray]) -> None:
    if users.empty:
        raise RunFolderError("the run has no user to evaluate", hint="continue it with --resume")
    twice = users["user_index"][users["user_index"].duplicated()]
    if not twice.empty:
        raise RunFolderError("the run holds the same user twice", value=int(twice.iloc[0]))
    for name, list_BK in baseline_lists.items():
        if len(list_BK) != len(users):
            raise RunFolderError(f"{name} has lists for another number of users", value=len(list_BK), allowed=len(users))


def _list_length(protocol: Mapping[str, Any]) -> int:
    return int(protocol.get("list_length") or DEFAULT_LIST_LENGTH)


def _given_lists(users: pd.DataFrame, column: str, finished_B: np.ndarray) -> list[list[int]]:
    return [[int(item) for item in items] if finished else [] for items, finished in zip(users[column], finished_B, strict=True)]


def _surrogate_rows(users: pd.DataFrame, target_B: np.ndarray, finished_B: np.ndarray, protocol: Mapping[str, Any]) -> list[_Row]:
    length = _list_length(protocol)
    rows = []
    for name, column in ((SURROGATE, "final_items"), (COMPLETED, "completed_items")):
        list_BK = pad_lists(_given_lists(users, column, finished_B), length=length)
        label = _label(name, model=str(protocol.get("model", "")))
        rows.append(_Row(name=name, label=label, position_B=positions_of(list_BK, target_B), list_length=length))
    return rows


def _label(name: str, *, model: str = "") -> str:
    if name in (SURROGATE, COMPLETED):
        by_whom = "embedded rules, not an LLM" if model.startswith(EMBEDDED_MODEL_START) else model
        kind = SURROGATE if name == SURROGATE else f"{SURROGATE}, completed"
        return f"{kind} ({by_whom})" if by_whom else kind
    if name.startswith(ATTRIBUTE_PREFIX):
        return f"attribute {name.removeprefix(ATTRIBUTE_PREFIX)}"
    return FUSIONS.get(name, name)


def _ordered(baseline_lists: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    attributes = [name for name in baseline_lists if name not in (BACKBONE, *FUSIONS, POPULARITY)]
    order = [BACKBONE, *attributes, *FUSIONS, POPULARITY]
    return {name: baseline_lists[name] for name in order if name in baseline_lists}


def _rows_as_json(rows: list[_Row], finished_B: np.ndarray, resampling: Resampling, references: Sequence[str]) -> dict[str, Any]:
    value_BM = np.concatenate([row.values(row.metrics) for row in rows], axis=1)
    figures = [(row.name, metric) for row in rows for metric in row.metrics]
    pairs = [
        (row, reference, metric)
        for reference in rows
        if reference.name in references
        for row in rows
        if row is not reference
        for metric in row.metrics
        if metric in reference.metrics
    ]
    column = {key: index for index, key in enumerate(figures)}
    minuend = [column[row.name, metric] for row, _, metric in pairs]
    subtrahend = [column[reference.name, metric] for _, reference, metric in pairs]
    difference_BM = value_BM[:, minuend] - value_BM[:, subtrahend]
    low_M, high_M = bootstrap_intervals(np.concatenate([value_BM, difference_BM], axis=1), resampling)
    p_M = paired_p_values(difference_BM, resampling)

    result = {row.name: _row_as_json(row, finished_B, references) for row in rows}
    for index, (name, metric) in enumerate(figures):
        result[name]["intervals"][metric] = _interval(low_M[index], high_M[index])
    for index, (row, reference, metric) in enumerate(pairs):
        place = len(figures) + index
        result[row.name][f"difference_to_{reference.name}"][metric] = {
            "mean": float(difference_BM[:, index].mean()),
            "low": _number(low_M[place]),
            "high": _number(high_M[place]),
            "p_value": _number(p_M[index]),
        }
    return result


def _row_as_json(row: _Row, finished_B: np.ndarray, references: Sequence[str]) -> dict[str, Any]:
    return {
        "label": row.label,
        "num_users": len(row.position_B),
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


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
