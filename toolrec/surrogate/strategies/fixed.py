"""What strategies share whose steps are fixed before the user begins: the LLM is asked for lists and chooses no tool.

Replies are plain text, so every endpoint will do, and `--protocol` has no effect. Each step is a round of the trace, so
that a user goes on after its last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ConfigError, ReplyError
from toolrec.grammar import NOT_ACCEPTED_LABEL, encodable, list_entries
from toolrec.llm.base import LLM
from toolrec.memory import CheckedList
from toolrec.records import Message, Observation, Round, ToolCall, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft, LimitReached, accept
from toolrec.surrogate.parsing import CUT_OFF, MAX_REPLY_CHARACTERS
from toolrec.surrogate.protocols import EMPTY_REPLY, OpenReply
from toolrec.surrogate.state import UserState
from toolrec.surrogate.stepping import Stepping
from toolrec.tools.base import Tool
from toolrec.tools.lines import history_lines, item_lines, observation_text
from toolrec.tools.rank import scored_by_position

Read = TypeVar("Read")

ANY_NUMBER_OF_ROUNDS = 1_000
LIST_AGAIN = "Give the whole list again, one <id> a line."


class FixedSteps(Stepping):
    """A strategy whose steps do not depend on what the LLM decides.

    Args:
        config: settings; `rounds` does not bound fixed steps.
        pool: the item pool directory.
        llm: who is asked.
        tools: `retrieve` brings the candidates.
    """

    takes_protocol: ClassVar[bool] = False
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        unbounded = config.replaced(rounds=ANY_NUMBER_OF_ROUNDS)
        super().__init__(config=unbounded, pool=pool, llm=llm, tools=tools, protocol=_PlainReplies())

    @classmethod
    def check(cls, config: SurrogateConfig, *, pool: Pool, attributes: Sequence[str], model: str) -> None:
        """Refuses what has no meaning here.

        Raises:
            ConfigError: the finish policy would have to be ignored.
        """
        if config.finish_policy != "as_given":
            raise ConfigError(
                f"the strategy {config.strategy} gives its own final list",
                value=f"--finish-policy {config.finish_policy}",
                allowed="as_given",
            )

    async def _fetch_candidates(self, user: UserState, draft: Draft) -> Round:
        """The plain recommender's list as a round, for which no LLM is asked."""
        call = ToolCall(name="retrieve", attribute=PLAIN_BACKBONE, k=min(self._config.candidates, self._config.max_k))
        return draft.done(call, await self._observe(user, draft, call))

    def _fetched(self, user: UserState) -> list[int]:
        """The list of the first round, best first.

        Raises:
            LimitReached: it is empty.
        """
        candidates = [candidate.item_index for candidate in user.memory.candidates if candidate.round == 1]
        if not candidates:
            raise LimitReached("invalid_reply", "the recommender brought no candidates")
        return candidates

    async def _ask_for_list(
        self, user: UserState, draft: Draft, prompt: str, *, length: int, among: Sequence[int]
    ) -> tuple[int, ...]:
        """The LLM's order of `among`, 0 for an empty slot; asked again while an entry is refused.

        Raises:
            LimitReached: no usable list after all re-asks.
            LLMError: the endpoint cannot be used.
        """

        def read(text: str) -> tuple[int, ...]:
            checked = user.memory.check_entries(list_entries(text), length=length, among=frozenset(among))
            return self._accepted(checked, draft)

        return await self._ask(user, draft, prompt, read, again=LIST_AGAIN)

    def _accepted(self, checked: CheckedList, draft: Draft) -> tuple[int, ...]:
        """A checked list, refused while it may be asked for again."""
        draft.counts.update(checked.counts)
        is_last_try = draft.num_asks > self._config.max_reasks
        accept(checked, draft.counts, is_last_try=is_last_try, reason=checked.reason or "no item of the list is known")
        return checked.items

    async def _ask(self, user: UserState, draft: Draft, prompt: str, read: Callable[[str], Read], *, again: str) -> Read:
        """Asks with the opening and `prompt` until the reply can be read.

        Args:
            prompt: the next user message; none where it is empty, as the conversation has it already.
            read: reads a reply, or raises `ReplyError`.
            again: what is asked for where it raised.

        Raises:
            LimitReached: the re-asks, the tokens or the time are used up.
            LLMError: the endpoint cannot be used.
        """
        if prompt:
            draft.messages.append({"role": "user", "content": prompt})
        while True:
            self._check_limits(user, draft)
            completion = await self._llm.complete([*self._context_of(user), *draft.messages])
            text = encodable(completion.text[:MAX_REPLY_CHARACTERS])
            content = text if text.strip() else EMPTY_REPLY
            draft.asked(completion, {"role": "assistant", "content": content, **completion.extra}, "")
            is_cut = completion.finish_reason == "length"
            try:
                if not text.strip():
                    raise ReplyError(CUT_OFF if is_cut else "the reply is empty", kind="cut_off" if is_cut else "empty")
                return read(text)
            except ReplyError as error:
                reason = f"{NOT_ACCEPTED_LABEL} {error.message}. {again}"
                draft.refuse(error, {"role": "user", "content": reason})

    def _context_of(self, user: UserState) -> Sequence[Message]:
        """What stands before a step's own messages: the opening alone, as the steps are requests of their own."""
        return user.opening

    def _finished(self, draft: Draft, items: Sequence[int]) -> Round:
        """The final round with a list of item indexes; an empty slot stays one."""
        ids = tuple(f"<{self._directory.pool.item_ids[item]}>" if item else "" for item in items)
        return draft.done(ToolCall(name="finish", items=ids), None)

    def _ranking(self, items: Sequence[int], *, k: int) -> tuple[ToolCall, Observation]:
        """An LLM's order as a rank call that the strategy made."""
        call = ToolCall(name="rank", attribute=PLAIN_BACKBONE, k=k)
        known = [item for item in items if item]
        text = observation_text(f"Rank[{PLAIN_BACKBONE}, {k}]", item_lines(self._directory, known))
        return call, Observation(text=text, items=scored_by_position(known), mark=call.mark)

    def _facts_of(self, task: UserTask) -> dict[str, Any]:
        """What every prompt shows of the user."""
        return {
            "domain": self._directory.pool.domain,
            "history": history_lines(
                self._directory, task.history, task.ratings, length=self._config.prompt_history_length, line=self._line
            ),
            "latest": self._line(task.history[-1]) if task.history else "",
            "mask_seen": self._config.mask_seen,
        }

    def _line(self, item_index: int) -> str:
        """How prompts write an item of the history."""
        return self._directory.line(item_index)


class _PlainReplies:
    """A conversation whose replies leave nothing open."""

    def open_replies(self, message: Message) -> list[OpenReply]:
        return []
