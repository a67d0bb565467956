"""Faults in the lists that an LLM writes, put in between the endpoint and the surrogate, whichever model answers.

The draw depends on the seed and the messages alone: the same conversation meets the same faults, at any concurrency and
after any resume. Stores of replies stand below: they keep what the endpoint said.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from toolrec.data import Pool
from toolrec.llm.base import LLM
from toolrec.memory import PoolDirectory
from toolrec.records import Completion, Message
from toolrec.stress.config import StressSettings
from toolrec.util.misspell import misspelt

INJECTED = "injected"
"""Counts entries that were replaced."""

INJECTED_WRONG = "injected_wrong"
"""Counts those that memory, by its own rules, takes for another item than the one meant; of an invented item, for any."""

SLIPS = 2
"""An invented title differs by more letters from every title of the pool: it is nobody's slip of the pen."""

_ID = re.compile(r"<([^<>|\n]{1,512})>")
_FINISH = re.compile(r"Finish\s*\[.*", re.DOTALL)
_YEAR_AT_END = re.compile(r"\s*\((?:1[89]|20)\d\d\)\s*$")
_ARTICLE_IN_FRONT = re.compile(r"^(The|A|An)\s+(?=\S)")
_ARTICLE_AT_END = re.compile(r"^(.+), (The|A|An)$")


class SpoilingLLM:
    """An LLM with faults in its lists: the items of a finish, and the lines of a ranking.

    Args:
        llm: who answers.
        pool: the item pool directory. Only entries that name its items by id are replaced.
        stress: which faults, how many, the seed.
        is_checked: whether memory reads more than exact ids, see `ToolSettings.memory_check`.
    """

    def __init__(self, llm: LLM, pool: Pool, stress: StressSettings, *, is_checked: bool) -> None:
        self._llm = llm
        self._directory = PoolDirectory.of(pool)
        self._stress = stress
        self._is_checked = is_checked
        self._names = [_bare(title) for title in pool.titles[1:]] if stress.reply_fault == "invented" else []
        self._replacement: Callable[[int, random.Random], str] = getattr(self, f"_{stress.reply_fault}")

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        stop: Sequence[str] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> Completion:
        """The reply, with faults."""
        form = {} if response_format is None else {"response_format": response_format}
        reply = await self._llm.complete(messages, tools=tools, stop=stop, **form)
        text = json.dumps([self._stress.seed, list(messages)], sort_keys=True)
        draw = random.Random(hashlib.blake2b(text.encode(), digest_size=8).digest())
        counts: Counter[str] = Counter()
        calls = tuple(
            replace(call, arguments=self._arguments(call.arguments, draw, counts))
            if call.name.strip().casefold() == "finish"
            else call
            for call in reply.tool_calls
        )
        is_ranking = not tools and not stop and response_format is None
        said = self._text(reply.text, draw, counts, is_list=is_ranking)
        return replace(reply, text=said, tool_calls=calls, counts={**reply.counts, **counts})

    def _arguments(self, arguments: str, draw: random.Random, counts: Counter[str]) -> str:
        """A call's arguments with faults in their `items`; what is no JSON object stays as it is."""
        try:
            given = json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
        if not isinstance(given, dict) or not isinstance(given.get("items"), list):
            return arguments
        items = [self._entry(entry, draw, counts) if isinstance(entry, str) else entry for entry in given["items"]]
        return json.dumps({**given, "items": items}, ensure_ascii=False)

    def _text(self, text: str, draw: random.Random, counts: Counter[str], *, is_list: bool) -> str:
        """A text with faults where it holds a list: all of a ranking, what follows `Finish[`, or a JSON object's `items`."""
        if text.lstrip().startswith("{"):
            return self._arguments(text, draw, counts)
        found = None if is_list else _FINISH.search(text)
        if not is_list and found is None:
            return text
        start = 0 if found is None else found.start()
        return text[:start] + _ID.sub(lambda match: self._bracketed(match, draw, counts), text[start:])

    def _bracketed(self, match: re.Match[str], draw: random.Random, counts: Counter[str]) -> str:
        entry = self._entry(match[1], draw, counts)
        if entry == match[1]:
            return match[0]
        return entry if entry.startswith("<") else f"<{entry}>"

    def _entry(self, entry: str, draw: random.Random, counts: Counter[str]) -> str:
        """The entry, or what stands in its place."""
        item = self._directory.pool.index_of(entry.strip().strip("<>"))
        if draw.random() >= self._stress.reply_fault_share or not item:
            return entry
        written = self._replacement(item, draw)
        if written == entry:
            return entry
        counts[INJECTED] += 1
        found = self._directory.find(written, is_exact=not self._is_checked).item_index
        if found and (found != item or self._stress.reply_fault == "invented"):
            counts[INJECTED_WRONG] += 1
        return written

    def _typo(self, item: int, draw: random.Random) -> str:
        """The title with two neighbouring letters swapped."""
        return misspelt(self._name_of(item), draw)

    def _synonym(self, item: int, draw: random.Random) -> str:
        """The title in another usual form."""
        return other_form(self._name_of(item))

    def _swap(self, item: int, draw: random.Random) -> str:
        """The item's id with another item's title."""
        pool = self._directory.pool
        others = [other for other in (draw.randint(1, pool.num_items) for _ in range(20)) if pool.titles[other]]
        other = next((other for other in others if pool.titles[other] != pool.titles[item]), None)
        return pool.item_ids[item] if other is None else f"<{pool.item_ids[item]}> {self._name_of(other)}"

    def _invented(self, item: int, draw: random.Random) -> str:
        """An id that does not exist, or the halves of two titles put together to one that is like no title of the pool."""
        pool = self._directory.pool
        made_up = f"invented-{draw.getrandbits(32):08x}"
        if draw.random() < 0.5:
            return made_up
        first, second = (self._name_of(draw.randint(1, pool.num_items)).split() for _ in range(2))
        title = " ".join([*first[: -(-len(first) // 2)], *second[len(second) // 2 :]])
        near = process.extractOne(_bare(title), self._names, scorer=OSA.distance, score_cutoff=SLIPS)
        return made_up if near is not None else title

    def _name_of(self, item: int) -> str:
        """The title without what cannot stand between brackets; the id where there is none."""
        return re.sub(r"[<>|\n,;]+", " ", self._directory.pool.titles[item]).strip() or self._directory.pool.item_ids[item]


def _bare(title: str) -> str:
    return _ARTICLE_IN_FRONT.sub("", _YEAR_AT_END.sub("", title)).casefold()


def other_form(title: str) -> str:
    """The title as people and other catalogues write it: without its year, its article elsewhere, `&` for `and`."""
    name = _YEAR_AT_END.sub("", title) or title
    at_end, in_front = _ARTICLE_AT_END.match(name), _ARTICLE_IN_FRONT.match(name)
    if at_end:
        name = f"{at_end[2]} {at_end[1]}"
    elif in_front:
        name = name[in_front.end() :]
    name = name.replace(" and ", " & ")
    return name if name != title else title.upper()


def with_faults(llm: LLM, pool: Pool, stress: StressSettings, *, is_checked: bool) -> LLM:
    """The LLM itself where nothing is to be spoilt."""
    return SpoilingLLM(llm, pool, stress, is_checked=is_checked) if stress.has_reply_faults else llm
