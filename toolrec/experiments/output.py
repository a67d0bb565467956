"""An experiment's tables for a terminal, as files, as a plot and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from toolrec.errors import RunFolderError
from toolrec.evaluation.plots import PlottedPoint, plot_points
from toolrec.evaluation.tables import NOTHING, protocol_entries, shown_metric, shown_p_value
from toolrec.experiments.measures import MEASURES
from toolrec.experiments.results import FIGURES, MAIN, Result
from toolrec.experiments.runner import read_plan
from toolrec.util.files import atomic_file, read_json, write_json
from toolrec.util.printable import printable

TEMPLATE = "experiment.html.jinja"
Shown = tuple[list[str], list[list[str]]]
"""A table in words: headings, and rows; the labels of the axes come first."""

QUALITY_CAPTION = "Figures with 95 % intervals over all users; a user who failed is a miss. Differences are paired by user."
MEASURES_CAPTION = "What happened, means over all users"
VARIANCE_CAPTION = (
    "Standard deviations of NDCG@10: between users, between runs (repeats or trainings), and what is left within a user from "
    "run to run; the last column is the runs' share of the mean's variance"
)
VARIANCES = (
    "sd_between_users",
    "sd_between_repeats",
    "sd_within_users_over_repeats",
    "sd_between_trainings",
    "sd_within_users_over_trainings",
    "share_of_runs",
)
VARIANCE_HEADINGS = {
    "sd_between_users": "between\nusers",
    "sd_between_repeats": "between\nrepeats",
    "sd_between_trainings": "between\ntrainings",
    "sd_within_users_over_repeats": "within\na user",
    "sd_within_users_over_trainings": "within\na user",
    "share_of_runs": "share\nof runs",
}


def write_results(result: Result, folder: Path) -> None:
    """Writes `cells` and `results` as Parquet and CSV, summary.json, plot.svg and report.html.

    Raises:
        StorageError: a file cannot be written.
    """
    for name, frame in (("cells", result.cells), ("results", result.points)):
        with atomic_file(folder / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        with atomic_file(folder / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    plot = plot_of(result)
    with atomic_file(folder / "plot.svg") as temporary:
        temporary.write_text(plot, encoding="utf-8")
    write_json(
        folder / "summary.json",
        {
            "name": result.name,
            "question": result.question,
            "varies": result.varies,
            "notes": list(result.notes),
            "protocol": dict(result.protocol),
            "measures": {name: MEASURES[name].meaning for name in result.measures},
            "results": records(result.points),
            "cells": records(result.cells),
        },
    )
    with atomic_file(folder / "report.html") as temporary:
        temporary.write_text(page_of([(result, plot)]), encoding="utf-8")


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is missing is None."""
    return [
        {
            str(name): None if _is_missing(value) else value.item() if hasattr(value, "item") else value
            for name, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def print_result(result: Result, console: Console | None = None) -> None:
    """Prints the experiment's tables."""
    console = console or Console(highlight=False)
    console.print(Text(f"{result.name}: {result.question}", style="bold"), soft_wrap=True)
    for shown in (quality_table(result), measure_table(result)):
        if shown is not None:
            console.print(_rich(*shown))
    variances = variance_table(result)
    if variances is not None:
        console.print(VARIANCE_CAPTION, soft_wrap=True)
        console.print(_rich(*variances))
    for name in result.measures:
        console.print(Text(f"{MEASURES[name].heading}: {MEASURES[name].meaning}", style="dim"), soft_wrap=True)
    for note in result.notes:
        console.print(Text(f"Note: {printable(note, limit=400)}"), soft_wrap=True)
    for row in records(result.cells):
        if row["status"] == "failed":
            console.print(Text(f"failed: {row['cell']}: {printable(str(row['error']), limit=300)}"), soft_wrap=True)


def print_stored(folder: Path, console: Console) -> None:
    """Prints the table of an experiment's folder.

    Raises:
        RunFolderError: there is none, or it has no figures yet.
    """
    plan = read_plan(folder)
    if not (folder / "results.parquet").is_file():
        raise RunFolderError("the experiment has no figures yet", value=str(folder), hint="finish it with --resume")
    summary: Any = read_json(folder / "summary.json", error=RunFolderError)
    result = Result(
        name=plan["name"],
        question=plan["question"],
        varies=plan["varies"],
        cells=pd.read_parquet(folder / "cells.parquet"),
        points=pd.read_parquet(folder / "results.parquet"),
        labels=tuple(dict.fromkeys(axis for cell in plan["cells"] for axis in cell["labels"])),
        measures=tuple(summary["measures"]),
        notes=tuple(summary["notes"]),
        protocol=summary["protocol"],
    )
    print_result(result, console)


def _rich(heads: list[str], rows: list[list[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(heads):
        table.add_column(Text(heading), justify="left" if number == 0 else "right", overflow="fold", no_wrap=number > 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def quality_table(result: Result) -> Shown:
    """Labels, figures with intervals, and the difference to the first row."""
    heads = [shown_metric(metric) for metric in FIGURES]
    rows = []
    for row in records(result.points):
        if row.get("failed") and not row.get("cells"):
            rows.append([*_labels(result, row), "failed", *[NOTHING] * (len(FIGURES) + 2)])
            continue
        shown = [_with_interval(row, MAIN, "{:.4f}", _short)]
        shown += [NOTHING if row.get(metric) is None else f"{row[metric]:.4f}" for metric in FIGURES if metric != MAIN]
        shown += [_with_interval(row, "difference", "{:+.4f}", _signed)]
        shown += [shown_p_value(row.get("p_value")), shown_p_value(row.get("p_value_holm"))]
        rows.append([*_labels(result, row), *shown])
    return [*_axes(result), *heads, f"{shown_metric(MAIN)} minus\nthe first row's", "p", "Holm\np"], rows


def measure_table(result: Result) -> Shown | None:
    """Labels and measures; None where the experiment has none."""
    if not result.measures:
        return None
    rows = []
    for row in records(result.points):
        values = [row.get(name) for name in result.measures]
        if any(value is not None for value in values):
            shown = [
                NOTHING if value is None else MEASURES[name].shape.format(value)
                for name, value in zip(result.measures, values, strict=True)
            ]
            rows.append([*_labels(result, row), *shown])
    return [*_axes(result), *(MEASURES[name].heading.replace(" ", "\n", 1) for name in result.measures)], rows


def _axes(result: Result) -> list[str]:
    return [label.rpartition(".")[2].replace("_", " ") for label in result.labels]


def _labels(result: Result, row: Mapping[str, Any]) -> list[str]:
    return [printable(str(row.get(label) or ""), limit=60) for label in result.labels]


def variance_table(result: Result) -> Shown | None:
    """Where the variance of each point comes from; None where every point has one cell."""
    names = [name for name in VARIANCES if name in result.points]
    if not names:
        return None
    rows = []
    for row in records(result.points):
        values = [row.get(name) for name in names]
        shapes = ["{:.0%}" if name == "share_of_runs" else "{:.4f}" for name in names]
        shown = [NOTHING if value is None else shape.format(value) for value, shape in zip(values, shapes, strict=True)]
        rows.append([*_labels(result, row), *shown])
    return [*_axes(result), *(VARIANCE_HEADINGS[name] for name in names)], rows


def _with_interval(row: Mapping[str, Any], name: str, shape: str, short: Callable[[float], str]) -> str:
    value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
    if value is None:
        return NOTHING
    between = "–" if short is _short else "…"
    return shape.format(value) + ("" if low is None or high is None else f" {short(low)}{between}{short(high)}")


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".", 1)


def plot_of(result: Result) -> str:
    """Every point's NDCG@10 and its difference to the first, with intervals, as SVG."""
    rows = records(result.points)
    names = [", ".join(str(row[label]) for label in result.labels if row.get(label)) for row in rows]
    return plot_points(
        names,
        {
            shown_metric(MAIN): [_plotted(row, MAIN) for row in rows],
            f"{shown_metric(MAIN)} minus the first row's": [_plotted(row, "difference") for row in rows],
        },
        prefix=result.name,
    )


def _plotted(row: Mapping[str, Any], name: str) -> PlottedPoint:
    return PlottedPoint(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"))


def page_of(results: list[tuple[Result, str]]) -> str:
    """The page of one experiment or more; every value is escaped, only the plots are put in as they are."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("toolrec.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {
            "name": result.name,
            "question": result.question,
            "varies": result.varies,
            "notes": result.notes,
            "num_labels": len(result.labels),
            "tables": [
                (caption, *shown)
                for caption, shown in (
                    (QUALITY_CAPTION, quality_table(result)),
                    (MEASURES_CAPTION, measure_table(result)),
                    (VARIANCE_CAPTION, variance_table(result)),
                )
                if shown is not None
            ],
            "measures": [(MEASURES[name].heading, MEASURES[name].meaning) for name in result.measures],
            "protocol": protocol_entries(result.protocol) if result.protocol else (),
            "failed": [row for row in records(result.cells) if row["status"] == "failed"],
            "plot": Markup(plot),
        }
        for result, plot in results
    ]
    return environment.get_template(TEMPLATE).render(experiments=shown)
