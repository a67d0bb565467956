"""Items by a part of their id or title."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from toolrec.data import Pool


class ItemSearch:
    """One text with a line for each item, so that a search of a million items is one of Python's own.

    Args:
        pool: its ids and titles; neither has a line break.
    """

    def __init__(self, pool: Pool) -> None:
        lines = [
            f"{item_id}\t{' '.join(title.split())}".casefold() for item_id, title in zip(pool.item_ids, pool.titles, strict=True)
        ]
        self._text = "\n".join(lines) + "\n"
        self._starts: list[int] = []
        start = 0
        for line in lines:
            self._starts.append(start)
            start += len(line) + 1

    def find(self, query: str) -> Iterator[int]:
        """The item indexes in the order of the pool; case and white space do not matter, and nothing finds all."""
        wanted = " ".join(query.split()).casefold()
        if not wanted:
            yield from range(1, len(self._starts))
            return
        at = self._text.find(wanted, self._starts[1] if len(self._starts) > 1 else 0)
        while at >= 0:
            index = bisect.bisect_right(self._starts, at) - 1
            yield index
            at = self._text.find(wanted, self._text.index("\n", at))
