"""A sweep's plot: the learning curve of every trial, and each trial's best by number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolrec.evaluation.plots import BLUE, GREY, ORANGE, SETTINGS
from toolrec.tuning.trials import TrialRow, best_of
from toolrec.util.files import atomic_file

COLORS = {"finished": BLUE, "pruned": GREY, "failed": ORANGE}


def draw(rows: Sequence[TrialRow], path: Path, *, title: str) -> None:
    """Writes the plot as SVG; the same trials give the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        curves, bests = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        _curves(curves, rows)
        _bests(bests, rows)
        figure.suptitle(title, fontsize=9.0, x=0.01, ha="left")
        drawn = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})  # type: ignore[no-untyped-call]
    with atomic_file(path) as temporary:
        temporary.write_bytes(drawn.getvalue())


def _curves(axis: Any, rows: Sequence[TrialRow]) -> None:
    best = best_of(rows)
    for row in rows:
        epochs = [epoch["epoch"] for epoch in row.log]
        values = [epoch["ndcg_at_10"] for epoch in row.log]
        is_best = row is best
        color = ORANGE if is_best else COLORS.get(row.status, GREY)
        axis.plot(
            epochs,
            values,
            color=color,
            linewidth=2.2 if is_best else 1.0,
            alpha=1.0 if is_best else 0.7,
            zorder=3 if is_best else 2,
        )
        if epochs:
            axis.plot(epochs[-1], values[-1], marker="x" if row.status == "pruned" else "o", markersize=4, color=color, zorder=3)
    axis.set_xlabel("epoch (x: pruned there)")
    axis.set_ylabel("validation NDCG@10")
    axis.xaxis.get_major_locator().set_params(integer=True)


def _bests(axis: Any, rows: Sequence[TrialRow]) -> None:
    best = best_of(rows)
    for status, color in COLORS.items():
        shown = [row for row in rows if row.status == status and row.best_ndcg_at_10 is not None]
        if shown:
            axis.scatter(
                [row.number for row in shown], [row.best_ndcg_at_10 for row in shown], s=18, color=color, label=status, zorder=3
            )
    if best is not None:
        axis.scatter(
            [best.number],
            [best.best_ndcg_at_10],
            s=70,
            facecolors="none",
            edgecolors=ORANGE,
            linewidths=1.8,
            label="best",
            zorder=4,
        )
    axis.set_xlabel("trial")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=8.0)
