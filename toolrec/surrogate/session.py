"""One user's tools and memory for whoever decides outside our loop: an agent of another framework, or an MCP client.

The same tools, the same check of every list, the same rounds and marks as in `toolrec.surrogate.loop`. Only who decides differs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from toolrec.data import Pool
from toolrec.errors import ConfigError, FailureKind, LLMError, ReplyError
from toolrec.grammar import ERROR_LABEL, NOT_ACCEPTED_LABEL
from toolrec.llm.base import LLM
from toolrec.memory import Memory, PoolDirectory
from toolrec.records import Completion, Message, Round, ToolCall, Trace, UserTask
from toolrec.surrogate.base import OnRound
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft, accept, observe
from toolrec.surrogate.loop import TOOL_NAMES, finish_reason, protocol_rules, refuse_beside_calls
from toolrec.surrogate.parsing import parse_tool_call
from toolrec.surrogate.prompting import Offer, Prompts
from toolrec.surrogate.protocols import OpenReply
from toolrec.surrogate.state import UserState, tokens
from toolrec.tools.base import Tool
from toolrec.util.deadline import Deadline

ACCEPTED = "The list is accepted."


class AgentEnded(Exception):
    """The user has ended, by a list or by a failure: whoever decides is to stop. The session knows the rest."""


class AgentParts:
    """What the sessions of all users share.

    Args:
        config: settings; the protocol is `tools`, and the final list is taken as given.
        pool: the item pool directory.
        tools: `retrieve` and, where there is one, `rank`.

    Raises:
        ConfigError: the settings ask for what only our own loop does.
    """

    def __init__(self, *, config: SurrogateConfig, pool: Pool, tools: Mapping[str, Tool]) -> None:
        if config.protocol not in ("tools", "auto"):
            raise ConfigError("an agent calls tools natively", value=f"--protocol {config.protocol}", allowed="--protocol tools")
        if config.finish_policy != "as_given":
            raise ConfigError(
                "an agent's list is taken as given", value=f"--finish-policy {config.finish_policy}", allowed="as_given"
            )
        self.config = config = config.replaced(protocol="tools")
        self.tools = dict(tools)
        self.directory = PoolDirectory.of(pool)
        self.tool_names = [name for name in TOOL_NAMES if name in tools]
        self.attributes: Sequence[str] = getattr(tools["retrieve"], "attributes", tuple(pool.attributes))
        offer = Offer(tool_names=tuple(self.tool_names), attributes=tuple(self.attributes))
        self.rules = protocol_rules(config, offer)
        self.prompts = Prompts(config, self.directory, offer)

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """The tools and `finish` in OpenAI's form."""
        return self.rules.schemas(is_last=False) or ()


class ToolSession:
    """One user, from the first call to the final list.

    Args:
        parts: what all users share.
        task: the user.
        previous_rounds: what an earlier attempt completed.
        on_round: told of every new round.
        tells_rounds: whether observations say how many rounds are left.
    """

    def __init__(
        self,
        parts: AgentParts,
        task: UserTask,
        *,
        previous_rounds: Sequence[Round] = (),
        on_round: OnRound | None = None,
        tells_rounds: bool = True,
    ) -> None:
        config = parts.config
        memory = Memory(parts.directory, task.history, mask_seen=config.mask_seen, is_checked=config.memory_check)
        self._user = UserState(task, parts.prompts.opening(task), memory, config, parts.rules)
        self._parts = parts
        self._on_round = on_round
        self._tells_rounds = tells_rounds
        self._turn = asyncio.Lock()
        for done in previous_rounds:
            self._user.append(done)
        self._draft = Draft(self._user)
        self._draft.messages.extend(self._lost_calls())

    @property
    def deadline(self) -> Deadline | None:
        """The bound on the user's time, where there is one."""
        return self._draft.deadline

    @deadline.setter
    def deadline(self, deadline: Deadline) -> None:
        self._draft.deadline = deadline

    @property
    def is_over(self) -> bool:
        """Whether the user has ended."""
        return self._user.ended_by is not None

    @property
    def user_index(self) -> int:
        """The user's number in the data set."""
        return self._user.task.user_index

    @property
    def messages(self) -> list[Message]:
        """The conversation so far in OpenAI's form."""
        return [*self._user.messages, *self._draft.messages]

    @property
    def refusal(self) -> str:
        """Why the last reply has no call, where the model or a filter refused it; else empty."""
        return self._draft.refusal

    @property
    def seconds_left(self) -> float | None:
        """Of the user's time."""
        limit_s = self._parts.config.user_timeout_s
        return None if limit_s is None else max(0.0, limit_s - self._user.num_seconds)

    def trace(self) -> Trace:
        """The user that has ended."""
        return self._user.trace()

    async def ask(self, llm: LLM, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> Completion:
        """One reply of the LLM, within the user's limits; it is part of the round that its call makes.

        Raises:
            AgentEnded: the user has ended, as with a limit or an endpoint that cannot be used.
        """
        if self.is_over:
            raise AgentEnded
        draft, rules = self._draft, self._parts.rules
        budget = self._parts.config.user_token_budget
        spent = self._user.num_tokens + sum(map(tokens, draft.usage.values()))
        if budget is not None and spent >= budget:
            await self.fail("token_budget", f"{spent} tokens spent, the limit for a user is {budget}")
        if draft.num_asks > self._parts.config.max_reasks:
            why = draft.reason or draft.refusal
            said = f"{draft.num_asks} replies without a call that could be carried out"
            await self.fail("invalid_reply", f"{said}; of the last: {why}" if why else said)
        try:
            completion = await llm.complete(list(messages), tools=tools)
        except LLMError as error:
            await self.fail(error.failure_kind, f"{type(error).__name__}: {error}", http_status=error.http_status)
        draft = self._draft  # another one, where a call was carried out meanwhile
        message = rules.echo(completion, messages=self.messages)
        draft.repaired(rules.repairs(completion, message))
        draft.asked(completion, message, rules.thought(completion), holds_calls=bool(completion.tool_calls))
        return completion

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Carries a call out, `finish` too, and makes it a round; what is said comes back as text.

        Raises:
            AgentEnded: the user had ended before, or ends with this call as a failure.
        """
        async with self._turn:  # calls made at once are rounds one after the other
            if self.is_over:
                raise AgentEnded
            reply = self._open_call(name)
            call_id = (reply.call_id if reply else None) or ""
            try:
                written = json.dumps(dict(arguments), ensure_ascii=False, default=str)
                call = parse_tool_call(name, written, call_id=call_id, allowed=(*self._parts.tool_names, "finish"))
                if reply is not None:
                    refuse_beside_calls(reply, rounds_left=self._user.rounds_left)
                self._draft.repaired(call.repairs)
                if call.name == "finish":
                    return await self._finish(call)
                if self._user.rounds_left == 0:
                    raise ReplyError("no rounds are left; finish now with your final list", kind="no_rounds")
                return await self._act(call)
            except ReplyError as error:
                return await self._refuse(error, call_id)

    async def fail(self, kind: FailureKind, reason: str, *, http_status: int | None = None) -> NoReturn:
        """Ends the user as a failed one.

        Raises:
            AgentEnded: always.
        """
        await self._append(self._draft.failed(kind, reason, http_status=http_status))
        raise AgentEnded

    async def _act(self, call: ToolCall) -> str:
        try:
            observation = await observe(self._parts.tools[call.name], call, self._user.context(), self._draft.counts)
        except LLMError as error:
            await self.fail(error.failure_kind, f"{type(error).__name__}: {error}", http_status=error.http_status)
        text = observation.text
        if self._tells_rounds:
            text = self._parts.prompts.with_rounds_left(text, self._user.rounds_left - 1)
        if (answer := self._answer(text, call.call_id)) is not None:
            self._draft.messages.append(answer)
        await self._append(self._draft.done(call, observation))
        return text

    async def _finish(self, call: ToolCall) -> str:
        config, draft = self._parts.config, self._draft
        checked = self._user.memory.check_entries(call.items, length=config.list_length)
        draft.counts.update(checked.counts)
        is_last_try = draft.num_refusals >= config.max_reasks
        accept(checked, draft.counts, is_last_try=is_last_try, reason=finish_reason(checked, config.list_length))
        await self._append(draft.done(call, None))
        return ACCEPTED

    async def _refuse(self, error: ReplyError, call_id: str) -> str:
        text = f"{NOT_ACCEPTED_LABEL} {error.message}."
        self._draft.refuse(error, self._answer(text, call_id))
        if self._draft.num_refusals > self._parts.config.max_reasks:
            await self.fail("invalid_reply", error.message)
        return text

    def _answer(self, text: str, call_id: str) -> Message | None:
        """The message that answers a call of the LLM's; None where the decision came by another way."""
        return {"role": "tool", "tool_call_id": call_id, "content": text} if call_id else None

    async def _append(self, done: Round) -> None:
        deadline = self._draft.deadline
        self._user.append(done)
        self._draft = Draft(self._user, deadline)
        if self._on_round is not None:
            await self._on_round(done)

    def _open_calls(self) -> list[OpenReply]:
        """The LLM's calls that are not answered yet."""
        messages = self.messages
        answered = {message["tool_call_id"] for message in messages if message["role"] == "tool"}
        said = (message for message in messages if message["role"] == "assistant")
        calls = (reply for message in said for reply in self._parts.rules.open_replies(message))
        return [call for call in calls if call.call_id is not None and call.call_id not in answered]

    def _open_call(self, name: str) -> OpenReply | None:
        """The first unanswered call of this name; None where the decision came by another way."""
        return next((call for call in self._open_calls() if call.name == name), None)

    def _lost_calls(self) -> list[Message]:
        """Answers to calls of an earlier attempt whose answers were lost with its process."""
        text = f"{ERROR_LABEL} this call was lost; make it again"
        return [{"role": "tool", "tool_call_id": call.call_id, "content": text} for call in self._open_calls()]
