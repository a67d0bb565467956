"""The HTML page of `toolrec data check`: one file, plots inside, nothing from another host."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from toolrec.data.check.figures import Check
from toolrec.util.files import atomic_file

_SIZE = (5.2, 3.0)
_COLOR = "#3f51b5"
_SECONDS_A_YEAR = 365.2425 * 86400


def write_page(check: Check, path: Path) -> Path:
    """Writes the page, whole or not at all."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("toolrec.data.check", "."), autoescape=True)
    text = environment.get_template("page.html.jinja").render(check=check, plots=_plots(check))
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _plots(check: Check) -> list[tuple[str, str]]:
    plots = [
        ("Interactions of a user", _histogram(check.lengths, "interactions", "users")),
        ("Popularity of items", _ranks(check.popularity)),
    ]
    if check.seconds is not None and len(check.seconds):
        years = 1970 + check.seconds[check.seconds != 0] / _SECONDS_A_YEAR
        plots.append(("Interactions over time", _histogram(years, "year", "interactions", is_log=False)))
    if check.coverage:
        plots.append(("Items that have each attribute", _bars(check.coverage)))
    return plots


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _as_uri(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _histogram(values: np.ndarray, across: str, up: str, *, is_log: bool = True) -> str:
    figure, axes = _figure()
    low, high = float(values.min()), float(values.max())
    if is_log and low > 0 and high > low:
        bins = np.geomspace(low, high + 1, 40)
        axes.set_xscale("log")
    else:
        bins = np.linspace(low, high if high > low else low + 1, 40)
    axes.hist(values, bins=bins.tolist(), color=_COLOR)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    return _as_uri(figure)


def _ranks(counts: np.ndarray) -> str:
    figure, axes = _figure()
    axes.loglog(np.arange(1, len(counts) + 1), counts, color=_COLOR)
    axes.set_xlabel("item, most popular first")
    axes.set_ylabel("interactions")
    return _as_uri(figure)


def _bars(coverage: dict[str, float]) -> str:
    figure, axes = _figure()
    names = list(coverage)[::-1]
    # A dollar sign would begin a formula.
    axes.barh([name.replace("$", r"\$")[:30] for name in names], [100 * coverage[name] for name in names], color=_COLOR)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of items")
    return _as_uri(figure)
