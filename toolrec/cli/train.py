"""`toolrec train`: popularity, the backbone and the attribute encoders of one data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolrec.errors import ConfigError
from toolrec.files import shared_path
from toolrec.progress import is_first_process

if TYPE_CHECKING:
    from rich.console import Console

    from toolrec.data import Dataset
    from toolrec.recommenders import RecommendersConfig, TrainingReport


def train(
    folder: Path = typer.Argument(..., metavar="DIR", help="A data set's folder, as `toolrec data prepare` makes it."),
    attributes: str | None = typer.Option(
        None, help="Attributes to train tools for, with commas between; all by default, none with an empty text."
    ),
    out: Path | None = typer.Option(None, help="The recommenders' folder. Default: recommenders/NAME."),
    recipe: str | None = typer.Option(
        None, help="A named training: sasrec_strong, bert4rec_strong, sasrec_authors, …; by the data set's size if not given."
    ),
    backbone: Path | None = typer.Option(
        None, help="A recommenders' folder whose backbone is kept: only the attributes' encoders are trained."
    ),
    text_encoder: Path | None = typer.Option(
        None, help="Folder of a sentence-embedding model, for attributes of kind text (needs the extra: toolrec[text])."
    ),
    seed: int = typer.Option(0, help="Seed of weights, batches and negatives."),
    epochs: int | None = typer.Option(None, help="At most so many epochs a member."),
    max_time_s: float | None = typer.Option(None, help="Seconds for the whole training; the best epochs so far are kept."),
    device: str = typer.Option("auto", help="cpu, cuda or auto."),
    hidden: int | None = typer.Option(None, help="Width of the backbone."),
    layers: int | None = typer.Option(None, help="Layers of the backbone."),
    heads: int | None = typer.Option(None, help="Attention heads of the backbone."),
    dropout: float | None = typer.Option(None, help="Dropout of the backbone."),
    loss: str | None = typer.Option(None, help="cross_entropy, sampled_softmax, in_batch_softmax, gbce, bce or bpr."),
    negatives: int | None = typer.Option(None, help="Negatives of the sampled losses."),
    model_history_length: int | None = typer.Option(None, help="How many last items the recommenders read."),
    learning_rate: float | None = typer.Option(None, help="Learning rate of every member."),
    batch_size: int | None = typer.Option(None, help="Sequences in a batch."),
    fusions: bool = typer.Option(True, help="Fit the fusions without an LLM on validation at the end."),
    compile: bool | None = typer.Option(None, help="Compile the backbone for training. Default: on a GPU."),
    patience: int | None = typer.Option(None, help="Epochs without a better validation NDCG@10 before a member stops."),
    resume: bool = typer.Option(False, "--resume", help="Go on with this training where it was stopped or killed."),
) -> None:
    """Train the recommenders: popularity, the backbone, and one encoder for every attribute.

    What is not given follows from the recipe. Stops early on validation NDCG@10; the test split is not touched. Until all
    is trained, every member's state is in OUT.unfinished: the same command with --resume goes on from there.
    """
    from toolrec.data import load_dataset
    from toolrec.recommenders import train_recommenders
    from toolrec.recommenders.text import SentenceEncoder

    shape = {
        "--dropout": dropout,
        "--hidden": hidden,
        "--layers": layers,
        "--heads": heads,
        "--model-history-length": model_history_length,
    }
    clashing = [flag for flag, value in shape.items() if value is not None]
    if backbone is not None and clashing:
        raise ConfigError("a kept backbone has its own shape", value=", ".join(clashing), hint="leave these flags out")
    dataset = load_dataset(folder)
    config = _configure(
        dataset,
        recipe,
        fields={"seed": seed, "max_time_s": max_time_s, "model_history_length": model_history_length, "learn_fusions": fusions},
        backbone={"width": hidden, "num_layers": layers, "num_heads": heads, "dropout": dropout},
        fit={
            "loss": loss,
            "num_negatives": negatives,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "max_epochs": epochs,
            "patience": patience,
            "compile": compile,
        },
    )
    names = None if attributes is None else [name.strip() for name in attributes.split(",") if name.strip()]
    place = out or Path("recommenders") / dataset.path.absolute().name
    shared_path(place)  # refuses what a submitted job would lose
    encoder = None if text_encoder is None else SentenceEncoder(text_encoder)
    report = train_recommenders(
        dataset,
        config,
        out=place,
        attributes=names,
        backbone=backbone,
        text_encoder=encoder,
        device=device,
        resume=resume,
    )
    if is_first_process():
        _show(report, dataset)


def _configure(
    dataset: Dataset, recipe: str | None, *, fields: dict[str, Any], backbone: dict[str, Any], fit: dict[str, Any]
) -> RecommendersConfig:
    from toolrec.recommenders import default_config, recipe_named

    if recipe is None:
        config = default_config(num_items=dataset.num_items, num_interactions=len(dataset.items))
    else:
        config = recipe_named(recipe)
    return dataclasses.replace(
        config,
        backbone=dataclasses.replace(config.backbone, **_given(backbone)),
        backbone_fit=dataclasses.replace(config.backbone_fit, **_given(fit)),
        encoder_fit=dataclasses.replace(config.encoder_fit, **_given(fit)),
        **_given(fields),
    )


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def _show(report: TrainingReport, dataset: Dataset) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"recommenders of {dataset.name}", box=box.SIMPLE)
    table.add_column("member", no_wrap=True)
    for heading in ("trainable\nparameters", "epochs", "best\nepoch", "seconds", "validation\nndcg@10"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stopped by")
    for member in report.members:
        table.add_row(
            member.name,
            f"{member.num_parameters:,}",
            str(member.num_epochs or "-"),
            str(member.best_epoch or "-"),
            f"{member.duration_s:.1f}",
            f"{member.ndcg_at_10:.4f}",
            member.stopped_by or "-",
        )
    console = Console()
    console.print(table)
    _show_fusions(report.fusions, console)
    console.print(
        f"Validation split, not test: leave-one-out, full ranking, seen items masked, {report.num_validation_users:,} users."
    )
    console.print(f"{report.duration_s:.0f} s; written to {report.folder}", soft_wrap=True)


def _show_fusions(ndcg_at_10: Mapping[str, float], console: Console) -> None:
    """One line: all fusions without an LLM, best first."""
    if ndcg_at_10:
        best_first = sorted(ndcg_at_10.items(), key=lambda entry: -entry[1])
        shown = ", ".join(f"{name.replace('_', ' ')} {ndcg:.4f}" for name, ndcg in best_first)
        console.print(f"Without an LLM, validation ndcg@10 (learned ones cross-validated over users): {shown}")


def fit_fusions(
    folder: Path = typer.Argument(..., metavar="DIR", help="A data set's folder, as `toolrec data prepare` makes it."),
    recommenders: Path | None = typer.Option(None, help="Their folder. Default: recommenders/NAME."),
    device: str = typer.Option("auto", help="cpu, cuda or auto."),
) -> None:
    """Fit score fusion and the ranker of trained recommenders anew, as `toolrec train` does at its end.

    They are fitted on the validation split and put into the recommenders' folder; the tools themselves stay as they are.
    """
    from rich.console import Console

    from toolrec.data import load_dataset
    from toolrec.recommenders import refit_fusions
    from toolrec.recommenders.build import resolve_device

    dataset = load_dataset(folder)
    place = recommenders or Path("recommenders") / dataset.path.absolute().name
    shared_path(place)  # refuses what a submitted job would lose
    fitted = refit_fusions(place, dataset, device=resolve_device(device))
    console = Console()
    _show_fusions(fitted.ndcg_at_10, console)
    console.print(f"{fitted.num_users:,} users; written to {place}", soft_wrap=True)
