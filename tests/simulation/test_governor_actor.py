"""The governor's actor, as a plain object."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray

from toolrec.llm.flow.budget import Budget
from toolrec.llm.flow.governor import ClientReport, FlowSettings
from toolrec.simulation.flow.governor_actor import FlowGovernor


@pytest.mark.parametrize(("is_restarted", "limit"), [(False, 8), (True, 3)])
async def test_one_that_was_restarted_lends_nothing_at_first(is_restarted: bool, limit: int, monkeypatch) -> None:
    context = SimpleNamespace(was_current_actor_reconstructed=is_restarted)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    governor = FlowGovernor(FlowSettings(llm_concurrency=8), 64, Budget())
    assert (await governor.exchange("a", ClientReport(in_flight=3, waiting=20, ask_requests=20))).limit == limit
