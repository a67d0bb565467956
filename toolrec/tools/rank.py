"""The rank tool: an LLM orders what memory holds by any attribute that it knows about."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ContextTooLongError, LLMError, ReplyError, ToolError
from toolrec.grammar import NOT_ACCEPTED_LABEL, encodable, list_entries
from toolrec.llm.base import LLM
from toolrec.memory import Memory, PoolDirectory, newest_first
from toolrec.records import Message, Observation, Purpose, RankedItem, ToolCall, Usage
from toolrec.tools.base import ToolContext
from toolrec.tools.calls import checked_k, clean_attribute
from toolrec.tools.lines import history_lines, item_lines, observation_text
from toolrec.tools.settings import ToolSettings
from toolrec.tools.templates import render

REPEAT_HINT = "you have made this very call before, and nothing new has come in since; the list is the same"
NOT_RANKED = "the candidates could not be ranked"
_SHOWN_REPLY = 4000
"""Characters of an unusable reply that are shown to the LLM again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What one ranking brought; `items` is empty where no usable list came.

    `left_out` are the candidates that the prompt had no room for.
    """

    items: tuple[int, ...]
    usage: Usage
    counts: dict[str, int]
    error: str | None = None
    left_out: tuple[int, ...] = ()


class RankTool:
    """`Rank[attribute, K]`: the K best candidates by an LLM's judgement of the attribute.

    Args:
        llm: who ranks.
        pool: the item pool directory.
        config: candidates in the prompt, re-asks, masking.

    Source: paper section 3.3.2. Every list is checked against the candidates and asked for again with the reason.
    """

    name = "rank"

    def __init__(self, llm: LLM, pool: Pool, config: ToolSettings | None = None) -> None:
        self._llm = llm
        self._directory = PoolDirectory.of(pool)
        self._config = config or ToolSettings()
        self._system = render("rank_system.jinja", domain=pool.domain)

    async def call(self, arguments: ToolCall, *, context: ToolContext) -> Observation:
        """Ranks all candidates so far, newest first where there are too many.

        Raises:
            ToolError: nothing to rank, or K out of range.
            LLMError: the endpoint cannot be used.
        """
        attribute = clean_attribute(arguments.attribute or "") or PLAIN_BACKBONE
        k = checked_k(arguments, default_k=self._config.default_k, max_k=self._config.max_k)
        if not context.candidates:
            raise ToolError("there is nothing to rank yet", hint="call Retrieve first")
        call = ToolCall(name="rank", attribute=attribute, k=k)
        head = f"Rank[{attribute}, {k}]"
        repeated = self._repeated(call, context)
        if repeated:
            return self._observation(head, call.mark, repeated, counts={"repeat": 1}, hint=REPEAT_HINT)
        ranking = await self.order(context, attribute=attribute, k=k)
        usage = {"rank": ranking.usage}
        if ranking.error is not None:
            text = f"Error: {NOT_RANKED}: {ranking.error}"
            return Observation(text=text, error=text, mark=call.mark, usage=usage, counts=ranking.counts)
        return self._observation(head, call.mark, ranking.items, counts=ranking.counts, usage=usage)

    async def order(self, context: ToolContext, *, attribute: str, k: int) -> Ranking:
        """Asks the LLM until its list is usable, or re-asks are used up: then what is known of the last list counts.

        Raises:
            LLMError: the endpoint cannot be used from the first call on.
        """
        shown = self._shown_candidates(context, most=self._config.rank_max_candidates)
        memory = Memory(
            self._directory,
            context.history,
            mask_seen=self._config.mask_seen,
            is_checked=self._config.memory_check,
            candidates=context.candidates,
        )
        messages = self._messages(context, shown, attribute=attribute, k=min(k, len(shown)))
        usage, counts, reason = Usage(), Counter[str](), ""
        items: tuple[int, ...] = ()
        for attempt in range(self._config.max_reasks + 1):
            try:
                try:
                    completion = await self._llm.complete(messages)
                except ContextTooLongError:
                    if len(shown) < 2 or counts["context_shortened"]:
                        raise
                    counts["context_shortened"] += 1
                    shown = self._shown_candidates(context, most=len(shown) // 2)
                    messages = self._messages(context, shown, attribute=attribute, k=min(k, len(shown)))
                    completion = await self._llm.complete(messages)
            except LLMError as error:
                if not usage.num_calls:
                    raise
                # What was paid for is told; the surrogate's next call will meet the same endpoint.
                counts["rank_llm_failure"] += 1
                reason = error.message
                break
            usage += completion.usage
            counts.update(completion.counts)
            try:
                checked = memory.check_entries(_entries(completion.text), length=k, among=frozenset(shown))
                counts.update(checked.counts)
                items = tuple(item for item in checked.items if item) or items
                if checked.refused or not any(checked.items):
                    raise ReplyError(checked.reason or "no candidate is on the list", kind="list")
                break
            except ReplyError as error:
                reason = error.message
                if attempt < self._config.max_reasks:
                    counts["rank_reask"] += 1
                    messages = [*messages, *_refusal(completion.text, reason)]
        else:
            counts["rank_gave_up"] += 1
        left_out = tuple(item for item in newest_first(context.candidates) if item not in frozenset(shown))
        return Ranking(items=items, usage=usage, counts=dict(counts), error=None if items else reason, left_out=left_out)

    def _messages(self, context: ToolContext, shown: Sequence[int], *, attribute: str, k: int) -> list[Message]:
        prompt = render(
            "rank_task.jinja",
            history=history_lines(self._directory, context.history, context.ratings, length=self._config.prompt_history_length),
            candidates=item_lines(self._directory, shown),
            attribute=attribute,
            k=k,
            domain=self._directory.pool.domain,
        )
        return [{"role": "system", "content": self._system}, {"role": "user", "content": prompt}]

    def _shown_candidates(self, context: ToolContext, *, most: int) -> list[int]:
        shown = newest_first(context.candidates)[:most]
        if self._config.shuffle_rank_candidates is not None:
            seed = f"{self._config.shuffle_rank_candidates}-{context.user_index}-{context.round}"
            random.Random(seed).shuffle(shown)
        return shown

    def _repeated(self, call: ToolCall, context: ToolContext) -> tuple[int, ...]:
        """The list that the same call brought where nothing was retrieved since, or nothing; call i was made in round i."""
        since = [earlier.name for earlier in context.previous_calls]
        last_retrieval = max((i for i, name in enumerate(since, start=1) if name == "retrieve"), default=0)
        for number, earlier in enumerate(context.previous_calls, start=1):
            if number > last_retrieval and self._is_same(earlier, call):
                items = tuple(c.item_index for c in context.candidates if c.round == number)
                if items:
                    return items
        return ()

    def _is_same(self, earlier: ToolCall, call: ToolCall) -> bool:
        k = self._config.default_k if earlier.k is None else earlier.k
        return earlier.name == "rank" and (earlier.attribute or PLAIN_BACKBONE) == call.attribute and k == call.k

    def _observation(
        self,
        head: str,
        mark: str,
        items: Sequence[int],
        *,
        counts: dict[str, int],
        usage: dict[Purpose, Usage] | dict[str, Usage] | None = None,
        hint: str = "",
    ) -> Observation:
        return Observation(
            text=observation_text(head, item_lines(self._directory, items), hint=hint),
            items=scored_by_position(items),
            mark=mark,
            is_repeat=bool(hint),
            usage={str(purpose): used for purpose, used in (usage or {}).items()},
            counts=counts,
        )


def scored_by_position(items: Sequence[int]) -> tuple[RankedItem, ...]:
    """An LLM's order as a list with scores: `1 / position`, which orders the same and compares across lists."""
    return tuple(RankedItem(item_index=item, score=round(1 / position, 4)) for position, item in enumerate(items, start=1))


def _entries(text: str) -> list[str]:
    entries = list_entries(text)
    if not entries:
        raise ReplyError("the list is empty; give one <id> a line", kind="empty")
    return entries


def _refusal(reply: str, reason: str) -> list[Message]:
    return [
        {"role": "assistant", "content": encodable(reply[:_SHOWN_REPLY]) or "(empty reply)"},
        {"role": "user", "content": f"{NOT_ACCEPTED_LABEL} {reason}. Give the whole list again, one <id> a line."},
    ]
