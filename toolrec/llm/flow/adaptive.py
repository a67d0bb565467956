"""How many requests may be in flight: down by a factor where the endpoint refuses or slows, up again while it does not."""

from __future__ import annotations

import math

from toolrec.llm.flow.outcomes import Outcomes

REFUSED_SHARE = 0.1
CALM_SHARE = 0.02
"""Refused requests among those that ended, beyond what is usual of late: from the first share on (and what chance may
bring) the limit goes down, below the second it may grow."""

USUAL_RATE_UP = 0.3
USUAL_RATE_DOWN = 0.5
"""Weight of the newest window in what is usual: an endpoint that refuses a share of everything, however little it is asked,
is not asked less and less."""

REFUSED_FACTOR = 0.5
SLOW_FACTOR = 0.75
"""What is left of the limit after a window of refusals, and after a slow one."""

SLOW_RATIO = 4.0
"""A window is slow when its mean latency is this many times the baseline; while requests queue at an endpoint its latency
grows with their number, so that at this ratio it still has several times of what it can work on at once."""

SLOW_FLOOR_S = 1.0
"""No window with a mean latency below this, in seconds, is slow."""

BASELINE_RISE = 1.25
"""A slow window raises the baseline by this factor: where fewer requests make nothing faster, the new latency is accepted."""

MIN_WINDOW_S = 0.5
MIN_SAMPLES = 10
"""Windows last at least this long, in seconds, and until this many requests ended; fewer say nothing."""

GROWTH_PARTS = 32
"""Beyond the last known good limit, each window adds one part of this many of the cap."""


class AdaptiveLimit:
    """Requests in flight over all clients, between 1 and a cap; begins at the cap.

    Time goes in windows of one round trip: the mean latency of what ended in it, and never less than `MIN_WINDOW_S`.
    The limit changes at most once a window. After a decrease it doubles up to where it was good last, and adds beyond.

    Args:
        cap: the highest limit.
        now_s: the present, in seconds from any fixed point.

    Source: TCP's slow start and additive increase, multiplicative decrease (Jacobson 1988), with windows of time
    instead of acknowledgements, and a beginning at the cap (docs/decisions/0011).
    """

    def __init__(self, cap: int, *, now_s: float) -> None:
        self._cap = cap
        self._limit = float(cap)
        self._threshold = float(cap)
        self._began_s = now_s
        self._window = Outcomes()
        self._was_full = False
        self._baseline_s: float | None = None
        self._usual_share = 0.0
        self.latency_s: float | None = None

    @property
    def value(self) -> int:
        """The limit."""
        return max(int(self._limit), 1)

    def observe(self, outcomes: Outcomes, *, in_flight: int, demand: int, now_s: float) -> None:
        """Takes in what ended, and moves the limit at the end of a window.

        Args:
            outcomes: since the last call.
            in_flight: requests over all clients.
            demand: these, and those that wait.
            now_s: the present.
        """
        self._window += outcomes
        self._was_full = self._was_full or demand >= self._limit
        ended = self._window.num_ended
        if ended < MIN_SAMPLES or now_s - self._began_s < max(MIN_WINDOW_S, self._window.mean_latency_s):
            return
        is_slow = self._is_slow()
        share = self._window.num_refused / ended
        excess = share - self._usual_share
        self._usual_share += (USUAL_RATE_UP if excess > 0 else USUAL_RATE_DOWN) * excess
        chance = 1.0 / math.sqrt(ended)  # two standard deviations of a share of one half
        if excess >= REFUSED_SHARE + chance:
            self._decrease(REFUSED_FACTOR, in_flight + self._window.num_refused)
        elif is_slow:
            self._decrease(SLOW_FACTOR, in_flight)
        elif self._was_full and excess < CALM_SHARE:
            self._limit = self._limit * 2 if self._limit < self._threshold else self._limit + max(self._cap / GROWTH_PARTS, 1.0)
            self._limit = min(self._limit, self._cap)
        self._begin(now_s)

    def restart(self, *, now_s: float) -> None:
        """After an outage: carefully, so that not everyone meets the endpoint in its first moment."""
        self._threshold = max(self._limit, 1.0)
        self._limit = max(self._cap / GROWTH_PARTS, 1.0)
        self._begin(now_s)

    def retune(self, cap: int, *, now_s: float) -> None:
        """Another cap; where the limit stood at the old one, it goes to the new one."""
        if cap == self._cap:
            return
        at_cap = self._limit >= self._cap
        self._limit = float(cap) if at_cap else min(self._limit, cap)
        self._threshold = float(cap) if at_cap else min(self._threshold, cap)
        self._cap = cap
        self._begin(now_s)

    def _is_slow(self) -> bool:
        """Whether the window's completions took far longer than those of the fastest one."""
        if self._window.num_good < MIN_SAMPLES:
            return False
        mean_s = self._window.latency_s / self._window.num_good
        self.latency_s = mean_s
        self._baseline_s = mean_s if self._baseline_s is None else min(self._baseline_s, mean_s)
        is_slow = mean_s > max(SLOW_RATIO * self._baseline_s, SLOW_FLOOR_S)
        if is_slow:
            self._baseline_s *= BASELINE_RISE
        return is_slow

    def _decrease(self, factor: float, in_flight: int) -> None:
        # Where fewer were in flight than the limit allowed, it is they that were too many.
        self._limit = max(min(self._limit, in_flight) * factor, 1.0)
        self._threshold = self._limit

    def _begin(self, now_s: float) -> None:
        self._began_s = now_s
        self._window = Outcomes()
        self._was_full = False
