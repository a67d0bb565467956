"""`toolrec experiment`: grids of evaluations, by name or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from toolrec.cli.settings import RUN, command_of, resolved
from toolrec.util.urls import place_of

if TYPE_CHECKING:
    from toolrec.experiments.grid import Experiment
    from toolrec.experiments.results import Result

OWN = "own"
ALL = "all"
NAMES = (
    "basic-flow",
    "frozen-vs-full",
    "memory-injection",
    "adversarial-histories",
    "attributes",
    "rounds",
    "history-length",
    "candidates",
    "strategies",
    "llms",
    "pool-size",
    "position-bias",
    "prompt-variants",
)
WITHOUT_SURROGATES = ("frozen-vs-full", "pool-size")
"""As in `toolrec.experiments.named`, which is not loaded before it is used; a test compares them."""

Smoke = Annotated[bool, typer.Option("--smoke-test", help="A few users and points: does everything work?")]
Repeats = Annotated[
    int | None, typer.Option(help="Run the same users so many times, with other seeds of the LLM. [default: 1]", min=1)
]
Trainings = Annotated[
    str | None,
    typer.Option(metavar="DIRS", help="Recommenders' folders, comma separated: every point is run with each of them."),
]
Endpoints = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of `llms`: YAML file with the endpoints to compare, by label.")
]


class Experiments(TyperGroup):
    """The experiments as commands; the name of a YAML file is a grid of the user's own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Names the nearest experiment where there is none of the name."""
        name = args[0] if args else ""
        if Path(name).suffix in (".yaml", ".yml", ".json"):
            args = [OWN, "--grid", name, *args[1:]]
        elif name and name not in self.commands and not name.startswith("-"):
            from rapidfuzz import process

            from toolrec.errors import ConfigError

            found = process.extractOne(name, list(self.commands), score_cutoff=60)
            hint = f"did you mean {found[0]}?" if found else "`toolrec experiment list` explains each"
            raise ConfigError("unknown experiment", value=name, hint=hint)
        return super().resolve_command(ctx, args)


def build_app() -> typer.Typer:
    """The commands of `toolrec experiment`."""
    app = typer.Typer(
        cls=Experiments,
        help="Named experiments and grids of your own: many evaluations, one table.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    tree = command_of(RUN)
    app.command("list")(list_experiments)
    app.command("show")(show)
    for name in (*NAMES, ALL):
        app.command(name, cls=tree)(_command(name))
    app.command(OWN, cls=tree)(own)
    return app


def list_experiments() -> None:
    """Say what each experiment answers, and what it varies."""
    from toolrec.experiments.named import NAMED

    for experiment in NAMED:
        typer.echo(f"{experiment.name}\n  {experiment.question}\n  {experiment.varies}")
    typer.echo(
        "GRID.yaml\n  A grid of your own: `base`, `axes` by the key of a setting, `repeats`.\n  See docs/guides/experiments.md."
    )


def show(folder: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="An experiment's folder.")]) -> None:
    """Show the table of an experiment that was run."""
    from rich.console import Console

    from toolrec.experiments.output import print_stored

    print_stored(folder, Console(highlight=False))


def _command(name: str) -> Any:
    def command(
        ctx: typer.Context,
        smoke_test: Smoke = False,
        repeats: Repeats = None,
        trainings: Trainings = None,
        endpoints: Endpoints = None,
    ) -> None:
        from toolrec.experiments.named import EXPERIMENTS, NAMED

        config = resolved(ctx).settings
        chosen = NAMED if name == ALL else (EXPERIMENTS[name],)
        _run(chosen, config, is_all=name == ALL, smoke_test=smoke_test, repeats=repeats, trainings=trainings, endpoints=endpoints)

    command.__doc__ = "Run every experiment, each in a folder of its own." if name == ALL else f"Run the experiment {name}."
    return command


def own(
    ctx: typer.Context,
    grid: Annotated[Path, typer.Option(metavar="FILE", help="YAML file with `base`, `axes` and `repeats`.")],
    smoke_test: Smoke = False,
    repeats: Repeats = None,
    trainings: Trainings = None,
) -> None:
    """Run a grid of your own; `toolrec experiment GRID.yaml` is the same."""
    from toolrec.experiments.files import read_grid
    from toolrec.experiments.grid import Experiment
    from toolrec.util.settings_sources import Layer

    read = read_grid(grid)
    config = resolved(ctx, base=lambda _: [Layer(f"file {grid}", read.base)]).settings
    experiment = Experiment(
        name=grid.stem,
        question=f"The grid of {grid.name}.",
        varies=f"{len(read.points)} points.",
        points=lambda ground: (
            [read.points[0], read.points[-1]] if ground.is_smoke and len(read.points) > 2 else list(read.points)
        ),
    )
    _run((experiment,), config, smoke_test=smoke_test, repeats=repeats or read.repeats, trainings=trainings, endpoints=None)


def _run(
    experiments: tuple[Experiment, ...],
    config: Any,
    *,
    smoke_test: bool,
    repeats: int | None,
    trainings: str | None,
    endpoints: Path | None,
    is_all: bool = False,
) -> None:
    """Runs experiments one after the other; ends with exit code 1 where a cell failed."""
    import time

    from toolrec.config import unused
    from toolrec.experiments.files import read_endpoints
    from toolrec.experiments.output import page_of, plot_of
    from toolrec.experiments.runner import make_plan
    from toolrec.util.files import atomic_file

    folders = [place_of(text.strip()) for text in (trainings or "").split(",") if text.strip()]
    given = read_endpoints(endpoints) if endpoints is not None else None
    whole = config.run or unused(Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-experiments")
    plans = []
    for experiment in experiments:
        if is_all and (why := left_out(experiment.name, config, has_endpoints=given is not None or smoke_test)):
            typer.echo(f"{experiment.name} is left out: {why}", err=True)
            continue
        settings = config.replaced(run=whole / experiment.name) if is_all else config
        plans.append(
            make_plan(experiment, settings, repeats=repeats or 1, trainings=folders, endpoints=given, is_smoke=smoke_test)
        )
    pages: list[tuple[Result, str]] = []
    num_failed = 0
    for plan in plans:
        result, failed = _one(plan)
        num_failed += failed
        if is_all:
            pages.append((result, plot_of(result)))
    if is_all:
        with atomic_file(whole / "report.html") as temporary:
            temporary.write_text(page_of(pages), encoding="utf-8")
        typer.echo(f"all experiments: {whole / 'report.html'}")
    if num_failed:
        cells = "1 cell" if num_failed == 1 else f"{num_failed} cells"
        typer.echo(f"{cells} failed; the same command with --run and --resume tries again", err=True)
        raise typer.Exit(1)


def left_out(name: str, config: Any, *, has_endpoints: bool) -> str | None:
    """Why an experiment is no part of `all` with these settings; None where it is."""
    if name == "llms" and not has_endpoints:
        return "it needs --endpoints FILE"
    if name in WITHOUT_SURROGATES and config.evaluation.split != "test":
        return "it is scored on the test split only"
    return None


def _one(plan: Any) -> tuple[Result, int]:
    from toolrec.experiments.output import print_result, write_results
    from toolrec.experiments.results import results_of
    from toolrec.experiments.runner import run_experiment

    outcome = run_experiment(plan)
    result = results_of(outcome)
    write_results(result, plan.folder)
    print_result(result)
    typer.echo(f"experiment: {plan.folder}\n")
    return result, len(outcome.failures)
