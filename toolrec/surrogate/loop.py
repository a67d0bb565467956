"""The surrogate: one user, round by round, until it finishes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ConfigError, ContextTooLongError, ReplyError
from toolrec.llm.base import LLM
from toolrec.memory import CheckedList, newest_first
from toolrec.records import Message, Observation, Round, ToolCall, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft, accept
from toolrec.surrogate.json_protocol import JsonProtocol
from toolrec.surrogate.parsing import PLAIN_LIST
from toolrec.surrogate.prompting import Offer, Prompts
from toolrec.surrogate.protocols import OpenReply, ReplyProtocolRules, TextProtocol, ToolsProtocol
from toolrec.surrogate.shortening import without_earlier_lists
from toolrec.surrogate.state import FINAL_RANK_MARK, UserState
from toolrec.surrogate.stepping import Stepping
from toolrec.surrogate.thoughtless import ActionsOnly, CallsOnly, JsonActionsOnly
from toolrec.tools.base import Tool
from toolrec.tools.rank import RankTool, scored_by_position

TOOL_NAMES = ("retrieve", "rank")


class Surrogate(Stepping):
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
        attributes: Sequence[str] = getattr(tools["retrieve"], "attributes", tuple(pool.attributes))
        offer = self._offer(Offer(tool_names=tuple(n for n in TOOL_NAMES if n in tools), attributes=tuple(attributes)))
        rules = protocol_rules(config, offer)
        super().__init__(config=config, pool=pool, llm=llm, tools=tools, protocol=rules)
        self._protocol: ReplyProtocolRules = rules
        self._prompts = Prompts(config, self._directory, offer)
        self._is_json = config.protocol == "json"
        self._final_ranker = RankTool(llm, pool, config) if config.finish_policy == "final_rank" else None

    def _offer(self, whole: Offer) -> Offer:
        """What of everything that there is the surrogate is offered; sibling strategies offer less."""
        return whole

    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        return self._prompts.opening(task)

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        while True:
            if not draft.open_replies:
                await self._ask(user, draft)
            reply = draft.open_replies.popleft()
            try:
                call = self._read(user, reply)
                draft.repaired(call.repairs)
                return await self._act(user, draft, reply, call)
            except ReplyError as error:
                draft.refuse(error, self._protocol.refusal(reply, error.message, number=user.decision))

    async def _ask(self, user: UserState, draft: Draft) -> None:
        self._check_limits(user, draft)
        messages = [*user.messages, *draft.messages]
        is_last = user.rounds_left == 0
        tools = self._protocol.schemas(is_last=is_last)
        form = self._response_format(user, is_last=is_last) if self._is_json else {}
        try:
            completion = await self._llm.complete(messages, tools=tools, stop=self._protocol.stop, **form)
        except ContextTooLongError:
            # For this call alone: the conversation stays whole, so that a restored one is asked the same.
            shorter = without_earlier_lists(messages, num_opening=len(user.opening))
            if shorter is None:
                raise
            draft.counts["context_shortened"] += 1
            completion = await self._llm.complete(shorter, tools=tools, stop=self._protocol.stop, **form)
        message = self._protocol.echo(completion, messages=messages)
        draft.repaired(self._protocol.repairs(completion, message))
        draft.asked(completion, message, self._protocol.thought(completion), holds_calls=bool(completion.tool_calls))
        draft.open_replies = deque(self._protocol.open_replies(message))
        if completion.finish_reason == "length":
            draft.open_replies.append(replace(draft.open_replies.pop(), is_cut=True))

    def _response_format(self, user: UserState, *, is_last: bool) -> dict[str, Any]:
        ids = [self._directory.pool.item_ids[item] for item in newest_first(user.memory.candidates)]
        return {"response_format": self._protocol.response_format(is_last=is_last, candidate_ids=ids)}

    def _read(self, user: UserState, reply: OpenReply) -> ToolCall:
        call = self._protocol.read(reply)
        refuse_beside_calls(reply, rounds_left=user.rounds_left)
        if user.rounds_left == 0 and call.name != "finish":
            raise ReplyError("no rounds are left; finish now with your final list", kind="no_rounds")
        return call

    async def _act(self, user: UserState, draft: Draft, reply: OpenReply, call: ToolCall) -> Round:
        if call.name == "finish":
            return await self._finish(user, draft, call)
        observation = await self._observe(user, draft, call)
        text = self._prompts.with_rounds_left(observation.text, user.rounds_left - 1)
        draft.messages.append(self._protocol.answer(reply, text, number=user.decision))
        return draft.done(call, observation)

    async def _finish(self, user: UserState, draft: Draft, call: ToolCall) -> Round:
        checked = user.memory.check_entries(call.items, length=self._config.list_length)
        draft.counts.update(checked.counts)
        if PLAIN_LIST in call.repairs and not user.memory.has_all(checked.items):
            raise ReplyError(
                f"no tool was called, and not every item is a candidate; to end, call finish with {self._config.list_length} ids",
                kind="no_action",
            )
        is_last_try = draft.num_asks > self._config.max_reasks
        accept(checked, draft.counts, is_last_try=is_last_try, reason=finish_reason(checked, self._config.list_length))
        ranked = await self._final_rank(user, draft)
        return draft.done(call, ranked)

    async def _final_rank(self, user: UserState, draft: Draft) -> Observation | None:
        """The list that replaces the one given under `final_rank`; None where that one stays."""
        if self._final_ranker is None or not user.memory.candidates:
            return None
        ranking = await self._final_ranker.order(user.context(), attribute=PLAIN_BACKBONE, k=self._config.list_length)
        draft.spend("final_rank", ranking.usage)
        draft.counts.update(ranking.counts)
        if not ranking.items:
            draft.counts["final_rank_failed"] += 1
            return None
        return Observation(text="", items=scored_by_position(ranking.items), mark=FINAL_RANK_MARK)


def protocol_rules(config: SurrogateConfig, offer: Offer) -> ReplyProtocolRules:
    """The protocol that the settings name."""
    if config.protocol == "text":
        return (TextProtocol if offer.has_thoughts else ActionsOnly)(tool_names=offer.tool_names)
    kind: type[ToolsProtocol] | type[JsonProtocol]
    if config.protocol == "json":
        kind = JsonProtocol if offer.has_thoughts else JsonActionsOnly
    else:
        kind = ToolsProtocol if offer.has_thoughts else CallsOnly
    return kind(tool_names=offer.tool_names, attributes=offer.all_attributes, max_k=config.max_k, list_length=config.list_length)


def refuse_beside_calls(reply: OpenReply, *, rounds_left: int) -> None:
    """A final list that came in one reply with other calls cannot know their observations.

    Raises:
        ReplyError: `reply` is such a list, and there are rounds left to give another one.
    """
    if reply.has_other_calls and rounds_left > 0:
        raise ReplyError(
            "this list was given beside other calls, before their observations; make one call at a time",
            kind="finish_beside_calls",
        )


def finish_reason(checked: CheckedList, list_length: int) -> str:
    """Why a final list is not accepted, and what to do."""
    if not checked.refused:
        return f"no item of the list is known; give {list_length} ids, each as it stands between its angle brackets"
    return f"{checked.reason}; give the whole list again with ids of the pool, each in angle brackets"
