"""Slips of the pen, for simulated faults."""

from __future__ import annotations

import random
from collections.abc import Callable


def misspelt(text: str, draw: random.Random, *, may_swap: Callable[[str], bool] = str.isalpha) -> str:
    """`text` with two different neighbouring letters swapped, or its last character doubled where there are none.

    Args:
        draw: which of them.
        may_swap: in place of letters, the characters that may be swapped.
    """
    places = [n for n in range(len(text) - 1) if text[n] != text[n + 1] and may_swap(text[n]) and may_swap(text[n + 1])]
    if not places:
        return text + text[-1:]
    at = draw.choice(places)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
