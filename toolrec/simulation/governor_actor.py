"""The governor as an actor, and the way to it from the simulation actors and the driver."""

from __future__ import annotations

import time
from collections.abc import Mapping

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from toolrec.llm.budget import Budget
from toolrec.llm.flow import Allowance, FlowSettings, FlowSnapshot, FlowTotals, Governor, MemberReport
from toolrec.llm.gate import Exchange


class FlowGovernor:
    """A `Governor` on this node's clock.

    It may be killed at any moment: it starts again with the run's first settings, the members' next reports tell it
    what is in flight, and `FlowWatch` what was known of members that are gone and how limits were changed since. Until
    then it lends nothing.
    """

    def __init__(self, settings: FlowSettings, ceiling: int, budget: Budget) -> None:
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._governor = Governor(settings, ceiling=ceiling, budget=budget, is_restarted=is_restarted, clock=time.monotonic)

    async def exchange(self, name: str, report: MemberReport) -> Allowance:
        """Takes a member's report and gives its next allowance."""
        return self._governor.exchange(name, report)

    async def retune(self, settings: FlowSettings) -> None:
        """Goes on with other limits."""
        self._governor.retune(settings)

    async def restore(self, settings: FlowSettings, totals: Mapping[str, FlowTotals]) -> None:
        """Takes in what an earlier governor knew."""
        self._governor.retune(settings)
        self._governor.restore(totals)

    async def snapshot(self) -> FlowSnapshot:
        """The flow at this moment."""
        return self._governor.snapshot()


GovernorActor = ray.remote(num_cpus=0.05, max_restarts=-1, max_concurrency=1000)(FlowGovernor)


def exchange_with(governor: ActorHandle, name: str) -> Exchange:
    """A member's way to the governor."""

    async def exchange(report: MemberReport) -> Allowance:
        try:
            allowance: Allowance = await governor.exchange.remote(name, report)
        except RayError as error:  # whatever became of it: it is started again
            raise ConnectionError("the governor is away") from error
        return allowance

    return exchange
