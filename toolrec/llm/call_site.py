"""Which user, attempt and round an LLM call belongs to: what recordings are keyed by."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class CallSite:
    """Where one user's calls come from; `round` is the 1-based number of the round in the making."""

    user_id: str
    attempt: int
    round: int


CALL_SITE: ContextVar[CallSite | None] = ContextVar("toolrec_call_site", default=None)
"""The call site of the current task; None outside a run."""


def begin_next_round() -> None:
    """The current task's round is done; its calls belong to the next one."""
    site = CALL_SITE.get()
    if site is not None:
        site.round += 1
