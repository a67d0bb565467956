"""One user's trace made readable: what was thought, called and seen in each round, and the final list against the target.

Every text of a view is already safe to show on a terminal (control characters are gone); HTML escapes it once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from toolrec.columns import PADDING_INDEX
from toolrec.data import Pool
from toolrec.evaluation.text import printable
from toolrec.grammar import NOT_ACCEPTED_LABEL

TITLE_LENGTH = 60
THOUGHT_LENGTH = 600
REASON_LENGTH = 240
OPENING_LINES = 21
OPENING_LINE_LENGTH = 160
SHOWN_ITEMS = 10
"""Items of an observation that are shown; the rest is counted."""
EMPTY_SLOT = "(empty)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """An item of a list with its 1-based position; `marks` are the tools that had returned it, the first one first."""

    position: int
    name: str
    is_target: bool = False
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRound:
    """One round: `reasons` are the re-asks' texts, `counts` the round's counters in words."""

    number: int
    thought: str
    action: str
    error: str
    items: tuple[ShownItem, ...]
    num_more: int
    reasons: tuple[str, ...]
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrace:
    """A trace as it is shown; `position` is the target's place in the final list, 0 for a miss, None where it is unknown."""

    user_id: str
    attempt: int
    ended_by: str
    error: str
    opening: tuple[tuple[str, str], ...]
    rounds: tuple[ShownRound, ...]
    final: tuple[ShownItem, ...]
    target: str
    position: int | None
    target_marks: tuple[str, ...]
    num_candidates: int
    counts: str
    tokens: str
    seconds: float


def show_trace(
    user: Mapping[str, Any] | pd.Series, rounds: pd.DataFrame, *, pool: Pool | None = None, target: int | None = None
) -> ShownTrace:
    """Makes a user's row and rounds readable.

    Args:
        user: the user's row, in the documented columns.
        rounds: the user's rounds; those of other attempts are left out.
        pool: gives titles; without it items are shown by their index.
        target: the held-out item; None where it is unknown.
    """
    names = _Names(pool, target)
    marks = _marks(user["candidates"])
    final = [int(item) for item in user["final_items"]]
    own = rounds[rounds["attempt"] == user["attempt"]].sort_values("round")
    opening = own[own["round"] == 0]
    position = None if target is None else (final.index(target) + 1 if target in final else 0)
    return ShownTrace(
        user_id=printable(str(user["user_id"]), limit=80),
        attempt=int(user["attempt"]),
        ended_by=str(user["ended_by"]),
        error=_text(user["error"], limit=400),
        opening=_opening(opening["messages"].iloc[0]) if len(opening) else (),
        rounds=tuple(_round(row, names) for _, row in own[own["round"] > 0].iterrows()),
        final=tuple(names.listed(final, marks)),
        target="" if target is None else names.of(target),
        position=position,
        target_marks=tuple(marks.get(target, ())) if target is not None else (),
        num_candidates=len(marks),
        counts=_counts(user["counts"]),
        tokens=_tokens(user["usage"]),
        seconds=float(user["ended_s"] - user["started_s"]),
    )


class _Names:
    def __init__(self, pool: Pool | None, target: int | None) -> None:
        self._pool, self._target = pool, target

    def of(self, item_index: int) -> str:
        if item_index == PADDING_INDEX:
            return EMPTY_SLOT
        if self._pool is None or not 0 < item_index <= self._pool.num_items:
            return f"item number {item_index}"
        title = printable(self._pool.titles[item_index], limit=TITLE_LENGTH)
        return f"<{printable(self._pool.item_ids[item_index], limit=40)}> {title}".rstrip()

    def listed(self, items: Sequence[int], marks: Mapping[int, Sequence[str]]) -> Iterable[ShownItem]:
        for position, item in enumerate(items, start=1):
            yield ShownItem(
                position=position,
                name=self.of(item),
                is_target=item == self._target,
                marks=tuple(marks.get(item, ())),
            )


def _marks(candidates: Iterable[Mapping[str, Any]]) -> dict[int, list[str]]:
    marks: dict[int, list[str]] = {}
    for candidate in sorted(candidates, key=lambda c: int(c["round"])):
        of_item = marks.setdefault(int(candidate["item_index"]), [])
        mark = printable(str(candidate["mark"]), limit=80)
        if mark not in of_item:
            of_item.append(mark)
    return marks


def _round(row: pd.Series, names: _Names) -> ShownRound:
    items = [int(item) for item in row["items"]]
    error = _text(row["observation_error"], limit=REASON_LENGTH)
    return ShownRound(
        number=int(row["round"]),
        thought=_text(row["thought"], limit=THOUGHT_LENGTH),
        action=action_text(row["call"]),
        error=error,
        items=tuple(names.listed(items[:SHOWN_ITEMS], {})),
        num_more=max(len(items) - SHOWN_ITEMS, 0),
        reasons=_reasons(row["messages"]),
        counts=_counts(row["counts"]),
    )


def action_text(call: object) -> str:
    """A stored call in words, as in `Retrieve[genre, 20]` or `Finish[10 items]`; empty where none was made."""
    if not isinstance(call, str) or not call:
        return ""
    fields = json.loads(call)
    name = str(fields.get("name", ""))
    if name == "finish":
        return f"Finish[{len(fields.get('items') or ())} items]"
    return printable(f"{name.capitalize()}[{fields.get('attribute') or 'none'}, {fields.get('k')}]", limit=120)


def _opening(messages: str) -> tuple[tuple[str, str], ...]:
    return tuple((printable(str(m.get("role", "")), limit=20), _shortened(_content(m))) for m in json.loads(messages))


def _shortened(text: str) -> str:
    lines = [printable(line, limit=OPENING_LINE_LENGTH) for line in text.splitlines()]
    if len(lines) <= OPENING_LINES:
        return "\n".join(lines)
    head, tail = OPENING_LINES // 3, OPENING_LINES - OPENING_LINES // 3
    return "\n".join([*lines[:head], f"… {len(lines) - OPENING_LINES} lines left out …", *lines[-tail:]])


def _reasons(messages: object) -> tuple[str, ...]:
    """The re-asks among a round's messages: what was not accepted, and why."""
    if not isinstance(messages, str) or not messages:
        return ()
    texts = (_content(message) for message in json.loads(messages))
    return tuple(printable(text, limit=REASON_LENGTH) for text in texts if text.startswith(NOT_ACCEPTED_LABEL))


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _counts(counts: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{printable(str(entry['kind']), limit=60)} {int(entry['count'])}" for entry in counts)


def _tokens(usage: Iterable[Mapping[str, Any]]) -> str:
    parts = []
    for part in usage:
        num_calls, prompt, completion = (int(part[name]) for name in ("num_calls", "prompt_tokens", "completion_tokens"))
        purpose = printable(str(part["purpose"]), limit=40)
        parts.append(f"{purpose} {num_calls} calls, {prompt:,} prompt and {completion:,} completion tokens")
    return "; ".join(parts)


def _text(value: object, *, limit: int) -> str:
    return printable(value, limit=limit) if isinstance(value, str) else ""
