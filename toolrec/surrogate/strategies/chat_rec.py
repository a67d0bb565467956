"""Chat-REC: the user's profile and one recommender's candidates in one prompt, from which the LLM picks the list."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import ClassVar

from toolrec.data import AttributeSpec
from toolrec.records import Message, Round, UserTask
from toolrec.surrogate.drafting import Draft
from toolrec.surrogate.state import UserState
from toolrec.surrogate.strategies.fixed import FixedSteps
from toolrec.tools.lines import item_lines
from toolrec.tools.templates import render

MOST_FREQUENT = 5
"""Values of an attribute, and best rated items, that a profile names."""


class ChatRec(FixedSteps):
    """One prompt with the profile, the latest history and the candidates in the recommender's order.

    Source: Gao et al., Chat-REC: Towards Interactive and Explainable LLMs-Augmented Recommender System (arXiv 2303.14524),
    section 3. There the profile holds age, gender and a history with ratings; data sets here know of no such thing as age,
    so that the profile is a digest of the whole history: its length, ratings, and what is frequent by attribute.
    """

    settings: ClassVar[tuple[str, ...]] = ("candidates",)

    def _opening(self, task: UserTask) -> tuple[Message, ...]:
        system = render("chat_rec_system.jinja", domain=self._directory.pool.domain, list_length=self._config.list_length)
        return ({"role": "system", "content": system},)

    async def _decide(self, user: UserState, draft: Draft) -> Round:
        if not user.calls:
            return await self._fetch_candidates(user, draft)
        candidates = self._fetched(user)
        length = min(self._config.list_length, len(candidates))
        prompt = render(
            "chat_rec_task.jinja",
            profile=self._profile(user.task),
            candidates=item_lines(self._directory, candidates),
            k=length,
            **self._facts_of(user.task),
        )
        return self._finished(draft, await self._ask_for_list(user, draft, prompt, length=length, among=candidates))

    def _profile(self, task: UserTask) -> list[tuple[str, str]]:
        """Facts of the whole history, each with its name."""
        facts = [("history length", str(len(task.history)))]
        if task.ratings:
            known = [(rating, item) for rating, item in zip(task.ratings, task.history, strict=True) if rating == rating]
            if known:
                facts.append(("mean rating", f"{statistics.fmean(rating for rating, _ in known):.1f}"))
                best = sorted(known[::-1], key=lambda pair: -pair[0])[:MOST_FREQUENT]
                facts.append(("rated highest", "; ".join(self._directory.line(item).partition(" | ")[0] for _, item in best)))
        for name, spec in self._directory.pool.attributes.items():
            values = [dict.fromkeys(dict(self._directory.pool.fields(item)).get(name, ())) for item in task.history]
            said = _frequent(spec, [value for of_item in values for value in of_item], num_items=len(task.history))
            if said:
                facts.append((name, said))
        return facts


def _frequent(spec: AttributeSpec, values: list[str], *, num_items: int) -> str:
    """What of an attribute is frequent: shares of the history for categories, the middle half for numbers."""
    if not values or spec.kind == "text":
        return ""
    if spec.kind == "number":
        numbers = sorted(float(value) for value in values)
        low, high = numbers[len(numbers) // 4], numbers[(3 * len(numbers)) // 4]
        return f"median {statistics.median_low(numbers):g}, the middle half {low:g} to {high:g}"
    frequent = Counter(values).most_common(MOST_FREQUENT)
    return "; ".join(f"{value} {count / num_items:.0%}" for value, count in frequent)
