"""The table of trials: repainted while a sweep runs on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolrec.tuning.trials import TrialRow, best_of
from toolrec.util.progress import PLAIN_INTERVAL_S

if TYPE_CHECKING:
    from rich.table import Table

REPAINT_S = 0.5
PLAIN_SAME_INTERVAL_S = 60.0
"""Seconds until a plain line that says nothing new."""

MAX_ROWS = 20
"""Rows of the table while it is repainted: what runs, then the best."""

_ORDER = {"running": 0, "unfinished": 0, "finished": 1, "pruned": 1, "failed": 2}


def headline(rows: Sequence[TrialRow], *, num_trials: int, max_epochs: int) -> str:
    """The sweep in one line."""
    count = Counter(row.status for row in rows)
    ended = count["finished"] + count["pruned"] + count["failed"]
    epochs = sum(row.num_epochs for row in rows)
    best = best_of(rows)
    parts = [
        f"{ended}/{num_trials} trials ended ({count['pruned']} pruned, {count['failed']} failed)",
        f"{count['running']} running" if count["running"] else "",
        f"{epochs} epochs of at most {num_trials * max_epochs}",
        f"best validation ndcg@10 {best.best_ndcg_at_10:.4f} (trial {best.number})" if best else "",
    ]
    return ", ".join(part for part in parts if part)


def trial_line(row: TrialRow) -> str:
    """One trial that ended, in one line."""
    figure = "no epoch done" if row.best_ndcg_at_10 is None else f"validation ndcg@10 {row.best_ndcg_at_10:.4f}"
    settings = ", ".join(f"{name} {shown(value)}" for name, value in row.params.items())
    return f"trial {row.number} {row.status} after {row.num_epochs} epochs, {figure}; {settings}"


def shown(value: Any) -> str:
    """A parameter's value, short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table_of(rows: Sequence[TrialRow], *, title: str, max_rows: int | None = None) -> Table:
    """The trials: what runs first, then by validation NDCG@10."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=0)
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for heading in ("epochs", "ndcg@10", "seconds", *(name.removeprefix("num_").replace("_", "\n") for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    ordered = sorted(rows, key=lambda row: (_ORDER[row.status], -(row.best_ndcg_at_10 or 0.0), row.number))
    best = best_of(rows)
    for row in ordered[:max_rows]:
        figure = "-" if row.best_ndcg_at_10 is None else f"{row.best_ndcg_at_10:.4f}"
        table.add_row(
            str(row.number),
            row.status,
            str(row.num_epochs or "-"),
            f"{figure}*" if row is best else f"{figure} ",
            f"{row.duration_s:.1f}" if row.num_epochs else "-",
            *(shown(row.params[name]) if name in row.params else "-" for name in names),
            style="dim" if row.status == "failed" else None,
        )
    hidden = len(ordered) - len(ordered[:max_rows])
    if hidden:
        table.caption = f"and {hidden} more"
    return table


class Display:
    """What a person sees of a sweep under way, on standard error."""

    def __init__(self, *, num_trials: int, max_epochs: int) -> None:
        self.num_trials, self.max_epochs = num_trials, max_epochs
        self.told: dict[str, str] = {}
        self.last_s, self.last_line = 0.0, ""
        self.live: Any = None

    def __getstate__(self) -> Mapping[str, Any]:
        # Ray Tune stores its callbacks; a restored sweep opens a screen of its own.
        return {**self.__dict__, "live": None, "told": {}, "last_s": 0.0, "last_line": ""}

    def show(self, rows: Sequence[TrialRow], *, is_end: bool = False) -> None:
        """Shows the trials as they are now."""
        if sys.stderr.isatty():
            self._repaint(rows, is_end)
        else:
            self._lines(rows, is_end)

    def _repaint(self, rows: Sequence[TrialRow], is_end: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        if self.live is None:
            self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.live.start()
        now_s = time.monotonic()
        if is_end:
            self.live.stop()
            self.live = None
        elif now_s - self.last_s >= REPAINT_S:
            self.last_s = now_s
            self.live.update(table_of(rows, title=self._headline(rows), max_rows=MAX_ROWS), refresh=True)

    def _lines(self, rows: Sequence[TrialRow], is_end: bool) -> None:
        ended = [row for row in rows if row.status in ("finished", "pruned", "failed")]
        is_first = not self.told and not self.last_s
        new = [row for row in ended if self.told.get(row.trial_id) != row.status]
        self.told.update((row.trial_id, row.status) for row in new)
        for row in [] if is_first else new:  # what had ended before a restored sweep went on is not told again
            sys.stderr.write(trial_line(row) + "\n")
        now_s, line = time.monotonic(), self._headline(rows)
        wait_s = PLAIN_INTERVAL_S if line != self.last_line else PLAIN_SAME_INTERVAL_S
        if is_end or now_s - self.last_s >= wait_s:
            self.last_s, self.last_line = now_s, line
            sys.stderr.write(f"sweep: {line}\n")
        sys.stderr.flush()

    def _headline(self, rows: Sequence[TrialRow]) -> str:
        return headline(rows, num_trials=self.num_trials, max_epochs=self.max_epochs)
