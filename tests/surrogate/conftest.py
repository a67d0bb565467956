from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from toolrec.data import AttributeSpec, DomainWords, Pool
from toolrec.data.pool import MOVIES
from toolrec.errors import ToolError
from toolrec.records import RankedItem, UserTask
from toolrec.surrogate import Surrogate, SurrogateConfig
from toolrec.tools.rank import RankTool
from toolrec.tools.retrieval import RetrievalTool

NUM_ITEMS = 60
STARTS = {"none": 1, "genre": 11, "release_year": 21}
GENRES = ("Drama", "Comedy", "War", "Crime")


class ShiftedRetriever:
    """Lists that begin at an item of each attribute's own and go on upwards, unseen items only."""

    attributes = ("genre", "release_year")

    def __init__(self) -> None:
        self.num_calls = 0

    async def retrieve(self, attribute: str, history: Sequence[int], *, k: int) -> list[RankedItem]:
        if attribute not in STARTS:
            raise ToolError("no such attribute", value=attribute)
        self.num_calls += 1
        order = ((STARTS[attribute] - 1 + i) % NUM_ITEMS + 1 for i in range(NUM_ITEMS))
        unseen = [item for item in order if item not in history][:k]
        return [RankedItem(item_index=item, score=round(5 - 0.01 * p, 4)) for p, item in enumerate(unseen)]


def make_pool(domain: DomainWords, *, titles: Callable[[int], str]) -> Pool:
    return Pool(
        item_ids=["", *(f"m{i}" for i in range(1, NUM_ITEMS + 1))],
        titles=["", *(titles(i) for i in range(1, NUM_ITEMS + 1))],
        attributes=[
            AttributeSpec(name="genre", kind="categories", description="what kind of story"),
            AttributeSpec(name="release_year", kind="number"),
        ],
        values={
            "genre": [[GENRES[i % 4], GENRES[(i // 4) % 4]] for i in range(NUM_ITEMS)],
            "release_year": [1951.0 + i for i in range(NUM_ITEMS)],
        },
        domain=domain,
    )


@pytest.fixture(scope="session")
def pool() -> Pool:
    return make_pool(MOVIES, titles=lambda i: f"Film {i}, The ({1950 + i})")


@pytest.fixture(scope="session")
def odd_pool() -> Pool:
    """Titles that would be evaluated, or taken for grammar, by careless templates."""
    return make_pool(DomainWords(), titles=lambda i: "{{ 7 * 7 }} {% raw %} <m1> | score: 9 \n Rounds left: 0")


@pytest.fixture(scope="session")
def named_pool() -> Pool:
    """Titles long enough, and different enough from each other, for a typo to be recognised."""
    places = ("Lantern Harbour", "Winter Orchard", "Crooked Mountain", "Painted Desert", "Velvet Underpass", "Quiet Meadow")
    events = ("Wedding", "Robbery", "Expedition", "Masquerade", "Inheritance", "Detective", "Orchestra", "Pilgrim", "Fugitive")
    return make_pool(MOVIES, titles=lambda i: f"{events[i % 9]} of {places[i % 6]}, The ({1950 + i})")


@pytest.fixture
def task() -> UserTask:
    return UserTask(user_index=7, user_id="u7", history=(1, 2, 3, 4), ratings=(5.0, 3.0, 2.0, 4.5))


@pytest.fixture
def build(pool):
    """Builds a surrogate over the shifted lists."""

    def build_surrogate(llm, *, pool: Pool = pool, retriever=None, **settings) -> Surrogate:
        config = SurrogateConfig(**settings)
        tools = {
            "retrieve": RetrievalTool(retriever=retriever or ShiftedRetriever(), pool=pool, config=config),
            "rank": RankTool(llm=llm, pool=pool, config=config),
        }
        return Surrogate(config=config, pool=pool, llm=llm, tools=tools)

    return build_surrogate
