"""Work slots of one event loop: only a few of its many tasks work at a time, so that they finish one by one, not all at the end.

An event loop serves its tasks breadth first: a thousand that wake together all do their first step, then all their second,
and what each of them is to send leaves in one burst when most of the work of all is done. The answers come back in one burst
too, and while they are awaited the processor is idle. With slots the first leaves after its own work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextvars import ContextVar

from toolrec.util.deadline import uncounted

HOLD_S = 1.0


class WorkSlots:
    """Lets `limit` tasks work at once, the others wait in the order in which they came.

    A task that waits for others steps `away` meanwhile. One that holds its slot for longer than `hold_s` hangs on somebody
    and makes room for the next.

    Args:
        limit: slots that are held at once.
        hold_s: seconds that a slot is held at most.
    """

    def __init__(self, limit: int, *, hold_s: float = HOLD_S) -> None:
        self._free = asyncio.Semaphore(limit)
        self._hold_s = hold_s

    @contextlib.asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """The block has a slot; `away` in it gives the slot back for as long as it lasts."""
        slot = _Slot(self._free, self._hold_s)
        token = _CURRENT.set(slot)
        await slot.take()
        try:
            yield
        finally:
            slot.give()
            _CURRENT.reset(token)


class _Slot:
    """One task's slot."""

    __slots__ = ("_free", "_hold_s", "_is_held", "_timer", "num_away")

    def __init__(self, free: asyncio.Semaphore, hold_s: float) -> None:
        self._free, self._hold_s = free, hold_s
        self._is_held = False
        self.num_away = 0
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        if self._is_held:  # by another call of the same task
            return
        if self._free.locked():
            with uncounted():
                await self._free.acquire()
        else:
            await self._free.acquire()
        if self._is_held:  # another call of the task was quicker
            self._free.release()
            return
        self._is_held = True
        self._timer = asyncio.get_running_loop().call_later(self._hold_s, self.give)

    def give(self) -> None:
        if self._is_held:
            self._is_held = False
            self._free.release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        self.num_away += 1
        self.give()


_CURRENT: ContextVar[_Slot | None] = ContextVar("work_slot", default=None)


@contextlib.asynccontextmanager
async def away() -> AsyncIterator[None]:
    """The block is waiting, not work: the current task's slot, where it has one, goes to the next and is taken anew after it."""
    slot = _CURRENT.get()
    if slot is None:
        yield
        return
    is_cancelled = False
    slot.leave()
    try:
        yield
    except asyncio.CancelledError:
        is_cancelled = True  # what is left to do is to end
        raise
    finally:
        slot.num_away -= 1
        if slot.num_away == 0 and not is_cancelled:
            await slot.take()
