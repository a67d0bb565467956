"""A run's plots: the same summary gives the same bytes of SVG. matplotlib is loaded only when one is drawn."""

from __future__ import annotations

import hashlib
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from toolrec.errors import ConfigError
from toolrec.evaluation.coverage import NO_MARK
from toolrec.evaluation.summary import COMPLETED, SURROGATE, references_of, rows_of
from toolrec.evaluation.tables import marks_in_order, shown_metric
from toolrec.util.files import atomic_file
from toolrec.util.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2a78b8", "#d5692a", "#8a8f98"
"""Distinct with the common kinds of colour blindness, and readable on white and on black."""

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "toolrec",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
}
LABEL_LENGTH = 60
LABEL_LINE = 30
"""Characters of a row's name on one line; longer names take two."""
ROW_INCHES = 0.32
WIDTH_INCHES = 8.6
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
XLINK_NAMESPACE = "http://www.w3.org/1999/xlink"


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing that Jupyter shows by itself.

    Attributes:
        draw: fills a matplotlib figure.
        height: inches; the width is the same for all plots.
        prefix: of the ids in the SVG.
        label: what it shows, in words.
    """

    draw: Callable[[Figure], None]
    height: float
    prefix: str
    label: str

    def __repr__(self) -> str:
        return f"Plot({self.label!r})"

    def figure(self) -> Figure:
        """As a matplotlib figure, to be changed or put beside others."""
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(WIDTH_INCHES, self.height), layout=ConstrainedLayoutEngine(wspace=0.06))
            FigureCanvasAgg(figure)
            self.draw(figure)
        return figure

    def save(self, path: str | Path) -> None:
        """Writes a file in the form that its name ends in: SVG, PNG, PDF.

        Raises:
            ConfigError: matplotlib writes no such files.
            StorageError: it cannot be written.
        """
        import matplotlib

        figure, target = self.figure(), Path(path)
        kind = target.suffix.removeprefix(".").lower()
        kinds = figure.canvas.get_supported_filetypes()
        if kind not in kinds:
            raise ConfigError(
                "no picture is written under this name", value=str(path), allowed=sorted(f".{one}" for one in kinds)
            )
        with matplotlib.rc_context(SETTINGS), atomic_file(target) as temporary:
            figure.savefig(temporary, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else None)

    @property
    def svg(self) -> str:
        """As an element of an HTML page."""
        import matplotlib

        buffer = io.StringIO()
        with matplotlib.rc_context(SETTINGS):
            self.figure().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        document = buffer.getvalue()
        # Two runs' plots may be on one page.
        digest = hashlib.sha256(document.encode()).hexdigest()[:8]
        return _inline(document, prefix=f"{self.prefix}-{digest}", label=self.label)

    def _repr_html_(self) -> str:
        """On white, whatever the notebook's colours: the labels are dark."""
        return f'<div style="background:#fff;max-width:{WIDTH_INCHES * 100:.0f}px;padding:8px">{self.svg}</div>'


def plot_metrics(summary: Mapping[str, Any], *, metrics: Sequence[str] = ("recall@10", "ndcg@10", "mrr@10")) -> Plot:
    """Every recommender's figures with their intervals, one panel a figure."""
    rows = rows_of(summary)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(metrics), sharey=True)
        for axis, metric in zip(axes, metrics, strict=True):
            for y, (name, row) in enumerate(rows.items()):
                value, interval = row[metric], row["intervals"].get(metric)
                _dot(axis, y, value, interval, color=_color(name), marker="o")
            axis.set_title(shown_metric(metric), fontsize=9)
            axis.set_xlim(left=0)
        _name_rows(axes[0], [row["label"] for row in rows.values()])

    return Plot(draw, height=_height(len(rows)), prefix="metrics", label="figures of every recommender with 95 % intervals")


def plot_differences(summary: Mapping[str, Any], *, metric: str = "ndcg@10") -> Plot:
    """Paired differences to the references, with their intervals: what crosses the line of 0 is not told apart."""
    rows = rows_of(summary)
    references = references_of(summary["protocol"])
    shown = [reference.replace("_", " ") for reference in references]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(references), sharey=True, sharex=True)
        for axis, reference, words in zip(axes, references, shown, strict=True):
            axis.axvline(0, color=GREY, linewidth=1)
            for y, (name, row) in enumerate(rows.items()):
                difference = row[f"difference_to_{reference}"].get(metric)
                if difference is not None:
                    bounds = None if difference["low"] is None else (difference["low"], difference["high"])
                    _dot(axis, y, difference["mean"], bounds, color=_color(name), marker="D")
            axis.set_title(f"{shown_metric(metric)} minus that of the {words}", fontsize=9)
        _name_rows(axes[0], [row["label"] for row in rows.values()])

    label = f"paired differences of {shown_metric(metric)} to {' and '.join(shown)}"
    return Plot(draw, height=_height(len(rows)), prefix=f"differences-{metric.replace('@', '-')}", label=label)


def plot_rounds(summary: Mapping[str, Any]) -> Plot:
    """How many users took how many rounds, and how many tool calls."""
    behaviour = summary["behaviour"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, key, title in zip(axes, ("rounds", "tool_calls"), ("rounds a user", "tool calls a user"), strict=True):
            distribution = behaviour[key]["distribution"]
            numbers = [int(number) for number in distribution]
            axis.bar(numbers, list(distribution.values()), color=BLUE, width=0.7)
            axis.set_xticks(range(min(numbers), max(numbers) + 1)[:: max(1, (max(numbers) - min(numbers)) // 12)])
            axis.set_xlim(min(numbers) - 2, max(numbers) + 2)
            axis.set_title(f"{title}, mean {behaviour[key]['mean']:.2f}", fontsize=9)
            axis.grid(axis="x", visible=False)
        axes[0].set_ylabel("users")
        axes[0].yaxis.get_major_locator().set_params(integer=True)

    return Plot(draw, height=2.3, prefix="rounds", label="distribution of rounds and tool calls")


def plot_marks(summary: Mapping[str, Any]) -> Plot:
    """For each tool: its calls, the targets that its lists held, the hits that carry its mark."""
    hits = summary["hits"]
    calls = (summary["behaviour"].get("tool_calls_by_mark") or {}).get("calls", {})
    panels = (
        ("calls", calls, None),
        ("targets in its lists", hits["found_by_mark"], None),
        ("hits", hits["surrogate"]["by_any_mark"], hits["surrogate"]["by_first_mark"]),
    )
    marks = marks_in_order([counts for _, counts, _ in panels]) or [NO_MARK]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), sharey=True)
        for axis, (title, counts, first) in zip(axes, panels, strict=True):
            values = [counts.get(mark, 0) for mark in marks]
            axis.barh(range(len(marks)), values, color=BLUE if first is None else GREY, height=0.6)
            if first is not None:
                axis.barh(range(len(marks)), [first.get(mark, 0) for mark in marks], color=ORANGE, height=0.3)
                title += " (orange: returned here first)"
            axis.set_title(title, fontsize=9)
            axis.grid(axis="y", visible=False)
            axis.locator_params(axis="x", nbins=4, integer=True)
        _name_rows(axes[0], marks)

    return Plot(draw, height=_height(len(marks)), prefix="marks", label="calls, found targets and hits by tool")


def plot_ceiling(summary: Mapping[str, Any]) -> Plot:
    """From the candidates to the final list: how much of what the tools found was kept."""
    rows = rows_of(summary)
    bars = [(f"in the candidates (mean {summary['hits']['ceiling']['mean_candidates']:.0f} items)", "ceiling")]
    bars += [("in the final list, as given", SURROGATE), ("in the final list, completed", COMPLETED)]
    bars += [
        (f"in the {name.replace('_', ' ')}'s own first ten", name) for name in references_of(summary["protocol"]) if name in rows
    ]
    values = [summary["hits"]["ceiling"]["recall"] if key == "ceiling" else rows[key]["recall@10"] for _, key in bars]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        colors = [GREY if key == "ceiling" else _color(key) for _, key in bars]
        axis.barh(range(len(bars)), [value or 0 for value in values], color=colors, height=0.6)
        for y, value in enumerate(values):
            axis.annotate(f"{value or 0:.3f}", (value or 0, y), xytext=(5, 0), textcoords="offset points", va="center")
        axis.set_xlim(0, max([value or 0 for value in values] + [0.01]) * 1.12)
        axis.set_title("share of users whose target is …", fontsize=9, loc="left")
        axis.grid(axis="y", visible=False)
        _name_rows(axis, [name for name, _ in bars])

    return Plot(draw, height=_height(len(bars)), prefix="ceiling", label="the ceiling set by the candidates")


@dataclass(frozen=True, slots=True)
class PlottedPoint:
    """A figure and the ends of its interval; None for what is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


def plot_points(names: Sequence[str], panels: Mapping[str, Sequence[PlottedPoint]], *, prefix: str) -> str:
    """Rows of points with their intervals, one panel a figure; a panel of differences has a line at 0.

    Args:
        names: of the rows.
        panels: by title the points along `names`.
        prefix: of the drawing's ids, unique on its page.
    """

    def draw(figure: Figure) -> None:
        axes: list[Axes] = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for axis, (title, points) in zip(axes, panels.items(), strict=True):
            for y, point in enumerate(points):
                bounds = None if point.low is None or point.high is None else (point.low, point.high)
                _dot(axis, y, point.value, bounds, color=ORANGE, marker="o")
            axis.set_title(title, fontsize=9)
            if any(bound is not None and bound < 0 for point in points for bound in (point.value, point.low)):
                axis.axvline(0, color=GREY, linewidth=1)
            else:
                axis.set_xlim(left=0)
        _name_rows(axes[0], names)

    return Plot(draw, height=_height(len(names)), prefix=prefix, label="figures of every point with 95 % intervals").svg


def _color(name: str) -> str:
    return ORANGE if name in (SURROGATE, COMPLETED) else BLUE


def _height(num_rows: int) -> float:
    return 0.75 + ROW_INCHES * max(num_rows, 3)


def _dot(axis: Axes, y: int, value: float | None, interval: Sequence[float] | None, *, color: str, marker: str) -> None:
    if value is None:
        return
    if interval is not None:
        axis.plot([interval[0], interval[1]], [y, y], color=color, linewidth=1.8, solid_capstyle="butt")
    axis.plot([value], [y], marker=marker, markersize=5, color=color)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    shown = ["\n".join(textwrap.wrap(printable(str(name), limit=LABEL_LENGTH), LABEL_LINE)) for name in names]
    axis.set_yticks(range(len(names)), shown)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _inline(document: str, *, prefix: str, label: str) -> str:
    """The drawing as an element of an HTML page: ids are made the page's own, sizes give way to the page's width."""
    ElementTree.register_namespace("", SVG_NAMESPACE)
    ElementTree.register_namespace("xlink", XLINK_NAMESPACE)
    root = ElementTree.fromstring(document)
    for metadata in root.findall(f"{{{SVG_NAMESPACE}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif value.startswith("#") and name.endswith("href"):
                element.set(name, f"#{prefix}-{value[1:]}")
            elif value.startswith("url(#"):
                element.set(name, f"url(#{prefix}-{value[5:]}")
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")
