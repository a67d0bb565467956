"""Own parts in a file of one's own: a recommender that is scored beside the run, a rank tool, a strategy.

    toolrec evaluate data/demo --baseline examples.own_parts:last_year_first \
        --rank-tool examples.own_parts:AlphabeticalRank --strategy examples.own_parts:OneLook
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from toolrec.data import Dataset, Pool
from toolrec.llm import LLM
from toolrec.recommenders import ScoringRecommender
from toolrec.records import Observation, RankedItem, Round, ToolCall, Trace, UserTask
from toolrec.surrogate import OnRound, Surrogate, SurrogateConfig
from toolrec.tools.base import Tool, ToolContext
from toolrec.tools.settings import ToolSettings


class NewestFirst(ScoringRecommender):
    """Scores an item by its release year, whatever the history."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__("newest_first", num_items=dataset.num_items)
        self._score_I = np.nan_to_num(dataset.pool.numbers("release_year"), nan=0.0)

    def score(self, history_BL: np.ndarray) -> np.ndarray:
        """The same scores for every row."""
        score_BI = np.tile(self._score_I, (len(history_BL), 1))
        score_BI[:, 0] = -np.inf
        return score_BI


def last_year_first(dataset: Dataset) -> NewestFirst:
    """What `--baseline` names: called with the data set, gives a recommender."""
    return NewestFirst(dataset)


class AlphabeticalRank:
    """A rank tool that asks no LLM: orders the candidates by title."""

    name = "rank"

    def __init__(self, *, llm: LLM, pool: Pool, config: ToolSettings) -> None:
        self._pool = pool

    async def call(self, arguments: ToolCall, *, context: ToolContext) -> Observation:
        """The first K candidates by title."""
        items = sorted({candidate.item_index for candidate in context.candidates}, key=self._pool.titles.__getitem__)
        kept = tuple(RankedItem(item_index=item, score=0.0) for item in items[: arguments.k or 10])
        lines = [f"{n}. <{self._pool.item_ids[i.item_index]}> {self._pool.titles[i.item_index]}" for n, i in enumerate(kept, 1)]
        text = "\n".join([f"Rank[title, {len(kept)}] returned {len(kept)} items:", *lines])
        return Observation(text=text, items=kept, mark=arguments.mark)


class OneLook:
    """A strategy: the usual surrogate, with a single decision before it must finish."""

    def __init__(self, *, config: SurrogateConfig, pool: Pool, llm: LLM, tools: Mapping[str, Tool]) -> None:
        self._inner = Surrogate(config=config.replaced(rounds=1), pool=pool, llm=llm, tools=tools)

    async def run(self, task: UserTask, *, previous_rounds: Sequence[Round] = (), on_round: OnRound | None = None) -> Trace:
        """One user, to the end."""
        return await self._inner.run(task, previous_rounds=previous_rounds, on_round=on_round)
