"""The retry policies, without sleeping."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from toolrec.llm import LLMConfig
from toolrec.llm.retry import (
    AttemptFailedError,
    ParameterRefusedError,
    build_retrying,
    is_retryable_status,
    read_retry_after,
    stop_at_caps,
    wait_full_jitter,
)


def state(error: Exception | None) -> Any:
    made = tenacity.RetryCallState(retry_object=tenacity.AsyncRetrying(), fn=None, args=(), kwargs={})
    if error is not None:
        made.set_exception((type(error), error, None))
    return made


def failed(number: int, *, retry_after_s: float | None = None) -> Any:
    return state(AttemptFailedError("no", number=number, retry_after_s=retry_after_s))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_may_pass(status: int) -> None:
    assert is_retryable_status(status)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 413, 422, 451])
def test_statuses_that_are_final(status: int) -> None:
    assert not is_retryable_status(status)


def test_stop_counts_failures_alone() -> None:
    stop = stop_at_caps(3)
    assert [stop(failed(number)) for number in (1, 2, 3, 4)] == [False, False, True, True]
    assert not stop(state(ParameterRefusedError("seed")))
    assert not stop(state(None))


def test_first_wait_bound_doubles_up_to_the_highest() -> None:
    wait = wait_full_jitter(min_wait_s=1.0, max_wait_s=8.0)
    longest = [max(wait(failed(number)) for _ in range(400)) for number in (1, 2, 3, 4, 5, 60)]
    for seen, bound in zip(longest, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.8 * bound < seen <= bound


def test_jitter_is_full() -> None:
    wait = wait_full_jitter(min_wait_s=1.0, max_wait_s=8.0)
    assert min(wait(failed(4)) for _ in range(400)) < 0.1 * 8


def test_refused_parameter_waits_for_nothing() -> None:
    assert wait_full_jitter(min_wait_s=1.0, max_wait_s=8.0)(state(ParameterRefusedError("stop"))) == 0.0


@given(number=st.integers(1, 1000), after_s=st.floats(0, 1e6), low_s=st.floats(0, 10), high_s=st.floats(0, 100))
def test_never_shorter_than_asked_for(number: int, after_s: float, low_s: float, high_s: float) -> None:
    wait_s = wait_full_jitter(min_wait_s=low_s, max_wait_s=high_s)(failed(number, retry_after_s=after_s))
    assert after_s <= wait_s <= after_s + min(low_s, high_s) + 1e-9


def test_policy_retries_our_two_errors_only() -> None:
    retry = build_retrying(LLMConfig(model="m")).retry
    assert retry(failed(1))
    assert retry(state(ParameterRefusedError("seed")))
    assert not retry(state(ValueError("a bug of ours")))
    assert not retry(state(KeyboardInterrupt()))  # type: ignore[arg-type]


def test_a_wait_beyond_the_total_time_is_not_begun() -> None:
    stop = build_retrying(LLMConfig(model="m", max_attempts=100)).stop
    made = state(AttemptFailedError("no", number=1, left_s=10.0))
    made.upcoming_sleep = 9.0
    assert not stop(made)
    made.upcoming_sleep = 10.5
    assert stop(made)


def test_another_cap_ends_the_call_too() -> None:
    assert stop_at_caps(100)(state(AttemptFailedError("no", number=1, is_final=True)))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Fri, 31 Dec 10000 23:59:59 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = read_retry_after({"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)})
    assert seconds is not None
    assert 28 <= seconds <= 30
    assert read_retry_after({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0.0


_numbers = st.integers(min_value=0).map(str)
_dates = st.builds("Fri, {} Dec {} {}:{}:{} {}".format, _numbers, _numbers, _numbers, _numbers, _numbers, st.text(max_size=9))


@given(st.text(max_size=50) | _dates)
def test_any_retry_after_is_read_or_left(text: str) -> None:
    seconds = read_retry_after({"retry-after": text})
    assert seconds is None or seconds >= 0
