"""An attribute encoder on the frozen backbone, against full fine-tuning and against the attribute as an input from nothing.

    python benchmarks/frozen_vs_full.py data/ml-1m --recommenders recommenders/ml-1m --attribute genre

Every mode's learning rate is chosen on the validation split and every training is stopped early on it; the test split is
read once a mode, for the learning rate that was chosen. `--fixed-knots` holds a number's knots at their quantiles.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from toolrec.data import Dataset, load_dataset
from toolrec.recommenders import (
    FitConfig,
    RecommendersConfig,
    TransformerConfig,
    default_config,
    recipe_named,
)
from toolrec.recommenders.attribute import AttributeEncoderModel
from toolrec.recommenders.backbone import BackboneModel
from toolrec.recommenders.build import member_seed, seeded
from toolrec.recommenders.checkpoint import backbone_entry, load_backbone_model
from toolrec.recommenders.fitting import FitResult, fit
from toolrec.recommenders.frozen import FrozenStates, freeze
from toolrec.recommenders.joint import InputModel, JointModel, JointTrainee, joint_positions
from toolrec.recommenders.trainees import EncoderTrainee, new_backbone
from toolrec.recommenders.validation import ValidationSet, mean_ndcg, validation_set
from toolrec.recommenders.values import attribute_values

MODES = ("frozen", "full", "scratch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training; the NDCG@10 is on the validation split, seconds are of the clock and of the processor."""

    mode: str
    learning_rate: float
    validation_ndcg: float
    num_parameters: int
    num_epochs: int
    best_epoch: int
    duration_s: float
    cpu_s: float
    model: JointModel | InputModel


def test_set(dataset: Dataset) -> ValidationSet:
    """Every user's whole history but the last item, and that item."""
    users = range(1, dataset.num_users + 1)
    histories = [np.asarray(dataset.history(user, "test"), dtype=np.int64) for user in users]
    return ValidationSet(histories, np.array([dataset.target(user, "test") for user in users], dtype=np.int64))


class Comparison:
    """Trains the modes on one data set, attribute and backbone."""

    def __init__(
        self, dataset: Dataset, folder: Path, config: RecommendersConfig, flags: argparse.Namespace, place: Path
    ) -> None:
        self.dataset, self.config, self.flags = dataset, config, flags
        self.sequences = dataset.train_sequences()
        self.validation = validation_set(dataset, max_users=config.encoder_fit.max_validation_users)
        member, _ = backbone_entry(folder, dataset)
        self.backbone = load_backbone_model(folder, member, num_items=dataset.num_items)
        self.backbone_ndcg = member["validation"]["ndcg@10"]
        self.values = attribute_values(dataset.pool, flags.attribute, num_buckets=config.num_buckets)
        self.seed = member_seed(config.seed, f"attribute:{flags.attribute}")
        self.freeze_s = self.freeze_cpu_s = 0.0
        self.frozen: FrozenStates | None = None
        if "frozen" in flags.modes:
            start_s, start_cpu_s = time.monotonic(), time.process_time()
            examples = self.backbone.fixed_examples(self.sequences, mask_share=config.mask_share)
            self.frozen = freeze(self.backbone, examples, self.validation, folder=place / "states")
            self.freeze_s, self.freeze_cpu_s = time.monotonic() - start_s, time.process_time() - start_cpu_s

    def run(self, mode: str, learning_rate: float) -> Trial:
        """One training of one mode."""
        fit_config = replace(self.config.encoder_fit, learning_rate=learning_rate, **self._limits(mode))
        with seeded(self.seed):
            model = self._model(mode)
        start_cpu_s = time.process_time()
        result, num_parameters = self._fit(mode, model, fit_config)
        is_frozen = mode == "frozen"
        return Trial(
            mode=mode,
            learning_rate=learning_rate,
            validation_ndcg=result.best_ndcg_at_10,
            num_parameters=num_parameters,
            num_epochs=result.num_epochs,
            best_epoch=result.best_epoch,
            duration_s=result.duration_s + (self.freeze_s if is_frozen else 0.0),
            cpu_s=time.process_time() - start_cpu_s + (self.freeze_cpu_s if is_frozen else 0.0),
            model=model,
        )

    def _limits(self, mode: str) -> dict[str, int]:
        flags = self.flags
        return {
            "max_epochs": flags.scratch_max_epochs if mode == "scratch" else flags.max_epochs,
            "patience": flags.scratch_patience if mode == "scratch" else flags.patience,
        }

    def _model(self, mode: str) -> JointModel | InputModel:
        if mode == "scratch":
            return InputModel(self._untrained(), self.values)
        encoder = AttributeEncoderModel(
            self.config.encoder,
            self.values,
            backbone_width=self.backbone.item.embedding_dim,
            max_length=self.backbone.max_length,
            is_causal=self.backbone.is_causal,
        )
        if self.flags.fixed_knots:
            for name, parameter in encoder.values.value.named_parameters():
                parameter.requires_grad_(name not in ("first", "gap"))
        return JointModel(copy.deepcopy(self.backbone), encoder)

    def _untrained(self) -> BackboneModel:
        backbone = self.backbone
        return new_backbone(
            backbone.kind,
            backbone.config,
            num_items=backbone.num_items,
            model_history_length=backbone.model_history_length,
        )

    def _fit(self, mode: str, model: JointModel | InputModel, config: FitConfig) -> tuple[FitResult, int]:
        name = f"{mode}, learning rate {config.learning_rate:g}"
        if mode == "frozen":
            assert isinstance(model, JointModel) and self.frozen is not None
            return fit(EncoderTrainee(name, model.encoder, self.frozen), config, seed=self.seed), trainable(model.encoder)
        trainee = JointTrainee(name, model, self.sequences, self.validation, mask_share=self.config.mask_share)
        return fit(trainee, config, seed=self.seed), trainable(model)


def trainable(model: nn.Module) -> int:
    """How many parameters train."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def show(comparison: Comparison, trials: list[Trial]) -> None:
    """All trials, the chosen ones with the test split, the ratios, the protocol."""
    console, dataset, config = Console(width=150), comparison.dataset, comparison.config
    chosen = {}
    for mode in comparison.flags.modes:
        chosen[mode] = max((t for t in trials if t.mode == mode), key=lambda t: t.validation_ndcg)
    ndcg: dict[str, float] = {}
    test = test_set(dataset)
    for mode, trial in chosen.items():
        if comparison.flags.validation_only:
            break
        with torch.no_grad():
            ndcg[mode] = mean_ndcg(joint_positions(trial.model.eval(), test))
    table = Table(title=f"{dataset.name}, attribute {comparison.flags.attribute}")
    headings = (
        "mode",
        "learning rate",
        "valid ndcg@10",
        "test ndcg@10",
        "parameters",
        "epochs",
        "best",
        "s/epoch",
        "CPU s/epoch",
        "s",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "mode" else "right")
    for t in trials:
        on_test = f"{ndcg[t.mode]:.4f}" if t is chosen[t.mode] and ndcg else ""
        per_epoch = (f"{t.duration_s / t.num_epochs:.2f}", f"{t.cpu_s / t.num_epochs:.2f}", f"{t.duration_s:.0f}")
        figures = (f"{t.validation_ndcg:.4f}", on_test, f"{t.num_parameters:,}", str(t.num_epochs), str(t.best_epoch))
        table.add_row(t.mode, f"{t.learning_rate:g}", *figures, *per_epoch)
    console.print(table)
    if {"frozen", "full"} <= chosen.keys():
        one, other = chosen["frozen"], chosen["full"]
        console.print(
            "frozen / full: "
            + (f"test ndcg@10 {ndcg['frozen'] / ndcg['full']:.1%}, " if ndcg else "")
            + f"validation ndcg@10 {one.validation_ndcg / other.validation_ndcg:.1%}, "
            f"trainable parameters {one.num_parameters / other.num_parameters:.1%}, "
            f"seconds per epoch {one.duration_s / one.num_epochs / (other.duration_s / other.num_epochs):.1%} "
            f"(CPU {one.cpu_s / one.num_epochs / (other.cpu_s / other.num_epochs):.1%})"
        )
    if comparison.frozen is not None:
        console.print(
            f"the frozen states took {comparison.freeze_s:.1f} s ({comparison.freeze_cpu_s:.1f} s CPU), once for all learning "
            "rates and attributes; every frozen row bears the whole of it, spread over its epochs"
        )
    console.print(
        f"protocol: leave-one-out, full ranking of {dataset.num_items:,} items, seen items masked; validation on "
        f"{len(comparison.validation.targets):,} users, test on all {dataset.num_users:,}; histories of "
        f"{comparison.backbone.model_history_length}; ties in time by {dataset.manifest['tie_break']}; an epoch's seconds "
        "include its validation; frozen and full begin at the trained backbone (validation "
        f"{comparison.backbone_ndcg:.4f}), scratch at random"
    )
    console.print(
        f"backbone {comparison.backbone.kind} {comparison.backbone.config}; encoder {config.encoder}; {config.encoder_fit}"
    )
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, seed {config.seed}")


def main() -> None:
    """Reads the flags, trains every mode with every learning rate, shows the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recommenders", type=Path, required=True, help="the folder whose backbone is taken")
    parser.add_argument("--attribute", required=True)
    parser.add_argument("--modes", default=",".join(MODES), help="with commas between")
    parser.add_argument("--learning-rates", default="0.0003,0.001,0.003", help="with commas between")
    parser.add_argument("--max-epochs", type=int, default=10, help="of frozen and full")
    parser.add_argument("--patience", type=int, default=2, help="of frozen and full")
    parser.add_argument("--scratch-max-epochs", type=int, default=60)
    parser.add_argument("--scratch-patience", type=int, default=5)
    parser.add_argument("--recipe", help="whose encoder is trained; by the data set's size if not given")
    parser.add_argument("--side-heads", type=int, help="attention heads of the encoder")
    parser.add_argument("--fixed-knots", action="store_true", help="a number's knots stay at their quantiles")
    parser.add_argument("--validation-only", action="store_true", help="the test split is not read")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    flags.modes = flags.modes.split(",")
    if not set(flags.modes) <= set(MODES):
        parser.error(f"--modes takes {', '.join(MODES)}")
    dataset = load_dataset(flags.dataset)
    if flags.recipe:
        config = recipe_named(flags.recipe)
    else:
        config = default_config(num_items=dataset.num_items, num_interactions=len(dataset.items))
    if flags.side_heads:
        config = replace(config, encoder=TransformerConfig(**{**asdict(config.encoder), "num_heads": flags.side_heads}))
    config = replace(config, seed=flags.seed)
    with tempfile.TemporaryDirectory() as place:
        comparison = Comparison(dataset, flags.recommenders, config, flags, Path(place))
        rates = [float(rate) for rate in flags.learning_rates.split(",")]
        trials = [comparison.run(mode, rate) for mode in flags.modes for rate in rates]
        show(comparison, trials)


if __name__ == "__main__":
    main()
