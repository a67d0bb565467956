"""Retrieval lists from recommenders in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolrec.columns import PLAIN_BACKBONE
from toolrec.errors import ConfigError, ToolError
from toolrec.recommenders.base import Recommender
from toolrec.records import RankedItem

BACKBONE = "backbone"
"""The key of the plain backbone among loaded recommenders."""


class LocalRetriever:
    """Answers from recommenders; scoring one history takes milliseconds, and other coroutines wait for it.

    Args:
        recommenders: `backbone`, and one per attribute by its name.
        mask_seen: whether items of the history are left out.
    """

    def __init__(self, recommenders: Mapping[str, Recommender], *, mask_seen: bool = True) -> None:
        if BACKBONE not in recommenders:
            raise ConfigError("no backbone among the recommenders", value=list(recommenders))
        self._recommenders = {PLAIN_BACKBONE if name == BACKBONE else name: r for name, r in recommenders.items()}
        self._mask_seen = mask_seen
        self.attributes = tuple(name for name in self._recommenders if name != PLAIN_BACKBONE)

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        """The k best items by the attribute's recommender; `none` is the plain backbone.

        Raises:
            ToolError: no recommender of this attribute.
        """
        recommender = self._recommenders.get(attribute)
        if recommender is None:
            raise ToolError("no retrieval tool for this attribute", value=attribute, allowed=tuple(self._recommenders))
        return recommender.recommend(history, k=k, mask_seen=self._mask_seen)
