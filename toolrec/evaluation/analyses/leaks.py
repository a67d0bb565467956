"""Whether a prompt held the target before a tool had brought it: checked on the stored messages of every run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from toolrec.data import Pool
from toolrec.grammar import clean, parse_item_line

LEAK_COLUMNS = ("user_index", "attempt", "round", "items", "messages")
"""The columns of the rounds that are read."""

MIN_TITLE_CHARACTERS = 8
"""Shorter titles can stand in a sentence by chance; they are looked for by id only."""

SHOWN_USERS = 10


def count_leaks(
    rounds: Iterable[pd.DataFrame],
    attempts: Mapping[int, int],
    targets: Mapping[int, Sequence[int]],
    *,
    repeats: set[int],
    pool: Pool,
) -> dict[str, Any]:
    """Counts messages to the LLM that name a target which neither a tool had brought nor the LLM had named itself.

    Stored messages are those of the surrogate's conversation. The rank tool's own prompts are not stored; they are made
    of the history and the marked candidates.

    Args:
        rounds: blocks of rounds with `LEAK_COLUMNS`; all rounds of a user are in one block.
        attempts: user_index -> the committed attempt; other rounds are left out.
        targets: user_index -> targets.
        repeats: users whose target is in the history, where it stands rightly; they are not checked.
        pool: gives ids and titles.

    Returns:
        `num_messages` checked, `num_leaks`, `num_users` with a leak, and the first few of them by user_index.
    """
    times = Counter(pool.titles)
    num_messages, leaks = 0, Counter[int]()
    for block in rounds:
        ordered = block.sort_values(["user_index", "round"], kind="stable")
        for user in ordered["user_index"].unique().tolist():
            own = ordered[ordered["user_index"] == user]
            if user not in targets or user in repeats:
                continue
            of_attempt = own[own["attempt"] == attempts[user]]
            messages = 0
            for target in targets[user]:
                name = _Name(pool, target, is_title_known=times[pool.titles[target]] == 1)
                messages, found = _leaks_of(of_attempt, target, name)
                if found:
                    leaks[user] += found
            num_messages += messages
    return {
        "num_messages": num_messages,
        "num_leaks": leaks.total(),
        "num_users": len(leaks),
        "users": sorted(leaks)[:SHOWN_USERS],
    }


class _Name:
    """Recognises an item in a text: its id in angle brackets, or its title outside of other items' lines."""

    def __init__(self, pool: Pool, item_index: int, *, is_title_known: bool) -> None:
        item_id = pool.item_ids[item_index]
        self._id = f"<{item_id}>"
        self._bare_id = re.compile(rf"(?<![\w-]){re.escape(item_id)}(?![\w-])")
        title = clean(pool.titles[item_index])
        self._title = title if is_title_known and len(title) >= MIN_TITLE_CHARACTERS else ""
        self._escaped = [json.dumps(part, ensure_ascii=False)[1:-1] for part in (item_id, self._title) if part]

    def may_be_in(self, messages: str) -> bool:
        """False only where the stored JSON cannot hold it."""
        return any(part in messages for part in self._escaped)

    def is_said(self, message: Mapping[str, Any]) -> bool:
        """Whether a message of the LLM's own names the item: native calls give ids without brackets."""
        arguments = [str(call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
        return self.is_in(_text_of(message)) or any(self._bare_id.search(text) for text in arguments if '"items"' in text)

    def is_in(self, text: str) -> bool:
        """Whether the text names the item."""
        if self._id in text:
            return True
        if not self._title or self._title not in text:
            return False
        prose = "\n".join(line for line in text.split("\n") if parse_item_line(line) is None)
        return re.search(rf"(?<!\w){re.escape(self._title)}(?!\w)", prose) is not None


def _leaks_of(rounds: pd.DataFrame, target: int, name: _Name) -> tuple[int, int]:
    """One user's messages to the LLM, and how many of them leak."""
    num_messages, num_leaks, is_known = 0, 0, False
    for items, stored in zip(rounds["items"], rounds["messages"], strict=True):
        is_known = is_known or target in items
        messages = json.loads(stored)
        num_messages += sum(message.get("role") != "assistant" for message in messages)
        if is_known or not name.may_be_in(stored):
            continue
        for message in messages:
            if message.get("role") == "assistant":
                is_known = is_known or name.is_said(message)  # and may be repeated to it, as in a re-ask
            else:
                num_leaks += not is_known and name.is_in(_text_of(message))
    return num_messages, num_leaks


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
