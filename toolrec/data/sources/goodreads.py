"""Goodreads, as the McAuley lab publishes it: `goodreads_interactions*.json` (or `.csv`, no times), `goodreads_books*.json`."""

from __future__ import annotations

from typing import Any

from toolrec.data.raw import RawData, RawItems
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import TextOptions
from toolrec.data.sources.layout import (
    ItemTable,
    LayoutConfig,
    Record,
    interactions_of,
    number,
    one_file,
    plain,
    raw_data,
    records_of,
    table_of,
)  # fmt: skip

_COLUMNS = {"user": "user_id", "item": "book_id", "rating": "rating"}
_KINDS = {
    "author": "category", "release_year": "number", "publisher": "category", "language": "category", "average_rating": "number",
    "ratings_count": "number", "num_pages": "number", "shelves": "categories",
}  # fmt: skip
MAX_SHELVES = 5
_NOT_GENRES = frozenset(
    {"to-read", "currently-reading", "owned", "favorites", "books-i-own", "default", "kindle", "ebook", "library"}
)


def read_goodreads(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads interactions and books.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    reviews = one_file(
        files, lambda name: name.startswith("goodreads_interactions"), what="interactions", allowed="goodreads_interactions*"
    )
    text = TextOptions(separator=",", has_header=True) if reviews.endswith(".csv") else TextOptions()
    table = table_of(files, [reviews], text=text)
    columns = {**_COLUMNS, "time": "date_added"} if "date_added" in table.columns else _COLUMNS
    interactions = interactions_of(table, columns, config, findings)
    books = [name for name in files.names if name.startswith("goodreads_books")]
    if not books:
        findings.warn("items", "no goodreads_books file: no titles and no attributes")
        return raw_data(config, "goodreads", files, interactions, RawItems(item_ids=[], titles=[]), findings)
    name = one_file(files, lambda name: name.startswith("goodreads_books"), what="books", allowed="one goodreads_books file")
    items = ItemTable(wanted=set(interactions.item_ids), where=name)
    for line, record in records_of(files, name):
        items.add(line, record.get("book_id"), plain(record.get("title")), _attributes(record))
    kinds = {name: kind for name, kind in _KINDS.items() if any(cell is not None for cell in items.cells.get(name, []))}
    built = items.finish(config, findings, interactions=interactions, kinds=kinds)
    return raw_data(config, "goodreads", files, interactions, built, findings)


def _attributes(record: Record) -> dict[str, Any]:
    shelves = [shelf.get("name") for shelf in _records(record.get("popular_shelves"))]
    genres = [name for name in shelves if isinstance(name, str) and name not in _NOT_GENRES][:MAX_SHELVES]
    authors = [str(author["author_id"]) for author in _records(record.get("authors")) if author.get("author_id")]
    return {
        "author": authors[0] if authors else None,
        "release_year": number(record.get("publication_year")),
        "publisher": plain(record.get("publisher")),
        "language": plain(record.get("language_code")),
        "average_rating": number(record.get("average_rating")),
        "ratings_count": number(record.get("ratings_count")),
        "num_pages": number(record.get("num_pages")),
        "shelves": genres or None,
    }


def _records(value: Any) -> list[Record]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
