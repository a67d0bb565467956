"""What an LLM knows of a data set by heart: titles by their ids, titles by their beginnings, and how histories go on.

Sources:
    Di Palma et al., Do LLMs Memorize Recommendation Datasets? A Preliminary Study on MovieLens-1M (SIGIR 2025, arXiv
    2505.10212), for asking after items and users; Carlini et al., Quantifying Memorization Across Neural Language Models
    (ICLR 2023, arXiv 2202.07646), for completing what has begun. The baselines, which need no LLM, are ours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolrec.data import Dataset
from toolrec.errors import ConfigError
from toolrec.evaluation.statistics import Resampling, difference_intervals, paired_p_values, score_intervals
from toolrec.llm.base import LLM
from toolrec.llm.config import EndpointSettings, LLMConfig
from toolrec.llm.embedded.policy import MODEL_NAME
from toolrec.memory.titles import TitleIndex
from toolrec.recommenders.popularity import count_items
from toolrec.records import Usage
from toolrec.tools.templates import render
from toolrec.util.settings import REQUIRED, Settings, branch, setting

NUM_EXAMPLES = 3
"""Pairs of id and title that show the form of a question after a title."""

PROBES: Mapping[str, str] = {
    "ids": "titles by their ids",
    "titles": "titles by their first half",
    "histories": "the next item of a history",
}
BASELINES: Mapping[str, str] = {
    "ids": "the title of another item, drawn at random",
    "titles": "another title of the pool with this beginning, or what the beginning alone names",
    "histories": "the most popular item that is not in the history",
}


class ProbeConfig(Settings):
    """Settings of a probe."""

    dataset: Path = setting(REQUIRED, "Data set folder, as `toolrec data prepare` writes it.", argument="DIR")
    items: int = setting(100, "Items that are asked after, for ids and for titles.", flag="--items", ge=1)
    users: int = setting(100, "Users whose history is to be continued.", flag="--users", ge=1)
    history_length: int = setting(10, "Items of a history that are shown.", flag="--history-length", ge=1)
    seed: int = setting(0, "Seed of the items and users.", flag="--seed", ge=0)
    concurrency: int = setting(16, "Requests in flight at most.", flag="--concurrency", ge=1)
    llm: EndpointSettings = branch(EndpointSettings, "How the LLM endpoint is called.")

    def llm_config(self) -> LLMConfig:
        """The client's settings.

        Raises:
            ConfigError: no LLM is named, or the embedded rules are.
        """
        if self.llm.base_url is None or self.llm.model is None:
            raise ConfigError(
                "probe-memory asks an LLM, and none is given; the embedded rules have read nothing that they could remember",
                hint="give --llm-url and --llm-model",
            )
        if self.llm.model == MODEL_NAME:
            raise ConfigError("the embedded rules have read nothing that they could remember", value=self.llm.model)
        return self.llm.extended(LLMConfig, base_url=self.llm.base_url, model=self.llm.model, concurrency=self.concurrency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe's result: shares right of the LLM and of the baseline on the same questions, with intervals.

    `difference` is the LLM's share less the baseline's; `p` is of the paired test.
    """

    name: str
    num_questions: int
    share: float
    interval: tuple[float, float]
    baseline: float
    difference: float
    difference_interval: tuple[float, float]
    p: float

    @property
    def is_above(self) -> bool:
        """Whether the LLM knows more than the baseline gives, at 95 %."""
        return self.difference > 0 and self.p <= 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """All probes, and what they took. `skipped` says why a probe was not made, by name."""

    probes: tuple[Probe, ...]
    skipped: Mapping[str, str]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    prompt: str
    answer: int
    baseline: int


async def probe_memory(dataset: Dataset, llm: LLM, config: ProbeConfig) -> ProbeReport:
    """Asks every question of every probe, and scores the answers.

    An answer is right where it names the item by its title, in any of the forms that memory knows; an id is no answer.

    Raises:
        LLMError: the endpoint cannot be used.
    """
    asked = _Questions(dataset, config)
    probes, skipped, usage = [], {}, Usage()
    for name, questions in {"ids": asked.ids(), "titles": asked.titles(), "histories": asked.histories()}.items():
        if not questions:
            skipped[name] = "too few items have a title of their own with two words or more"
            continue
        system = render("probe_system.jinja", domain=dataset.pool.domain)
        replies = await asyncio.gather(
            *(
                llm.complete([{"role": "system", "content": system}, {"role": "user", "content": question.prompt}])
                for question in questions
            )
        )
        for reply in replies:
            usage += reply.usage
        right = [asked.named(reply.text) == question.answer for reply, question in zip(replies, questions, strict=True)]
        by_chance = [question.baseline == question.answer for question in questions]
        probes.append(scored(name, right, by_chance, seed=config.seed))
    return ProbeReport(probes=tuple(probes), skipped=skipped, usage=usage)


def scored(name: str, right: Sequence[bool], by_chance: Sequence[bool], *, seed: int = 0) -> Probe:
    """A probe's figures from which questions the LLM and the baseline answered rightly."""
    resampling = Resampling(seed=seed)
    right_B1, chance_B1 = (np.asarray(values, dtype=np.float64)[:, None] for values in (right, by_chance))
    [low], [high] = score_intervals(right_B1, resampling)
    difference_B1 = right_B1 - chance_B1
    p_1 = paired_p_values(difference_B1, resampling)
    [least], [most] = difference_intervals(difference_B1, p_1, resampling)
    return Probe(
        name=name,
        num_questions=len(right),
        share=float(right_B1.mean()),
        interval=(float(low), float(high)),
        baseline=float(chance_B1.mean()),
        difference=float(difference_B1.mean()),
        difference_interval=(float(least), float(most)),
        p=float(p_1[0]),
    )


class _Questions:
    """Draws the questions, and knows an item by what an answer calls it."""

    def __init__(self, dataset: Dataset, config: ProbeConfig) -> None:
        self._dataset, self._config = dataset, config
        pool = dataset.pool
        self._index = TitleIndex(pool.titles)
        times = Counter(pool.titles)
        telling = [
            item
            for item in range(1, pool.num_items + 1)
            if times[pool.titles[item]] == 1 and pool.titles[item] != pool.item_ids[item] and len(pool.titles[item].split()) > 1
        ]
        self._items = np.random.default_rng(config.seed).permutation(telling).tolist()

    def named(self, text: str) -> int:
        """The item whose title a reply's first line is; 0 for none of the pool."""
        first = next((line for line in text.splitlines() if line.strip()), "")
        return self._index.find(first.strip(" \t*_`\"'“”"))[0] or 0

    def ids(self) -> list[_Question]:
        """`<id>` to title, after some pairs of the same kind; the baseline is another item's title."""
        pool = self._dataset.pool
        examples, items = self._items[:NUM_EXAMPLES], self._items[NUM_EXAMPLES:][: self._config.items]
        others = [*items[1:], *items[:1]]
        if len(items) < 2:
            return []
        shown = [(pool.item_ids[item], pool.titles[item]) for item in examples]
        return [
            self._question("probe_ids.jinja", item, other, examples=shown, item_id=pool.item_ids[item])
            for item, other in zip(items, others, strict=True)
        ]

    def titles(self) -> list[_Question]:
        """The first half of a title's words, to be completed."""
        questions = []
        for item in self._items[: self._config.items]:
            words = self._dataset.pool.titles[item].split()
            begun = " ".join(words[: len(words) // 2])
            questions.append(self._question("probe_titles.jinja", item, self._continued(begun, item), begun=begun))
        return questions

    def histories(self) -> list[_Question]:
        """The last items of users' histories before the held-out one, which is asked after and never told."""
        if not self._items:
            return []
        dataset, length = self._dataset, self._config.history_length
        count_I = count_items(dataset.train_sequences(), num_items=dataset.num_items)
        popular = np.argsort(-count_I[1:], kind="stable") + 1
        questions = []
        for user in dataset.sample_users(self._config.users, self._config.seed).tolist():
            history = dataset.history(user, "test")
            unseen = next((int(item) for item in popular if item not in history), 0)
            titles = [dataset.pool.titles[item] for item in history[-length:]]
            target = int(dataset.target(user, "test"))
            questions.append(self._question("probe_histories.jinja", target, unseen, titles=titles))
        return questions

    def _question(self, template: str, answer: int, baseline: int, **values: Any) -> _Question:
        about = {"data_set": self._dataset.name, "domain": self._dataset.pool.domain}
        return _Question(prompt=render(template, **about, **values), answer=answer, baseline=baseline)

    def _continued(self, begun: str, item: int) -> int:
        """What a guess without an LLM names: another title that begins so, or what the beginning alone stands for."""
        pool = self._dataset.pool
        others = (other for other in range(1, pool.num_items + 1) if other != item and pool.titles[other].startswith(f"{begun} "))
        return next(others, 0) or self._index.find(begun)[0] or 0
