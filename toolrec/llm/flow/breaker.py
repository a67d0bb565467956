"""The circuit breaker: when nothing works any more everyone holds still, and one request at a time tries again."""

from __future__ import annotations

from collections.abc import Callable

from toolrec.llm.flow.outcomes import Outcomes

MAX_IN_A_ROW = 20
MIN_IN_A_ROW = 5
"""Requests in a row over all clients that must fail before the endpoint counts as down: as many as there are users in
flight, within these bounds."""

FIRST_WAIT_S = 1.0
MAX_WAIT_S = 30.0
"""Bounds of the wait before a probe, in seconds; it doubles with each probe that fails."""


class Breaker:
    """Says whether the endpoint is down for everyone, and who may see whether it is back.

    Args:
        num_users: users in flight.
        draw: a number between 0 and 1, for jitter.
    """

    def __init__(self, num_users: int, *, draw: Callable[[], float]) -> None:
        self.num_in_a_row = min(max(num_users, MIN_IN_A_ROW), MAX_IN_A_ROW)
        self.num_outages = 0
        self._draw = draw
        self._row = 0
        self._out_since_s: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._probe_s = 0.0
        self._probing: str | None = None

    @property
    def is_out(self) -> bool:
        """Whether the endpoint is down."""
        return self._out_since_s is not None

    def outage_s(self, now_s: float) -> float:
        """Seconds since it went down; 0 where it is up."""
        return 0.0 if self._out_since_s is None else now_s - self._out_since_s

    def observe(self, outcomes: Outcomes, *, has_probe_failed: bool, now_s: float) -> bool:
        """Takes in how requests ended; says whether the endpoint has just come back."""
        if outcomes.num_good or outcomes.num_other:
            was_out, self._out_since_s = self.is_out, None
            self._wait_s, self._row, self._probing = FIRST_WAIT_S, outcomes.num_down_in_a_row, None
            return was_out
        self._row += outcomes.num_down
        if self.is_out:
            if has_probe_failed:
                self._wait_s = min(self._wait_s * 2, MAX_WAIT_S)
                self._plan_probe(now_s)
        elif self._row >= self.num_in_a_row:
            self._out_since_s = now_s
            self.num_outages += 1
            self._plan_probe(now_s)
        return False

    def takes_probe(self, name: str, now_s: float) -> bool:
        """Whether the client that asks may send a request now, to see whether the endpoint is back; one at a time."""
        if not self.is_out or self._probing is not None or now_s < self._probe_s:
            return False
        self._probing = name
        return True

    def drop(self, name: str) -> None:
        """A client is gone, or has nothing in flight; its probe will not be answered."""
        if self._probing == name:
            self._probing = None

    def _plan_probe(self, now_s: float) -> None:
        # Half of the wait is sure, the other half is drawn: runs that share an endpoint do not come back as one.
        self._probing = None
        self._probe_s = now_s + self._wait_s * (0.5 + 0.5 * self._draw())
