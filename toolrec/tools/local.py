"""Retrieval lists from recommenders in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ConfigError, ToolError
from toolrec.recommenders.base import Recommender
from toolrec.recommenders.scoring import ScoringRecommender
from toolrec.records import RankedItem
from toolrec.util.coalesce import Coalescer

BACKBONE = "backbone"
"""The key of the plain backbone among loaded recommenders."""

POPULARITY = "popularity"
"""That of the recommender that no tool answers from."""

AnyRecommender = TypeVar("AnyRecommender", bound=Recommender)

MAX_TOGETHER = 64
"""Histories that are scored together at most."""


class LocalRetriever:
    """Answers from recommenders, in a thread; what comes in while one block is scored makes the next.

    Args:
        recommenders: `backbone`, and one per attribute by its name.
        mask_seen: whether items of the history are left out.
    """

    def __init__(self, recommenders: Mapping[str, Recommender], *, mask_seen: bool = True) -> None:
        if BACKBONE not in recommenders:
            raise ConfigError("no backbone among the recommenders", value=list(recommenders))
        self._lists = {
            PLAIN_BACKBONE if name == BACKBONE else name: Coalescer(_asker(r, mask_seen=mask_seen), max_batch=MAX_TOGETHER)
            for name, r in recommenders.items()
        }
        self.attributes = tuple(name for name in self._lists if name != PLAIN_BACKBONE)

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The k best items by the attribute's recommender; `none` is the plain backbone.

        Raises:
            ToolError: no recommender of this attribute.
        """
        ask = self._lists.get(attribute)
        if ask is None:
            raise ToolError("no retrieval tool for this attribute", value=attribute, allowed=tuple(self._lists))
        return await ask((history, k))


def tool_members(recommenders: Mapping[str, AnyRecommender], attributes: Collection[str] | None) -> dict[str, AnyRecommender]:
    """Those of a folder's recommenders that tools answer from: the backbone, and the chosen attributes (None for all)."""
    return {
        name: member
        for name, member in recommenders.items()
        if name != POPULARITY and (attributes is None or name == BACKBONE or name in attributes)
    }


def lists_together(
    recommender: Recommender, histories: Sequence[Sequence[int]], ks: Sequence[int], *, mask_seen: bool
) -> list[list[RankedItem]]:
    """The lists of several histories, each to its own K; scored in one block by recommenders that can."""
    if not isinstance(recommender, ScoringRecommender):
        return [recommender.recommend(h, k=k, mask_seen=mask_seen) for h, k in zip(histories, ks, strict=True)]
    lists = recommender.recommend_many(histories, k=max(ks), mask_seen=mask_seen)
    return [items[:k] for items, k in zip(lists, ks, strict=True)]


_Request = tuple[Sequence[int], int]


def _asker(recommender: Recommender, *, mask_seen: bool) -> Callable[[Sequence[_Request]], Awaitable[list[list[RankedItem]]]]:
    async def ask(requests: Sequence[_Request]) -> list[list[RankedItem]]:
        histories, ks = zip(*requests, strict=True)
        return await asyncio.to_thread(lists_together, recommender, histories, ks, mask_seen=mask_seen)

    return ask
