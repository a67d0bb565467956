"""Baselines: the recommenders' own lists for the same users, without a surrogate.

Nothing here knows how a recommender works: only its lists are asked for.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from toolrec.data import Dataset, Split
from toolrec.metrics import DEPTHS, pad_lists
from toolrec.recommenders.base import Recommender
from toolrec.recommenders.fusion.candidates import KEPT_HISTORIES
from toolrec.recommenders.fusion.learned import FUSION
from toolrec.recommenders.fusion.rrf import LIST_LENGTH as FUSED_LENGTH
from toolrec.recommenders.fusion.rrf import Fusion
from toolrec.recommenders.scoring import ScoringRecommender
from toolrec.records import RankedItem
from toolrec.util.progress import track

BACKBONE = "backbone"
POPULARITY = "popularity"
ATTRIBUTE_PREFIX = "attribute:"
"""Prefix of attributes' rows, so that no attribute has the name of another row."""

OWN_PREFIX = "own:"
"""Prefix of a user's own recommenders: they have a row, and are not in the fusion."""

BLOCK_USERS = KEPT_HISTORIES
"""Users in one call; their lists are kept until the fusion has used them. Learned fusions keep the candidates of as many."""


class ManyRecommender(Protocol):
    """A recommender that gives the lists of many users in one call."""

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item."""

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        """The k best items for each history, best first."""


class OneByOne:
    """Makes a recommender without `recommend_many` answer for one user after the other."""

    def __init__(self, inner: Recommender) -> None:
        self._inner = inner

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """Scores every item."""
        return self._inner.score(history_BL)

    def recommend_many(self, histories: Sequence[Sequence[int]], *, k: int, mask_seen: bool = True) -> list[list[RankedItem]]:
        """The k best items for each history, best first."""
        return [self._inner.recommend(history, k=k, mask_seen=mask_seen) for history in histories]


class _Remembered(ScoringRecommender):
    """A recommender whose lists of a block of users are made once, for its own row and for the fusion."""

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
    """The name of a recommender's row in summary.json."""
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


class Recommend(Protocol):
    """Gives the lists of many recommenders: `recommend_for`, or what remembers them."""

    def __call__(
        self,
        recommenders: Mapping[str, ManyRecommender],
        dataset: Dataset,
        user_indexes: Sequence[int],
        *,
        split: Split,
        mask_seen: bool = True,
        fusions: Mapping[str, ManyRecommender] | None = None,
    ) -> dict[str, np.ndarray]:
        """As `recommend_for`."""


KEPT_EVALUATIONS = 8
"""Evaluations whose lists are kept; a list of 10 takes 80 bytes a user and row."""


class RememberedLists:
    """Lists of earlier evaluations in this process: cells of a grid that ask for the same ones pay once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, np.ndarray]] = OrderedDict()

    def by(self, source: str) -> Recommend:
        """`recommend_for`, remembered.

        What was asked is known by its content: rows, users, their histories as they are, masking. Settings that spoil or
        shorten histories need not be told.

        Args:
            source: stands for the recommenders' weights and the user's own recommenders.
        """

        def recommend(
            recommenders: Mapping[str, ManyRecommender],
            dataset: Dataset,
            user_indexes: Sequence[int],
            *,
            split: Split,
            mask_seen: bool = True,
            fusions: Mapping[str, ManyRecommender] | None = None,
        ) -> dict[str, np.ndarray]:
            digest = hashlib.sha256(repr((source, dataset.checksum, split, mask_seen)).encode())
            digest.update(repr((list(recommenders), list(fusions or ()), list(map(int, user_indexes)))).encode())
            for user_index in user_indexes:
                history = np.asarray(dataset.history(int(user_index), split), dtype=np.int64)
                digest.update(len(history).to_bytes(8, "little") + history.tobytes())
            key = digest.hexdigest()
            if key not in self._kept:
                self._kept[key] = recommend_for(
                    recommenders, dataset, user_indexes, split=split, mask_seen=mask_seen, fusions=fusions
                )
            self._kept.move_to_end(key)
            if len(self._kept) > KEPT_EVALUATIONS:
                self._kept.popitem(last=False)
            return {name: list_BK.copy() for name, list_BK in self._kept[key].items()}

        return recommend
