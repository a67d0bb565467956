"""RecBole's atomic files: `.inter` and `.item`, tab-separated, with a header of `name:type`.

Types are `token`, `token_seq`, `float` and `float_seq`. Source: RecBole's documentation of its atomic files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from toolrec.columns import Columns
from toolrec.data.pool import ATTRIBUTE_KINDS, AttributeKind, DomainWords, is_attribute_name
from toolrec.data.raw import RawAttribute, RawData, RawItems
from toolrec.data.sources.files import SourceFiles
from toolrec.data.sources.tables import as_number, code_interactions, decode, read_columns, refuse_repeated_ids, to_numbers
from toolrec.errors import ConfigError, DataError

TITLE_COLUMNS = (
    "title", "movie_title", "item_title", "product_title", "book_title", "name", "item_name", "product_name", "business_name",
)  # fmt: skip
"""Columns that are taken for the title, the first one that is there."""

TYPES = ("token", "token_seq", "float", "float_seq")
_FIRST_LINE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecBoleConfig:
    """How to read a set of atomic files.

    Attributes:
        name: of the data set.
        kinds: the kind of an attribute where it should not be inferred.
        title_column: None takes the first of `TITLE_COLUMNS`.
        sequence_separator: between the values of an entry; None takes `|` for a column that has it anywhere, else a space.
        rename: columns that get another attribute name.
        domain: how prompts speak of the items.
    """

    name: str
    kinds: Mapping[str, AttributeKind] = field(default_factory=dict)
    title_column: str | None = None
    sequence_separator: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    domain: DomainWords = field(default_factory=DomainWords)

    def __post_init__(self) -> None:
        for name, kind in self.kinds.items():
            if kind not in ATTRIBUTE_KINDS:
                raise ConfigError(f"unknown kind for the attribute {name}", value=kind, allowed=ATTRIBUTE_KINDS)
        if self.sequence_separator == "":
            raise ConfigError("the sequence separator must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """One atomic file: columns of strings by name, and the type that its header gives each."""

    where: str
    columns: dict[str, pa.Array]
    types: dict[str, str]


def read_recbole(files: SourceFiles, config: RecBoleConfig) -> RawData:
    """Reads `.inter` and, where there is one, `.item`.

    Raises:
        DataError: missing, damaged, wrongly encoded, or without the needed columns.
        ConfigError: an unknown title column.
    """
    interactions = _read_table(files, _only(files, ".inter"))
    _need(interactions, Columns.USER_ID, Columns.ITEM_ID)
    numbers = {
        name: to_numbers(interactions.columns[name], name=name, where=interactions.where, first_line=_FIRST_LINE)
        for name in (Columns.RATING, Columns.TIMESTAMP)
        if name in interactions.columns
    }
    notes = [] if Columns.TIMESTAMP in numbers else ["the source has no timestamps: its order is taken for the order in time"]
    if files.ending_with(".item"):
        items, item_notes = read_items(files, config)
        notes += item_notes
    else:
        items = RawItems(item_ids=[], titles=[])
        notes.append("the source has no .item file: no titles and no attributes")
    return RawData(
        name=config.name,
        layout="recbole",
        interactions=code_interactions(
            interactions.columns[Columns.USER_ID],
            interactions.columns[Columns.ITEM_ID],
            numbers.get(Columns.RATING),
            numbers.get(Columns.TIMESTAMP),
        ),
        items=items,
        domain=config.domain,
        origin={"file": files.path.name, "sha256": files.checksums},
        notes=notes,
    )


def read_items(files: SourceFiles, config: RecBoleConfig) -> tuple[RawItems, list[str]]:
    """Reads the `.item` file: titles, and every column that can be an attribute.

    Raises:
        DataError: missing, damaged, wrongly encoded, or without item ids; an item id twice.
        ConfigError: an unknown title column.
    """
    table = _read_table(files, _only(files, ".item"))
    _need(table, Columns.ITEM_ID)
    item_ids = table.columns[Columns.ITEM_ID].to_pylist()
    refuse_repeated_ids(item_ids, where=table.where, first_line=_FIRST_LINE)
    others = [name for name in table.columns if name != Columns.ITEM_ID]
    title_column = config.title_column or next((name for name in TITLE_COLUMNS if name in others), None)
    if title_column is not None and title_column not in others:
        raise ConfigError(f"{table.where} has no such title column", value=title_column, allowed=others)
    names = {config.rename.get(name, name): name for name in others if name != title_column}
    attributes, notes = [], []
    for name, column in names.items():
        if not is_attribute_name(name):
            notes.append(f"column {column} is left out: prompts cannot carry its name")
            continue
        attribute = _attribute(table, column, name, config)
        if attribute is None:
            notes.append(f"column {column} is left out: {table.types[column]} cannot be an attribute")
        elif name not in config.kinds and _identifies(attribute):
            notes.append(f"column {column} is left out: every item has a value of its own")
        else:
            attributes.append(attribute)
    titles = table.columns[title_column].to_pylist() if title_column else [""] * len(item_ids)
    return RawItems(item_ids=item_ids, titles=titles, attributes=attributes), notes


def _only(files: SourceFiles, suffix: str) -> str:
    names = files.ending_with(suffix)
    if len(names) != 1:
        problem = f"{len(names)} {suffix} files" if names else f"no {suffix} file"
        raise DataError(f"the source has {problem}", value=str(files.path), allowed=f"one {suffix} file")
    return names[0]


def _read_table(files: SourceFiles, name: str) -> _Table:
    content = files.read(name)
    head, _, body = content.partition(b"\n")
    types: dict[str, str] = {}
    for entry in decode(head, where=name).rstrip("\r").split("\t"):
        column, colon, kind = entry.rpartition(":")
        if not colon or not column or kind not in TYPES:
            raise DataError(f"{name}, line 1: a header of name:type, separated by tabs, is expected", value=entry, allowed=TYPES)
        if column in types:
            raise DataError(f"{name}, line 1: a column twice", value=column)
        types[column] = kind
    if not body.strip():
        raise DataError(f"{name} has a header and no rows", value=str(files.path))
    columns = read_columns(body, where=name, separator="\t", num_columns=len(types), first_line=_FIRST_LINE)
    return _Table(where=name, columns=dict(zip(types, columns, strict=True)), types=types)


def _need(table: _Table, *names: str) -> None:
    for name in names:
        if name not in table.columns:
            raise DataError(
                f"{table.where} has no column {name}", value=", ".join(table.columns), hint="its header needs name:type entries"
            )


def _attribute(table: _Table, column: str, name: str, config: RecBoleConfig) -> RawAttribute | None:
    """The attribute that a column makes, or None for a type that makes none."""
    if table.types[column] == "float_seq":
        return None
    texts = [text.strip() for text in table.columns[column].to_pylist()]
    separator = config.sequence_separator or ("|" if any("|" in text for text in texts) else " ")
    kind = config.kinds.get(name) or _kind(table.types[column], texts, separator)
    values: list[Any]
    if kind == "number":
        numbers = to_numbers(table.columns[column], name=column, where=table.where, first_line=_FIRST_LINE, empty_is_missing=True)
        values = [None if np.isnan(number) else float(number) for number in numbers]
    elif kind == "categories":
        values = [tuple(part.strip() for part in text.split(separator) if part.strip()) for text in texts]
    else:
        values = [text or None for text in texts]
    return RawAttribute(name=name, kind=kind, values=values, description=name.replace("_", " "))


def _kind(column_type: str, texts: list[str], separator: str) -> AttributeKind:
    if column_type == "token_seq":
        return "categories"
    if column_type == "float":
        return "number"
    given = [text for text in texts if text]
    if given and all(as_number(text) is not None for text in given):
        return "number"
    return "categories" if not separator.isspace() and any(separator in text for text in texts) else "category"


def _identifies(attribute: RawAttribute) -> bool:
    given = [value for value in attribute.values if value is not None]
    return attribute.kind == "category" and len(given) > 1 and len(set(given)) == len(given)
