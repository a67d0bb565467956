"""`toolrec train`: popularity, the backbone and the attribute encoders of one data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from toolrec.cli.places import PLACE
from toolrec.cli.settings import resolved
from toolrec.util.files import shared_path
from toolrec.util.progress import is_first_process

if TYPE_CHECKING:
    from rich.console import Console

    from toolrec.data import Dataset
    from toolrec.recommenders import TrainingReport


def train(ctx: typer.Context) -> None:
    """Train the recommenders: popularity, the backbone, and one encoder for every attribute.

    What is not given follows from the recipe. Stops early on validation NDCG@10; the test split is not touched. Until all
    is trained, every member's state is in OUT.unfinished: the same command with --resume goes on from there.
    """
    from toolrec.data import load_dataset
    from toolrec.recommenders.train import train as train_all

    config = resolved(ctx).settings
    report = train_all(config)
    if is_first_process():
        _show(report, load_dataset(config.dataset))


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
    _show_fusions(report.fusions, report.fused_tools, console)
    console.print(
        f"Validation split, not test: {dataset.split_name}, full ranking, seen items masked, "
        f"{report.num_validation_users:,} users."
    )
    for reason in dataset.too_small:
        console.print(f"WARNING: {reason.sentence}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{report.duration_s:.0f} s; written to {report.folder}", soft_wrap=True)


def _show_fusions(ndcg_at_10: Mapping[str, float], tools: Mapping[str, float], console: Console) -> None:
    """All fusions without an LLM, best first; those that are worse than the best of the tools that they fuse are marked."""
    if not ndcg_at_10:
        return
    best_first = sorted(ndcg_at_10.items(), key=lambda entry: -entry[1])
    best_tool = max(tools, key=tools.__getitem__)
    least = tools[best_tool]
    shown = ", ".join(f"{name.replace('_', ' ')} {ndcg:.4f}{'†' if ndcg < least else ''}" for name, ndcg in best_first)
    console.print(f"Without an LLM, validation ndcg@10 (learned ones cross-validated over users): {shown}")
    if any(ndcg < least for ndcg in ndcg_at_10.values()):
        console.print(f"† worse than the best tool alone for the same users: {best_tool} {least:.4f}", markup=False)


def fit_fusions(
    folder: Path = typer.Argument(
        ..., **PLACE | {"metavar": "DIR"}, help="A data set's folder, as `toolrec data prepare` makes it."
    ),
    recommenders: Path | None = typer.Option(None, **PLACE, help="Their folder. Default: recommenders/NAME."),
    users: int | None = typer.Option(None, min=10, help="Validation users at most; fewer take less time. Default: 30000."),
    device: str = typer.Option("auto", help="cpu, cuda or auto."),
) -> None:
    """Fit score fusion and the ranker of trained recommenders anew, as `toolrec train` does at its end.

    They are fitted on the validation split and put into the recommenders' folder; the tools themselves stay as they are.
    """
    from rich.console import Console

    from toolrec.data import load_dataset
    from toolrec.recommenders import refit_fusions
    from toolrec.recommenders.fusion.fitting import default_fusion_config
    from toolrec.recommenders.training.build import resolve_device

    dataset = load_dataset(folder)
    place = recommenders or Path("recommenders") / dataset.path.absolute().name
    shared_path(place)  # refuses what a submitted job would lose
    config = default_fusion_config() if users is None else default_fusion_config(max_users=users)
    fitted = refit_fusions(place, dataset, config, device=resolve_device(device))
    console = Console()
    _show_fusions(fitted.ndcg_at_10, fitted.tool_ndcg_at_10, console)
    console.print(f"{fitted.num_users:,} users; written to {place}", soft_wrap=True)
