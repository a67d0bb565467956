"""A round in the making, and the limits that end it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable

from toolrec.errors import FailureKind, ReplyError, ToolError
from toolrec.grammar import ERROR_LABEL, clean
from toolrec.memory import CheckedList
from toolrec.records import ENDED_BY, Completion, Message, Observation, Round, ToolCall, Usage, add_usage
from toolrec.surrogate.state import UserState
from toolrec.tools.base import Tool, ToolContext
from toolrec.util.deadline import Deadline

REFUSALS = {
    "refusal": ("llm_refusal", "the model refused to answer"),
    "content_filter": ("content_filter", "the endpoint's content filter cut the reply"),
}
"""How a reply ends in which the model, or a filter, refused: the counter's name, and the reason where no call came."""


async def observe(tool: Tool, call: ToolCall, context: ToolContext, counts: Counter[str]) -> Observation:
    """Calls a tool; what it refuses is an observation too, and counted.

    Raises:
        LLMError: the endpoint that the tool asks cannot be used.
    """
    try:
        observation = await tool.call(call, context=context)
    except ToolError as error:
        text = clean(str(error), limit=500)
        observation = Observation(text=f"{ERROR_LABEL} {text}", error=text)
    if observation.error is not None:
        counts["tool_error"] += 1
    return observation


def accept(checked: CheckedList, counts: Counter[str], *, is_last_try: bool, reason: str) -> None:
    """Takes a checked final list, as it is where it cannot be asked for again; one without any item is never taken.

    Raises:
        ReplyError: the list is refused, for `reason`.
    """
    if not any(checked.items) or (checked.refused and not is_last_try):
        raise ReplyError(reason, kind="list")
    if checked.refused:
        counts["finish_gave_up"] += 1


class LimitReached(Exception):
    """Ends a user."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Draft:
    """A round in the making.

    Args:
        user: whose round it is.
        deadline: of this round, or of all of the user's; it can be set later too.
    """

    def __init__(self, user: UserState, deadline: Deadline | None = None) -> None:
        self.messages: list[Message] = []
        self.usage: dict[str, Usage] = {}
        self.counts: Counter[str] = Counter()
        self.open_replies = deque(user.open_replies)
        self.num_asks = 0
        self.num_refusals = 0
        self.reason = ""
        self.refusal = ""
        self.deadline = deadline
        self._uncounted_before_s = deadline.uncounted_s if deadline else 0.0
        self._thought = ""
        self._number = len(user.rounds) + 1
        self._started = time.perf_counter()

    def spend(self, purpose: str, usage: Usage) -> None:
        self.usage = add_usage([self.usage, {purpose: usage}])

    def asked(self, completion: Completion, message: Message, thought: str, *, holds_calls: bool = False) -> None:
        """Takes a reply in; one that was cut or refused is counted, and refused ones without calls say so when asked again."""
        self.counts.update(completion.counts)
        self.spend("reask" if self.num_asks else "decide", completion.usage)
        self.num_asks += 1
        self.messages.append(message)
        self._thought = thought
        if completion.finish_reason == "length":
            self.counts["cut_off"] += 1
        counter, reason = REFUSALS.get(completion.finish_reason, ("", ""))
        if counter:
            self.counts[counter] += 1
        self.refusal = "" if holds_calls else reason

    def repaired(self, kinds: Iterable[str]) -> None:
        """Counts what had to be repaired in a reply before it could be read."""
        for kind in kinds:
            self.counts[f"repaired_{kind}"] += 1

    def refuse(self, error: ReplyError, message: Message | None) -> None:
        """Takes a refusal in; `message` tells the LLM of it, and is None where nobody waits for an answer."""
        self.num_refusals += 1
        self.reason = f"{self.refusal}; {error.message}" if self.refusal else error.message
        self.counts["reask"] += 1
        self.counts[f"reask_{error.kind}"] += 1
        if message is not None:
            self.messages.append(message)

    def done(self, call: ToolCall, observation: Observation | None) -> Round:
        if observation is not None:
            self.usage = add_usage([self.usage, observation.usage])
            self.counts.update(observation.counts)
        return self._round(call, observation)

    def failed(self, kind: FailureKind, reason: str, *, http_status: int | None = None) -> Round:
        self.counts[ENDED_BY[kind]] += 1
        return self._round(None, Observation(text="", error=reason, failure_kind=kind, http_status=http_status))

    def _round(self, call: ToolCall | None, observation: Observation | None) -> Round:
        return Round(
            number=self._number,
            thought=self._thought,
            call=call,
            observation=observation,
            messages=tuple(self.messages),
            usage=self.usage,
            counts=dict(self.counts),
            duration_s=max(0.0, time.perf_counter() - self._started - self._uncounted_s()),
        )

    def _uncounted_s(self) -> float:
        return self.deadline.uncounted_s - self._uncounted_before_s if self.deadline else 0.0
