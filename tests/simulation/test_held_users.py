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


def test_a_key_that_is_refused_at_the_end_stops_a_run_whose_first_users_got_through():
    held = proven()
    held.take(FINISHED)
    for user_index in range(5):
        held.take(failed(401, user_index))
    with pytest.raises(RunStoppedError, match="for 5 users in a row"):
        held.take_rest()


def test_the_last_users_whose_attempts_ran_out_count_where_others_got_through():
    held = proven(False)
    held.take(FINISHED)
    held.take(UNAVAILABLE)
    held.take(failed(400))
    assert held.take_rest() == [UNAVAILABLE, failed(400)]


@pytest.mark.parametrize("ended_by", ["cancelled", "budget"])
def test_who_ends_for_our_own_sake_shows_nothing_of_the_endpoint(ended_by: str):
    held, ours = proven(False), ({"user_index": 97, "ended_by": ended_by, "error": "no"}, [])
    held.take(failed(401))
    assert held.take(ours) == [ours]
    with pytest.raises(RunStoppedError, match="for 1 users in a row"):
        held.take_rest()


def test_what_an_endpoint_says_is_no_status():
    held = proven()
    said = "upstream: it refused the request with HTTP 400"
    held.take(({**failed(401)[0], "error": f"{failed(401)[0]['error']}: {said}"}, []))
    with pytest.raises(RunStoppedError):
        held.take_rest()
