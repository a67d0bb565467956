"""The memory of a process that lives long: what it keeps is not looked through, and what it freed goes back to the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc

YOUNG_OBJECTS = 20_000
"""New containers between two collections; Python's own 700 are those of a fraction of one round."""


def settle() -> None:
    """To be called once all that the process keeps is loaded: it is never looked through again, and collections are rarer.

    Looking through torch and the pool takes a tenth of a second each time, and everything waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def give_back() -> None:
    """To be called between two large pieces of work.

    glibc keeps what a thread has freed, in heaps of 64 MB that the next thread may not find again: without this a process
    that trains one model after the other grows by half a gigabyte with each.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
