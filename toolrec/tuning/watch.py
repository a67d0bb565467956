"""What the driver does at Ray Tune's events: trial files, the table, and a scheduler that remembers over a restore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from toolrec.recommenders.training.fit_state import read_fields
from toolrec.tuning.table import Display
from toolrec.tuning.trial import END, ERROR, METRIC, STATE, TRIAL
from toolrec.tuning.trials import live_rows, stored_numbers
from toolrec.util.files import write_json


class Watch(Callback):
    """Writes down what becomes of the trials, and shows it."""

    def __init__(self, folder: Path, *, num_trials: int, max_epochs: int) -> None:
        self.folder = folder
        self.display = Display(num_trials=num_trials, max_epochs=max_epochs)
        self.numbers: dict[str, int] = {}

    def setup(self, **info: Any) -> None:
        """Takes up the numbers of the trials that a restored sweep has started before."""
        self.numbers = stored_numbers(self.folder)

    def on_trial_start(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:
        """Notes the trial's number and parameters."""
        self.numbers.setdefault(trial.trial_id, len(self.numbers) + 1)
        self._note(trial, is_pruned=False)

    def on_trial_complete(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:
        """Notes whether the trial ended by itself."""
        self._note(trial, is_pruned=not (self.folder / trial.trial_id / END).exists())

    def on_trial_error(self, iteration: int, trials: Sequence[Trial], trial: Trial, **info: Any) -> None:
        """Notes the error of a trial that could not do so itself: it was killed, or the fault is ours."""
        place = self.folder / trial.trial_id / ERROR
        if not place.exists():
            lines = str(trial.get_error() or "the trial's process was lost").strip().splitlines()
            write_json(place, {"message": lines[-1], "exit_code": 1})

    def on_step_end(self, iteration: int, trials: Sequence[Trial], **info: Any) -> None:
        """Shows the table."""
        self.display.show(live_rows(trials, self.numbers, self.folder))

    def on_experiment_end(self, trials: Sequence[Trial], **info: Any) -> None:
        """Shows the last of the table."""
        self.display.show(live_rows(trials, self.numbers, self.folder), is_end=True)

    def _note(self, trial: Trial, *, is_pruned: bool) -> None:
        told = {"number": self.numbers[trial.trial_id], "params": trial.config, "is_pruned": is_pruned}
        write_json(self.folder / trial.trial_id / TRIAL, told)


class RememberingASHA(ASHAScheduler):
    """ASHA that knows, after a restore, the epochs of all trials before it.

    Ray Tune restores trials and searcher, but not the scheduler: its rungs would be empty, and as many trials would pass
    them as at the start of a sweep. The epochs come from the trials' own files.
    """

    def __init__(self, folder: Path, *, max_epochs: int, grace_epochs: int, reduction_factor: int) -> None:
        self.folder = folder
        super().__init__(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=max(max_epochs - 1, grace_epochs),  # a rung at the last epoch would prune what is over
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
            stop_last_trials=False,  # the training itself ends there
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Takes up a trial, with the epochs that it already has."""
        super().on_trial_add(tune_controller, trial)
        state = self.folder / trial.trial_id / STATE
        if not state.exists():
            return
        best = -1.0
        for epoch in read_fields(state)["log"]:
            best = max(best, epoch["ndcg_at_10"])
            self.on_trial_result(tune_controller, trial, {"epoch": epoch["epoch"], METRIC: best})
