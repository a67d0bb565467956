"""A trace for people to read: thought, call and observation of each round, and the final list against the target.

Texts have no control characters, so they are safe on a terminal; HTML escapes them as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolrec.columns import PADDING_INDEX, PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.grammar import NOT_ACCEPTED_LABEL
from toolrec.records import Candidate, Message, Round, ToolCall, Trace, Usage
from toolrec.util.printable import printable

TITLE_LENGTH = 60
THOUGHT_LENGTH = 600
REASON_LENGTH = 240
OPENING_LINES = 21
OPENING_LINE_LENGTH = 600
WRAPPED_LENGTH = 80
"""A line of so many characters is taken for the beginning of a wrapped paragraph."""

SHOWN_ITEMS = 10
"""Items of an observation that are shown; of the others, the number."""
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
class ShownTarget:
    """A target with its position in the final list, 0 for a miss, and the tools that had returned it."""

    name: str
    position: int
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTrace:
    """A trace as it is shown; `targets` is empty where they are unknown."""

    user_id: str
    attempt: int
    strategy: str
    ended_by: str
    error: str
    opening: tuple[tuple[str, str], ...]
    rounds: tuple[ShownRound, ...]
    final: tuple[ShownItem, ...]
    targets: tuple[ShownTarget, ...]
    num_candidates: int
    counts: str
    tokens: str
    seconds: float


def show_trace(trace: Trace, *, pool: Pool | None = None, targets: Sequence[int] = ()) -> ShownTrace:
    """Makes a trace readable.

    Args:
        trace: as `Run.trace` gives it.
        pool: gives titles; without it items are shown by their index.
        targets: the held-out items, next one first; none where they are unknown.
    """
    names = _Names(pool, targets)
    marks = _marks(trace.candidates)
    final = trace.final_items
    return ShownTrace(
        user_id=printable(trace.user_id, limit=80),
        attempt=trace.attempt,
        strategy=printable(trace.strategy, limit=80),
        ended_by=trace.ended_by,
        error=printable(trace.error or "", limit=400),
        opening=tuple((printable(str(m.get("role", "")), limit=20), _shortened(_content(m))) for m in trace.opening),
        rounds=tuple(_round(done, names) for done in trace.rounds),
        final=tuple(names.listed(final, marks)),
        targets=tuple(
            ShownTarget(
                name=names.of(target),
                position=final.index(target) + 1 if target in final else 0,
                marks=tuple(marks.get(target, ())),
            )
            for target in targets
        ),
        num_candidates=len(marks),
        counts=_counts(trace.counts),
        tokens=_tokens(trace.usage),
        seconds=trace.ended_s - trace.started_s,
    )


class _Names:
    def __init__(self, pool: Pool | None, targets: Sequence[int]) -> None:
        self._pool, self._targets = pool, frozenset(targets)

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
                is_target=item in self._targets,
                marks=tuple(marks.get(item, ())),
            )


def _marks(candidates: Iterable[Candidate]) -> dict[int, list[str]]:
    marks: dict[int, list[str]] = {}
    for candidate in sorted(candidates, key=lambda candidate: candidate.round):
        of_item = marks.setdefault(candidate.item_index, [])
        mark = printable(candidate.mark, limit=80)
        if mark not in of_item:
            of_item.append(mark)
    return marks


def _round(done: Round, names: _Names) -> ShownRound:
    seen = done.observation
    items = [item.item_index for item in seen.items] if seen else []
    return ShownRound(
        number=done.number,
        thought=printable(done.thought, limit=THOUGHT_LENGTH),
        action=action_text(done.call),
        error=printable((seen.error if seen else None) or "", limit=REASON_LENGTH),
        items=tuple(names.listed(items[:SHOWN_ITEMS], {})),
        num_more=max(len(items) - SHOWN_ITEMS, 0),
        reasons=_reasons(done.messages),
        counts=_counts(done.counts),
    )


def action_text(call: ToolCall | None) -> str:
    """A call in words, as in `Retrieve[genre, 20]` or `Finish[10 items]`; empty where none was made."""
    if call is None:
        return ""
    if call.name == "finish":
        return f"Finish[{len(call.items)} items]"
    return printable(f"{call.name.capitalize()}[{call.attribute or PLAIN_BACKBONE}, {call.k}]", limit=120)


def _shortened(text: str) -> str:
    lines = [_indent(line) + printable(line, limit=OPENING_LINE_LENGTH) for line in _unwrapped(text.splitlines())]
    if len(lines) <= OPENING_LINES:
        return "\n".join(lines)
    head, tail = OPENING_LINES // 3, OPENING_LINES - OPENING_LINES // 3
    return "\n".join([*lines[:head], f"… {len(lines) - OPENING_LINES} lines left out …", *lines[-tail:]])


def _indent(line: str) -> str:
    """Blanks before an entry of a list, a few at most."""
    return " " * min(len(line) - len(line.lstrip(" ")), 4) if line.strip() else ""


def _unwrapped(lines: Sequence[str]) -> list[str]:
    """Prompts are wrapped for editors: a terminal or a page wraps their paragraphs anew, at its own width."""
    joined: list[str] = []
    is_open = False
    for line in lines:
        said = line.lstrip()
        if is_open and said[:1].isalpha() and ":" not in said.partition(" ")[0] and _goes_on(joined[-1], line):
            joined[-1] += f" {said}"
        else:
            joined.append(line)
        is_open = len(line) >= WRAPPED_LENGTH
    return joined


def _goes_on(before: str, line: str) -> bool:
    """Whether an indented line can belong to the one before it: to an entry `- …`, whose words stand further in."""
    margin = len(line) - len(line.lstrip())
    return margin == 0 or (before.lstrip().startswith("- ") and len(before) - len(before.lstrip()) < margin)


def _reasons(messages: Iterable[Message]) -> tuple[str, ...]:
    """The re-asks among a round's messages: what was not accepted, and why."""
    texts = map(_content, messages)
    return tuple(printable(text, limit=REASON_LENGTH) for text in texts if text.startswith(NOT_ACCEPTED_LABEL))


def _content(message: Message) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(kind, limit=60)} {count}" for kind, count in counts.items())


def _tokens(usage: Mapping[str, Usage]) -> str:
    return "; ".join(
        f"{printable(purpose, limit=40)} {used.num_calls} calls, {used.prompt_tokens:,} prompt and "
        f"{used.completion_tokens:,} completion tokens"
        for purpose, used in usage.items()
    )
