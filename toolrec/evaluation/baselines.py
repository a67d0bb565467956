"""What the recommenders alone would have given the same users: the rows beside the surrogate's.

Nothing here knows how a recommender works: only its lists are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from toolrec.data import Dataset, Split
from toolrec.evaluation.metrics import DEPTHS, pad_lists
from toolrec.progress import track
from toolrec.recommenders.base import Recommender
from toolrec.recommenders.fusion import LIST_LENGTH as FUSED_LENGTH
from toolrec.recommenders.fusion import Fusion
from toolrec.recommenders.learned_fusion import FUSION
from toolrec.recommenders.scoring import ScoringRecommender
from toolrec.records import RankedItem

BACKBONE = "backbone"
POPULARITY = "popularity"
ATTRIBUTE_PREFIX = "attribute:"
"""Put before an attribute's name, so that no attribute can take another row's name."""

OWN_PREFIX = "own:"
"""Put before the names of recommenders that the user brings: they have a row, and no part in the fusion."""

BLOCK_USERS = 256
"""Users whose lists are asked for in one call, and remembered until the fusion has used them."""


class ManyRecommender(Protocol):
    """A recommender that answers for many users at once."""

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item."""

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        """The k best items for each history, best first."""


class OneByOne:
    """A recommender that knows no blocks, asked for one user after the other."""

    def __init__(self, inner: Recommender) -> None:
        self._inner = inner

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item."""
        return self._inner.score(history_BL)

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        """The k best items for each history, best first."""
        return [self._inner.recommend(history, k=k, mask_seen=mask_seen) for history in histories]


class _Remembered(ScoringRecommender):
    """A recommender whose lists for the users at hand are made once, for its own row and for the fusion."""

    def __init__(self, name: str, inner: ManyRecommender, *, num_items: int) -> None:
        super().__init__(name, num_items=num_items)
        self._inner = inner
        self._lists: dict[tuple[int, ...], list[RankedItem]] = {}

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        return self._inner.score(history_BL)

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        keys = [tuple(int(item) for item in history) for history in histories]
        missing = [key for key in dict.fromkeys(keys) if key not in self._lists]
        if missing:
            found = self._inner.recommend_many(missing, k=max(k, FUSED_LENGTH), mask_seen=mask_seen)
            self._lists.update(zip(missing, found, strict=True))
        return [self._lists[key][:k] for key in keys]

    def forget(self) -> None:
        self._lists.clear()


def row_name(name: str) -> str:
    """The row of a loaded recommender in summary.json."""
    is_row = name in (BACKBONE, POPULARITY, FUSION) or name.startswith(OWN_PREFIX)
    return name if is_row else f"{ATTRIBUTE_PREFIX}{name}"


def recommend_for(
    recommenders: Mapping[str, ManyRecommender],
    dataset: Dataset,
    user_indexes: Sequence[int],
    *,
    split: Split,
    mask_seen: bool = True,
    length: int = max(DEPTHS),
    fusions: Mapping[str, ManyRecommender] | None = None,
) -> dict[str, np.ndarray]:
    """Each recommender's own lists for the given users, and those of the fusion of all but popularity and the user's own.

    Args:
        recommenders: by name: `backbone`, attributes, `popularity`.
        dataset: where the histories come from.
        user_indexes: whose lists, in this order.
        split: `valid` or `test`; decides where the histories end.
        mask_seen: items of the history are left out, as they were in the simulation.
        length: items in each list.
        fusions: learned ones by name, each a row of its own.

    Returns:
        Row name -> `list_BK`, 0 where the pool had no more.
    """
    members = {name: _Remembered(name, inner, num_items=dataset.num_items) for name, inner in recommenders.items()}
    fused = [member for name, member in members.items() if name != POPULARITY and not name.startswith(OWN_PREFIX)]
    asked: dict[str, ScoringRecommender] = {**members, **({FUSION: Fusion(fused)} if fused else {})}
    rows: dict[str, ManyRecommender] = {row_name(name): recommender for name, recommender in asked.items()} | dict(fusions or {})
    lists = {name: np.zeros((len(user_indexes), length), dtype=np.int64) for name in rows}
    with track("baselines", total=len(user_indexes), unit="users") as progress:
        for start in range(0, len(user_indexes), BLOCK_USERS):
            block = [dataset.history(int(user), split).tolist() for user in user_indexes[start : start + BLOCK_USERS]]
            for name, recommender in rows.items():
                ranked = recommender.recommend_many(block, k=length, mask_seen=mask_seen)
                list_BK = pad_lists([[item.item_index for item in items] for items in ranked], length=length)
                lists[name][start : start + len(block)] = list_BK
            for member in members.values():
                member.forget()
            progress.advance(len(block))
    return lists
