"""Progress that a person can follow: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_INTERVAL_S = 5.0
"""Seconds between two plain lines where there is no terminal."""

VIEW_INTERVAL_S = 0.5
"""Seconds between two repaints of a view."""

VIEW_PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines of a view where there is no terminal."""


class Progress(Protocol):
    """A task under way."""

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Adds finished units; `note` is a short text shown beside the bar."""
        ...


class View(Protocol):
    """Something under way that is looked at now and then, from another thread than the one that it happens in."""

    def picture(self) -> RenderableType:
        """How it stands, to be repainted on a terminal."""
        ...

    def line(self) -> str:
        """The same facts in one line."""
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
    elif can_repaint():
        with _bar(description, total, unit, done) as bar:
            yield bar
    else:
        plain = _Plain(description, total, unit, done)
        yield plain
        plain.close()


@contextlib.contextmanager
def watched(
    view: View, *, interval_s: float = VIEW_INTERVAL_S, plain_interval_s: float = VIEW_PLAIN_INTERVAL_S
) -> Iterator[None]:
    """Shows a view on standard error for as long as the block runs, and how it stands at the end, come what may.

    Args:
        view: what is looked at.
        interval_s: seconds between two repaints on a terminal.
        plain_interval_s: seconds between two lines elsewhere.
    """
    if not is_first_process():
        yield
    elif can_repaint():
        with _repainted(view, interval_s):
            yield
    else:
        with _told(view, plain_interval_s):
            yield


def is_first_process() -> bool:
    """Whether this process speaks for those that torchrun started together; a process of its own always does."""
    return os.environ.get("RANK", "0") == "0"


def can_repaint() -> bool:
    """Whether standard error is a terminal that can go back to an earlier line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


@contextlib.contextmanager
def _repainted(view: View, interval_s: float) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console, lines = Console(file=_terminal()), _Lines()
    live = Live(
        get_renderable=view.picture,
        console=console,
        auto_refresh=False,
        vertical_overflow="crop",
        redirect_stdout=sys.stdout.isatty(),
    )

    def paint() -> None:
        text = lines.take()
        if text:
            console.print(Text.from_ansi(text.removesuffix("\n")))
        live.refresh()

    with _log_lines_to(lines), live:
        console.show_cursor(True)  # whatever way the process ends, it leaves no terminal without a cursor
        with _again_and_again(paint, interval_s):
            yield


@contextlib.contextmanager
def _told(view: View, interval_s: float) -> Iterator[None]:
    with _again_and_again(lambda: _say(view.line()), interval_s):
        yield


@contextlib.contextmanager
def _again_and_again(show: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Shows something at once, at intervals in a thread for as long as the block runs, and at its end, come what may."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(interval_s):
            show()

    show()
    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show()


@contextlib.contextmanager
def _log_lines_to(stream: LogStream) -> Iterator[None]:
    """Sends log lines elsewhere than to standard error while the block runs.

    A handler holds the stream that it was made with, and would write through what rich repaints there.
    """
    original = sys.stderr
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [handler for logger in known if isinstance(logger, logging.Logger) for handler in logger.handlers]
    moved = [handler for handler in handlers if isinstance(handler, logging.StreamHandler) and handler.stream is original]
    for handler in moved:
        handler.setStream(stream)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(original)


class LogStream(Protocol):
    """What a log handler writes to."""

    def write(self, text: str, /) -> int:
        """Takes a line."""
        ...

    def flush(self) -> None:
        """Nothing is held back for longer than until the next repaint."""
        ...


class _Lines:
    """Log lines until the next repaint: one by one, each would cost a repaint of its own, in the thread that logs."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()

    def write(self, text: str, /) -> int:
        self._texts.append(text)
        return len(text)

    def flush(self) -> None:
        pass

    def take(self) -> str:
        """What was written since the last time."""
        return "".join(self._texts.popleft() for _ in range(len(self._texts)))


class _StandardError:
    """Whatever `sys.stderr` is at the time of writing: rich puts a stream in its place that writes above what it repaints."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Terminal:
    """A terminal that may go away: rich would end the thread, or the run, at the first line that nobody takes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _terminal() -> TextIO:
    return cast("TextIO", _Terminal(sys.stderr))


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
    with _log_lines_to(_StandardError()), RichProgress(*columns, console=Console(file=_terminal())) as display:
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
        _say(f"{description}: {done}/{total} {unit}")

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
        _say(f"{self.description}: {self.done}/{self.total} {self.unit}, {rate:.2f} {self.unit}/s, {elapsed_s:.0f} s{left}{note}")


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has gone, as in `2>&1 | head`: what is under way goes on unwatched
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def stage(text: str) -> None:
    """Says on standard error what begins now."""
    _say(f"· {text}")
