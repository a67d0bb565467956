"""What a sweep costs: its time beside backbone trainings, and ASHA's epochs and best trial beside the same trials unpruned.

    PYTHONPATH=. python benchmarks/sweep_cost.py data/ml-1m --recommenders recommenders/ml-1m --attribute genre

The seconds of a backbone training are those of one of its epochs, measured here with one thread, times the epochs that it took.
Seconds of the processor decide, since other work on the machine stretches those of the clock; a sweep's are its trials' and the
driver's, which computes the frozen states. The unpruned trials are those of the sweep, each gone on with from its state as if it
had never been stopped.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from toolrec.data import Dataset, load_dataset
from toolrec.recommenders.checkpoint import backbone_entry
from toolrec.recommenders.training.build import backbone_in_training
from toolrec.recommenders.training.fitting import FitResult, fit
from toolrec.recommenders.training.validation import validation_set
from toolrec.tuning.config import Resources, SweepConfig, recommenders_config, with_fit
from toolrec.tuning.spaces import encoder_space, with_params
from toolrec.tuning.sweep import start_sweep
from toolrec.tuning.trial import STATE, Plan, trainee_of
from toolrec.tuning.trials import TrialRow, best_of, stored_rows


@dataclass(frozen=True)
class Spent:
    """One sweep: seconds on the clock and of the driver's processor time, and its trials."""

    wall_s: float
    driver_cpu_s: float
    rows: list[TrialRow]

    @property
    def num_epochs(self) -> int:
        return sum(row.num_epochs for row in self.rows)

    @property
    def cpu_s(self) -> float:
        return self.driver_cpu_s + sum(row.cpu_s for row in self.rows)

    @property
    def best(self) -> float:
        best = best_of(self.rows)
        return 0.0 if best is None else best.best_ndcg_at_10 or 0.0


def backbone_epoch_s(dataset: Dataset, recommenders: Path) -> tuple[float, float, int]:
    """One epoch of the backbone with one thread, validation included, and how many its training took.

    Returns:
        Its seconds on the clock, its seconds of the processor, the epochs.
    """
    member, manifest = backbone_entry(recommenders, dataset)
    config = recommenders_config(manifest["config"])
    torch.set_num_threads(1)
    validation = validation_set(dataset, max_users=config.backbone_fit.max_validation_users)
    trainee, seed = backbone_in_training(dataset, config, validation, device="cpu")
    result = fit(trainee, config.backbone_fit.replaced(max_epochs=1), seed=seed)
    return result.duration_s, result.log[0].cpu_s, int(member["num_epochs"])


def spent(config: SweepConfig, folder: Path, resources: Resources) -> Spent:
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    start_sweep(config, folder, resources)
    return Spent(time.monotonic() - start_s, time.process_time() - start_cpu_s, stored_rows(folder / "trials"))


def unpruned(config: SweepConfig, sweep: Path, place: Path) -> list[FitResult]:
    """The sweep's trials, each trained to its last epoch, from copies of their states."""
    (frozen,) = (sweep.parent / "frozen-states").iterdir()
    plan = Plan(
        member=config.member,
        dataset=config.dataset,
        text_encoder=None,
        frozen=frozen,
        trials=sweep / "trials",
        base=config.base,
        max_validation_users=config.fit.max_validation_users,
        device="cpu",
        num_threads=1,
    )
    results = []
    for row in stored_rows(plan.trials):
        state = place / row.trial_id / STATE
        if not state.exists():
            state.parent.mkdir(parents=True)
            shutil.copy(plan.trials / row.trial_id / STATE, state)
        trained = with_params(config.base, row.params, is_backbone=False)
        trainee, seed = trainee_of(plan, trained)
        results.append(fit(trainee, trained.encoder_fit, seed=seed, state_path=state))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True)
    parser.add_argument("--attribute", default="genre")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=9, help="of a trial that is not pruned")
    parser.add_argument("--patience", type=int, default=9, help="of a trial; as many as epochs lets none end by itself")
    parser.add_argument("--grace-epochs", type=int, default=1)
    parser.add_argument("--reduction-factor", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-cpus", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the sweeps' folders here")
    asked = parser.parse_args()

    dataset = load_dataset(asked.dataset)
    _, manifest = backbone_entry(asked.recommenders, dataset)
    config = with_fit(
        SweepConfig(
            member=asked.attribute,
            dataset=asked.dataset.absolute(),
            recommenders=asked.recommenders.absolute(),
            base=recommenders_config(manifest["config"]),
            space=encoder_space(),
            num_trials=asked.trials,
            reduction_factor=asked.reduction_factor,
            seed=asked.seed,
            promote="never",
            promote_to=asked.recommenders.absolute(),
        ),
        max_epochs=asked.epochs,
        patience=asked.patience,
    )
    config = config.replaced(grace_epochs=asked.grace_epochs)
    resources = Resources(num_cpus=asked.num_cpus)
    epoch_s, epoch_cpu_s, num_epochs = backbone_epoch_s(dataset, asked.recommenders)
    with tempfile.TemporaryDirectory() as temporary:
        place = (asked.out or Path(temporary)).absolute()
        pruned = spent(config, place / "asha", resources)
        whole = unpruned(config, place / "asha", place / "unpruned")
    backbone_cpu_s = epoch_cpu_s * num_epochs
    print(f"{dataset.name}, attribute {config.member}, {asked.trials} trials of at most {asked.epochs} epochs, seed {asked.seed}")
    print(f"{manifest['validation']}")
    print(
        f"backbone: {epoch_s:.1f} s an epoch ({epoch_cpu_s:.1f} CPU), {num_epochs} epochs: {epoch_s * num_epochs:.0f} s "
        f"({backbone_cpu_s:.0f} CPU); four: {4 * backbone_cpu_s:.0f} CPU s"
    )
    whole_epochs, whole_best = sum(result.num_epochs for result in whole), max(result.best_ndcg_at_10 for result in whole)
    print(
        f"ASHA: {pruned.num_epochs} epochs, {pruned.cpu_s:.0f} CPU s (driver and states {pruned.driver_cpu_s:.0f}), "
        f"{pruned.wall_s:.0f} s on the clock, best validation ndcg@10 {pruned.best:.4f}"
    )
    whole_cpu_s = sum(result.log[-1].cpu_s for result in whole)
    print(f"unpruned: {whole_epochs} epochs, {whole_cpu_s:.0f} CPU s, best validation ndcg@10 {whole_best:.4f}")
    print(f"ASHA / four backbones: {pruned.cpu_s / (4 * backbone_cpu_s):.2f} of the CPU seconds (done when below 1)")
    print(f"ASHA / unpruned: {pruned.num_epochs / whole_epochs:.2f} of the epochs (done when at most 0.50)")
    print(f"ASHA's best / unpruned best: {pruned.best / whole_best:.4f} (done when at least 0.99)")


if __name__ == "__main__":
    main()
