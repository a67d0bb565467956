"""Users that the endpoint failed: held until it is known whether it was the endpoint or their own messages."""

from __future__ import annotations

import re
from typing import TypeAlias

from toolrec.errors import ContextTooLongError, LLMRefusedError, MessagesRefusedError, RunStoppedError
from toolrec.simulation.rows import Row

OUTAGE_USERS = 20
"""Users in a row that end for the endpoint's sake before the run stops (or as many as are in flight, if that is more)."""

TraceRows: TypeAlias = tuple[Row, list[Row]]

_REFUSED = re.compile(rf"{LLMRefusedError.__name__}: \S+ refused the request with HTTP (\d+)\b")
"""How an error begins that is an endpoint's final answer, in the client's words."""

_ABOUT_MESSAGES = frozenset(("400", "413", "422"))
"""Answers by which an endpoint refuses what a request holds; it gives them too where it takes no request of ours."""

_OF_OURS = frozenset(("cancelled", "budget"))
"""How users end whom nothing shows to have got through at the endpoint."""


class HeldUsers:
    """Tells failed users from a failing endpoint: users who end for its sake count when it is seen to work.

    It works where another user gets through after them. When all have ended, those who are held still count where somebody
    got through before, unless one of them was refused for what no messages are at fault for (a key, an address, a quota);
    where nobody did, only refusals of what a request holds count, and only where the endpoint is proven: no resumed run
    would get further with these users. Anything else stops the run, and a resumed one simulates them.

    Args:
        concurrency: users in flight.
        is_endpoint_proven: whether the endpoint took a request in this run's form when the session began, and took all of
            another user's before.
    """

    def __init__(self, concurrency: int, *, is_endpoint_proven: bool = False) -> None:
        self._limit = max(concurrency, OUTAGE_USERS)
        self._is_endpoint_proven = is_endpoint_proven
        self._held: list[TraceRows] = []
        self._got_through = False

    def take(self, ended: TraceRows) -> list[TraceRows]:
        """Takes a user that has ended; gives those that count by now: it and who was held before it, or nobody.

        Raises:
            RunStoppedError: too many in a row ended for the endpoint's sake.
        """
        if ended[0]["ended_by"] == "llm_failure" and not _is_of_the_user(ended[0]):
            self._held.append(ended)
            if len(self._held) >= self._limit:
                raise self._stopped()
            return []
        if ended[0]["ended_by"] in _OF_OURS:
            return [ended]
        self._got_through = True
        counted, self._held = [*self._held, ended], []
        return counted

    def take_rest(self) -> list[TraceRows]:
        """When all users have ended: those that are held still, and count.

        Raises:
            RunStoppedError: it may be the endpoint that failed them.
        """
        refusals = [_refusing_status(user) for user in self._held]
        if self._got_through:
            is_theirs = all(status is None or status in _ABOUT_MESSAGES for status in refusals)
        else:
            is_theirs = self._is_endpoint_proven and all(status in _ABOUT_MESSAGES for status in refusals)
        if self._held and not is_theirs:
            raise self._stopped()
        return self._held

    def _stopped(self) -> RunStoppedError:
        hint = "mend it and run the same command with --resume; these users are not counted yet"
        if all(_refusing_status(user) in _ABOUT_MESSAGES for user in self._held):
            hint += (
                ". Where it is their own messages that it refuses, a resumed run that tries the endpoint first (without "
                "--no-llm-check) counts them as failed, once another user has finished"
            )
        return RunStoppedError(
            f"the LLM endpoint failed for {len(self._held)} users in a row: {self._held[-1][0]['error']}", hint=hint
        )


def _is_of_the_user(row: Row) -> bool:
    """Whether the endpoint, which works, has refused this user's messages for good: no resumed run would get further."""
    return str(row["error"]).startswith((MessagesRefusedError.__name__, ContextTooLongError.__name__))


def _refusing_status(ended: TraceRows) -> str | None:
    """The HTTP status of a final answer; None where the user failed otherwise."""
    found = _REFUSED.match(str(ended[0]["error"]))
    return found.group(1) if found else None
