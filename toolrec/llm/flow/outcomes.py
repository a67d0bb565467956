"""How requests ended, counted for those who control the flow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Counts of requests by what their end says of the endpoint.

    Args:
        num_good: answered by a completion.
        num_other: answered by something that says nothing of the endpoint's health: a final 4xx, a malformed reply.
        num_refused: answered by 429 or 503, or not in time.
        num_down: no connection, 429, 5xx, or not in time: what an endpoint does that is down. Holds `num_refused`.
        num_down_in_a_row: the latest of them, with nothing else after.
        latency_s: seconds of the good ones, summed.
        refusal_latency_s: of the refused ones.
    """

    num_good: int = 0
    num_other: int = 0
    num_refused: int = 0
    num_down: int = 0
    num_down_in_a_row: int = 0
    latency_s: float = 0.0
    refusal_latency_s: float = 0.0

    def __add__(self, later: Outcomes) -> Outcomes:
        is_unbroken = later.num_good == later.num_other == 0
        return Outcomes(
            num_good=self.num_good + later.num_good,
            num_other=self.num_other + later.num_other,
            num_refused=self.num_refused + later.num_refused,
            num_down=self.num_down + later.num_down,
            num_down_in_a_row=later.num_down_in_a_row + (self.num_down_in_a_row if is_unbroken else 0),
            latency_s=self.latency_s + later.latency_s,
            refusal_latency_s=self.refusal_latency_s + later.refusal_latency_s,
        )

    @property
    def num_ended(self) -> int:
        """All of them."""
        return self.num_good + self.num_other + self.num_down

    @property
    def mean_latency_s(self) -> float:
        """Mean seconds of the good and the refused ones; 0 where there are none."""
        return (self.latency_s + self.refusal_latency_s) / max(self.num_good + self.num_refused, 1)
