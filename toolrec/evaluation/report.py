"""report.html: one file, no network, everything that the summary says and a few traces to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolrec.data import Dataset, Split
from toolrec.evaluation.behaviour import is_finished
from toolrec.evaluation.metrics import DEPTHS, METRICS, all_metric_names
from toolrec.evaluation.plots import plot_ceiling, plot_differences, plot_marks, plot_metrics, plot_rounds
from toolrec.evaluation.summary import references_of, rows_of
from toolrec.evaluation.tables import best_rows, facts, protocol_entries, shown_metric, shown_p_value
from toolrec.evaluation.traces import ShownTrace, show_trace
from toolrec.files import atomic_file

TEMPLATE = "report.html.jinja"
EXAMPLES_OF_A_KIND = 2
"""Traces shown of hits, of misses and of failures each."""

RoundsReader = Callable[[int | None], pd.DataFrame]
"""Gives the rounds of one user, or of all for None: every documented column for one, at least ROUND_COLUMNS for all."""


def write_report(path: Path, summary: Mapping[str, Any], users: pd.DataFrame, rounds: RoundsReader, *, dataset: Dataset) -> None:
    """Writes the report, whole or not at all.

    Args:
        path: the HTML file.
        summary: as in summary.json.
        users: one row a user, by user_index.
        rounds: gives the rounds of the users that are shown.
        dataset: gives titles and targets.

    Raises:
        StorageError: it cannot be written.
    """
    examples = example_traces(users, rounds, dataset=dataset, split=summary["protocol"]["split"])
    html = render_report(summary, examples)
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def render_report(summary: Mapping[str, Any], examples: Mapping[str, list[ShownTrace]]) -> str:
    """The page's text; every value is escaped, only the plots are put in as they are."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("toolrec.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p_value"] = shown_p_value
    plots = {
        "metrics": plot_metrics(summary),
        "differences": plot_differences(summary),
        "rounds": plot_rounds(summary),
        "marks": plot_marks(summary),
        "ceiling": plot_ceiling(summary),
    }
    rows = rows_of(summary)
    return environment.get_template(TEMPLATE).render(
        summary=summary,
        rows=rows,
        depths=DEPTHS,
        metrics=METRICS,
        references=[name.replace("_", " ") for name in references_of(summary["protocol"])],
        shown_metric=shown_metric,
        best={metric: best_rows(rows, metric) for metric in all_metric_names()},
        facts=facts(summary),
        protocol=protocol_entries(summary["protocol"]),
        notes=summary["protocol"].get("notes") or [],
        plots={name: Markup(svg) for name, svg in plots.items()},
        examples=examples,
    )


def example_traces(users: pd.DataFrame, rounds: RoundsReader, *, dataset: Dataset, split: Split) -> dict[str, list[ShownTrace]]:
    """A few users' traces by kind: the first ones that hit, missed and failed, by user_index."""
    target_B = dataset.targets(split)[users["user_index"].to_numpy(dtype=np.int64)]
    finished_B = is_finished(users)
    hit_B = np.array([target in items for target, items in zip(target_B, users["final_items"], strict=True)], dtype=bool)
    kinds = {"Hits": finished_B & hit_B, "Misses": finished_B & ~hit_B, "Failures": ~finished_B}
    examples: dict[str, list[ShownTrace]] = {}
    for kind, chosen_B in kinds.items():
        places = np.flatnonzero(chosen_B)[:EXAMPLES_OF_A_KIND]
        examples[kind] = [
            show_trace(
                users.iloc[int(place)],
                rounds(int(users["user_index"].iloc[int(place)])),
                pool=dataset.pool,
                target=int(target_B[place]),
            )
            for place in places
        ]
    return examples
