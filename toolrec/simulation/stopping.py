"""How a run is asked to stop: the first Ctrl-C or SIGTERM ends it cleanly, a second one at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from toolrec.errors import ToolRecError
from toolrec.util.progress import stage

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 0.5
"""A second signal within this many seconds is the first one's echo: some schedulers signal a process and its group."""

EXIT_CODE = 130
STDERR = 2
STOPPING = "stopping; what is finished is kept (once more ends it at once)"


class Stopping:
    """Takes Ctrl-C and SIGTERM for as long as its block runs.

    The first one cancels what `run` is at, or raises `KeyboardInterrupt` where nothing is. The second one ends the
    process wherever it is: files are written whole or not at all, and a Ray of our own ends with the process.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._before_fd = -1
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Stopping:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._before_fd)
            os.close(self._pipe[1])  # ends the thread that reads from it

    def listen(self) -> None:
        """Takes the signals, again where something else has taken them since: `ray.init` takes SIGTERM.

        Python gives signals to the main thread alone; in another one nothing is taken.
        """
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                handler = signal.signal(number, self._asked)
                self._before.setdefault(number, handler)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Runs `main` in an event loop of its own; it is cancelled by the first signal.

        Raises:
            KeyboardInterrupt: after the cancellation, unless `main` ended in one of our own errors.
        """

        if self.is_asked:
            main.close()
            raise KeyboardInterrupt

        async def cancellable() -> None:
            self._task = asyncio.current_task()
            try:
                await main
            finally:
                self._task = None

        try:
            asyncio.run(cancellable())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        except BaseExceptionGroup as group:
            if self.is_asked and group.subgroup(ToolRecError) is None:
                raise KeyboardInterrupt from group
            raise

    def ask(self) -> None:
        """Asks the run to stop, from another thread; the same as a first Ctrl-C while an event loop runs."""
        self.is_asked = True
        if self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._cancel, self._task)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:  # the thread that waits for it ends the process
            return
        self.is_asked = True
        self._end_at_the_next()
        if self._task is None:
            with contextlib.suppress(OSError):  # nobody reads it any more, which is no reason to go on
                os.write(STDERR, f"· {STOPPING}\n".encode())  # the stream itself may be in the middle of a line
            raise KeyboardInterrupt
        self._task.get_loop().call_soon_threadsafe(self._cancel, self._task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        task.cancel()  # first: whatever becomes of the line, the run stops
        stage(STOPPING)

    def _end_at_the_next(self) -> None:
        """A handler in Python would wait for the main thread to come back from whatever it is in, which may be never."""
        self._pipe = read_fd, write_fd = os.pipe()
        os.set_blocking(write_fd, False)
        self._before_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        threading.Thread(target=_exit_at_a_signal, args=(read_fd, time.monotonic()), name="stopping", daemon=True).start()


def _exit_at_a_signal(read_fd: int, asked_s: float) -> None:
    with open(read_fd, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number[0] in SIGNALS and time.monotonic() - asked_s > ECHO_S:
                os._exit(EXIT_CODE)
