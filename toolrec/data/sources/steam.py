"""Steam, as the McAuley lab publishes it: `steam_reviews.json` and `steam_games.json`, one Python dict a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from toolrec.data.raw import RawData
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import Written, objects_array
from toolrec.data.sources.layout import (
    ItemTable,
    LayoutConfig,
    Record,
    interactions_of,
    is_python_lines,
    number,
    one_file,
    plain,
    raw_data,
    records_of,
)  # fmt: skip

_COLUMNS = {"user": "username", "item": "product_id", "time": "date"}
_KINDS = {
    "genres": "categories",
    "tags": "categories",
    "price": "number",
    "developer": "category",
    "publisher": "category",
    "release_year": "number",
}
_YEAR = re.compile(r"\b(19|20)\d\d\b")
_ROWS = 50_000


class _Records:
    """The reviews as a table; Python dicts are read line by line."""

    def __init__(self, files: SourceFiles, name: str) -> None:
        self._files, self.name = files, name
        self._is_python = is_python_lines(files, name)
        self.columns = list(_COLUMNS.values())
        self.written = Written(format="json")

    def num_bytes(self) -> int | None:
        return None  # `records_of` shows the progress

    def sample(self) -> dict[str, list[Any]]:
        return {name: [] for name in self.columns}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        held: list[Record] = []
        for _, record in records_of(self._files, self.name, is_python=self._is_python):
            held.append(record)
            if len(held) == _ROWS:
                yield self._table(held, columns)
                held = []
        if held:
            yield self._table(held, columns)

    @staticmethod
    def _table(rows: list[Record], columns: Sequence[str]) -> pa.Table:
        return pa.table({name: objects_array([row.get(name) for row in rows]) for name in columns})

    def place(self, row: int) -> str:
        for number_of_row, (line, _) in enumerate(records_of(self._files, self.name, is_python=self._is_python)):
            if number_of_row == row:
                return f"{self.name}, line {line}"
        return self.name


def read_steam(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads reviews and games.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    reviews = one_file(files, lambda name: name == "steam_reviews.json", what="reviews", allowed="steam_reviews.json(.gz)")
    games = one_file(files, lambda name: name == "steam_games.json", what="games", allowed="steam_games.json(.gz)")
    interactions = interactions_of(_Records(files, reviews), _COLUMNS, config, findings)
    items = ItemTable(wanted=set(interactions.item_ids), where=games)
    num_without = 0
    for line, record in records_of(files, games, is_python=is_python_lines(files, games)):
        if record.get("id") is None:
            num_without += 1
            continue
        items.add(line, record["id"], plain(record.get("app_name")) or plain(record.get("title")), _attributes(record))
    if num_without:
        findings.note("items", f"{num_without:,} games without an id left out")
    kinds = {name: kind for name, kind in _KINDS.items() if any(cell is not None for cell in items.cells.get(name, []))}
    return raw_data(
        config, "steam", files, interactions, items.finish(config, findings, interactions=interactions, kinds=kinds), findings
    )


def _attributes(record: Record) -> dict[str, Any]:
    year = _YEAR.search(str(record.get("release_date") or ""))
    price = record.get("price")
    is_free = isinstance(price, str) and "free" in price.casefold()
    return {
        "genres": _texts(record.get("genres")),
        "tags": _texts(record.get("tags")),
        "price": 0.0 if is_free else number(price),
        "developer": plain(record.get("developer")),
        "publisher": plain(record.get("publisher")),
        "release_year": float(year.group()) if year else None,
    }


def _texts(value: Any) -> list[str] | None:
    return [part for part in map(plain, value) if part] or None if isinstance(value, list) else None
