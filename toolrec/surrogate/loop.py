"""The surrogate: one user, round by round, until it finishes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.deadline import Deadline, deadline
from toolrec.errors import ConfigError, ContextTooLongError, LLMError, ReplyError, ToolError
from toolrec.grammar import ERROR_LABEL, clean
from toolrec.llm.base import LLM
from toolrec.memory import CheckedList, Memory, PoolDirectory
from toolrec.records import EndedBy, Message, Observation, RankedItem, Round, ToolCall, Trace, Usage, UserTask, add_usage
from toolrec.surrogate.base import OnRound
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.prompting import Prompts
from toolrec.surrogate.protocols import OpenReply, ReplyProtocolRules, TextProtocol, ToolsProtocol
from toolrec.surrogate.shortening import without_earlier_lists
from toolrec.surrogate.state import FINAL_RANK_MARK, UserState, tokens
from toolrec.tools.base import Tool
from toolrec.tools.rank import RankTool

TOOL_NAMES = ("retrieve", "rank")


class Surrogate:
    """Decides round by round: think, call a tool, read what comes back (the paper's strategy, after ReAct).

    Args:
        config: settings.
        pool: the item pool directory.
        llm: who decides.
        tools: `retrieve` and, where the surrogate may rank, `rank`. A `retrieve` that has `attributes` is described by
            them.

    Raises:
        ConfigError: no `retrieve`, or a tool under another name.
    """

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        if "retrieve" not in tools or not set(tools) <= set(TOOL_NAMES):
            raise ConfigError(
                "the surrogate needs a tool `retrieve`, and takes one more, `rank`", value=list(tools), allowed=TOOL_NAMES
            )
        self._config = config
        self._llm = llm
        self._tools = dict(tools)
        self._directory = PoolDirectory.of(pool)
        names = [name for name in TOOL_NAMES if name in tools]
        attributes: Sequence[str] = getattr(tools["retrieve"], "attributes", tuple(pool.attributes))
        self._prompts = Prompts(config, self._directory, tool_names=names, attributes=attributes)
        self._protocol: ReplyProtocolRules = (
            TextProtocol(tool_names=names)
            if config.protocol == "text"
            else ToolsProtocol(tool_names=names, attributes=attributes, max_k=config.max_k, list_length=config.list_length)
        )
        self._final_ranker = RankTool(llm, pool, config) if config.finish_policy == "final_rank" else None

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """Simulates one user to the end.

        Args:
            task: the user; its history must be oldest first.
            previous_rounds: what an earlier attempt completed; the run goes on after them as if it had never stopped.
            on_round: told of every new round.
        """
        memory = Memory(self._directory, task.history, mask_seen=self._config.mask_seen, is_checked=self._config.memory_check)
        user = UserState(task, self._prompts.opening(task), memory, self._config, self._protocol)
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
        draft = _Draft(user)
        try:
            async with deadline(self._seconds_left(user)) as draft.deadline:
                return await self._decide(user, draft)
        except TimeoutError:
            if draft.deadline is None or not draft.deadline.is_over:
                raise
            return draft.failed("budget", self._time_is_up())
        except _LimitReached as limit:
            return draft.failed(limit.kind, limit.reason)
        except LLMError as error:
            return draft.failed("llm_failure", f"{type(error).__name__}: {error}")

    async def _decide(self, user: UserState, draft: _Draft) -> Round:
        while True:
            if not draft.open_replies:
                await self._ask(user, draft)
            reply = draft.open_replies.popleft()
            try:
                return await self._act(user, draft, reply, self._read(user, reply))
            except ReplyError as error:
                draft.refuse(error, self._protocol.refusal(reply, error.message, number=user.decision))

    def _seconds_left(self, user: UserState) -> float | None:
        limit_s = self._config.user_timeout_s
        return None if limit_s is None else limit_s - user.num_seconds

    def _time_is_up(self) -> str:
        return f"the time is up, the limit for a user is {self._config.user_timeout_s:g} seconds"

    async def _ask(self, user: UserState, draft: _Draft) -> None:
        self._check_limits(user, draft)
        messages = [*user.messages, *draft.messages]
        tools = self._protocol.schemas(is_last=user.rounds_left == 0)
        try:
            completion = await self._llm.complete(messages, tools=tools, stop=self._protocol.stop)
        except ContextTooLongError:
            # For this call alone: the conversation stays whole, so that a restored one is asked the same.
            shorter = without_earlier_lists(messages, num_opening=len(user.opening))
            if shorter is None:
                raise
            draft.counts["context_shortened"] += 1
            completion = await self._llm.complete(shorter, tools=tools, stop=self._protocol.stop)
        message = self._protocol.echo(completion)
        draft.asked(completion.usage, message, self._protocol.thought(completion))
        draft.open_replies = deque(self._protocol.open_replies(message))

    def _check_limits(self, user: UserState, draft: _Draft) -> None:
        """The one place where a user is ended for having used up what it may."""
        if draft.num_asks > self._config.max_reasks:
            raise _LimitReached("invalid_reply", draft.reason)
        budget = self._config.user_token_budget
        spent = user.num_tokens + sum(tokens(used) for used in draft.usage.values())
        if budget is not None and spent >= budget:
            raise _LimitReached("budget", f"{spent} tokens spent, the limit for a user is {budget}")
        left_s = self._seconds_left(user)
        if left_s is not None and left_s <= 0:
            raise _LimitReached("budget", self._time_is_up())

    def _read(self, user: UserState, reply: OpenReply) -> ToolCall:
        call = self._protocol.read(reply)
        if user.rounds_left == 0 and call.name != "finish":
            raise ReplyError("no rounds are left; finish now with your final list", kind="no_rounds")
        return call

    async def _act(self, user: UserState, draft: _Draft, reply: OpenReply, call: ToolCall) -> Round:
        if call.name == "finish":
            return await self._finish(user, draft, call)
        try:
            observation = await self._tools[call.name].call(call, context=user.context())
        except ToolError as error:
            text = clean(str(error), limit=500)
            observation = Observation(text=f"{ERROR_LABEL} {text}", error=text)
        if observation.error is not None:
            draft.counts["tool_error"] += 1
        text = self._prompts.with_rounds_left(observation.text, user.rounds_left - 1)
        draft.messages.append(self._protocol.answer(reply, text, number=user.decision))
        return draft.done(call, observation)

    async def _finish(self, user: UserState, draft: _Draft, call: ToolCall) -> Round:
        checked = user.memory.check_entries(call.items, length=self._config.list_length)
        draft.counts.update(checked.counts)
        if not any(checked.items) or (checked.refused and draft.num_asks <= self._config.max_reasks):
            raise ReplyError(_finish_reason(checked, self._config.list_length), kind="list")
        if checked.refused:
            draft.counts["finish_gave_up"] += 1
        ranked = await self._final_rank(user, draft)
        return draft.done(call, ranked)

    async def _final_rank(self, user: UserState, draft: _Draft) -> Observation | None:
        """The list that replaces the one given under `final_rank`; None where that one stays."""
        if self._final_ranker is None or not user.memory.candidates:
            return None
        ranking = await self._final_ranker.order(user.context(), attribute=PLAIN_BACKBONE, k=self._config.list_length)
        draft.spend("final_rank", ranking.usage)
        draft.counts.update(ranking.counts)
        if not ranking.items:
            draft.counts["final_rank_failed"] += 1
            return None
        items = tuple(
            RankedItem(item_index=item, score=round(1 / position, 4)) for position, item in enumerate(ranking.items, start=1)
        )
        return Observation(text="", items=items, mark=FINAL_RANK_MARK)


class _LimitReached(Exception):
    """Ends a user; `kind` is its `ended_by`."""

    def __init__(self, kind: EndedBy, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class _Draft:
    """A round in the making."""

    def __init__(self, user: UserState) -> None:
        self.messages: list[Message] = []
        self.usage: dict[str, Usage] = {}
        self.counts: Counter[str] = Counter()
        self.open_replies = deque(user.open_replies)
        self.num_asks = 0
        self.reason = ""
        self.deadline: Deadline | None = None
        self._thought = ""
        self._number = len(user.rounds) + 1
        self._started = time.perf_counter()

    def spend(self, purpose: str, usage: Usage) -> None:
        self.usage = add_usage([self.usage, {purpose: usage}])

    def asked(self, usage: Usage, message: Message, thought: str) -> None:
        self.spend("reask" if self.num_asks else "decide", usage)
        self.num_asks += 1
        self.messages.append(message)
        self._thought = thought

    def refuse(self, error: ReplyError, message: Message) -> None:
        self.reason = error.message
        self.counts["reask"] += 1
        self.counts[f"reask_{error.kind}"] += 1
        self.messages.append(message)

    def done(self, call: ToolCall, observation: Observation | None) -> Round:
        if observation is not None:
            self.usage = add_usage([self.usage, observation.usage])
            self.counts.update(observation.counts)
        return self._round(call, observation)

    def failed(self, kind: EndedBy, reason: str) -> Round:
        self.counts[kind] += 1
        return self._round(None, Observation(text="", error=reason))

    def _round(self, call: ToolCall | None, observation: Observation | None) -> Round:
        return Round(
            number=self._number,
            thought=self._thought,
            call=call,
            observation=observation,
            messages=tuple(self.messages),
            usage=self.usage,
            counts=dict(self.counts),
            duration_s=time.perf_counter() - self._started - (self.deadline.uncounted_s if self.deadline else 0.0),
        )


def _finish_reason(checked: CheckedList, list_length: int) -> str:
    if not checked.refused:
        return f"no item of the list is known; give {list_length} ids, each as it stands between its angle brackets"
    return f"{checked.reason}; give the whole list again with ids of the pool, each in angle brackets"
