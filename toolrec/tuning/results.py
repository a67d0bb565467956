"""What a sweep came to: tables in Parquet, a plot, the totals, and the best trial's promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from toolrec.data import Dataset
from toolrec.errors import InputError, RunFailedError, RunFolderError
from toolrec.tuning import COMMAND
from toolrec.tuning.config import SweepConfig
from toolrec.tuning.plot import draw
from toolrec.tuning.promote import promote
from toolrec.tuning.trial import Plan
from toolrec.tuning.trials import TrialRow, best_of
from toolrec.util.files import atomic_file, read_json, write_json

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The totals of a complete sweep.

    Args:
        num_epochs: of all trials together.
        unpruned_epochs: what as many trials would cost at most where none is pruned or ends by itself.
        duration_s: of all trials' training together, validation included.
        best_trial: its number.
        promoted_to: the recommenders' folder that the best trial is now a member of; None if it is not.
        promoted_checksum: of the member's files there.
        note: why, in words.
    """

    member: str
    num_trials: int
    num_pruned: int
    num_failed: int
    num_epochs: int
    unpruned_epochs: int
    duration_s: float
    best_trial: int
    best_ndcg_at_10: float
    best_epoch: int
    best_params: Mapping[str, Any]
    promoted_to: str | None
    promoted_checksum: str | None
    note: str


def is_complete(folder: Path) -> bool:
    """Whether the sweep came to its end."""
    return (folder / SUMMARY).is_file()


def read_summary(folder: Path) -> Summary:
    """The totals in a sweep's folder.

    Raises:
        RunFolderError: the sweep is not complete.
    """
    if not is_complete(folder):
        raise RunFolderError("the sweep is not complete", value=str(folder), hint=f"go on with {COMMAND.get()} resume {folder}")
    return Summary(**read_json(folder / SUMMARY, error=RunFolderError))


def finish(
    config: SweepConfig, plan: Plan, dataset: Dataset, protocol: Mapping[str, Any], folder: Path, rows: Sequence[TrialRow]
) -> Summary:
    """Writes the results and promotes the best trial.

    Raises:
        ToolRecError: no trial has finished an epoch; it is the first one's error.
    """
    best = best_of(rows)
    if best is None or best.best_ndcg_at_10 is None:
        _raise_first(rows)
        raise RunFailedError("no trial has finished an epoch", value=str(folder))
    _write_tables(folder, rows)
    draw(rows, folder / "plot.svg", title=f"{config.member} on {dataset.name}: {protocol['validation']}")
    promoted = promote(config, plan, dataset, protocol, best)
    summary = Summary(
        member=config.member,
        num_trials=len(rows),
        num_pruned=sum(row.status == "pruned" for row in rows),
        num_failed=sum(row.status == "failed" for row in rows),
        num_epochs=sum(row.num_epochs for row in rows),
        unpruned_epochs=config.num_trials * config.max_epochs,
        duration_s=sum(row.duration_s for row in rows),
        best_trial=best.number,
        best_ndcg_at_10=best.best_ndcg_at_10,
        best_epoch=best.best_epoch,
        best_params=best.params,
        promoted_to=None if promoted.folder is None else str(promoted.folder),
        promoted_checksum=promoted.checksum,
        note=promoted.note,
    )
    write_json(folder / SUMMARY, asdict(summary))
    return summary


def _raise_first(rows: Sequence[TrialRow]) -> None:
    failed = [row for row in rows if row.status == "failed"]
    if failed and len(failed) == len(rows):
        kind = InputError if failed[0].exit_code == InputError.exit_code else RunFailedError
        raise kind(f"all {len(rows)} trials failed; the first: {failed[0].error}")


def _write_tables(folder: Path, rows: Sequence[TrialRow]) -> None:
    trials = [
        {
            "trial": row.number,
            "status": row.status,
            "epochs": row.num_epochs,
            "best_epoch": row.best_epoch,
            "ndcg@10": row.best_ndcg_at_10,
            "duration_s": row.duration_s,
            "cpu_s": row.cpu_s,
            "stopped_by": row.stopped_by,
            "error": row.error,
            **row.params,
        }
        for row in rows
    ]
    epochs = [
        {
            "trial": row.number,
            "epoch": epoch["epoch"],
            "loss": epoch["loss"],
            "ndcg@10": epoch["ndcg_at_10"],
            "duration_s": epoch["duration_s"],
            "cpu_s": epoch["cpu_s"],
        }
        for row in rows
        for epoch in row.log
    ]
    for name, content in (("results", trials), ("epochs", epochs)):
        with atomic_file(folder / f"{name}.parquet") as temporary:
            pd.DataFrame(content).to_parquet(temporary, index=False)
