"""A sweep's trials as rows: from their files for results, from Ray Tune's own view of them while they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.tune.experiment import Trial

from toolrec.errors import RunFolderError
from toolrec.recommenders.training.fit_state import read_fields
from toolrec.tuning.trial import END, ERROR, METRIC, STATE, TRIAL
from toolrec.util.files import read_json

Status = Literal["running", "pruned", "finished", "failed", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial so far.

    Args:
        trial_id: Ray Tune's; the name of the trial's folder.
        number: in the order in which trials were started, from 1.
        best_ndcg_at_10: on the validation split; None before the first epoch has ended.
        duration_s: seconds of training, validation included.
        cpu_s: of the processor, by the trial's process.
        stopped_by: `patience` or `epochs`, of a finished trial.
    """

    trial_id: str
    number: int
    status: Status
    params: Mapping[str, Any]
    num_epochs: int = 0
    best_ndcg_at_10: float | None = None
    best_epoch: int = 0
    duration_s: float = 0.0
    cpu_s: float = 0.0
    stopped_by: str = ""
    error: str = ""
    exit_code: int = 0
    log: Sequence[Mapping[str, Any]] = ()


def stored_rows(trials: Path) -> list[TrialRow]:
    """The trials that were started, from their files, by number.

    Raises:
        CheckpointError: a trial's state is damaged.
    """
    return sorted((_stored_row(place) for place in _folders(trials)), key=lambda row: row.number)


def _folders(trials: Path) -> Iterator[Path]:
    if trials.is_dir():
        yield from (place for place in trials.iterdir() if (place / TRIAL).is_file())


def _stored_row(place: Path) -> TrialRow:
    told = read_json(place / TRIAL, error=RunFolderError)
    log = read_fields(place / STATE)["log"] if (place / STATE).is_file() else []
    best = max(log, key=lambda epoch: epoch["ndcg_at_10"], default=None)
    error: dict[str, Any] = read_json(place / ERROR) if (place / ERROR).is_file() else {"message": "", "exit_code": 0}
    end: dict[str, Any] = read_json(place / END) if (place / END).is_file() else {"stopped_by": ""}
    return TrialRow(
        trial_id=place.name,
        number=told["number"],
        status=_stored_status(is_failed=bool(error["message"]), is_ended=bool(end["stopped_by"]), is_pruned=told["is_pruned"]),
        params=told["params"],
        num_epochs=len(log),
        best_ndcg_at_10=best["ndcg_at_10"] if best else None,
        best_epoch=best["epoch"] if best else 0,
        duration_s=log[-1]["duration_s"] if log else 0.0,
        cpu_s=log[-1]["cpu_s"] if log else 0.0,
        stopped_by=end["stopped_by"],
        error=error["message"],
        exit_code=error["exit_code"],
        log=log,
    )


def _stored_status(*, is_failed: bool, is_ended: bool, is_pruned: bool) -> Status:
    if is_failed:
        return "failed"
    if is_ended:
        return "finished"
    return "pruned" if is_pruned else "unfinished"


def stored_numbers(trials: Path) -> dict[str, int]:
    """The numbers of the trials that were started."""
    return {place.name: read_json(place / TRIAL, error=RunFolderError)["number"] for place in _folders(trials)}


def live_rows(trials: Sequence[Trial], numbers: Mapping[str, int], folder: Path) -> list[TrialRow]:
    """The same of trials under way: those that were started, and have a number."""
    return [_live_row(numbers[trial.trial_id], trial, folder) for trial in trials if trial.trial_id in numbers]


def _live_row(number: int, trial: Trial, folder: Path) -> TrialRow:
    last = trial.last_result or {}
    statuses: dict[str, Status] = {"RUNNING": "running", "ERROR": "failed", "PENDING": "unfinished", "PAUSED": "unfinished"}
    status = statuses.get(trial.status, "pruned")
    if status == "pruned" and (folder / trial.trial_id / END).exists():
        status = "finished"
    return TrialRow(
        trial_id=trial.trial_id,
        number=number,
        status=status,
        params=trial.config,
        num_epochs=last.get("epoch", 0),
        best_ndcg_at_10=last.get(METRIC),
        duration_s=last.get("trained_s", 0.0),
    )


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The trial with the best validation NDCG@10; the earlier of two."""
    scored = [row for row in rows if row.best_ndcg_at_10 is not None and row.status != "failed"]
    return max(scored, key=lambda row: (row.best_ndcg_at_10 or 0.0, -row.number), default=None)
