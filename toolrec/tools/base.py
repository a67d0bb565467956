"""What a tool is, and what it is told about the user who calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from toolrec.records import Candidate, Observation, RankedItem, ToolCall

MAX_K = 50
"""The longest list that a tool returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a tool may know of the user: history and ratings oldest first, what memory holds, earlier calls. No target.

    `previous_calls` has one call a round: the first was made in round 1.
    """

    user_index: int
    history: tuple[int, ...]
    ratings: tuple[float, ...] | None
    candidates: tuple[Candidate, ...]
    previous_calls: tuple[ToolCall, ...]
    round: int


@runtime_checkable
class Tool(Protocol):
    """What the surrogate can call: `retrieve`, or `rank`. One object serves all users; what it needs to know is in the context.

    Attributes:
        name: the action that it carries out.
    """

    name: str

    async def call(self, arguments: ToolCall, *, context: ToolContext) -> Observation:
        """Carries the call out.

        Args:
            arguments: the call as the surrogate made it; attribute and k are unchecked.
            context: history, candidates in memory and earlier calls of the user; never the target.

        Raises:
            ToolError: the call cannot be carried out; the text goes to the LLM, which may go on otherwise.
            LLMError: the LLM that the tool asks cannot be used; the user ends with it.
        """
        ...


@runtime_checkable
class Retriever(Protocol):
    """Where retrieval lists come from: recommenders in this process, or deployments on Ray Serve."""

    attributes: tuple[str, ...]
    """Known attribute names without `none`."""

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The k best items by the attribute's recommender (`none`: the backbone); the same call gives the same list."""
        ...
