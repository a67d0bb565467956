"""The paper's loop with one thing taken away each: thoughts, the rank tool, the retrieval tools, all tools but one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from toolrec.columns import PLAIN_BACKBONE
from toolrec.data import Pool
from toolrec.errors import ConfigError, ToolError
from toolrec.llm.base import LLM
from toolrec.records import Observation, Round, ToolCall
from toolrec.surrogate.config import SurrogateConfig
from toolrec.surrogate.drafting import Draft
from toolrec.surrogate.loop import Surrogate
from toolrec.surrogate.prompting import Offer
from toolrec.surrogate.state import UserState
from toolrec.tools.base import Tool, ToolContext


class NoThoughts(Surrogate):
    """Decides round by round without thoughts: they are not asked for, and kept out of the conversation.

    Source: ReAct's comparison of acting with and without reasoning (Yao et al., ICLR 2023, arXiv 2210.03629, section 3.2).
    What a reasoning model thinks on its own is not switched off.
    """

    def _offer(self, whole: Offer) -> Offer:
        return replace(whole, has_thoughts=False, has_examples=False)


class RetrievalOnly(Surrogate):
    """Decides round by round, with the retrieval tools alone.

    Source: the tools' ablation of the ToolRec paper (arXiv 2405.15114, section 4.3).
    """

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        super().__init__(config=config, pool=pool, llm=llm, tools={"retrieve": tools["retrieve"]})


class RankOnly(Surrogate):
    """Decides round by round, with the rank tool alone: the plain recommender's list is given before the first decision.

    The list counts as the first round. Source: as `RetrievalOnly`.
    """

    settings: ClassVar[tuple[str, ...]] = ("candidates",)

    @classmethod
    def check(cls, config: SurrogateConfig, *, pool: Pool, attributes: Sequence[str], model: str) -> None:
        """The list that is given takes one of the rounds.

        Raises:
            ConfigError: no round is left to rank in.
        """
        if config.rounds < 2:
            raise ConfigError(
                "rank-only takes one round for the list it begins with", value=config.rounds, allowed="2 rounds or more"
            )

    def _offer(self, whole: Offer) -> Offer:
        return replace(whole, tool_names=("rank",), attributes=(), has_examples=False, num_given=self._num_given)

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        self._num_given = min(config.candidates, config.max_k)
        super().__init__(config=config, pool=pool, llm=llm, tools=tools)

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        if user.rounds:
            return await super()._decide(user, draft)
        call = ToolCall(name="retrieve", attribute=PLAIN_BACKBONE, k=self._num_given)
        observation = await self._observe(user, draft, call)
        text = self._prompts.with_rounds_left(observation.text, user.rounds_left - 1)
        draft.messages.append({"role": "user", "content": text})
        return draft.done(call, observation)


class OneTool(Surrogate):
    """Decides round by round, with one retrieval tool alone: that of `only_attribute`.

    Source: the paper's comparison of one tool with several (section 4.3).
    """

    settings: ClassVar[tuple[str, ...]] = ("only_attribute",)

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        self._only = config.only_attribute
        super().__init__(config=config, pool=pool, llm=llm, tools={"retrieve": _OneAttribute(tools["retrieve"], self._only)})

    @classmethod
    def check(cls, config: SurrogateConfig, *, pool: Pool, attributes: Sequence[str], model: str) -> None:
        """There must be such a tool.

        Raises:
            ConfigError: there is none.
        """
        known = (PLAIN_BACKBONE, *attributes)
        if config.only_attribute not in known:
            raise ConfigError(
                "one-tool has no such tool", value=config.only_attribute, allowed=known, hint="surrogate.only_attribute names it"
            )

    def _offer(self, whole: Offer) -> Offer:
        is_plain = self._only == PLAIN_BACKBONE
        return replace(whole, attributes=() if is_plain else (self._only,), has_plain=is_plain, has_examples=False)


class _OneAttribute:
    """A retrieval tool that refuses every attribute but one."""

    name = "retrieve"

    def __init__(self, tool: Tool, attribute: str) -> None:
        self._tool = tool
        self.attributes = (attribute,)

    async def call(self, arguments: ToolCall, *, context: ToolContext) -> Observation:
        """The tool's list.

        Raises:
            ToolError: another attribute, or what the tool refuses.
        """
        (only,) = self.attributes
        written = arguments.attribute or PLAIN_BACKBONE
        if written.casefold() != only.casefold():
            raise ToolError("no retrieval tool for this attribute", value=written, allowed=self.attributes)
        return await self._tool.call(replace(arguments, attribute=only), context=context)
