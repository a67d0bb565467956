from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from toolrec.data import AttributeSpec, Pool
from toolrec.data.pool import MOVIES
from toolrec.recommenders.base import top_k
from toolrec.records import RankedItem
from toolrec.tools.local import LocalRetriever

NUM_ITEMS = 60


class Shifted:
    """A recommender whose list begins at an item of its own: score of item i is -((i - start) mod n)."""

    def __init__(self, name: str, start: int) -> None:
        self.name = name
        self._start = start

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        score_I = -((np.arange(NUM_ITEMS + 1) - self._start) % NUM_ITEMS).astype(float)
        score_I[0] = -np.inf
        return np.tile(score_I, (len(history_BL), 1))

    def recommend(self, history: Sequence[int], *, k: int, mask_seen: bool = True) -> list[RankedItem]:
        return top_k(self.score(np.zeros((1, 1))), k=k, seen=[history] if mask_seen else None)[0]


@pytest.fixture(scope="session")
def pool() -> Pool:
    return Pool(
        item_ids=["", *(f"m{i}" for i in range(1, NUM_ITEMS + 1))],
        titles=["", *(f"Film {i}, The ({1950 + i})" for i in range(1, NUM_ITEMS + 1))],
        attributes=[AttributeSpec(name="genre", kind="categories"), AttributeSpec(name="release_year", kind="number")],
        values={
            "genre": [["Drama", "War"] if i % 2 else ["Comedy"] for i in range(NUM_ITEMS)],
            "release_year": [1951.0 + i for i in range(NUM_ITEMS)],
        },
        domain=MOVIES,
    )


@pytest.fixture
def retriever() -> LocalRetriever:
    return LocalRetriever(
        {"backbone": Shifted("backbone", 1), "genre": Shifted("genre", 11), "release_year": Shifted("release_year", 21)}
    )


@pytest.fixture
def unmasked() -> LocalRetriever:
    return LocalRetriever({"backbone": Shifted("backbone", 1)}, mask_seen=False)
