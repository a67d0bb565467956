"""A table of items: ids, titles, and every column that can be an attribute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from toolrec.data.raw import RawItems
from toolrec.data.reading import identity
from toolrec.data.reading.attributes import AttributeOptions, Column, clean_texts, to_attributes, without_cut_twins
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings, visible
from toolrec.data.reading.formats import (
    Table,
    as_texts,
    normal_name,
)
from toolrec.data.reading.titles import find_title_column
from toolrec.data.sources.own.columns import ITEM_COLUMNS, ROLES, exact_column
from toolrec.data.sources.own.config import OwnConfig
from toolrec.data.sources.own.tables import open_part
from toolrec.errors import DataError

_LONG_TEXT = 200


def read_extra_items(source: Path | str, config: OwnConfig, wanted: list[str], findings: Findings) -> RawItems:
    """A table of items that joins those of another source.

    Raises:
        DataError: missing or damaged, or without an id of the source.
    """
    only = {role: name for role, name in config.columns.items() if role in ("items_id", "title")}
    items, _, _ = read_items(replace(config, items=source, columns=only), list(wanted), findings, is_same=False)
    return items


def read_items(
    config: OwnConfig, wanted: list[str], findings: Findings, *, is_same: bool
) -> tuple[RawItems, list[str], SourceFiles | None]:
    """The items of the interactions, and the interactions' item ids in one form with theirs."""
    roles = {"items_id": ITEM_COLUMNS, "title": ("title", "name")}
    table, files = open_part(config.items, "items", config, roles, findings)
    id_column = _id_column(table, config, wanted, findings)
    sample = table.sample()
    others = [name for name in table.columns if name != id_column]
    if is_same:
        first = {cell: row for row, cell in reversed(list(enumerate(map(str, sample[id_column]))))}
        sample = {name: [cells[row] for row in sorted(first.values())] for name, cells in sample.items()}
        others = [name for name in others if normal_name(name) not in {form for forms in ROLES.values() for form in forms}]
    title_column = find_title_column(
        {name: sample[name] for name in others}, findings, given=config.columns.get("title"), where=table.name
    )
    read = [name for name in others if name == title_column or _is_readable(name, sample[name], config, findings)]
    ids: list[str] = []
    cells: dict[str, list[Any]] = {name: [] for name in read}
    rows: list[int] = []
    others_seen: list[str] = []
    start = num_missing = 0
    words = frozenset(config.attributes.missing)
    loose = {*wanted, *(text.partition(".")[0] for text in wanted if text.endswith(".0"))}
    for batch in table.batches([id_column, *read]):
        mended, _ = identity.mended_ids(as_texts(batch[id_column]).to_pylist(), words=words)
        num_missing += sum(text is None for text in mended)
        keep = [row for row, text in enumerate(mended) if text is not None and (text in loose or text.partition(".")[0] in loose)]
        if len(keep) < len(mended):
            others_seen += [text for text in mended[:5] if text is not None][: 5 - len(others_seen)]
            batch_kept = batch.take(pa.array(keep, pa.int64()))
        else:
            batch_kept = batch
        for name in read:
            cells[name].extend(batch_kept[name].to_pylist())
        ids.extend(str(mended[row]) for row in keep)
        rows.extend(start + row for row in keep)
        start += batch.num_rows
    if num_missing:
        findings.note("items", f"{num_missing:,} rows of {table.name} dropped: no item id")
    if not ids:
        identity.check_match(findings, wanted, others_seen, interactions="the interactions", items=table.name)
    read_table = _ReadItems(table=table, ids=ids, rows=rows, cells=cells, num_rows=start - num_missing, is_same=is_same)
    items, wanted = _built_items(config, read_table, title_column, wanted, findings)
    return items, wanted, files


@dataclass(slots=True, kw_only=True)
class _ReadItems:
    """Rows of the items' table that the interactions need: ids, row numbers, cells by column."""

    table: Table
    ids: list[str]
    rows: list[int]
    cells: dict[str, list[Any]]
    num_rows: int
    is_same: bool


def _built_items(
    config: OwnConfig, read: _ReadItems, title_column: str | None, wanted: list[str], findings: Findings
) -> tuple[RawItems, list[str]]:
    table, rows = read.table, read.rows
    places = _first_of_each(read, findings) if len(set(read.ids)) < len(read.ids) else list(range(len(read.ids)))
    wanted, item_ids, why = identity.unified(wanted, [read.ids[place] for place in places])
    if why:
        findings.warn("item ids", "decimals left out so that the two files match", why)
    identity.check_match(findings, wanted, item_ids, interactions="the interactions", items=table.name)
    known = set(wanted)
    kept = [(place, item_id) for place, item_id in zip(places, item_ids, strict=True) if item_id in known]
    if not read.is_same and len(kept) < read.num_rows:
        findings.note(
            "items",
            f"{read.num_rows - len(kept):,} of {read.num_rows:,} rows of {table.name} are items that nobody "
            "interacted with, or are there twice",
            "they are not in the pool",
        )
    columns = [
        Column(
            name=config.rename.get(name, name.strip()),
            cells=[cells[place] for place, _ in kept],
            place=lambda row: table.place(rows[kept[row][0]]),
        )
        for name, cells in read.cells.items()
        if name != title_column
    ]
    titles = [""] * len(kept)
    if title_column is not None:
        titles = title_texts([read.cells[title_column][place] for place, _ in kept], findings, config.attributes)
    attributes, aside = to_attributes(without_cut_twins(columns, findings, config.attributes), config.attributes, findings)
    return RawItems(item_ids=[item_id for _, item_id in kept], titles=titles, attributes=attributes, aside=aside), wanted


def title_texts(cells: list[Any], findings: Findings, options: AttributeOptions) -> list[str]:
    """Titles as they should stand in prompts: without CSV quotes and entities, "" where missing."""
    words = frozenset(options.missing)
    texts = [
        None if cell is None else ", ".join(map(str, cell)) if isinstance(cell, list) else str(cell).strip() for cell in cells
    ]
    texts = [None if text is None or text.casefold() in words else text for text in texts]
    cleaned, num_quoted, num_entities = clean_texts(texts)
    if num_quoted:
        findings.note("titles", f"quotation marks around {num_quoted:,} titles undone", "as pandas writes and reads them")
    if num_entities:
        findings.note("titles", f"HTML entities in {num_entities:,} titles undone", "as &amp;")
    return [text or "" for text in cleaned]


def _id_column(table: Table, config: OwnConfig, wanted: list[str], findings: Findings) -> str:
    given = config.columns.get("items_id") or (config.columns["item"] if config.columns.get("item") in table.columns else None)
    if given is not None:
        return exact_column(given, table, "item")
    by_form = {normal_name(name): name for name in reversed(table.columns)}
    sample, known = table.sample(), set(wanted)
    candidates = [by_form[form] for form in ITEM_COLUMNS if form in by_form]
    # The column whose values are ids of the interactions; of several, the first by name.
    matches = {
        name: sum(str(cell).strip() in known for cell in sample[name] if cell is not None)
        for name in (candidates or table.columns)
    }
    best = max(matches, key=lambda name: matches[name], default=None)
    if best is None or (not candidates and not matches[best]):
        raise DataError(
            f"{table.name}, line 1: no column is recognised as the item's id",
            value=", ".join(map(visible, table.columns[:20])),
            hint="name it with --items-id-column",
        )
    chosen = best if matches[best] else candidates[0]
    why = "by its name" if chosen in candidates else "its values are ids of the interactions"
    findings.found("item id column of the items", visible(chosen), why, change="--items-id-column")
    return chosen


def _is_readable(name: str, cells: list[Any], config: OwnConfig, findings: Findings) -> bool:
    """Whether a column of the items is read; nested and long ones only if they are named."""
    attribute = config.rename.get(name, name.strip())
    if config.attributes.is_named(attribute):
        return True
    if any(
        isinstance(cell, dict) or (isinstance(cell, list) and any(isinstance(part, (dict, list)) for part in cell))
        for cell in cells
    ):
        findings.note(f"column {visible(name)}", "left out: it holds nested records")
        return False
    lengths = [len(cell) for cell in cells if isinstance(cell, str) and cell.strip()]
    if lengths and sum(lengths) / len(lengths) > _LONG_TEXT:
        findings.note(
            f"column {visible(name)}",
            "left out: long text",
            f"{sum(lengths) // len(lengths)} characters on average",
            change=f"--attributes …,{name}:text",
        )
        return False
    return True


def _first_of_each(read: _ReadItems, findings: Findings) -> list[int]:
    """The first row of every item; rows of one item that differ are refused in a table of items."""
    first: dict[str, int] = {}
    num_differing = 0
    for place, item_id in enumerate(read.ids):
        before = first.setdefault(item_id, place)
        if before != place and any(column[before] != column[place] for column in read.cells.values()):
            num_differing += 1
            if not read.is_same:
                raise DataError(
                    f"{read.table.place(read.rows[before])} and {read.table.place(read.rows[place])}: the same item id twice, "
                    "with other values",
                    value=visible(item_id),
                    hint="leave one entry an item",
                )
    if num_differing:
        findings.note("items", f"{num_differing:,} rows describe an item otherwise than its first row", "the first row counts")
    return list(first.values())
