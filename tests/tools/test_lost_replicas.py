"""Calls whose replica dies under them: asked again, and for how long."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from toolrec.tools.remote import LOST_WAITS_S, patiently

LOST = [
    ActorDiedError(),
    ActorUnavailableError("its process is gone", None),
    RayServeException("no replica"),
    DeploymentUnavailableError("backbone"),
]


class Calls:
    """Fails as it is told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.num_calls = list(failures), 0

    async def __call__(self) -> str:
        self.num_calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "lists"


async def test_a_call_that_is_answered_is_made_once():
    calls = Calls()
    assert (await patiently(calls, waits_s=(0.0,)), calls.num_calls) == ("lists", 1)


@pytest.mark.parametrize("failure", LOST, ids=lambda failure: type(failure).__name__)
async def test_a_lost_call_is_made_again(failure: Exception):
    calls = Calls(failure, failure)
    assert (await patiently(calls, waits_s=(0.0, 0.0)), calls.num_calls) == ("lists", 3)


async def test_patience_has_an_end():
    calls = Calls(*[ActorDiedError()] * 9)
    with pytest.raises(ActorDiedError):
        await patiently(calls, waits_s=(0.0, 0.0))
    assert calls.num_calls == 3


async def test_a_replicas_own_error_is_no_loss():
    calls = Calls(ValueError("a history of another pool"))
    with pytest.raises(ValueError, match="another pool"):
        await patiently(calls, waits_s=(0.0, 0.0))
    assert calls.num_calls == 1


def test_a_replica_has_two_minutes_to_come_back():
    assert 100 <= sum(LOST_WAITS_S) <= 150
