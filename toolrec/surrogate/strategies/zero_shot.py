"""Zero-shot: a plain LLM without tools or candidates names items by title; what it invents is counted."""

from __future__ import annotations

from collections.abc import Sequence

from toolrec.data import Pool
from toolrec.errors import ConfigError, ReplyError
from toolrec.grammar import list_entries
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.records import Message, Round, ToolCall, UserTask
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft
from toolrec.surrogate.state import UserState
from toolrec.surrogate.strategies.fixed import FixedSteps
from toolrec.tools.templates import render

INVENTED = "invented_titles"
"""Counts titles that no item of the pool has."""

MIN_TITLED = 0.5
"""Share of the pool's items that must have a title of their own."""

TITLES_AGAIN = "Give a numbered list of titles, one a line, and nothing else."


class ZeroShot(FixedSteps):
    """One question: which items come next, from the LLM's own knowledge.

    Titles are matched with the pool as memory does everywhere (forms, near titles, years). A title that no item has leaves
    its slot empty and is not asked for again: that the LLM names what the pool does not have is what this strategy shows.

    Source: Liu et al., Is ChatGPT a Good Recommender? A Preliminary Study (arXiv 2304.10149), sequential recommendation,
    zero-shot; He et al., Large Language Models as Zero-Shot Conversational Recommenders (CIKM 2023, arXiv 2308.10053), for
    the matching of generated titles.
    """

    @classmethod
    def check(cls, config: SurrogateConfig, *, pool: Pool, attributes: Sequence[str], model: str) -> None:
        """There must be an LLM that knows titles, and titles to know.

        Raises:
            ConfigError: one of them is missing.
        """
        super().check(config, pool=pool, attributes=attributes, model=model)
        if model == MODEL_NAME:
            raise ConfigError(
                "the embedded rules know no titles, so that they cannot answer zero-shot",
                hint="give an LLM with --llm-url and --llm-model",
            )
        if not config.memory_check:
            raise ConfigError("zero-shot names items by title, which only memory reads", value="surrogate.memory_check=false")
        if config.obscure in ("titles", "both"):
            raise ConfigError("zero-shot names items by title, which --obscure takes away", value=config.obscure, allowed="ids")
        pairs = zip(pool.titles[1:], pool.item_ids[1:], strict=True)
        num_titled = sum(bool(title.strip()) and title != item_id for title, item_id in pairs)
        if num_titled < MIN_TITLED * pool.num_items:
            raise ConfigError("zero-shot names items by title, and most items of this data set have none", value=num_titled)

    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        facts = {**self._facts_of(task), "list_length": self._config.list_length}
        system, content = render("zero_shot_system.jinja", **facts), render("zero_shot_task.jinja", **facts)
        return {"role": "system", "content": system}, {"role": "user", "content": content}

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        entries = await self._ask(user, draft, "", _titles, again=TITLES_AGAIN)
        checked = user.memory.check_entries(entries, length=self._config.list_length)
        draft.counts.update(checked.counts)
        kinds = [self._directory.find(entry).kind for entry in entries[: self._config.list_length]]
        draft.counts.update({INVENTED: invented} if (invented := kinds.count("unknown")) else {})
        return draft.done(ToolCall(name="finish", items=entries), None)

    def _line(self, item_index: int) -> str:
        """Without the id, which tells the LLM nothing."""
        return self._directory.line(item_index).partition("> ")[2]


def _titles(text: str) -> tuple[str, ...]:
    entries = tuple(list_entries(text))
    if not entries:
        raise ReplyError("there is no list in the reply", kind="empty")
    return entries
