"""One user's state, as a fold over rounds: the live loop and the restoring of an earlier attempt append the same records."""

from __future__ import annotations

import time
from collections import deque

from toolrec.memory import Memory
from toolrec.records import (
    ENDED_BY,
    EndedBy,
    Message,
    Observation,
    Round,
    ToolCall,
    Trace,
    Usage,
    UserTask,
    add_counts,
    add_usage,
)
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.protocols import OpenReply, ReadsMessages
from toolrec.tools.base import ToolContext

FINAL_RANK_MARK = "Rank[final]"
"""Marks the observation of a finish whose list one more ranking has replaced."""


class UserState:
    """What is known of one user so far.

    Args:
        task: the user.
        opening: system message and task message.
        memory: an empty memory.
        config: the surrogate's settings.
        protocol: reads what an assistant message leaves open.
    """

    def __init__(
        self,
        task: UserTask,
        opening: tuple[Message, ...],
        memory: Memory,
        config: SurrogateConfig,
        protocol: ReadsMessages,
    ) -> None:
        self.task = task
        self.memory = memory
        self.opening = opening
        self.messages: list[Message] = list(opening)
        self.rounds: list[Round] = []
        self.calls: list[ToolCall] = []
        self.open_replies: deque[OpenReply] = deque()
        self.ended_by: EndedBy | None = None
        self.num_tokens = 0
        self.num_seconds = 0.0
        self._config = config
        self._protocol = protocol
        self._final_items: tuple[int, ...] = ()
        self._failure: Observation | None = None
        self._started_s = time.time()

    @property
    def rounds_left(self) -> int:
        """Decisions before the forced finish."""
        return self._config.rounds - len(self.calls)

    @property
    def decision(self) -> int:
        """The 1-based number of the decision that comes next."""
        return len(self.calls) + 1

    def append(self, done: Round) -> None:
        """Takes a round in: its messages, its marked candidates, and whether it is the last."""
        self.rounds.append(done)
        self.messages.extend(done.messages)
        self.num_tokens += sum(tokens(used) for used in done.usage.values())
        self.num_seconds += done.duration_s
        for message in done.messages:
            if message["role"] == "assistant":
                self.open_replies = deque(self._protocol.open_replies(message))
            elif self.open_replies:
                self.open_replies.popleft()
        if done.call is None:
            self._fail(done.observation)
        elif done.call.name == "finish":
            self._finish(done.call, done.observation)
        else:
            self.calls.append(done.call)
            seen = done.observation
            if seen is not None and seen.items and not seen.is_repeat:
                self.memory.store(seen.items, mark=seen.mark, round=done.number)

    def context(self) -> ToolContext:
        """What tools are told."""
        return ToolContext(
            user_index=self.task.user_index,
            history=self.task.history,
            ratings=self.task.ratings,
            candidates=self.memory.candidates,
            previous_calls=tuple(self.calls),
            round=len(self.rounds) + 1,
        )

    def trace(self) -> Trace:
        """The finished user."""
        assert self.ended_by is not None
        return Trace(
            user_index=self.task.user_index,
            user_id=self.task.user_id,
            attempt=self.task.attempt,
            opening=self.opening,
            rounds=tuple(self.rounds),
            final_items=self._final_items,
            completed_items=self.memory.completed(self._final_items, length=self._config.list_length),
            candidates=self.memory.candidates,
            ended_by=self.ended_by,
            error=self._failure.error if self._failure else None,
            failure_kind=self._failure.failure_kind if self._failure else None,
            http_status=self._failure.http_status if self._failure else None,
            usage=add_usage([done.usage for done in self.rounds]),
            counts=add_counts([done.counts for done in self.rounds]),
            started_s=self._started_s,
            ended_s=time.time(),
            strategy=self._config.strategy,
        )

    def _finish(self, call: ToolCall, observation: Observation | None) -> None:
        self.ended_by = "finish" if self.rounds_left > 0 else "forced_finish"
        if observation is not None and observation.mark == FINAL_RANK_MARK:
            self._final_items = tuple(item.item_index for item in observation.items)
        else:
            self._final_items = self.memory.check_entries(call.items, length=self._config.list_length).items

    def _fail(self, observation: Observation | None) -> None:
        assert observation is not None and observation.failure_kind is not None
        self.ended_by = ENDED_BY[observation.failure_kind]
        self._failure = observation


def tokens(usage: Usage) -> int:
    """Prompt and completion tokens together, spent or saved: a user's budget ends it at the same place either way."""
    return usage.prompt_tokens + usage.completion_tokens + usage.saved_prompt_tokens + usage.saved_completion_tokens
