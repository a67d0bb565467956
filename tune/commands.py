"""The commands: `encoder` and `backbone` start a sweep, `resume` goes on with one, `show` and `test` look at what it came to."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolrec.files import shared_path

if TYPE_CHECKING:
    from toolrec.recommenders import RecommendersConfig
    from tune.config import Resources
    from tune.results import Summary


class SchedulerName(StrEnum):
    """Which trials may go on."""

    asha = "asha"
    none = "none"


class SearcherName(StrEnum):
    """Where trials' settings come from."""

    random = "random"
    optuna = "optuna"


class Promotion(StrEnum):
    """When the best trial becomes a member of the recommenders."""

    better = "better"
    always = "always"
    never = "never"


Data = Annotated[Path, typer.Argument(metavar="DIR", help="Data set folder, as `toolrec data prepare` writes it.")]
SweepFolder = Annotated[Path, typer.Argument(metavar="SWEEP", help="A sweep's folder.")]
NewSweep = Annotated[Path | None, typer.Option("--sweep", help="The sweep's folder; default sweeps/TIME-NAME-MEMBER.")]
Trials = Annotated[int, typer.Option(help="How many trials.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs of a trial that is not pruned; default the recipe's, at least 9.")]
Patience = Annotated[int | None, typer.Option(help="Epochs without a better validation NDCG@10 before a trial ends.")]
SpaceFile = Annotated[
    Path | None, typer.Option("--space", help="YAML search space, e.g. `learning_rate: {loguniform: [0.0003, 0.01]}`.")
]
Scheduling = Annotated[SchedulerName, typer.Option(help="Prune with ASHA, or let every trial run to its end.")]
Grace = Annotated[int, typer.Option(help="Epochs that every trial may run before ASHA prunes.")]
Reduction = Annotated[int, typer.Option(help="About one in so many trials passes each of ASHA's rungs.")]
Searching = Annotated[SearcherName, typer.Option(help="Random draws, or Optuna (pip install 'toolrec[optuna]').")]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]
Promoting = Annotated[Promotion, typer.Option(help="Promote the best trial only where it is better than what is there.")]
Smoke = Annotated[bool, typer.Option("--smoke-test", help="4 trials of at most 3 epochs: does everything work?")]
Cpus = Annotated[float, typer.Option(help="CPUs of a trial.")]
Gpus = Annotated[float, typer.Option(help="GPUs of a trial; a fraction lets trials share one.")]
Concurrent = Annotated[int | None, typer.Option(help="Trials at a time; default as many as the CPUs and GPUs take.")]
Address = Annotated[str | None, typer.Option("--ray-address", help="A running Ray; default one of our own.")]
NumCpus = Annotated[int | None, typer.Option(help="CPUs of our own Ray; default all.")]


def build_app() -> typer.Typer:
    """The command tree of `python -m tune`."""
    app = typer.Typer(
        name="tune",
        help="Sweeps on Ray Tune over encoder and backbone hyper-parameters.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    for command in (encoder, backbone, resume, show, test):
        app.command(command.__name__)(command)

    @app.callback()
    def root(verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more.")) -> None:
        logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    return app


def encoder(
    dataset: Data,
    attribute: Annotated[str, typer.Option(help="The attribute whose encoder is trained.")],
    recommenders: Annotated[
        Path | None, typer.Option(help="Folder with the trained backbone; default recommenders/NAME.")
    ] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder of a sentence-embedding model, for attributes of kind text.")
    ] = None,
    sweep: NewSweep = None,
    trials: Trials = 20,
    epochs: Epochs = None,
    patience: Patience = None,
    space: SpaceFile = None,
    scheduler: Scheduling = SchedulerName.asha,
    grace_epochs: Grace = 1,
    reduction_factor: Reduction = 3,
    searcher: Searching = SearcherName.random,
    seed: Seed = 0,
    promote: Promoting = Promotion.better,
    promote_to: Annotated[
        Path | None, typer.Option(help="Recommenders' folder for the best trial; default the one given.")
    ] = None,
    smoke_test: Smoke = False,
    cpus_per_trial: Cpus = 1.0,
    gpus_per_trial: Gpus = 0.0,
    max_concurrent: Concurrent = None,
    ray_address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Search the settings of one attribute's encoder, on the frozen backbone of trained recommenders."""
    from toolrec.recommenders import recommenders_manifest
    from tune.config import recommenders_config
    from tune.spaces import encoder_space, read_space

    data = shared_path(dataset)
    source = shared_path(recommenders or Path("recommenders") / data.name)
    base = recommenders_config(recommenders_manifest(source)["config"])
    _start(
        {
            "member": attribute,
            "dataset": data,
            "recommenders": source,
            "text_encoder": None if text_encoder is None else shared_path(text_encoder),
            "base": _with_epochs(base, "encoder_fit", epochs, patience),
            "space": encoder_space() if space is None else read_space(space),
            "num_trials": trials,
            "scheduler": scheduler.value,
            "grace_epochs": grace_epochs,
            "reduction_factor": reduction_factor,
            "searcher": searcher.value,
            "seed": seed,
            "promote": promote.value,
            "promote_to": shared_path(promote_to or source),
        },
        sweep,
        _resources(cpus_per_trial, gpus_per_trial, max_concurrent, ray_address, num_cpus),
        is_smoke=smoke_test,
    )


def backbone(
    dataset: Data,
    recipe: Annotated[str | None, typer.Option(help="Named training to start from; default by the data set's size.")] = None,
    sweep: NewSweep = None,
    trials: Trials = 20,
    epochs: Epochs = None,
    patience: Patience = None,
    space: SpaceFile = None,
    scheduler: Scheduling = SchedulerName.asha,
    grace_epochs: Grace = 1,
    reduction_factor: Reduction = 3,
    searcher: Searching = SearcherName.random,
    seed: Seed = 0,
    promote: Promoting = Promotion.better,
    promote_to: Annotated[
        Path | None, typer.Option(help="Recommenders' folder for the best trial; default SWEEP/recommenders.")
    ] = None,
    smoke_test: Smoke = False,
    cpus_per_trial: Cpus = 1.0,
    gpus_per_trial: Gpus = 0.0,
    max_concurrent: Concurrent = None,
    ray_address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Search the settings of the backbone; encoders are trained on the promoted one afterwards."""
    from toolrec.data import load_dataset
    from toolrec.recommenders import default_config, recipe_named
    from toolrec.recommenders.checkpoint import BACKBONE
    from tune.spaces import backbone_space, read_space

    data = shared_path(dataset)
    if recipe is None:
        loaded = load_dataset(data)
        base = default_config(num_items=loaded.num_items, num_interactions=len(loaded.items))
    else:
        base = recipe_named(recipe)
    place = _sweep_folder(sweep, data, BACKBONE)
    _start(
        {
            "member": BACKBONE,
            "dataset": data,
            "recommenders": None,
            "base": _with_epochs(base, "backbone_fit", epochs, patience),
            "space": backbone_space() if space is None else read_space(space),
            "num_trials": trials,
            "scheduler": scheduler.value,
            "grace_epochs": grace_epochs,
            "reduction_factor": reduction_factor,
            "searcher": searcher.value,
            "seed": seed,
            "promote": promote.value,
            "promote_to": shared_path(promote_to or place / "recommenders"),
        },
        place,
        _resources(cpus_per_trial, gpus_per_trial, max_concurrent, ray_address, num_cpus),
        is_smoke=smoke_test,
    )


def resume(
    folder: SweepFolder,
    cpus_per_trial: Cpus = 1.0,
    gpus_per_trial: Gpus = 0.0,
    ray_address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Go on with a sweep that was stopped or killed; failed trials are tried again, --max-concurrent is as it was."""
    from tune.sweep import resume_sweep

    place = shared_path(folder)
    resources = _resources(cpus_per_trial, gpus_per_trial, None, ray_address, num_cpus)
    _show(place, resume_sweep(place, resources))


def show(folder: SweepFolder) -> None:
    """Show a sweep's trials, and what it came to if it is complete."""
    from tune.config import read_protocol
    from tune.results import is_complete, read_summary

    read_protocol(folder)
    _show(folder, read_summary(folder) if is_complete(folder) else None)


def test(folder: SweepFolder) -> None:
    """Read the test split for the promoted member: once; asked again, the same figures are shown."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from tune.held_out import METRICS, test_figures

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


def _with_epochs(base: RecommendersConfig, name: str, epochs: int | None, patience: int | None) -> RecommendersConfig:
    """The recipe's epochs, but at least 9, so that ASHA with its defaults has three rungs."""
    fit = getattr(base, name)
    max_epochs = max(fit.max_epochs, 9) if epochs is None else epochs
    fit = replace(fit, max_epochs=max_epochs, patience=fit.patience if patience is None else patience)
    return replace(base, **{name: fit})


def _resources(cpus: float, gpus: float, max_concurrent: int | None, ray_address: str | None, num_cpus: int | None) -> Resources:
    from tune.config import Resources

    return Resources(
        cpus_per_trial=cpus, gpus_per_trial=gpus, max_concurrent=max_concurrent, address=ray_address, num_cpus=num_cpus
    )


def _sweep_folder(sweep: Path | None, data: Path, member: str) -> Path:
    name = "".join(c if c.isalnum() else "-" for c in member.lower())
    return shared_path(sweep or Path("sweeps") / f"{time.strftime('%Y%m%d-%H%M%S')}-{data.name}-{name}")


def _start(fields: dict[str, Any], sweep: Path | None, resources: Resources, *, is_smoke: bool) -> None:
    from tune.config import SweepConfig
    from tune.sweep import smoke, start_sweep

    config = SweepConfig(**fields)
    place = _sweep_folder(sweep, config.dataset, config.member)
    _show(place, start_sweep(smoke(config) if is_smoke else config, place, resources))


def _show(folder: Path, summary: Summary | None) -> None:
    from rich.console import Console

    from tune.config import config_of, read_protocol
    from tune.table import headline, table_of
    from tune.trials import stored_rows

    protocol = read_protocol(folder)
    config, rows = config_of(protocol), stored_rows(folder / "trials")
    console = Console()
    console.print(table_of(rows, title=f"{config.member} on {protocol['dataset']['name']}"))
    console.print(headline(rows, num_trials=config.num_trials, max_epochs=config.max_epochs), soft_wrap=True)
    console.print(f"Validation split, not test: {protocol['validation']}.", soft_wrap=True)
    if summary is None:
        console.print(f"not complete; if it does not run, go on with: python -m tune resume {folder}", soft_wrap=True)
        return
    console.print(f"{summary.duration_s:.0f} s of training in all trials; {summary.note}", soft_wrap=True)
    console.print(f"sweep: {folder}", soft_wrap=True)
