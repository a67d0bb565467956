"""The commands: `encoder` and `backbone` start a sweep, `resume` goes on with one, `show` and `test` look at what it came to."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolrec.cli.settings import TREES, command_of, resolved
from toolrec.tuning import COMMAND
from toolrec.util.files import shared_path

if TYPE_CHECKING:
    from toolrec.tuning.results import Summary


SweepFolder = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's folder.")]
Smoke = Annotated[bool, typer.Option("--smoke-test", help="4 trials of at most 3 epochs: does everything work?")]


def build_app() -> typer.Typer:
    """The commands of `toolrec tune`; in a checkout also `python -m tune`."""
    app = typer.Typer(
        name="tune",
        help="Sweeps on Ray Tune over encoder and backbone hyper-parameters.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    app.command("encoder", cls=command_of(TREES["tune encoder"]))(encoder)
    app.command("backbone", cls=command_of(TREES["tune backbone"]))(backbone)
    for command in (resume, show, test):
        app.command(command.__name__)(command)

    @app.callback()
    def root(context: typer.Context, verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more.")) -> None:
        COMMAND.set(context.command_path)
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    return app


def encoder(ctx: typer.Context, smoke_test: Smoke = False) -> None:
    """Search the settings of one attribute's encoder, on the frozen backbone of trained recommenders."""
    _start(ctx, is_smoke=smoke_test)


def backbone(ctx: typer.Context, smoke_test: Smoke = False) -> None:
    """Search the settings of the backbone; encoders are trained on the promoted one afterwards."""
    _start(ctx, is_smoke=smoke_test)


def resume(
    folder: SweepFolder,
    cpus_per_trial: Annotated[float | None, typer.Option(help="CPUs of a trial; default as the sweep began.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a trial; default as the sweep began.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray; default one of our own.")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs of our own Ray; default as the sweep began.")] = None,
) -> None:
    """Continue a sweep that was stopped or killed; failed trials are tried again, --max-concurrent is as it was."""
    from toolrec.tuning.sweep import resume_sweep

    given = {"cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial, "address": ray_address, "num_cpus": num_cpus}
    folder = shared_path(folder)
    _show(folder, resume_sweep(folder, **{name: value for name, value in given.items() if value is not None}))


def show(folder: SweepFolder) -> None:
    """Show a sweep's trials, and what it came to if it is complete."""
    from toolrec.tuning.config import read_protocol
    from toolrec.tuning.results import is_complete, read_summary

    read_protocol(folder)
    _show(folder, read_summary(folder) if is_complete(folder) else None)


def test(folder: SweepFolder) -> None:
    """Read the test split for the promoted member: once; asked again, the same figures are shown."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from toolrec.tuning.held_out import METRICS, test_figures

    figures, is_new = test_figures(folder)
    table = Table(title=f"test split: {figures['member']}", box=box.SIMPLE)
    table.add_column("recommender")
    for name in METRICS:
        table.add_column(name, justify="right")
        table.add_column("p to backbone", justify="right")
    for row_name, row in figures["rows"].items():
        cells = []
        for name in METRICS:
            low, high = row[name]["interval"]
            p = row.get("p_to_backbone", {}).get(name)
            cells += [f"{row[name]['value']:.4f} ({low:.3f}–{high:.3f})", "-" if p is None else f"{p:.4f}"]
        table.add_row(row_name, *cells)
    console = Console()
    console.print(table)
    console.print(figures["protocol"], soft_wrap=True)
    console.print("Read now." if is_new else "Read before; the figures are those of the first time.")


def _start(ctx: typer.Context, *, is_smoke: bool) -> None:
    settings = resolved(ctx).settings
    config, folder = settings.completed()

    from toolrec.tuning.sweep import smoke, start_sweep

    _show(folder, start_sweep(smoke(config) if is_smoke else config, folder, settings.resources))


def _show(folder: Path, summary: Summary | None) -> None:
    from rich.console import Console

    from toolrec.tuning.config import config_of, read_protocol
    from toolrec.tuning.table import headline, table_of
    from toolrec.tuning.trials import stored_rows

    protocol = read_protocol(folder)
    config, rows = config_of(protocol), stored_rows(folder / "trials")
    console = Console()
    console.print(table_of(rows, title=f"{config.member} on {protocol['dataset']['name']}"))
    console.print(headline(rows, num_trials=config.num_trials, max_epochs=config.max_epochs), soft_wrap=True)
    console.print(f"Validation split, not test: {protocol['validation']}.", soft_wrap=True)
    if summary is None:
        console.print(f"not complete; if it does not run, go on with: {COMMAND.get()} resume {folder}", soft_wrap=True)
        return
    console.print(f"{summary.duration_s:.0f} s of training in all trials; {summary.note}", soft_wrap=True)
    console.print(f"sweep: {folder}", soft_wrap=True)
