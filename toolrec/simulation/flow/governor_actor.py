"""The governor as a Ray actor, and how simulation actors reach it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.gate import Exchange
from toolrec.llm.flow.governor import Allowance, ClientReport, FlowSettings, FlowSnapshot, FlowTotals, Governor


class FlowGovernor:
    """A `Governor` on its node's clock.

    It can be killed at any time. It restarts with the run's first settings and lends nothing until it knows more: from
    the next reports it learns what is in flight, and from `FlowWatch` the totals of clients that are gone and limits
    that were changed.
    """

    def __init__(self, settings: FlowSettings, ceiling: int, budget: Budget) -> None:
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._governor = Governor(settings, ceiling=ceiling, budget=budget, is_restarted=is_restarted, clock=time.monotonic)

    async def exchange(self, name: str, report: ClientReport) -> Allowance:
        """Takes a client's report and gives its next allowance."""
        return self._governor.exchange(name, report)

    async def retune(self, settings: FlowSettings) -> None:
        """Goes on with other limits."""
        self._governor.retune(settings)

    async def restore(self, settings: FlowSettings, totals: Mapping[str, FlowTotals]) -> None:
        """Takes over what an earlier governor knew."""
        self._governor.retune(settings)
        self._governor.restore(totals)

    async def snapshot(self) -> FlowSnapshot:
        """The flow at this moment."""
        return self._governor.snapshot()


GovernorActor = ray.remote(num_cpus=0.05, max_restarts=-1, max_concurrency=1000)(FlowGovernor)


def exchange_with(governor: ActorHandle, name: str) -> Exchange:
    """A client's way to the governor."""

    async def exchange(report: ClientReport) -> Allowance:
        try:
            allowance: Allowance = await governor.exchange.remote(name, report)
        except RayError as error:  # whatever became of it: it is started again
            raise ConnectionError("the governor is away") from error
        return allowance

    return exchange
