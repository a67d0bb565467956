"""The failures of a run: one JSON object a line, with the user's id and no key, in the run folder and in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolrec.errors import FailureKind
from toolrec.grammar import clean
from toolrec.llm.refusals import mask
from toolrec.runs.folder import FAILURES, journal_files
from toolrec.util.files import cut_torn_line, storage_errors

log = logging.getLogger(__name__)

MAX_REASON = 500
"""Characters of a reason; what endpoints and exceptions say has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure of a user, an attempt or a process.

    Args:
        kind: `llm_failure`, `invalid_reply`, `budget`, `internal_error`, `tool_lost`, `actor_lost`, …
        reason: the failure in words.
        failure_kind: of a user's failure, finer than `kind` where an LLM or a budget is behind it.
        http_status: of the endpoint's answer, where one was behind it.
        user_id: the user's id in the data set; None where it is not about one user.
        user_index: likewise.
        attempt: the user's attempt, from 1.
        round: the round in which it happened, if known.
        is_end: whether the user ended with it; otherwise it continues with another attempt.
    """

    kind: str
    reason: str
    failure_kind: FailureKind | None = None
    http_status: int | None = None
    user_id: str | None = None
    user_index: int | None = None
    attempt: int | None = None
    round: int | None = None
    is_end: bool = False

    def __str__(self) -> str:
        whose = "" if self.user_id is None else f"user {clean(self.user_id, limit=40)}, "
        return f"{whose}{self.kind}: {self.reason}"


def ending_of(ended_by: str, failure_kind: str | None) -> str:
    """How a user ended; of a cancelled one, what it was cancelled for."""
    return failure_kind if ended_by == "cancelled" and failure_kind else ended_by


class FailureLog:
    """Appends failures to `failures.jsonl` and to the log.

    Args:
        run: the run folder; the file is made with the first failure.
        secrets: texts to mask.
    """

    def __init__(self, run: Path, *, secrets: Iterable[str] = ()) -> None:
        self.path = run / FAILURES
        self._secrets = tuple(secrets)
        self._is_whole = False

    def masked(self, text: str) -> str:
        """The text without keys, as one line of bounded length."""
        return clean(mask(text, self._secrets), limit=MAX_REASON)  # in this order: half a key is not recognised

    def write(self, failure: Failure) -> Failure:
        """Writes one line; returns the failure as written.

        Raises:
            StorageError: the file cannot be written; the run is resumable.
        """
        failure = replace(failure, reason=self.masked(failure.reason))
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(failure)}
        line = json.dumps({name: value for name, value in entry.items() if value is not None})
        log.warning("%s", line)
        with storage_errors(self.path):
            if not self._is_whole:
                cut_torn_line(self.path)
                self._is_whole = True
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
        return failure


def read_failures(run: Path) -> list[dict[str, Any]]:
    """The failures of a run, first to last; a last line that a kill cut short is left out."""
    failures: list[dict[str, Any]] = []
    for path in journal_files(run, FAILURES):
        lines = path.read_text(encoding="utf-8").split("\n")
        failures += [json.loads(line) for line in lines[:-1]]
    return failures
