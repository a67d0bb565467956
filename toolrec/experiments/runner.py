"""Runs the cells of an experiment: one Ray, one application and one response cache for all; a finished cell is not run again.

experiment.json      the plan: what a resumed experiment must be made of
cells/               a run folder for each cell, see toolrec/runs/folder.py
cache/               the replies that the cells share
failures.json        the cells that failed, and why; only where one did
cells.*, results.*   every cell's figures, and every point's over its cells (Parquet and CSV)
summary.json         both, with the protocol
plot.svg  report.html
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ray.exceptions import RayError

from toolrec import __version__
from toolrec.config import CompleteConfig, RunConfig, unused
from toolrec.connect import connected
from toolrec.data import load_dataset
from toolrec.errors import ConfigError, RunFolderError, RunStoppedError, StorageError, ToolRecError
from toolrec.evaluation.baselines import RememberedLists
from toolrec.experiments.cells import Cell, cells_of, plan_of
from toolrec.experiments.grid import Axis, Experiment, Ground
from toolrec.experiments.here import simulate_here
from toolrec.experiments.measured import check_measured, measure
from toolrec.experiments.measures import MEASURES
from toolrec.pipeline import run_evaluation, run_price, tools_request
from toolrec.recommenders import recommenders_manifest
from toolrec.records import Usage
from toolrec.runs.folder import LOCK, SUMMARY, read_manifest, read_spend, read_users
from toolrec.runs.ledger import ledger_of, total_usage
from toolrec.simulation.tool_deployment import tools_for
from toolrec.util.files import differences, locked, read_json, storage_errors, write_json
from toolrec.util.progress import stage
from toolrec.util.urls import Url

SCHEMA_VERSION = 1
PLAN = "experiment.json"
FAILURES = "failures.json"
SMOKE_USERS = 8
RESERVED = frozenset(
    (*MEASURES, "cells", "failed", "users", "difference", "p_value", "cell", "training", "repeat", "status", "error")
)
"""Columns of the tables that are no axes."""

RunCell = Callable[[CompleteConfig], Any]
"""Evaluates one cell into its run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An experiment on its way: what it is, its folder, its cells.

    Args:
        config: what all cells share.
        repeats: how often every point is run on the same users.
        trainings: recommenders' folders that every point is run with; empty for those of the config.
    """

    experiment: Experiment
    folder: Path
    config: CompleteConfig
    cells: tuple[Cell, ...]
    repeats: int = 1
    trainings: tuple[str, ...] = ()
    is_smoke: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the cells: reasons of those that failed, by number."""

    plan: Plan
    failures: Mapping[int, str] = field(default_factory=dict)


def make_plan(
    experiment: Experiment,
    given: RunConfig,
    *,
    repeats: int = 1,
    trainings: Sequence[Path] = (),
    endpoints: Axis | None = None,
    is_smoke: bool = False,
) -> Plan:
    """All cells, checked before anything is started. `run` of the settings is the experiment's folder.

    Raises:
        InputError: a setting, an axis or a folder is wrong.
    """
    if given.stores.record is not None:
        raise ConfigError("an experiment keeps no recording", hint="its cells share a response cache; --cache says where")
    if isinstance(given.run, Url):
        hint = "give a path as --run; data set and recommenders may be at URLs"
        raise ConfigError("an experiment's folder cannot be at a URL", value=str(given.run), hint=hint)
    if given.tools.keep:
        raise ConfigError("an experiment does not keep its tools", hint="leave --keep-tools out")
    if is_smoke:
        given = given.replaced(**{"evaluation.users": min(SMOKE_USERS, given.evaluation.users or SMOKE_USERS)})
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{experiment.name}"
    shared = given.replaced(run=given.run or unused(Path("runs") / name))
    if trainings:
        shared = shared.replaced(recommenders=trainings[0])
    config = shared.completed()
    points = experiment.points(Ground(config=config, is_smoke=is_smoke, endpoints=endpoints))
    taken = sorted({axis for point in points for axis in point.labels} & RESERVED)
    if taken:
        raise ConfigError("an axis has the name of a column of the table", value=taken[0], hint="give the axis another name")
    cells = cells_of(points, config, config.run, repeats=repeats, trainings=trainings)
    _check(cells)
    return Plan(
        experiment=experiment,
        folder=config.run,
        config=config,
        cells=tuple(cells),
        repeats=repeats,
        trainings=tuple(dict.fromkeys(cell.training for cell in cells)) if trainings else (),
        is_smoke=is_smoke,
    )


def _check(cells: Sequence[Cell]) -> None:
    """Refuses what the first cell, or each cell's tools, would only find out on its turn."""
    loaded: dict[tuple[Path, Path], tuple[Any, dict[str, Any]]] = {}
    for cell in cells:
        key = (cell.config.dataset, cell.config.recommenders)
        if key not in loaded:
            loaded[key] = load_dataset(cell.config.dataset), recommenders_manifest(cell.config.recommenders)
        dataset, recommenders = loaded[key]
        if cell.point.measurement is not None:
            check_measured(cell)
        tools_request(cell.config, dataset, recommenders)
        evaluation = cell.config.evaluation
        dataset.sample_users(evaluation.users, evaluation.seed, split=evaluation.split)


def run_experiment(plan: Plan, *, run_cell: RunCell | None = None, measure_cell: Callable[[Cell], None] = measure) -> Outcome:
    """Runs the cells that are not finished yet.

    Args:
        run_cell: evaluates one cell that simulates users; `run_evaluation` if not given.
        measure_cell: measures one that does not.

    Returns:
        What became of the cells. A cell that fails does not stop the others.

    Raises:
        RunFolderError: the folder is there already and is not to be resumed, or belongs to another experiment.
        RunStoppedError: the budget is spent, or the endpoint is down; the experiment can be resumed.
        StorageError: the disk is full; likewise.
    """
    lock = _opened(plan)
    failures: dict[int, str] = {}
    try:
        waiting = [cell for cell in plan.cells if not is_finished(cell)]
        if len(waiting) < len(plan.cells):
            stage(f"{len(plan.cells) - len(waiting)} of {len(plan.cells)} cells are finished already")
        with contextlib.ExitStack() as stack:
            simulated = [cell for cell in waiting if cell.point.measurement is None]
            evaluate = run_cell or (_evaluator(plan, simulated, stack) if simulated else None)
            for cell in waiting:
                stage(f"cell {cell.number} of {len(plan.cells)}: {cell.name}")
                try:
                    if cell.point.measurement is not None:
                        measure_cell(cell)
                        continue
                    assert evaluate is not None
                    evaluate(_to_be_run(plan, cell))
                except (RunStoppedError, StorageError) as error:
                    error.hint = _how_to_go_on(plan)
                    raise
                except (ToolRecError, RayError) as error:
                    failures[cell.number] = str(error).splitlines()[0] if str(error) else type(error).__name__
                    stage(f"cell {cell.number} failed: {failures[cell.number]}")
    except KeyboardInterrupt:
        stage(f"stopped; {_how_to_go_on(plan)}")
        raise
    finally:
        lock.close()
    if failures:
        write_json(plan.folder / FAILURES, {str(number): reason for number, reason in failures.items()})
    else:
        (plan.folder / FAILURES).unlink(missing_ok=True)
    return Outcome(plan=plan, failures=failures)


def is_finished(cell: Cell) -> bool:
    """Whether the cell has its figures, and any user was simulated in it, or its recommender measured."""
    if not (cell.folder / SUMMARY).is_file():
        return False
    if cell.point.measurement is not None:
        return True
    return bool((read_users(cell.folder)["ended_by"] != "cancelled").any())


def _opened(plan: Plan) -> TextIO:
    """The experiment's folder, held alone, with its plan in it."""
    path, stated = plan.folder, _stated(plan)
    exists = (path / PLAN).exists()
    if exists and not plan.config.resume:
        raise RunFolderError(
            "an experiment is there already", value=str(path), hint="give another --run, or --resume to go on with it"
        )
    if not exists and path.exists() and any(path.iterdir()):
        raise RunFolderError("this folder holds something else", value=str(path), hint="give another --run")
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(path / LOCK)
        except BlockingIOError:
            raise RunFolderError("another process is at work in this experiment's folder", value=str(path)) from None
    if not exists:
        write_json(path / PLAN, stated)
        return lock
    stored = read_plan(path)
    for name in ("name", "is_smoke", "repeats", "trainings"):
        if stored.get(name) != stated[name]:
            lock.close()
            raise RunFolderError(
                f"the folder belongs to another experiment: {name} was {stored.get(name)!r}, now {stated[name]!r}",
                value=str(path),
            )
    if stored.get("weights", stated["weights"]) != stated["weights"]:
        lock.close()
        raise RunFolderError(
            "the recommenders have been trained again since the experiment was begun: its finished cells are of the earlier ones",
            value=str(path),
            hint="go back to the earlier ones, or give another --run",
        )
    if stored["cells"] != stated["cells"]:
        lock.close()
        raise RunFolderError(
            f"the folder belongs to other cells: {_difference(stored['cells'], stated['cells'])}",
            value=str(path),
            hint="resume with the settings of its experiment.json, or give another --run",
        )
    return lock


def _difference(stored: Sequence[Mapping[str, Any]], stated: Sequence[Mapping[str, Any]]) -> str:
    if len(stored) != len(stated):
        return f"there were {len(stored)}, now {len(stated)}"
    before, now = next((one, other) for one, other in zip(stored, stated, strict=True) if one != other)
    if before["folder"] != now["folder"]:
        return f"{before['folder']} is now {now['folder']}"
    was, is_now = ({**cell["settings"], **cell.get("measurement", {})} for cell in (before, now))
    return f"{before['folder']}: {differences(was, is_now)}"


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan of an experiment's folder.

    Raises:
        RunFolderError: there is none, or it is of another version's layout.
    """
    plan: Any = read_json(folder / PLAN, error=RunFolderError)
    if not isinstance(plan, dict) or plan.get("schema_version") != SCHEMA_VERSION or "cells" not in plan:
        raise RunFolderError("no experiment of this version's layout is here", value=str(folder))
    return plan


def _stated(plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "name": plan.experiment.name,
        "question": plan.experiment.question,
        "varies": plan.experiment.varies,
        "is_smoke": plan.is_smoke,
        "repeats": plan.repeats,
        "trainings": list(plan.trainings),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": ["toolrec", *sys.argv[1:]],
        "config": plan.config.as_json(),
        "versions": {"toolrec": __version__},
        "weights": _weights(plan.cells),
        "cells": plan_of(plan.cells),
    }


def _weights(cells: Sequence[Cell]) -> list[str]:
    """The checksum of each recommenders' folder: of its weights and the data set that they are bound to, wherever it lies."""
    folders = dict.fromkeys(cell.config.recommenders for cell in cells)
    return [str(recommenders_manifest(folder)["checksum"]) for folder in folders]


def _evaluator(plan: Plan, waiting: Sequence[Cell], stack: contextlib.ExitStack) -> RunCell:
    """What evaluates a cell. In a smoke test with the embedded rules that is this process, else one Ray for all cells."""
    budget = plan.config.budget
    is_capped = budget.max_tokens is not None or budget.max_usd is not None
    remembered = RememberedLists()
    if plan.is_smoke and not is_capped and all(cell.config.is_embedded for cell in waiting):
        return lambda config: run_evaluation(config, simulate_users=simulate_here, has_report=False, remembered=remembered)
    ray = plan.config.ray
    is_own = stack.enter_context(connected(ray.address, num_cpus=ray.num_cpus, metrics_port=ray.metrics_port))
    applications: dict[tuple[Path, Path], str] = {}

    def evaluate(config: CompleteConfig) -> Any:
        ready = config.replaced(**{"ray.metrics_port": None})
        if config.tools.mode == "deploy":
            key = (config.dataset, config.recommenders)
            if key not in applications:
                applications[key] = stack.enter_context(_served(plan, config, number=len(applications), is_own=is_own))
            ready = ready.replaced(**{"tools.mode": f"attach:{applications[key]}"})
        return run_evaluation(ready, remembered=remembered)

    return evaluate


@contextlib.contextmanager
def _served(plan: Plan, config: CompleteConfig, *, number: int, is_own: bool) -> Iterator[str]:
    """One application for all cells with the same recommenders, with a tool for every attribute."""
    stage("deploying the tools for all cells")
    whole = config.replaced(**{"tools.attributes": None, "run": plan.folder / f"tools-{number}"})
    request = tools_request(whole, load_dataset(config.dataset), recommenders_manifest(config.recommenders))
    with tools_for(request, on_own_ray=is_own):
        yield request.app_name


def _to_be_run(plan: Plan, cell: Cell) -> CompleteConfig:
    """The cell's settings with what it may spend, and whether it goes on.

    Raises:
        RunStoppedError: the experiment's budget is spent.
    """
    settings: dict[str, Any] = {"resume": (cell.folder / "manifest.json").exists()}
    limits = plan.config.budget
    if limits.max_tokens is not None or limits.max_usd is not None:
        tokens, usd = _spent_by_others(plan, cell)
        if limits.max_tokens is not None:
            settings["budget.max_tokens"] = _left(limits.max_tokens - tokens, f"{tokens:,} of {limits.max_tokens:,} tokens")
        if limits.max_usd is not None:
            settings["budget.max_usd"] = _left(limits.max_usd - usd, f"{usd:.2f} of {limits.max_usd:.2f} dollars")
    return cell.config.replaced(**settings)


def _left(amount: Any, said: str) -> Any:
    if amount <= 0:
        raise RunStoppedError(f"the experiment's budget is spent: {said}")
    return amount


def _spent_by_others(plan: Plan, cell: Cell) -> tuple[int, float]:
    """Tokens and dollars that the other cells have spent."""
    tokens, usd = 0, 0.0
    for other in plan.cells:
        if other is cell or not (other.folder / "manifest.json").exists():
            continue
        used: Usage = total_usage(ledger_of(read_spend(other.folder), read_users(other.folder)))
        tokens += used.prompt_tokens + used.completion_tokens
        price = run_price(other.config, read_manifest(other.folder))
        usd += price.cost_usd(used) if price is not None else 0.0
    return tokens, usd


def _how_to_go_on(plan: Plan) -> str:
    done = sum(map(is_finished, plan.cells))
    return f"{done} of {len(plan.cells)} cells are finished; the same command with --run {plan.folder} --resume goes on"
