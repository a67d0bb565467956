"""Data sets that are too small for their figures to say anything."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from toolrec.columns import DEFAULT_LIST_LENGTH

FEW_USERS = 10


class TooSmall(NamedTuple):
    """One reason: of what there is too little, how much there is, and what follows."""

    subject: str
    what: str
    why: str

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.subject}: {self.what} ({self.why})"


def too_small(num_items: int, lengths: np.ndarray) -> list[TooSmall]:
    """Why figures say nothing; empty where the data set is large enough.

    Args:
        num_items: of the pool.
        lengths: interactions of every user that is evaluated.
    """
    found = []
    if len(lengths) < FEW_USERS:
        found.append(TooSmall("users", f"{len(lengths)} only", "figures over so few users say nothing"))
    left = num_items - (float(np.median(lengths - 1)) if len(lengths) else 0.0)
    if left <= DEFAULT_LIST_LENGTH:
        found.append(
            TooSmall(
                "items",
                f"{num_items} only; without those of the history about {max(left, 0):g} are left to rank",
                f"a list of {DEFAULT_LIST_LENGTH} holds them all, and Recall@{DEFAULT_LIST_LENGTH} is 1 for any method",
            )
        )
    return found
