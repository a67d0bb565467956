"""Frozen records that the packages exchange: what was asked, what came back, what one user did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from toolrec.errors import FailureKind

Message = dict[str, Any]
"""One chat message in OpenAI's form (role, content, tool_calls, tool_call_id)."""

ActionName = Literal["retrieve", "rank", "finish"]
EndedBy = Literal["finish", "forced_finish", "budget", "llm_failure", "invalid_reply", "cancelled"]
FINISHED: frozenset[str] = frozenset({"finish", "forced_finish"})
"""The values of `ended_by` that count as a finished user."""

ENDED_BY: Mapping[FailureKind, EndedBy] = {
    "unavailable": "llm_failure",
    "refused": "llm_failure",
    "messages_refused": "llm_failure",
    "context_too_long": "llm_failure",
    "invalid_reply": "invalid_reply",
    "token_budget": "budget",
    "time_budget": "budget",
    "tool_lost": "cancelled",
    "actor_lost": "cancelled",
    "internal_error": "cancelled",
}
"""How a user with each kind of failure ended."""

Purpose = Literal["decide", "reask", "rank", "final_rank"]
"""What an LLM call was for; tokens are counted by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedItem:
    """One entry of a recommender's list, best first.

    Attributes:
        item_index: the item's number in the pool, from 1.
        score: higher is better; rounded, so that equal scores are equal.
    """

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
    """A native tool call as the endpoint sent it; `arguments` is its raw, unparsed JSON text.

    `extra` has the fields that we do not know (signatures): they are sent back as they came.
    """

    id: str
    name: str
    arguments: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One reply of the LLM.

    Attributes:
        text: the answer.
        tool_calls: native tool calls, unparsed.
        usage: tokens, as the endpoint counted them.
        finish_reason: as the endpoint named it, as in `stop`, `length`, `tool_calls`.
        reasoning: what the model thought apart from its answer, where the endpoint tells.
        extra: fields of the message that we do not know, and its reasoning as it came; both are sent back with it.
        counts: what was done to it on its way here, by kind; added to the counts of its round.
    """

    text: str
    tool_calls: tuple[LLMToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish_reason: str = "stop"
    reasoning: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One action of the surrogate.

    Attributes:
        name: `retrieve`, `rank` or `finish`.
        attribute: what the tool is oriented to, as in `genre`; None for the plain backbone.
        k: items asked for; None where the surrogate named no number.
        items: the list of a finish as the surrogate wrote it, each entry an id or a title; empty otherwise.
        call_id: of a native tool call; empty in the text protocol.
        repairs: what was needed to read it, by kind; counted, not kept.
    """

    name: ActionName
    attribute: str | None = None
    k: int | None = None
    items: tuple[str, ...] = ()
    call_id: str = ""
    repairs: tuple[str, ...] = field(default=(), compare=False)

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
    """What a tool call returned.

    Attributes:
        text: what the surrogate reads.
        items: the tool's list, best first; empty where it gave none.
        mark: the tool's mark in memory, as in `Retrieve[genre]`.
        error: why the call failed, in words; None where it did not.
        failure_kind: set where the user ended with this observation.
        http_status: of the endpoint's answer behind such a failure; None where there was none.
        is_repeat: whether the same call was made before; its list is not stored again.
        usage: LLM calls and tokens by purpose.
        counts: counters by kind, as in `memory_unknown`.
    """

    text: str
    items: tuple[RankedItem, ...] = ()
    mark: str = ""
    error: str | None = None
    failure_kind: FailureKind | None = None
    http_status: int | None = None
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

    Attributes:
        number: from 1.
        thought: what the surrogate wrote before its action.
        call: its action; None where the user ended without one.
        observation: what came back; None after a finish.
        messages: the new messages only. The opening and all rounds' messages in order are the conversation.
        usage: LLM calls and tokens by purpose, those of the observation included.
        counts: counters by kind (`reask`, `memory_unknown`, `tool_error`, `repeat`, …), likewise.
        duration_s: seconds, without waiting for limits of the run's own.
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
    """What a simulation is told about a user: the history, never the target.

    Attributes:
        user_index: the user's number in the data set, from 1.
        user_id: the id in the data set.
        history: item indexes, oldest first.
        ratings: along `history`; None where the data set has none.
        attempt: from 1; more where a process was lost.
    """

    user_index: int
    user_id: str
    history: tuple[int, ...]
    ratings: tuple[float, ...] | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All that one user's surrogate did.

    Attributes:
        user_index: the user's number in the data set, from 1.
        user_id: the id in the data set.
        attempt: the attempt that ended, from 1.
        opening: the system message and the task message.
        rounds: in order.
        final_items: item indexes as given, best first; 0 for an empty slot.
        completed_items: the same, with empty slots filled from memory by reciprocal rank fusion.
        candidates: what is in memory, in the order in which it came; an item has one for every list that it was on.
        ended_by: `finish` and `forced_finish` are finished users, all others failed ones.
        error: why the user failed, in words.
        failure_kind: why the user failed.
        http_status: of the endpoint's answer behind the failure; None where there was none.
        usage: LLM calls and tokens by purpose, over all rounds.
        counts: counters by kind, over all rounds.
        started_s: seconds since the epoch.
        ended_s: seconds since the epoch.
        strategy: how the user was simulated, as `--strategy` names it; empty where that is not known.
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
    failure_kind: FailureKind | None = None
    http_status: int | None = None
    usage: Mapping[str, Usage]
    counts: Mapping[str, int]
    started_s: float
    ended_s: float
    strategy: str = ""


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
