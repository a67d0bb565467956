"""More attributes for the items of a source, from another item file, joined by item id."""

from __future__ import annotations

from dataclasses import replace

from toolrec.data.raw import RawAttribute, RawData, RawItems
from toolrec.data.reading.findings import examples
from toolrec.errors import DataError


def merge_items(raw: RawData, extra: RawItems, *, where: str) -> RawData:
    """Adds the attributes of `extra` to the source's items; titles are taken where the source has none.

    Raises:
        DataError: no id in common, or an attribute that the source already has.
    """
    row_of = {item_id: row for row, item_id in enumerate(extra.item_ids)}
    base = raw.items
    if not base.item_ids:
        base = RawItems(item_ids=raw.interactions.item_ids, titles=[""] * len(raw.interactions.item_ids))
    rows = [row_of.get(item_id) for item_id in base.item_ids]
    num_matched = sum(row is not None for row in rows)
    if not num_matched:
        raise DataError(
            "the extra item file has no item of the source", value=f"{where}: {examples(extra.item_ids)}",
            allowed=examples(base.item_ids), hint="item ids must be those of the source",
        )  # fmt: skip
    known = {attribute.name for attribute in base.attributes}
    repeated = [attribute.name for attribute in extra.attributes if attribute.name in known]
    if repeated:
        raise DataError("the extra item file has attributes that the source has as well", value=", ".join(repeated))
    added = [
        RawAttribute(
            name=attribute.name,
            kind=attribute.kind,
            values=[None if row is None else attribute.values[row] for row in rows],
            description=attribute.description,
        )
        for attribute in extra.attributes
    ]
    titles = [title or ("" if row is None else extra.titles[row]) for title, row in zip(base.titles, rows, strict=True)]
    note = f"{num_matched:,} of {len(rows):,} items of the source have an entry in {where}"
    return replace(
        raw,
        items=replace(base, titles=titles, attributes=[*base.attributes, *added]),
        notes=[*raw.notes, note],
    )
