"""A run in a notebook: its plots, and what Jupyter shows for the run itself. Every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from toolrec.errors import RunFolderError
from toolrec.evaluation.caveats import WEAK_MARK, caveats, weak_fusions
from toolrec.evaluation.plots import Plot, plot_ceiling, plot_differences, plot_marks, plot_metrics, plot_rounds
from toolrec.evaluation.summary import references_of, rows_of
from toolrec.evaluation.tables import protocol_entries, shown_metric, shown_p_value
from toolrec.util.printable import printable

if TYPE_CHECKING:
    from toolrec.runs.run import Run

METRICS = ("recall@10", "ndcg@10")
_CELL = 'style="text-align:right;white-space:nowrap;padding-left:1em"'


class RunPlots:
    """A complete run's plots. Jupyter shows a plot by itself; `figure()` gives it to matplotlib, `save(path)` to a file."""

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self._summary = summary

    def metrics(self) -> Plot:
        """Recall, NDCG and MRR at 10 of every recommender, with their 95 % intervals."""
        return plot_metrics(self._summary)

    def differences(self, metric: str = "ndcg@10") -> Plot:
        """Paired differences to the backbone and to the strongest fusion, with their intervals."""
        return plot_differences(self._summary, metric=metric)

    def rounds(self) -> Plot:
        """How many rounds and tool calls users took."""
        return plot_rounds(self._summary)

    def tools(self) -> Plot:
        """Each tool's calls, the targets in its lists, and the hits that carry its mark."""
        return plot_marks(self._summary)

    def ceiling(self) -> Plot:
        """From the candidates to the final list: how much of what the tools found was kept."""
        return plot_ceiling(self._summary)


def run_html(run: Run) -> str:
    """What Jupyter shows for a run: its state, and for a complete one headline figures, what to have in mind, the protocol."""
    status = run.status
    head = f"<p><b>{_text(run.path.resolve().name)}</b> · {status} · {len(run.users):,} users have ended</p>"
    if status != "complete":
        return f"<div>{head}</div>"
    try:
        return f"<div>{head}{_figures(run.summary_json)}</div>"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunFolderError(f"summary.json is damaged ({error!r})", value=str(run.path)) from None


def _figures(summary: Mapping[str, Any]) -> str:
    references = references_of(summary["protocol"])
    headings = ["", *map(shown_metric, METRICS), *(f"NDCG@10 minus {name.replace('_', ' ')}" for name in references)]
    body, weak = [], weak_fusions(summary)
    for name, row in rows_of(summary).items():
        label = f"{row['label']} {WEAK_MARK}" if name in weak else str(row["label"])
        cells = [_figure(row, metric) for metric in METRICS]
        cells += [_difference(row.get(f"difference_to_{other}", {}).get("ndcg@10")) for other in references]
        body.append(f"<tr><td style='text-align:left'>{_text(label)}</td>{_cells(cells)}</tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in [*(summary["protocol"].get("notes") or []), *caveats(summary)])
    protocol = "; ".join(f"{name}: {value}" for name, value in protocol_entries(summary["protocol"]))
    return (
        f"<table><thead><tr>{''.join(f'<th>{_text(heading)}</th>' for heading in headings)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>"
        f"<ul>{notes}</ul><details><summary>Protocol</summary><p>{_text(protocol)}</p></details>"
    )


def _figure(row: Mapping[str, Any], metric: str) -> str:
    if row.get(metric) is None:
        return "–"
    interval = row["intervals"].get(metric)
    return f"{row[metric]:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found or found.get("mean") is None or math.isnan(found["mean"]):
        return "–"
    corrected = found.get("p_value_holm")
    return f"{found['mean']:+.4f} (p {shown_p_value(found.get('p_value') if corrected is None else corrected)})"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td {_CELL}>{_text(text)}</td>" for text in texts)


def _text(text: str) -> str:
    return escape(printable(text, limit=2_000))
