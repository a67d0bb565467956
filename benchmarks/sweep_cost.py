"""What a sweep costs: its time beside backbone trainings, and ASHA's epochs and best trial beside the same trials unpruned.

    PYTHONPATH=. python benchmarks/sweep_cost.py data/ml-1m --recommenders recommenders/ml-1m --attribute genre

The seconds of a backbone training are those of one of its epochs, measured here with one thread, times the epochs that it took.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from toolrec.data import Dataset, load_dataset
from toolrec.recommenders.build import backbone_in_training
from toolrec.recommenders.checkpoint import backbone_entry
from toolrec.recommenders.fitting import fit
from toolrec.recommenders.validation import validation_set
from tune.config import Resources, SweepConfig, recommenders_config, with_fit
from tune.spaces import encoder_space
from tune.sweep import start_sweep
from tune.trials import TrialRow, best_of, stored_rows


@dataclass(frozen=True)
class Spent:
    """One sweep: seconds on the clock, and its trials."""

    wall_s: float
    rows: list[TrialRow]

    @property
    def num_epochs(self) -> int:
        return sum(row.num_epochs for row in self.rows)

    @property
    def trained_s(self) -> float:
        return sum(row.duration_s for row in self.rows)

    @property
    def best(self) -> float:
        best = best_of(self.rows)
        return 0.0 if best is None else best.best_ndcg_at_10 or 0.0


def backbone_epoch_s(dataset: Dataset, recommenders: Path) -> tuple[float, int]:
    """Seconds of one epoch of the backbone with one thread, validation included, and the epochs that its training took."""
    member, manifest = backbone_entry(recommenders, dataset)
    config = recommenders_config(manifest["config"])
    torch.set_num_threads(1)
    validation = validation_set(dataset, max_users=config.backbone_fit.max_validation_users)
    trainee, seed = backbone_in_training(dataset, config, validation, device="cpu")
    result = fit(trainee, replace(config.backbone_fit, max_epochs=1), seed=seed)
    return result.duration_s, int(member["num_epochs"])


def spent(config: SweepConfig, folder: Path, resources: Resources) -> Spent:
    start_s = time.monotonic()
    start_sweep(config, folder, resources)
    return Spent(time.monotonic() - start_s, stored_rows(folder / "trials"))


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
    config = replace(config, grace_epochs=asked.grace_epochs)
    resources = Resources(num_cpus=asked.num_cpus)
    epoch_s, num_epochs = backbone_epoch_s(dataset, asked.recommenders)
    with tempfile.TemporaryDirectory() as temporary:
        place = (asked.out or Path(temporary)).absolute()
        pruned = spent(config, place / "asha", resources)
        whole = spent(replace(config, scheduler="none"), place / "unpruned", resources)
    assert [row.params for row in pruned.rows] == [row.params for row in whole.rows], "not the same trials"
    backbone_s = epoch_s * num_epochs
    print(f"{dataset.name}, attribute {config.member}, {asked.trials} trials of at most {asked.epochs} epochs, seed {asked.seed}")
    print(f"{manifest['validation']}")
    print(f"backbone: {epoch_s:.1f} s an epoch, {num_epochs} epochs: {backbone_s:.0f} s; four: {4 * backbone_s:.0f} s")
    for name, sweep in (("ASHA", pruned), ("unpruned", whole)):
        print(
            f"{name}: {sweep.num_epochs} epochs, {sweep.trained_s:.0f} s in all trials, {sweep.wall_s:.0f} s on the clock "
            f"(states and Ray's start included), best validation ndcg@10 {sweep.best:.4f}"
        )
    print(f"ASHA / four backbones: {pruned.trained_s / (4 * backbone_s):.2f} of the seconds (done when below 1)")
    print(f"ASHA / unpruned: {pruned.num_epochs / whole.num_epochs:.2f} of the epochs (done when at most 0.50)")
    print(f"ASHA's best / unpruned best: {pruned.best / whole.best:.4f} (done when at least 0.99)")


if __name__ == "__main__":
    main()
