"""Where in a run a call is made: for which user, in which attempt and round."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Place:
    """One user's place; `round` moves on while the user is simulated, and is the 1-based number of the round in the making."""

    user_id: str
    attempt: int
    round: int


PLACE: ContextVar[Place | None] = ContextVar("toolrec_place", default=None)
"""The place of the current task's calls; None outside a run."""


def move_on() -> None:
    """The current task's round is done; its calls belong to the next one."""
    place = PLACE.get()
    if place is not None:
        place.round += 1
