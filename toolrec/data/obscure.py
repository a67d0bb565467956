"""Neutral names in the place of titles and ids, so that an LLM cannot know an item from what it has read elsewhere.

Names follow from the pool alone: the same pool gets the same ones, and `item_index` leads back to the real ones.
"""

from __future__ import annotations

import numpy as np

from toolrec.data.pool import Pool

SEED = 20_240_515
"""Draws the numbers, so that they do not follow the order of the items, which may tell how popular they are."""


def obscured(pool: Pool, what: str | None) -> Pool:
    """The pool with `<i0421> Movie 421` in the place of `ids`, `titles` or `both`; the pool itself where nothing is obscured.

    Attributes stay: what tools are oriented to must be seen. A title that stands in a text attribute stays there too.
    """
    if what is None:
        return pool
    numbers = np.random.default_rng(SEED).permutation(pool.num_items) + 1
    width = len(str(pool.num_items))
    word = pool.domain.item[:1].upper() + pool.domain.item[1:]
    ids = pool.item_ids if what == "titles" else ["", *(f"i{number:0{width}d}" for number in numbers)]
    titles = pool.titles if what == "ids" else ["", *(f"{word} {number}" for number in numbers)]
    return pool.renamed(item_ids=ids, titles=titles)
