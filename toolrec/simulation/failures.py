"""The failures of a run: one JSON object a line, with the user's id and no key, in the run folder and in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolrec.files import cut_torn_line, storage_errors
from toolrec.grammar import clean
from toolrec.llm.refusals import mask

log = logging.getLogger(__name__)

FAILURES = "failures.jsonl"
MAX_REASON = 500
"""Characters of a reason; what endpoints and exceptions say has no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that went wrong.

    Args:
        kind: `llm_failure`, `invalid_reply`, `budget`, `internal_error`, `tool_lost`, `actor_lost`, …
        reason: what was said about it.
        user_id: the user's id in the data set; None where it is not about one user.
        user_index: its number, likewise.
        attempt: the user's attempt, from 1.
        round: the round that it happened in, where that is known.
        is_end: whether the user ended with it; otherwise it goes on under another attempt.
    """

    kind: str
    reason: str
    user_id: str | None = None
    user_index: int | None = None
    attempt: int | None = None
    round: int | None = None
    is_end: bool = False

    def __str__(self) -> str:
        whose = "" if self.user_id is None else f"user {clean(self.user_id, limit=40)}, "
        return f"{whose}{self.kind}: {self.reason}"


def ending_of(ended_by: str, counts: Iterable[Mapping[str, Any]]) -> str:
    """How a user ended, by its row; a cancelled one says in its counts what it was cancelled for."""
    if ended_by != "cancelled":
        return ended_by
    return next((str(entry["kind"]) for entry in counts), ended_by)


class FailureLog:
    """Writes failures as they happen; the driver holds it, as it holds all that writes to the run folder.

    Args:
        run: the run folder; the file is made with the first failure.
        secrets: texts that stand in no line.
    """

    def __init__(self, run: Path, *, secrets: Iterable[str] = ()) -> None:
        self.path = run / FAILURES
        self._secrets = tuple(secrets)
        self._is_whole = False

    def masked(self, text: str) -> str:
        """A text without keys, in one line of a bounded length."""
        return clean(mask(text, self._secrets), limit=MAX_REASON)  # in this order: half a key is not recognised

    def write(self, failure: Failure) -> Failure:
        """Writes one line; gives the failure as it stands there.

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
    path = run / FAILURES
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
