"""The Yelp Open Dataset: `yelp_academic_dataset_business.json`, `…_review.json`, in a folder or the published tar."""

from __future__ import annotations

from typing import Any

from toolrec.data.raw import RawData
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
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

_COLUMNS = {"user": "user_id", "item": "business_id", "rating": "stars", "time": "date"}
_KINDS = {"city": "place", "stars": "number", "categories": "categories", "postal_code": "category", "price_range": "number"}
_PRICE = "RestaurantsPriceRange2"


def read_yelp(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads businesses and reviews.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    allowed = "the folder or tar of the Yelp Open Dataset"
    reviews = one_file(files, lambda name: name.endswith("review.json"), what="reviews", allowed=allowed)
    businesses = one_file(files, lambda name: name.endswith("business.json"), what="businesses", allowed=allowed)
    interactions = interactions_of(table_of(files, [reviews]), _COLUMNS, config, findings)
    table = ItemTable(wanted=set(interactions.item_ids), where=businesses)
    for line, record in records_of(files, businesses):
        table.add(line, record.get("business_id"), plain(record.get("name")), _attributes(record))
    kinds = {name: kind for name, kind in _KINDS.items() if any(cell is not None for cell in table.cells.get(name, []))}
    items = table.finish(config, findings, interactions=interactions, kinds=kinds, apart=["address"])
    return raw_data(config, "yelp", files, interactions, items, findings)


def _attributes(record: Record) -> dict[str, Any]:
    categories = record.get("categories")
    parts = categories.split(", ") if isinstance(categories, str) else categories if isinstance(categories, list) else []
    details = record.get("attributes")
    return {
        "city": plain(record.get("city")),
        "state": plain(record.get("state")),
        "stars": number(record.get("stars")),
        "categories": [part for part in map(plain, parts) if part] or None,
        "postal_code": plain(record.get("postal_code")),
        "price_range": number(details.get(_PRICE)) if isinstance(details, dict) else None,
        "address": plain(record.get("address")),
    }
