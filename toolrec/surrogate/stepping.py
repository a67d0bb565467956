"""How any strategy of the package runs a user: round after round, within the user's limits, and every way to end is a trace."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

from toolrec.data import Pool
from toolrec.errors import LLMError
from toolrec.llm.base import LLM
from toolrec.memory import Memory, PoolDirectory
from toolrec.records import Message, Observation, Round, ToolCall, Trace, UserTask
from toolrec.surrogate.base import OnRound
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft, LimitReached, observe
from toolrec.surrogate.protocols import ReadsMessages
from toolrec.surrogate.state import UserState, tokens
from toolrec.tools.base import Tool
from toolrec.util.deadline import deadline


class Stepping(abc.ABC):
    """Runs users; what one round is, the sibling classes say.

    Args:
        config: settings.
        pool: the item pool directory.
        llm: who decides.
        tools: `retrieve` and `rank`, as far as there are any.
        protocol: reads what an assistant message leaves open.
    """

    def __init__(
        self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool], protocol: ReadsMessages
    ) -> None:
        self._config = config
        self._llm = llm
        self._tools = dict(tools)
        self._directory = PoolDirectory.of(pool)
        self._protocol = protocol

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """Simulates one user to the end.

        Args:
            task: the user; its history must be oldest first.
            previous_rounds: what an earlier attempt completed; the run goes on after them as if it had never stopped.
            on_round: told of every new round.
        """
        memory = Memory(self._directory, task.history, mask_seen=self._config.mask_seen, is_checked=self._config.memory_check)
        user = UserState(task, self._opening(task), memory, self._config, self._protocol)
        for done in previous_rounds:
            user.append(done)
        while user.ended_by is None:
            done = await self._step(user)
            user.append(done)
            if on_round is not None:
                await on_round(done)
        return user.trace()

    async def _step(self, user: UserState) -> Round:
        """One round: ask, parse, act; leaves `user` as it was."""
        draft = Draft(user)
        try:
            async with deadline(self._seconds_left(user)) as draft.deadline:
                return await self._decide(user, draft)
        except TimeoutError:
            if draft.deadline is None or not draft.deadline.is_over:
                raise
            return draft.failed("time_budget", self._time_is_up())
        except LimitReached as limit:
            return draft.failed(limit.kind, limit.reason)
        except LLMError as error:
            return draft.failed(error.failure_kind, f"{type(error).__name__}: {error}", http_status=error.http_status)

    @abc.abstractmethod
    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        """The messages that a user begins with."""

    @abc.abstractmethod
    async def _decide(self, user: UserState, draft: Draft) -> Round:
        """The next round of a user that has not ended.

        Raises:
            LimitReached: the user has used up what it may.
            LLMError: the endpoint cannot be used.
        """

    async def _observe(self, user: UserState, draft: Draft, call: ToolCall) -> Observation:
        return await observe(self._tools[call.name], call, user.context(), draft.counts)

    def _seconds_left(self, user: UserState) -> float | None:
        limit_s = self._config.user_timeout_s
        return None if limit_s is None else limit_s - user.num_seconds

    def _time_is_up(self) -> str:
        return f"the time is up, the limit for a user is {self._config.user_timeout_s:g} seconds"

    def _check_limits(self, user: UserState, draft: Draft) -> None:
        """The one place where a user is ended for having used up what it may."""
        if draft.num_asks > self._config.max_reasks:
            raise LimitReached("invalid_reply", draft.reason)
        budget = self._config.user_token_budget
        spent = user.num_tokens + sum(tokens(used) for used in draft.usage.values())
        if budget is not None and spent >= budget:
            raise LimitReached("token_budget", f"{spent} tokens spent, the limit for a user is {budget}")
        left_s = self._seconds_left(user)
        if left_s is not None and left_s <= 0:
            raise LimitReached("time_budget", self._time_is_up())
