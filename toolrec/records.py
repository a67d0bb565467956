"""Frozen records that travel between the rooms: what was asked, what came back, what one user did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
"""One chat message in OpenAI's form (role, content, tool_calls, tool_call_id)."""

ActionName = Literal["retrieve", "rank", "finish"]
EndedBy = Literal["finish", "forced_finish", "budget", "llm_failure", "invalid_reply", "cancelled"]
FINISHED: frozenset[str] = frozenset({"finish", "forced_finish"})
"""The values of `ended_by` that count as a finished user."""

Purpose = Literal["decide", "reask", "rank", "final_rank"]
"""What an LLM call was for; tokens are counted by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One entry of a recommender's list, best first; `score` is rounded to 4 decimals."""

    item_index: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens and calls of the LLM. `num_attempts` counts HTTP requests, `num_calls` completed calls.

    `cached_tokens` are those of `prompt_tokens` that the endpoint had in its own cache. Of replies that were stored here
    before, `num_stored_replies` of the calls, nothing is spent: `saved_prompt_tokens`, `saved_completion_tokens` and, of
    the former, `saved_cached_tokens` are what they had cost.
    """

    num_calls: int = 0
    num_attempts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    num_stored_replies: int = 0
    saved_prompt_tokens: int = 0
    saved_completion_tokens: int = 0
    saved_cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            num_calls=self.num_calls + other.num_calls,
            num_attempts=self.num_attempts + other.num_attempts,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            num_stored_replies=self.num_stored_replies + other.num_stored_replies,
            saved_prompt_tokens=self.saved_prompt_tokens + other.saved_prompt_tokens,
            saved_completion_tokens=self.saved_completion_tokens + other.saved_completion_tokens,
            saved_cached_tokens=self.saved_cached_tokens + other.saved_cached_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMToolCall:
    """A native tool call as the endpoint sent it; `arguments` is its raw, unparsed JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One reply of the LLM. `reasoning` is what it thought apart from its answer, where the endpoint tells."""

    text: str
    tool_calls: tuple[LLMToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    reasoning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One action of the surrogate. `items` is the raw list of a finish, each entry an id or a title as written."""

    name: ActionName
    attribute: str | None = None
    k: int | None = None
    items: tuple[str, ...] = ()
    call_id: str = ""

    @property
    def mark(self) -> str:
        """The tool's mark in memory, as in `Retrieve[genre]`."""
        return f"{self.name.capitalize()}[{self.attribute or 'none'}]"

    @property
    def tool(self) -> str:
        """What spend is counted under: the mark, or `Finish`, which has no attribute."""
        return "Finish" if self.name == "finish" else self.mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a tool call brought: text for the LLM and, where it is a list, its items, best first."""

    text: str
    items: tuple[RankedItem, ...] = ()
    mark: str = ""
    error: str | None = None
    is_repeat: bool = False
    usage: Mapping[str, Usage] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An item in memory with where it came from: the tool's mark, the round, its 1-based position there."""

    item_index: int
    mark: str
    round: int
    position: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One decision of the surrogate.

    `messages` are the new messages only: all rounds' messages after the opening ones make the conversation.
    `counts` are this round's counters by kind (`reask`, `memory_unknown`, `memory_repaired`, `tool_error`, `repeat`, …).
    `usage` is by purpose. `duration_s` leaves out what the user waited for limits of our own.
    """

    number: int
    thought: str
    call: ToolCall | None
    observation: Observation | None
    messages: tuple[Message, ...]
    usage: Mapping[str, Usage]
    counts: Mapping[str, int]
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UserTask:
    """What a simulation is given of a user: the history, oldest first, and never the target.

    `ratings` runs along `history` (None where the data set has none).
    """

    user_index: int
    user_id: str
    history: tuple[int, ...]
    ratings: tuple[float, ...] | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All that one surrogate did.

    `final_items` is the list as given, at most `list_length` entries, 0 where a slot stayed empty; `completed_items`
    is the same filled from the marks. Times are seconds since the epoch.
    """

    user_index: int
    user_id: str
    attempt: int
    opening: tuple[Message, ...]
    rounds: tuple[Round, ...]
    final_items: tuple[int, ...]
    completed_items: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    ended_by: EndedBy
    error: str | None
    usage: Mapping[str, Usage]
    counts: Mapping[str, int]
    started_s: float
    ended_s: float


def add_usage(parts: Sequence[Mapping[str, Usage]]) -> dict[str, Usage]:
    """Sums usage by purpose."""
    total: dict[str, Usage] = {}
    for part in parts:
        for purpose, usage in part.items():
            total[purpose] = total.get(purpose, Usage()) + usage
    return total


def add_counts(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Sums counters by kind."""
    total: dict[str, int] = {}
    for part in parts:
        for kind, count in part.items():
            total[kind] = total.get(kind, 0) + count
    return total
