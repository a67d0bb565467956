"""Progress that a person can follow: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

PLAIN_INTERVAL_S = 5.0
"""Seconds between two plain lines where there is no terminal."""


class Progress(Protocol):
    """A task under way."""

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Adds finished units; `note` is a short text shown beside the bar."""
        ...


@contextlib.contextmanager
def track(description: str, *, total: int, unit: str, done: int = 0) -> Iterator[Progress]:
    """Shows the progress of `total` units on standard error.

    Args:
        description: what is going on, a few words.
        total: how many units there are.
        unit: the unit in the plural, as in `users`.
        done: units finished before (a resumed run).
    """
    if not is_first_process():
        yield _Silent()
    elif sys.stderr.isatty():
        with _bar(description, total, unit, done) as bar:
            yield bar
    else:
        plain = _Plain(description, total, unit, done)
        yield plain
        plain.close()


def is_first_process() -> bool:
    """Whether this process speaks for those that torchrun started together; a process of its own always does."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _bar(description: str, total: int, unit: str, done: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(description, total=total, completed=done, rate="", note="")

        class Bar:
            def __init__(self) -> None:
                self.count, self.start_s = 0, time.monotonic()

            def advance(self, count: int = 1, *, note: str = "") -> None:
                self.count += count
                rate = self.count / max(time.monotonic() - self.start_s, 1e-9)
                display.update(task, advance=count, rate=f"{rate:.1f} {unit}/s", note=note)

        yield Bar()


class _Silent:
    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Nothing: the first process tells."""


class _Plain:
    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self.first, self.start_s, self.last_s = done, time.monotonic(), time.monotonic()
        self.note = ""
        self._say(f"{description}: {done}/{total} {unit}")

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self.done += count
        self.total = max(self.total, self.done)  # some totals are estimates
        self.note = note or self.note
        now_s = time.monotonic()
        if now_s - self.last_s >= PLAIN_INTERVAL_S:
            self.last_s = now_s
            self._line(now_s)

    def close(self) -> None:
        self._line(time.monotonic())

    def _line(self, now_s: float) -> None:
        elapsed_s = max(now_s - self.start_s, 1e-9)
        rate = (self.done - self.first) / elapsed_s
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate > 0 and self.done < self.total else ""
        note = f", {self.note}" if self.note else ""
        self._say(
            f"{self.description}: {self.done}/{self.total} {self.unit}, {rate:.2f} {self.unit}/s, {elapsed_s:.0f} s{left}{note}"
        )

    @staticmethod
    def _say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def stage(text: str) -> None:
    """Says on standard error what begins now."""
    sys.stderr.write(f"· {text}\n")
    sys.stderr.flush()
