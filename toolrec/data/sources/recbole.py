"""RecBole's atomic files: `.inter` and `.item`, tab-separated, with a header of `name:type`.

Types are `token`, `token_seq`, `float` and `float_seq`. Benchmark files (`x.train.inter`, `x.valid.inter`, `x.test.inter`) keep
their split. Source: RecBole's documentation of its atomic files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from toolrec.columns import Columns
from toolrec.data.pool import DomainWords
from toolrec.data.raw import RawData, RawItems
from toolrec.data.reading import identity
from toolrec.data.reading.attributes import AttributeOptions, Column, to_attributes, without_cut_twins
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings, examples, visible
from toolrec.data.reading.formats import PartsTable, Table, Written
from toolrec.data.reading.tables import decode, read_columns
from toolrec.data.reading.times import TimeUnit
from toolrec.data.reading.titles import find_title_column
from toolrec.data.sources.own import OwnConfig, find_roles, read_interactions, title_texts
from toolrec.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
_FIRST_LINE = 2
_PARTS = (".train.inter", ".valid.inter", ".test.inter")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecBoleConfig:
    """How to read a set of atomic files.

    Attributes:
        name: of the data set.
        title_column: None finds it by its name.
        columns: column by role (`user`, `item`, `rating`, `time`) where it should not be found by its name.
        keep: column -> values; other interactions are dropped.
        attributes: kinds, separators and missing values where they should not be found.
        rename: columns that get another attribute name.
        domain: how prompts speak of the items.
    """

    name: str
    title_column: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, Sequence[str]] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    attributes: AttributeOptions = field(default_factory=AttributeOptions)
    rename: Mapping[str, str] = field(default_factory=dict)
    domain: DomainWords = field(default_factory=DomainWords)


@dataclass(slots=True, kw_only=True)
class AtomicTable:
    """One atomic file: columns of strings by name, and the type that its header gives each."""

    name: str
    arrays: dict[str, pa.Array]
    types: dict[str, str]
    size: int

    @property
    def columns(self) -> list[str]:
        return list(self.arrays)

    @property
    def written(self) -> Written:
        return Written(format="delimited")

    def sample(self) -> dict[str, list[Any]]:
        return {name: array.slice(0, 1000).to_pylist() for name, array in self.arrays.items()}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        yield pa.table({name: self.arrays[name] for name in columns})

    def place(self, row: int) -> str:
        return f"{self.name}, line {row + _FIRST_LINE}"

    def num_bytes(self) -> int | None:
        return self.size


def read_recbole(files: SourceFiles, config: RecBoleConfig) -> RawData:
    """Reads `.inter` and, where there is one, `.item`.

    Raises:
        DataError: missing, damaged, wrongly encoded, or without the needed columns.
        ConfigError: an unknown title column.
    """
    findings = Findings()
    table = _interactions_table(files, findings)
    own = OwnConfig(
        columns=config.columns, keep=config.keep, time_unit=config.time_unit, attributes=config.attributes
    )  # fmt: skip
    roles = find_roles(table, own, findings)
    interactions = read_interactions(table, roles, own, findings)
    if files.ending_with(".item"):
        items = read_items(files, config, findings)
        wanted, item_ids, why = identity.unified(interactions.item_ids, items.item_ids)
        if why:
            findings.warn("item ids", "decimals left out so that the two files match", why)
        interactions.item_ids[:] = wanted
        items.item_ids[:] = item_ids
        identity.check_match(findings, wanted, item_ids, interactions=table.name, items=_only(files, ".item"))
        unused = len(set(item_ids) - set(wanted))
        if unused:
            findings.note("items", f"{unused:,} of {len(item_ids):,} items have no interaction", "they are not in the pool")
    else:
        items = RawItems(item_ids=[], titles=[])
        findings.warn(
            "items", "the source has no .item file: no titles and no attributes", "an LLM knows the items by their ids only"
        )
    return RawData(
        name=config.name,
        layout="recbole",
        interactions=interactions,
        items=items,
        domain=config.domain,
        origin={"file": files.label, "sha256": files.checksums},
        findings=findings,
    )


def read_items(files: SourceFiles, config: RecBoleConfig, findings: Findings) -> RawItems:
    """Reads the `.item` file: titles, and every column that can be an attribute.

    Raises:
        DataError: missing, damaged, wrongly encoded, or without item ids; an item id twice.
        ConfigError: an unknown title column.
    """
    table = _read_table(files, _only(files, ".item"), findings)
    if Columns.ITEM_ID not in table.arrays:
        raise _no_column(table, Columns.ITEM_ID)
    mended, changed = identity.mended_ids(table.arrays[Columns.ITEM_ID].to_pylist(), words=config.attributes.missing)
    identity.report_changes(findings, f"item ids of {table.name}", changed, merged=0)
    rows = [row for row, item_id in enumerate(mended) if item_id is not None]
    if len(rows) < len(mended):
        findings.note("items", f"{len(mended) - len(rows):,} rows of {table.name} dropped: no item id")
    item_ids = [str(mended[row]) for row in rows]
    identity.refuse_repeated_ids(item_ids, where=table.name, places=_Places(table, rows))
    cells = {
        name: [array[row].as_py() for row in rows] if len(rows) < len(array) else array.to_pylist()
        for name, array in table.arrays.items()
    }
    others = [name for name in table.arrays if name != Columns.ITEM_ID]
    title_column = find_title_column(
        {name: cells[name] for name in others}, findings, given=config.title_column, where=table.name
    )
    columns = [
        Column(
            name=config.rename.get(name, name),
            cells=cells[name],
            declared=table.types[name],
            place=lambda row: table.place(rows[row]),
        )
        for name in others
        if name != title_column
    ]
    attributes, aside = to_attributes(without_cut_twins(columns, findings, config.attributes), config.attributes, findings)
    titles = title_texts(cells[title_column], findings, config.attributes) if title_column else [""] * len(item_ids)
    return RawItems(item_ids=item_ids, titles=titles, attributes=attributes, aside=aside)


class _Places(Sequence[str]):
    """Places of rows, looked up when they are asked for."""

    def __init__(self, table: AtomicTable, rows: list[int]) -> None:
        self._table, self._rows = table, rows

    def __getitem__(self, place: Any) -> Any:
        return self._table.place(self._rows[place])

    def __len__(self) -> int:
        return len(self._rows)


def _interactions_table(files: SourceFiles, findings: Findings) -> Table:
    names = files.ending_with(".inter")
    if len(names) > 1 and all(name.endswith(_PARTS) for name in names):
        ordered = sorted(names, key=lambda name: next(place for place, ending in enumerate(_PARTS) if name.endswith(ending)))
        parts = [_read_table(files, name, findings) for name in ordered]
        codes = [next(code for code, ending in enumerate(_PARTS) if name.endswith(ending)) for name in ordered]
        is_whole = codes == [0, 1, 2]
        findings.found(
            "interactions",
            f"{', '.join(ordered)} are put together",
            "their split is kept" if is_whole else "train, valid and test are not all there: split anew",
            change="--split" if is_whole else "",
        )
        return PartsTable(list(parts), names[0], split=codes if is_whole else None)
    return _read_table(files, _only(files, ".inter"), findings)


def _only(files: SourceFiles, suffix: str) -> str:
    names = files.ending_with(suffix)
    if len(names) != 1:
        problem = f"{len(names)} {suffix} files" if names else f"no {suffix} file"
        raise DataError(f"the source has {problem}", value=", ".join(names[:6]) or str(files.path), allowed=f"one {suffix} file")
    return names[0]


def _read_table(files: SourceFiles, name: str, findings: Findings) -> AtomicTable:
    content = files.read(name)
    head, _, body = content.partition(b"\n")
    types: dict[str, str] = {}
    padded = []
    for entry in decode(head, where=name).rstrip("\r").split("\t"):
        column, colon, kind = entry.rpartition(":")
        column, kind = column.strip(), kind.strip()
        if not colon or not column or kind not in TYPES:
            raise DataError(
                f"{name}, line 1: a header of name:type, separated by tabs, is expected", value=visible(entry), allowed=TYPES
            )
        if column in types:
            raise DataError(f"{name}, line 1: a column twice", value=visible(column))
        if entry != f"{column}:{kind}":
            padded.append(entry)
        types[column] = kind
    if padded:
        findings.note(name, "blanks in the header left out", examples(padded))
    if not body.strip():
        raise DataError(f"{name} has a header and no rows", value=str(files.path))
    columns = read_columns(body, where=name, separator="\t", num_columns=len(types), first_line=_FIRST_LINE)
    return AtomicTable(name=name, arrays=dict(zip(types, columns, strict=True)), types=types, size=len(content))


def _no_column(table: AtomicTable, name: str) -> DataError:
    return DataError(
        f"{table.name} has no column {name}",
        value=", ".join(map(visible, table.columns)),
        hint="its header needs name:type entries",
    )
