"""On whose behalf calls are made: how many failed requests one user's calls may take, over all of them."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Caller:
    """One user's account with the client.

    Args:
        max_failed_requests: failed requests of all its calls together before each further one is final.
    """

    max_failed_requests: int
    num_failed_requests: int = 0

    @property
    def exhausted(self) -> str | None:
        """What is used up, in words; None where nothing is."""
        if self.num_failed_requests >= self.max_failed_requests:
            return f"the user's {self.max_failed_requests} failed requests are used up"
        return None


CALLER: ContextVar[Caller | None] = ContextVar("toolrec_caller", default=None)
"""The user on whose behalf the current task calls; None where nobody keeps account."""
