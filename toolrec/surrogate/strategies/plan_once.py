"""Plan once, then execute: every call is chosen before the first one is made, and the list is given when all are done."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ReplyError
from toolrec.grammar import PLAN_LABEL, ROUNDS_LEFT_LABEL
from toolrec.llm.base import LLM
from toolrec.records import Message, Round, ToolCall, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft
from toolrec.surrogate.loop import TOOL_NAMES
from toolrec.surrogate.parsing import parse_plain_reply, parse_text_reply
from toolrec.surrogate.prompting import described
from toolrec.surrogate.reading.text_actions import find_action
from toolrec.surrogate.state import UserState
from toolrec.surrogate.strategies.fixed import FixedSteps
from toolrec.tools.base import Tool
from toolrec.tools.templates import render

PLAN_AGAIN = "Give the whole plan again, one call a line, as in Retrieve[none, 20]."
FINISH_AGAIN = "Give the whole list again as Finish[<id>, <id>, …]."

_BULLET = re.compile(r"^\s{0,20}(?:\(?\d{1,3}[.):]|[-*•–])\s{1,9}")


class PlanOnce(FixedSteps):
    """One plan of tool calls, carried out in order, then one final list.

    Source: the comparison of planning once with deciding round by round in the ToolRec paper (arXiv 2405.15114, section
    4.3); the form follows Plan-and-Solve (Wang et al., ACL 2023, arXiv 2305.04091) and ReWOO (Xu et al., arXiv 2305.18323):
    the planner sees no observation. At most `rounds` calls of a plan are carried out.
    """

    settings: ClassVar[tuple[str, ...]] = ("rounds",)

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        super().__init__(config=config, pool=pool, llm=llm, tools=tools)
        self._num_calls = config.rounds
        self._tool_names = tuple(name for name in TOOL_NAMES if name in tools)
        self._attributes = tuple(getattr(tools["retrieve"], "attributes", tuple(pool.attributes)))
        words = {"domain": pool.domain, "list_length": config.list_length}
        self._system = render(
            "plan_once_system.jinja",
            tool_names=self._tool_names,
            attributes=[(name, described(pool, name)) for name in self._attributes],
            max_k=config.max_k,
            num_calls=self._num_calls,
            mask_seen=config.mask_seen,
            **words,
        )
        self._last = render("last_round.jinja", protocol="text", **words)

    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        content = render(
            "plan_once_task.jinja",
            attributes=(PLAIN_BACKBONE, *self._attributes),
            plan_label=PLAN_LABEL,
            num_calls=self._num_calls,
            list_length=self._config.list_length,
            **self._facts_of(task),
        )
        return {"role": "system", "content": self._system}, {"role": "user", "content": content}

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        if user.rounds:
            plan = self._plan_of(user)
        else:
            plan = await self._ask(user, draft, "", self._read_plan, again=PLAN_AGAIN)
            draft.counts.update({"plan_cut": 1} if len(plan) > self._num_calls else {})
        plan = plan[: self._num_calls]
        num_done = len(user.calls)
        if num_done == len(plan):
            entries = await self._ask(user, draft, "", lambda text: self._read_list(user, draft, text), again=FINISH_AGAIN)
            return draft.done(ToolCall(name="finish", items=entries), None)
        call = plan[num_done]
        observation = await self._observe(user, draft, call)
        num_left = len(plan) - num_done - 1
        end = f"{ROUNDS_LEFT_LABEL} {num_left}" if num_left else self._last
        draft.messages.append({"role": "user", "content": f"Observation {num_done + 1}:\n{observation.text}\n{end}"})
        return draft.done(call, observation)

    def _context_of(self, user: UserState) -> Sequence[Message]:
        """The whole conversation."""
        return user.messages

    def _plan_of(self, user: UserState) -> list[ToolCall]:
        """The plan, read again from the conversation."""
        said = [message["content"] for message in user.rounds[0].messages if message["role"] == "assistant"]
        return self._read_plan(said[-1])

    def _read_plan(self, text: str) -> list[ToolCall]:
        return planned_calls(text, allowed=self._tool_names)

    def _read_list(self, user: UserState, draft: Draft, text: str) -> tuple[str, ...]:
        call = parse_plain_reply(text, allowed=("finish",), list_length=self._config.list_length)
        self._accepted(user.memory.check_entries(call.items, length=self._config.list_length), draft)
        return call.items


def planned_calls(text: str, *, allowed: Collection[str]) -> list[ToolCall]:
    """The calls of a plan, one a line, numbered or not; a `Finish` ends it, and other lines are prose.

    Raises:
        ReplyError: no call, or one that cannot be read.
    """
    calls: list[ToolCall] = []
    for line in text.splitlines():
        stripped = _BULLET.sub("", line)
        action = find_action(stripped)
        if action is None:
            continue
        if action.name == "finish":
            break
        calls.append(parse_text_reply(stripped, allowed=allowed))
    if not calls:
        raise ReplyError("the plan has no call", kind="no_action")
    return calls
