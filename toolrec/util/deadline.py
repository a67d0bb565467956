"""A bound in seconds on what one user does; time in which our own limits make it wait does not count."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar


class Deadline:
    """What is left of a block's time; made by `deadline`."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._is_open = True
        self._num_stops = 0
        self._stopped_s = 0.0
        self._ends_s: float | None = None
        self._uncounted_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the time was up."""
        return self._timeout.expired()

    @property
    def uncounted_s(self) -> float:
        """Seconds of the block that did not count."""
        return self._uncounted_s

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The time stands still in this block; several of them at once are one."""
        if not self._is_open or self.is_over:
            yield
            return
        loop = asyncio.get_running_loop()
        if self._num_stops == 0:
            self._stopped_s, self._ends_s = loop.time(), self._timeout.when()
            self._timeout.reschedule(None)
        self._num_stops += 1
        try:
            yield
        finally:
            self._num_stops -= 1
            if self._num_stops == 0:
                waited_s = loop.time() - self._stopped_s
                self._uncounted_s += waited_s
                if self._is_open and self._ends_s is not None:
                    self._timeout.reschedule(self._ends_s + waited_s)

    def close(self) -> None:
        """The block has ended: a call that outlives it has no time to stop."""
        self._is_open = False


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextlib.asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[Deadline]:
    """Cancels the block after this many seconds (None: never).

    Raises:
        TimeoutError: the time was up; `is_over` tells it from another timeout's.
    """
    async with asyncio.timeout(seconds) as timeout:
        current = Deadline(timeout)
        token = _CURRENT.set(current)
        try:
            yield current
        finally:
            current.close()
            _CURRENT.reset(token)


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """Time in this block is not held against the deadline around it, where there is one."""
    current = _CURRENT.get()
    if current is None:
        yield
    else:
        with current.stopped():
            yield
