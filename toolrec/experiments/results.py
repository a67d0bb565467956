"""From finished cells to tables: every point's figures over its cells, compared to the first point user by user.

Shapes: `U` users, `R` cells of a point, `K` list length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from toolrec.errors import RunFolderError
from toolrec.evaluation.statistics import Resampling, difference_intervals, holm, number_or_none, paired_p_values, score_intervals
from toolrec.evaluation.summary import SURROGATE, rows_of
from toolrec.evaluation.variance import variance_over_runs
from toolrec.experiments.cells import Cell
from toolrec.experiments.measured import MEASURED
from toolrec.experiments.measures import MEASURES, Seen
from toolrec.experiments.runner import Outcome, Plan, is_finished
from toolrec.runs.folder import LISTS, SUMMARY, read_manifest
from toolrec.util.files import read_json

FIGURES = ("ndcg@10", "recall@10")
MAIN = "ndcg@10"
ENOUGH_RUNS = 5
"""Repeats or trainings from which intervals over them hold: `benchmarks/interval_coverage.py --only-runs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An experiment's tables.

    Attributes:
        cells: one row a cell: labels, training, repeat, status, figures, measures.
        points: one row a point, and one a recommender where they are shown: labels, figures with intervals, the paired
            difference to the first point, measures (means over cells), and variances where there are several cells.
        labels: the columns that say which point a row is.
        notes: what a reader must know.
        protocol: what is the same in all finished cells.
    """

    name: str
    question: str
    varies: str
    cells: pd.DataFrame
    points: pd.DataFrame
    labels: tuple[str, ...]
    measures: tuple[str, ...]
    notes: tuple[str, ...]
    protocol: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    cell: Cell
    summary: Mapping[str, Any]
    lists: pd.DataFrame
    num_items: int

    @property
    def row(self) -> str:
        """Whose figures are the cell's own."""
        return SURROGATE if self.cell.point.measurement is None else MEASURED

    def own(self) -> pd.DataFrame:
        """The cell's own rows, by user."""
        return self.of(self.row)

    def of(self, recommender: str) -> pd.DataFrame:
        """A recommender's rows, by user."""
        rows = self.lists[self.lists["recommender"] == recommender]
        return rows.sort_values("user_index", ignore_index=True)

    def list_BK(self) -> np.ndarray:
        return np.array(self.own()["items"].tolist(), dtype=np.int64)

    def users(self) -> tuple[tuple[int, int], ...]:
        """Users and their targets: what must be the same where two cells are compared user by user."""
        rows = self.own()
        return tuple(zip(rows["user_index"].tolist(), rows["target"].tolist(), strict=True))


def results_of(outcome: Outcome) -> Result:
    """The tables of an experiment, of the cells that are finished."""
    plan = outcome.plan
    loaded = {cell.number: _load(cell) for cell in plan.cells if is_finished(cell)}
    points: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        points.setdefault(cell.point.name, []).append(cell)
    first_of: dict[str | None, list[Cell]] = {}
    for cells in points.values():
        first_of.setdefault(_compared_in(plan, cells[0]), cells)
    references = {
        label: {(cell.training, cell.repeat): loaded.get(cell.number) for cell in cells} for label, cells in first_of.items()
    }
    labels = tuple(dict.fromkeys(axis for cell in plan.cells for axis in cell.point.labels))
    resampling = Resampling(seed=plan.config.evaluation.seed)
    rows, differences = [], []
    for name, cells in points.items():
        done = [loaded[cell.number] for cell in cells if cell.number in loaded]
        row: dict[str, Any] = {**cells[0].point.labels, "cells": len(done), "failed": len(cells) - len(done)}
        if done:
            values = [one.own() for one in done]
            reference = references[_compared_in(plan, cells[0])]
            row |= _figures(done, values, resampling)
            pairs = [(one, reference.get((one.cell.training, one.cell.repeat))) for one in done]
            if name != first_of[_compared_in(plan, cells[0])][0].point.name:
                row |= _difference(
                    [(one.own(), other.own()) for one, other in pairs if other and one.users() == other.users()],
                    done,
                    resampling,
                )
            seen = [_measured(one, other, plan.experiment.measures) for one, other in pairs]
            row |= {measure: _mean([one[measure] for one in seen]) for measure in plan.experiment.measures}
        rows.append(row)
        differences.append(row.get("p_value"))
    if plan.experiment.has_recommenders and labels:
        first = next(iter(references.values()))
        rows += _recommender_rows(loaded.values(), [one for one in first.values() if one], labels[0], resampling)
        differences += [row.get("p_value") for row in rows[len(differences) :]]
    corrected = holm(np.array([np.nan if p is None else p for p in differences], dtype=np.float64))
    for row, p_value in zip(rows, corrected, strict=True):
        if not np.isnan(p_value):
            row["p_value_holm"] = float(p_value)
    frame = pd.DataFrame(rows)
    return Result(
        name=plan.experiment.name,
        question=plan.experiment.question,
        varies=plan.experiment.varies,
        cells=pd.DataFrame(
            [_cell_row(cell, loaded.get(cell.number), outcome, references[_compared_in(plan, cell)]) for cell in plan.cells]
        ),
        points=frame,
        labels=labels,
        measures=plan.experiment.measures,
        notes=tuple(_notes(outcome, loaded)),
        protocol=common_protocol(one.summary["protocol"] for one in loaded.values()),
    )


def common_protocol(protocols: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The entries of a protocol that are the same in all cells."""
    first, *others = list(protocols) or [{}]
    return {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def _compared_in(plan: Plan, cell: Cell) -> str | None:
    """Among the points of which label the cell is compared to the first; None among all."""
    return cell.point.labels[plan.experiment.within] if plan.experiment.within is not None else None


def _load(cell: Cell) -> _Loaded:
    path = cell.folder / LISTS
    try:
        lists = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"a cell's lists cannot be read ({error})", value=str(path)) from None
    summary: Any = read_json(cell.folder / SUMMARY, error=RunFolderError)
    return _Loaded(cell=cell, summary=summary, lists=lists, num_items=int(summary["protocol"]["items"]))


def _figures(done: Sequence[_Loaded], values: Sequence[pd.DataFrame], resampling: Resampling) -> dict[str, Any]:
    row: dict[str, Any] = {"users": len(values[0])}
    for metric in FIGURES:
        if any(metric not in one or one[metric].isna().any() for one in values):
            continue
        value_UR, kinds = _by_run(done, [one[metric].to_numpy() for one in values])
        row[metric] = float(value_UR.mean())
        low_1, high_1 = score_intervals(value_UR.mean(axis=1, keepdims=True), resampling)
        low, high = float(low_1[0]), float(high_1[0])
        if value_UR.shape[1] > 1 and len(value_UR) > 1:
            variance = variance_over_runs(value_UR)
            low, high = max(0.0, _outer(min, low, variance.low)), min(1.0, _outer(max, high, variance.high))
            if metric == MAIN:
                row |= {
                    "sd_between_users": float(np.sqrt(variance.between_users)),
                    f"sd_between_{kinds}": float(np.sqrt(variance.between_runs)),
                    f"sd_within_users_over_{kinds}": float(np.sqrt(variance.within_users)),
                    "share_of_runs": variance.share_of_runs,
                }
        row[f"{metric}_low"], row[f"{metric}_high"] = number_or_none(low), number_or_none(high)
    return row


def _by_run(done: Sequence[_Loaded], values: Sequence[np.ndarray]) -> tuple[np.ndarray, str]:
    """Users' values by training, repeats averaged; by repeat where there is one training. And which of the two it is."""
    trainings = list(dict.fromkeys(one.cell.training for one in done))
    if len(trainings) < 2:
        return np.stack(values, axis=1), "repeats"
    by_training = [
        np.mean([value for one, value in zip(done, values, strict=True) if one.cell.training == training], axis=0)
        for training in trainings
    ]
    return np.stack(by_training, axis=1), "trainings"


def _difference(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], done: Sequence[_Loaded], resampling: Resampling
) -> dict[str, Any]:
    """The paired difference to the first point; nothing where the users are others."""
    if not pairs or len(pairs) < len(done) or any(MAIN not in one or MAIN not in other for one, other in pairs):
        return {}
    difference_UR, _ = _by_run(done, [one[MAIN].to_numpy() - other[MAIN].to_numpy() for one, other in pairs])
    difference_U1 = difference_UR.mean(axis=1, keepdims=True)
    p_1 = paired_p_values(difference_U1, resampling)
    low_1, high_1 = difference_intervals(difference_U1, p_1, resampling)
    low, high, p_value = float(low_1[0]), float(high_1[0]), float(p_1[0])
    if difference_UR.shape[1] > 1 and len(difference_UR) > 1:
        variance = variance_over_runs(difference_UR)
        low, high = _outer(min, low, variance.low), _outer(max, high, variance.high)
        p_value = _outer(max, p_value, variance.p_value)
    return {
        "difference": float(difference_UR.mean()),
        "difference_low": number_or_none(low),
        "difference_high": number_or_none(high),
        "p_value": number_or_none(p_value),
    }


def _outer(choose: Callable[[float, float], float], over_users: float, over_runs: float) -> float:
    """The more careful of two answers: over users alone, which knows how rare hits are, and over users and runs.

    The interval leaves out 0 where both do, and the p-value is small where both are. What users alone do not give is no answer.
    """
    return over_runs if np.isnan(over_users) else choose(over_users, over_runs)


def _measured(one: _Loaded, other: _Loaded | None, measures: Sequence[str]) -> dict[str, float | None]:
    is_same = other is not None and one.users() == other.users()
    lists, others = one.list_BK(), other.list_BK() if other is not None and is_same else None
    seen = Seen(config=one.cell.config, summary=one.summary, list_BK=lists, reference_BK=others, num_items=one.num_items)
    return {name: MEASURES[name].of(seen) for name in measures}


def _recommender_rows(loaded: Any, reference: Sequence[_Loaded], axis: str, resampling: Resampling) -> list[dict[str, Any]]:
    """The recommenders alone, of the first point's cells."""
    if not reference:
        return []
    rows = []
    for name, summary_row in rows_of(reference[0].summary).items():
        if name.startswith(SURROGATE):
            continue
        values = [one.of(name) for one in reference]
        if any(value.empty for value in values):  # as a fusion that not every training has
            continue
        row: dict[str, Any] = {axis: summary_row["label"], "cells": len(values), "failed": 0}
        row |= _figures(reference, values, resampling)
        row |= _difference([(one.of(name), one.of(SURROGATE)) for one in reference], reference, resampling)
        rows.append(row)
    return rows


def _cell_row(cell: Cell, loaded: _Loaded | None, outcome: Outcome, reference: Mapping[Any, _Loaded | None]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "cell": cell.folder.name,
        **cell.point.labels,
        "training": cell.training or cell.config.recommenders.name,
        "repeat": cell.repeat,
        "status": "finished" if loaded else "failed" if cell.number in outcome.failures else "not run",
        "error": outcome.failures.get(cell.number),
    }
    if loaded is not None:
        figures = loaded.own()
        row |= {metric: float(figures[metric].mean()) for metric in FIGURES if metric in figures}
        row |= _measured(loaded, reference.get((cell.training, cell.repeat)), outcome.plan.experiment.measures)
    return row


def _notes(outcome: Outcome, loaded: Mapping[int, _Loaded]) -> list[str]:
    plan = outcome.plan
    notes: list[str] = []
    if plan.is_smoke:
        notes.append("smoke test: a few users and points show that everything works; the figures say nothing")
    missing = len(plan.cells) - len(loaded)
    if missing:
        notes.append(f"{missing} of {len(plan.cells)} cells are missing: {len(outcome.failures)} failed")
    if len({_code_of(one) for one in loaded.values()}) > 1:
        notes.append("the code of toolrec was changed between cells: differences between them may come from that")
    if plan.experiment.within is not None:
        notes.append(f"differences are to the first row of the same {plan.experiment.within}")
    if len(plan.trainings) < 2 and any("mode" in (cell.point.measurement or {}) for cell in plan.cells):
        notes.append(
            "one backbone: intervals and p-values are over users"
            + (f" and {plan.repeats} trainings of each encoder" if plan.repeats > 1 else "")
            + " only; another training of the backbone can move every figure"
        )
    elif len(plan.trainings) < 2:
        notes.append(
            "one training: intervals and p-values are over users"
            + (" and repeats" if plan.repeats > 1 else "")
            + " only; another training of the recommenders can move every figure (--trainings tells how much)"
        )
    else:
        notes.append(f"intervals and p-values are over users and {len(plan.trainings)} trainings of the recommenders")
    kind, num_runs = ("trainings", len(plan.trainings)) if len(plan.trainings) > 1 else ("repeats", plan.repeats)
    if 1 < num_runs < ENOUGH_RUNS:
        notes.append(
            f"{num_runs} {kind}: where they differ by much, 95 % intervals and p-values promise too much (in simulation they "
            f"hold 86 % at worst with two, 91 % with three, 93 % from {ENOUGH_RUNS} on)"
        )
    if plan.repeats > 1 and any(cell.config.is_embedded and cell.point.measurement is None for cell in plan.cells):
        notes.append("the embedded rules answer every repeat alike: only what is spoilt by a seed differs between repeats")
    notes += [str(note) for one in list(loaded.values())[:1] for note in one.summary["protocol"].get("notes") or ()]
    return notes


def _code_of(one: _Loaded) -> str | None:
    stated = one.summary if one.cell.point.measurement is not None else read_manifest(one.cell.folder)
    code: str | None = (stated.get("code") or {}).get("toolrec")
    return code


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
