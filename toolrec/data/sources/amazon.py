"""Amazon reviews of 2014, 2018 and 2023 with their metadata, as the McAuley lab publishes them.

Reviews are JSON lines (`reviews_X_5.json`, `X_5.json`, `X.jsonl`) or ratings only (`ratings_X.csv`, `X.csv`); metadata is
`meta_X.json` or `meta_X.jsonl`; that of 2014 is one Python dict a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from toolrec.data.raw import RawData, RawItems
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import Table, TextOptions
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
    table_of,
)
from toolrec.errors import DataError

EDITIONS = ("amazon-2014", "amazon-2018", "amazon-2023")
_REVIEW_COLUMNS = {
    "amazon-2014": {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
    "amazon-2018": {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
    "amazon-2023": {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"},
}
_RATINGS_ONLY = {
    "amazon-2014": {"user": "column_1", "item": "column_2", "rating": "column_3", "time": "column_4"},
    "amazon-2018": {"user": "column_2", "item": "column_1", "rating": "column_3", "time": "column_4"},
}
"""The files of ratings without a header; that of 2018 has the item first."""
_KINDS = {"price": "number", "sales_rank": "number", "brand": "category", "categories": "categories"}
_RANK = re.compile(r"(?:^|#)\s*([\d,]+)\s+in\b")
_BY_ROLE = re.compile(r"\s*\((?:Author|Editor|Illustrator|Translator|Narrator|Artist)[^)]*\)\s*$")
MAX_CATEGORY_LENGTH = 100


def read_amazon(edition: str, files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads reviews and, where it is there, metadata.

    Raises:
        DataError: missing, damaged or of another edition.
    """
    findings = Findings()
    reviews = one_file(
        files,
        _is_reviews,
        what="reviews",
        allowed="a file of reviews such as Books.jsonl and its meta_Books.jsonl, and no others",
    )
    table = _reviews_table(edition, files, reviews)
    columns = _RATINGS_ONLY.get(edition, {}) if table.columns[0] == "column_1" else _REVIEW_COLUMNS[edition]
    _refuse_other_edition(edition, table, columns)
    interactions = interactions_of(table, columns, config, findings)
    metas = [name for name in files.names if name.startswith("meta_")]
    if metas:
        meta = one_file(files, lambda name: name.startswith("meta_"), what="metadata", allowed="one meta_ file")
        items = _read_items(edition, files, meta, config, interactions, findings)
    else:
        items = RawItems(item_ids=[], titles=[])
        findings.warn("items", "no metadata: no titles and no attributes", f"its file is called meta_{reviews}")
    return raw_data(config, edition, files, interactions, items, findings)


def _is_reviews(name: str) -> bool:
    return not name.startswith("meta_") and name.lower().endswith((".json", ".jsonl", ".csv"))


def _reviews_table(edition: str, files: SourceFiles, name: str) -> Table:
    is_csv = name.lower().endswith(".csv")
    known = frozenset({"user_id", "parent_asin"}) if edition == "amazon-2023" else frozenset()
    text = TextOptions(
        separator="," if is_csv else None, has_header=(edition == "amazon-2023") if is_csv else None, known_columns=known
    )
    return table_of(files, [name], text=text)


def _refuse_other_edition(edition: str, table: Table, columns: dict[str, str]) -> None:
    if all(name in table.columns for name in columns.values()):
        return
    other = next((known for known in EDITIONS if all(name in table.columns for name in _REVIEW_COLUMNS[known].values())), None)
    if other is not None:
        hint = f"prepare it as {other}" if other != "amazon-2014" else "prepare it as amazon-2014 or amazon-2018"
        raise DataError(
            f"{table.name}, line 1: these are the reviews of another edition", value=", ".join(table.columns[:6]), hint=hint
        )


def _read_items(
    edition: str, files: SourceFiles, name: str, config: LayoutConfig, interactions: Any, findings: Findings
) -> RawItems:
    table = ItemTable(wanted=set(interactions.item_ids), where=name)
    id_name = "parent_asin" if edition == "amazon-2023" else "asin"
    for line, record in records_of(files, name, is_python=is_python_lines(files, name)):
        table.add(line, record.get(id_name), plain(record.get("title")), _attributes(record))
    return table.finish(
        config, findings, interactions=interactions, kinds={name: kind for name, kind in _KINDS.items() if name in table.cells}
    )


def _attributes(record: Record) -> dict[str, Any]:
    categories = [part for part in (plain(part) for part in _flat(record.get("categories") or record.get("category"))) if part]
    categories = [part for part in categories if len(part) <= MAX_CATEGORY_LENGTH]
    return {
        "price": number(record.get("price")),
        "sales_rank": _sales_rank(record),
        "brand": _brand(record),
        "categories": list(dict.fromkeys(categories)) or None,
    }


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _flat(part)
    elif value is not None:
        yield value


def _brand(record: Record) -> str | None:
    author = record.get("author")
    if isinstance(author, dict):
        return plain(author.get("name"))
    brand = plain(record.get("brand")) or plain(record.get("store"))
    return _BY_ROLE.sub("", brand) or None if brand else None


def _sales_rank(record: Record) -> float | None:
    """The best place in the largest category, as the page shows it first."""
    ranks = record.get("salesRank")
    if isinstance(ranks, dict):
        return next((place for place in map(number, ranks.values()) if place is not None), None)
    written = (
        record.get("rank") or (record.get("details") or {}).get("Best Sellers Rank")
        if isinstance(record.get("details"), (dict, type(None)))
        else record.get("rank")
    )
    if isinstance(written, dict):
        return next((place for place in map(number, written.values()) if place is not None), None)
    for text in _flat(written):
        match = _RANK.search(text.replace(">#", "#")) if isinstance(text, str) else None
        if match:
            return number(match.group(1))
    return None
