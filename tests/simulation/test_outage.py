"""Users that the endpoint failed: which of them count, when, and what stops a run."""

from __future__ import annotations

import re

import pytest

from toolrec.errors import RunStoppedError
from toolrec.simulation.flow.outage import OUTAGE_USERS, UNREAD_USERS, OutageDetector, TraceRows


def failed(status: int, user_index: int = 1) -> TraceRows:
    return ended(user_index, "llm_failure", "refused", status)


def ended(user_index: int, ended_by: str, failure_kind: str | None = None, http_status: int | None = None) -> TraceRows:
    about = {"user_index": user_index, "ended_by": ended_by, "failure_kind": failure_kind, "http_status": http_status}
    return {**about, "error": failure_kind and "in whatever words"}, []


FINISHED: TraceRows = ended(99, "finish")
UNAVAILABLE: TraceRows = ended(98, "llm_failure", "unavailable", 400)
UNTOLD: TraceRows = ended(97, "llm_failure")
"""By a strategy of somebody's own that gives no kind."""


def proven(is_endpoint_proven: bool = True) -> OutageDetector:
    return OutageDetector(8, is_endpoint_proven=is_endpoint_proven)


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


@pytest.mark.parametrize("other", [failed(401), failed(403), failed(404), failed(429), UNAVAILABLE, UNTOLD])
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


@pytest.mark.parametrize("kind", ["messages_refused", "context_too_long"])
def test_users_whose_own_messages_are_refused_for_good_count_at_once(kind: str):
    held = proven(False)
    for user_index in range(3 * OUTAGE_USERS):
        user = ended(user_index, "llm_failure", kind, 400)
        assert held.take(user) == [user]
    assert held.take_rest() == []


@pytest.mark.parametrize(("ended_by", "kind"), [("cancelled", "tool_lost"), ("budget", "token_budget")])
def test_who_ends_for_our_own_sake_shows_nothing_of_the_endpoint(ended_by: str, kind: str):
    held, ours = proven(False), ended(97, ended_by, kind)
    held.take(failed(401))
    assert held.take(ours) == [ours]
    with pytest.raises(RunStoppedError, match="for 1 users in a row"):
        held.take_rest()


@pytest.mark.parametrize("said", ["MessagesRefusedError: 400", "http://x/v1 refused the request with HTTP 400"])
def test_what_an_error_says_decides_nothing(said: str):
    held = proven()
    held.take(({**UNAVAILABLE[0], "error": said}, []))
    with pytest.raises(RunStoppedError):
        held.take_rest()


def unread(user_index: int) -> TraceRows:
    return ended(user_index, "invalid_reply", "invalid_reply")


def test_users_that_all_end_without_a_usable_reply_stop_a_run_that_has_more():
    held = proven()
    for user_index in range(UNREAD_USERS):
        assert held.take(unread(user_index)) == [unread(user_index)]
    assert held.take_rest() == []
    with pytest.raises(RunStoppedError, match=rf"the first {UNREAD_USERS} users all ended without a usable reply"):
        held.take(unread(99))


def test_one_user_that_finishes_shows_that_the_model_can():
    held = proven()
    held.take(FINISHED)
    for user_index in range(2 * UNREAD_USERS):
        assert held.take(unread(user_index))
