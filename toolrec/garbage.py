"""The garbage collector of a process that lives long and makes many short-lived records."""

from __future__ import annotations

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
