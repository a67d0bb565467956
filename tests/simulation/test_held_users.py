"""Users that the endpoint failed: which of them count, when, and what stops a run."""

from __future__ import annotations

import re

import pytest

from toolrec.errors import RunStoppedError
from toolrec.simulation.held_users import OUTAGE_USERS, HeldUsers, TraceRows


def failed(status: int, user_index: int = 1) -> TraceRows:
    error = f"LLMRefusedError: http://127.0.0.1/v1 refused the request with HTTP {status}: no; try another"
    return {"user_index": user_index, "ended_by": "llm_failure", "error": error}, []


FINISHED: TraceRows = ({"user_index": 99, "ended_by": "finish", "error": None}, [])
UNAVAILABLE: TraceRows = ({"user_index": 98, "ended_by": "llm_failure", "error": "LLMUnavailableError: HTTP 400"}, [])


def proven(is_endpoint_proven: bool = True) -> HeldUsers:
    return HeldUsers(8, is_endpoint_proven=is_endpoint_proven)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refusals_of_what_a_request_holds_count_where_nobody_else_is_left_and_the_endpoint_is_proven(status: int):
    held, users = proven(), [failed(status, user_index) for user_index in range(1, 4)]
    assert [held.take(user) for user in users] == [[], [], []]
    assert held.take_rest() == users


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_endpoint_that_is_not_proven_stops_the_run_and_the_way_on_is_said(status: int):
    held = proven(False)
    held.take(failed(status))
    with pytest.raises(RunStoppedError, match=re.escape("(without --no-llm-check)")):
        held.take_rest()


@pytest.mark.parametrize("other", [failed(401), failed(403), failed(404), failed(429), failed(4001), UNAVAILABLE])
def test_one_failure_that_no_messages_can_be_at_fault_for_stops_the_run(other: TraceRows):
    held = proven()
    held.take(failed(400))
    held.take(other)
    with pytest.raises(RunStoppedError, match="for 2 users in a row") as caught:
        held.take_rest()
    assert "--no-llm-check" not in str(caught.value)


def test_refusals_for_everyone_stop_a_run_that_is_under_way():
    held = proven()
    assert held.take(FINISHED) == [FINISHED]
    for _ in range(OUTAGE_USERS - 1):
        assert held.take(failed(400)) == []
    with pytest.raises(RunStoppedError, match=f"for {OUTAGE_USERS} users in a row"):
        held.take(failed(400))


def test_whoever_is_held_counts_with_the_next_one_that_gets_through():
    held = proven(False)
    held.take(failed(401))
    assert held.take(FINISHED) == [failed(401), FINISHED]
    assert held.take_rest() == []
