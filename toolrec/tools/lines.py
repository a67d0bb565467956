"""Numbered item lines and observation texts as prompts show them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from toolrec.grammar import HINT_LABEL
from toolrec.memory import PoolDirectory
from toolrec.records import RankedItem


def history_lines(
    directory: PoolDirectory,
    history: Sequence[int],
    ratings: Sequence[float] | None,
    *,
    length: int,
    line: Callable[[int], str] | None = None,
) -> str:
    """The last `length` items of a history, oldest first, with their ratings where there are any.

    `line` writes an item, by default as the directory does.
    """
    line = line or directory.line
    shown = history[-length:]
    if ratings is None:
        return "\n".join(f"{number}. {line(item)}" for number, item in enumerate(shown, start=1))
    words = directory.pool.domain.rating
    lines = []
    for number, (item, rating) in enumerate(zip(shown, ratings[-length:], strict=True), start=1):
        read = "" if math.isnan(rating) else f" | rating: {words.format(rating=f'{rating:g}')}"
        lines.append(f"{number}. {line(item)}{read}")
    return "\n".join(lines)


def item_lines(directory: PoolDirectory, items: Sequence[int]) -> str:
    """Items without scores."""
    return "\n".join(f"{number}. {directory.line(item)}" for number, item in enumerate(items, start=1))


def observation_text(head: str, lines: str, *, hint: str = "") -> str:
    """What a tool call brought, in the prompt grammar; `head` is the call as in `Retrieve[genre, 20]`."""
    num_items = lines.count("\n") + 1 if lines else 0
    parts = [f"{head} returned {num_items} item{'' if num_items == 1 else 's'}:", lines]
    if hint:
        parts.append(f"{HINT_LABEL} {hint}")
    return "\n".join(part for part in parts if part)


def scored_lines(directory: PoolDirectory, items: Sequence[RankedItem]) -> str:
    """Items with the scores of the tool that brought them."""
    return "\n".join(
        f"{number}. {directory.line(item.item_index)} | score: {item.score:.4f}" for number, item in enumerate(items, start=1)
    )
