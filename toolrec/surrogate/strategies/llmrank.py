"""LLMRank: the LLM ranks one recommender's candidates, several times in shuffled order, with an eye on the latest item."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from toolrec.records import Message, Round, UserTask
from toolrec.surrogate.drafting import Draft
from toolrec.surrogate.state import UserState
from toolrec.surrogate.strategies.fixed import FixedSteps
from toolrec.tools.lines import item_lines
from toolrec.tools.templates import render


class LLMRank(FixedSteps):
    """Listwise ranking with recency-focused prompts and bootstrapping.

    Every ranking sees the same candidates in another order, which the seed and the user determine; the mean position over
    all rankings makes the final list, as LLMs prefer what stands first in a prompt.

    Source: Hou et al., Large Language Models are Zero-Shot Rankers for Recommender Systems, ECIR 2024 (arXiv 2305.08845),
    sections 2.1 to 3.3. There candidates may come from several recommenders or at random, 20 by default; here they are
    the plain backbone's.
    """

    settings: ClassVar[tuple[str, ...]] = ("candidates", "bootstraps")

    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        return ({"role": "system", "content": render("llmrank_system.jinja", domain=self._directory.pool.domain)},)

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        if not user.calls:
            return await self._fetch_candidates(user, draft)
        candidates = self._fetched(user)
        num_ranked = len(user.calls) - 1
        if num_ranked < self._config.bootstraps:
            return await self._rank(user, draft, candidates, number=num_ranked + 1)
        return self._finished(draft, self._merged(user, candidates)[: self._config.list_length])

    async def _rank(self, user: UserState, draft: Draft, candidates: Sequence[int], *, number: int) -> Round:
        shown = list(candidates)
        seed = self._config.shuffle_rank_candidates or 0
        random.Random(f"{seed}-{user.task.user_index}-{number}").shuffle(shown)
        prompt = render(
            "llmrank_task.jinja", candidates=item_lines(self._directory, shown), k=len(shown), **self._facts_of(user.task)
        )
        items = await self._ask_for_list(user, draft, prompt, length=len(shown), among=shown)
        return draft.done(*self._ranking(items, k=len(shown)))

    def _merged(self, user: UserState, candidates: Sequence[int]) -> list[int]:
        """Candidates by mean position, an item that a ranking leaves out behind all others there; ties as they were fetched."""
        total = dict.fromkeys(candidates, 0)
        for number in range(2, self._config.bootstraps + 2):
            position = {c.item_index: c.position for c in user.memory.candidates if c.round == number}
            for item in total:
                total[item] += position.get(item, len(candidates) + 1)
        return sorted(candidates, key=total.__getitem__)
