"""Tells a failing endpoint from users that fail for their own messages."""

from __future__ import annotations

from typing import TypeAlias

from toolrec.errors import RunStoppedError
from toolrec.records import FINISHED
from toolrec.runs.rows import Row

OUTAGE_USERS = 20
"""The run stops after so many endpoint failures in a row, or after as many as users are in flight, if that is more."""

UNREAD_USERS = 20
"""Users at the start of a session that may end without a usable reply before the run stops, if none finishes."""

TraceRows: TypeAlias = tuple[Row, list[Row]]

ABOUT_MESSAGES = frozenset((400, 413, 422))
"""HTTP statuses that refuse the content of a request. An endpoint that takes no request of ours answers with them too."""

OF_ONE_USER = frozenset(("messages_refused", "context_too_long"))
"""Failures that concern one user's messages at a working endpoint: a resumed run would fail again."""

ENDED_BY_US = frozenset(("cancelled", "budget"))
"""Users that ended like this say nothing about the endpoint."""


class OutageDetector:
    """Holds users that ended with an LLM error until it is known whether they failed or the endpoint did.

    A held user is committed as a failed user once the endpoint is known to work; if the endpoint failed, the run stops
    and a resumed run simulates the held users again.

    - Another user ends after them with answers from the endpoint: it works, and all held users are failed users.
    - All users have ended, and some had got answers: the held ones are failed users, unless one was refused for a reason
      that lies in no messages (key, address, quota): then the run stops.
    - All users have ended, and none had got answers: the held ones are failed users only if each was refused with a
      status of `ABOUT_MESSAGES` and the endpoint is proven. Otherwise the run stops.
    - Too many are held at once: the run stops.

    Args:
        concurrency: users in flight.
        is_endpoint_proven: whether the endpoint answered a trial request of this session, and a user of an earlier
            session finished.
    """

    def __init__(self, concurrency: int, *, is_endpoint_proven: bool = False) -> None:
        self._limit = max(concurrency, OUTAGE_USERS)
        self._is_endpoint_proven = is_endpoint_proven
        self._held: list[TraceRows] = []
        self._got_through = False
        self._num_unread: int | None = 0

    def take(self, ended: TraceRows) -> list[TraceRows]:
        """Takes a user that has ended; returns the users to commit now: none, or this one and those held before it.

        Raises:
            RunStoppedError: too many users in a row ended with an LLM error.
        """
        if ended[0]["ended_by"] == "llm_failure" and ended[0]["failure_kind"] not in OF_ONE_USER:
            self._held.append(ended)
            if len(self._held) >= self._limit:
                raise self._stopped()
            return []
        if ended[0]["ended_by"] in ENDED_BY_US:
            return [ended]
        self._count_unread(ended)
        self._got_through = True
        counted, self._held = [*self._held, ended], []
        return counted

    def _count_unread(self, ended: TraceRows) -> None:
        """Counts users without a usable reply until one finishes.

        Raises:
            RunStoppedError: so many in a row that the rest would be paid for in vain.
        """
        if ended[0]["ended_by"] in FINISHED:
            self._num_unread = None
        elif self._num_unread is not None and ended[0]["ended_by"] == "invalid_reply":
            self._num_unread += 1
            if self._num_unread > UNREAD_USERS:
                raise RunStoppedError(
                    f"the first {UNREAD_USERS} users all ended without a usable reply; the last one: {ended[0]['error']}",
                    hint="try `toolrec llm check`, another --protocol or another model; --resume goes on with the other users",
                )

    def take_rest(self) -> list[TraceRows]:
        """Returns the held users to commit, after all users have ended.

        Raises:
            RunStoppedError: the endpoint may have failed.
        """
        refusals = [_refusing_status(user) for user in self._held]
        if self._got_through:
            is_theirs = all(status is None or status in ABOUT_MESSAGES for status in refusals)
        else:
            is_theirs = self._is_endpoint_proven and all(status in ABOUT_MESSAGES for status in refusals)
        if self._held and not is_theirs:
            raise self._stopped()
        return self._held

    def _stopped(self) -> RunStoppedError:
        hint = "mend it and run the same command with --resume; these users are not counted yet"
        if all(_refusing_status(user) in ABOUT_MESSAGES for user in self._held):
            hint += (
                ". Where it is their own messages that it refuses, a resumed run that tries the endpoint first (without "
                "--no-llm-check) counts them as failed, once another user has finished"
            )
        return RunStoppedError(
            f"the LLM endpoint failed for {len(self._held)} users in a row: {self._held[-1][0]['error']}", hint=hint
        )


def _refusing_status(ended: TraceRows) -> int | None:
    """The HTTP status of a final answer; None where the user failed otherwise."""
    status: int | None = ended[0]["http_status"]
    return status if ended[0]["failure_kind"] == "refused" else None
