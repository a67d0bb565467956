"""The replicas: one recommender each, loaded once, and the rank tool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ray import serve

from toolrec.errors import LLMUnavailableError
from toolrec.grammar import clean
from toolrec.tools.local import lists_together
from toolrec.tools.rank import scored_by_position
from toolrec.tools.remote import ToolList
from toolrec.util import heap
from toolrec.util.urls import place_of

if TYPE_CHECKING:
    from toolrec.tools.base import ToolContext

RankedLists = tuple[list[int], list[float], list[int]]
"""A ranking as it travels: item indexes, best first, their scores, and the candidates that were left out."""


class RetrievalReplica:
    """The backbone, or one attribute's encoder on it.

    Args:
        dataset: the data set's folder.
        recommenders: the recommenders' folder.
        member: `backbone` or an attribute.
        device: torch device.
        num_threads: torch threads.
        max_batch_size: requests scored together at most.
        batch_wait_timeout_s: seconds a request waits for company.
        description: what the application says of itself (checksums, tools).
    """

    def __init__(
        self,
        dataset: str,
        recommenders: str,
        member: str,
        *,
        device: str,
        num_threads: int,
        max_batch_size: int,
        batch_wait_timeout_s: float,
        description: dict[str, Any],
    ) -> None:
        import torch

        from toolrec.data import load_dataset
        from toolrec.recommenders import load_recommenders

        torch.set_num_threads(num_threads)
        loaded = load_recommenders(place_of(recommenders), load_dataset(dataset), names=[member], device=device)
        self._recommender = loaded[member]
        self._description = description
        self._score_together.set_max_batch_size(max_batch_size)  # type: ignore[attr-defined]
        self._score_together.set_batch_wait_timeout_s(batch_wait_timeout_s)  # type: ignore[attr-defined]
        heap.settle()

    async def retrieve(self, history: list[int], k: int, mask_seen: bool = True) -> ToolList:
        """The k best items for a history of item indexes, oldest first; seen items are left out when `mask_seen`."""
        result: ToolList = await self._score_together(history, k, mask_seen)
        return result

    async def retrieve_many(self, histories: Sequence[list[int]], ks: Sequence[int], mask_seen: bool = True) -> list[ToolList]:
        """The lists of several histories, which a simulation asks for in one message."""
        return await asyncio.to_thread(self._score, histories, ks, [mask_seen] * len(ks))

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.0)
    async def _score_together(self, histories: list[list[int]], ks: list[int], masks: list[bool]) -> list[ToolList]:
        # A thread, so that the requests of the next batch are taken in while torch works (it lets go of the GIL).
        return await asyncio.to_thread(self._score, histories, ks, masks)

    def _score(self, histories: Sequence[list[int]], ks: Sequence[int], masks: Sequence[bool]) -> list[ToolList]:
        lists: list[ToolList] = [([], [])] * len(histories)
        for mask_seen in set(masks):
            rows = [row for row, mask in enumerate(masks) if mask == mask_seen]
            asked = [histories[row] for row in rows], [ks[row] for row in rows]
            for row, items in zip(rows, lists_together(self._recommender, *asked, mask_seen=mask_seen), strict=True):
                lists[row] = ([item.item_index for item in items], [item.score for item in items])
        return lists

    async def describe(self) -> dict[str, Any]:
        """Checksums of what is served and the deployment of each tool."""
        return self._description


class RankReplica:
    """The rank tool for HTTP users; simulations rank in their own actors, so that their spend stays in one ledger.

    Args:
        dataset: the data set's folder.
        llm_url: the endpoint; None starts the embedded rules in this process.
        llm_model: the model at that endpoint.
        llm_key_env: the environment variable that holds the key.
    """

    def __init__(self, dataset: str, *, llm_url: str | None, llm_model: str | None, llm_key_env: str) -> None:
        from toolrec.data import load_dataset
        from toolrec.llm import LLMConfig, OpenAIChat
        from toolrec.llm.embedded import EmbeddedOptions, run_in_thread
        from toolrec.llm.embedded.policy import MODEL_NAME
        from toolrec.tools.rank import RankTool

        self._embedded = None
        if llm_url is None:
            self._embedded = run_in_thread(EmbeddedOptions())
            llm_url, llm_model, llm_key_env = self._embedded.base_url, MODEL_NAME, ""
        config = LLMConfig(base_url=llm_url, model=llm_model or "", api_key_env=llm_key_env)
        self._tool = RankTool(llm=OpenAIChat(config), pool=load_dataset(dataset).pool)

    async def rank(self, attribute: str, k: int, context: ToolContext) -> RankedLists:
        """Orders the context's candidates by an attribute; what the prompt has no room for is left out and named.

        Raises:
            LLMError: the endpoint cannot be used, or no usable list came back.
        """
        ranking = await self._tool.order(context, attribute=attribute, k=k)
        if ranking.error is not None:
            raise LLMUnavailableError(f"the LLM gave no usable list: {clean(ranking.error)}")
        ranked = scored_by_position(ranking.items)
        return [item.item_index for item in ranked], [item.score for item in ranked], list(ranking.left_out)
