"""Retries: the one place that decides whether, when and how often a failed request is sent again.

The OpenAI client's own retries are off, otherwise attempts would multiply.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from toolrec.llm.config import LLMConfig

RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
"""Beside every 5xx. Any other 4xx is an answer to this very request and would be the same again."""

REFUSING_STATUS = frozenset({429, 503, 529})
"""Statuses by which an endpoint says that it is asked too much."""

MALFORMED = "malformed"
"""The kind of failure where an answer with status 200 holds no reply."""


def is_retryable_status(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in RETRYABLE_STATUS or status >= 500


class AttemptFailedError(Exception):
    """One request failed in a way that may pass.

    Args:
        reason: what happened, free of secrets.
        number: how many failures count against this call so far; those during an outage do not.
        kind: what it is counted as: the status, `timeout`, `connection` or `malformed`.
        status: the HTTP status, where there was an answer.
        retry_after_s: how long the endpoint asks to wait, in seconds.
        left_s: seconds that the call may still take.
        is_final: whether another cap than that on attempts is reached.
    """

    def __init__(
        self,
        reason: str,
        *,
        number: int,
        kind: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        left_s: float = float("inf"),
        is_final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.number = number
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.left_s = left_s
        self.is_final = is_final


class ParameterRefusedError(Exception):
    """The endpoint does not take a parameter; the request goes out again at once without it, and is not a failure."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class stop_at_caps(stop_base):
    """Ends a call after `num_failures` failed requests, at another cap, or where the next wait would pass its total time.

    Refused parameters do not count.
    """

    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        """Whether the call is given up."""
        error = _error_of(retry_state)
        if not isinstance(error, AttemptFailedError):
            return False
        return error.is_final or error.number >= self.num_failures or retry_state.upcoming_sleep >= error.left_s


class wait_full_jitter(wait_base):
    """Waits a random time up to a bound that doubles with each failure, and at least what the endpoint asks for.

    Args:
        min_wait_s: the first bound, in seconds.
        max_wait_s: the highest bound, in seconds.

    Source: "full jitter" of exponential backoff; on top of `Retry-After` the draw keeps thousands of waiting calls apart.
    """

    def __init__(self, *, min_wait_s: float, max_wait_s: float) -> None:
        self.min_wait_s = min_wait_s
        self.max_wait_s = max_wait_s

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds until the next request."""
        error = _error_of(retry_state)
        if not isinstance(error, AttemptFailedError):
            return 0.0
        bound_s = min(self.max_wait_s, self.min_wait_s * 2.0 ** min(max(error.number - 1, 0), 30))
        if error.retry_after_s is None:
            return random.uniform(0.0, bound_s)
        return error.retry_after_s + random.uniform(0.0, min(bound_s, self.min_wait_s))


def build_retrying(config: LLMConfig) -> tenacity.AsyncRetrying:
    """The policy of one client."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((AttemptFailedError, ParameterRefusedError)),
        stop=stop_at_caps(config.max_attempts),
        wait=wait_full_jitter(min_wait_s=config.min_wait_s, max_wait_s=config.max_wait_s),
        reraise=True,
    )


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    for name, factor in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            value = float(text) * factor
        except ValueError:
            continue
        if 0 <= value < 1e7:
            return value
    date = email.utils.parsedate_tz(headers.get("retry-after"))
    try:
        return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
    except (ValueError, OverflowError):  # a year that no calendar of ours reaches
        return None


def _error_of(retry_state: tenacity.RetryCallState) -> BaseException | None:
    return None if retry_state.outcome is None else retry_state.outcome.exception()
