"""What the readers of published layouts share: tables with known columns, lines of records, attributes out of records."""

from __future__ import annotations

import ast
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolrec.data.pool import DomainWords
from toolrec.data.raw import RawAttribute, RawData, RawInteractions, RawItems
from toolrec.data.reading import identity
from toolrec.data.reading.attributes import AttributeOptions, Column, to_attributes
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings, visible
from toolrec.data.reading.formats import BLOCK_BYTES, MAX_LINE_BYTES, PartsTable, Table, TextOptions, open_table
from toolrec.data.reading.times import TimeUnit
from toolrec.data.sources.own import OwnConfig, find_roles, read_interactions, reading_bar, title_texts
from toolrec.errors import DataError
from toolrec.grammar import encodable


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutConfig:
    """What the person may say of any published layout.

    Attributes:
        name: of the data set.
        attributes: kinds, missing words, caps.
        keep: column -> values of the interactions; others are dropped.
        time_unit: where it should not be found out.
        domain: how prompts speak of the items.
    """

    name: str
    attributes: AttributeOptions = field(default_factory=AttributeOptions)
    keep: Mapping[str, Sequence[str]] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    domain: DomainWords = field(default_factory=DomainWords)


Record = dict[str, Any]


def table_of(files: SourceFiles, names: Sequence[str], *, text: TextOptions | None = None) -> Table:
    """One table of one file or of several with the same columns."""
    tables = [open_table(files, name, text or TextOptions()) for name in names]
    return tables[0] if len(tables) == 1 else PartsTable(tables, names[0])


def interactions_of(table: Table, columns: Mapping[str, str], config: LayoutConfig, findings: Findings) -> RawInteractions:
    """The interactions of a table whose columns are known.

    Raises:
        DataError: a column is not there, or a cell cannot be read.
    """
    missing = [name for name in columns.values() if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.name}, line 1: no column {', '.join(map(visible, missing))}",
            value=", ".join(map(visible, table.columns[:20])),
        )
    own = OwnConfig(columns=columns, keep=config.keep, time_unit=config.time_unit, attributes=config.attributes)
    return read_interactions(table, find_roles(table, own, findings), own, findings)


def records_of(files: SourceFiles, name: str, *, is_python: bool = False) -> Iterator[tuple[int, Record]]:
    """Lines of a file, each one JSON object or, where `is_python`, one Python dict; with their numbers.

    Raises:
        DataError: a line is none, with its number and the character where it shows.
    """
    num_bytes = files.num_bytes(name) or 0
    rest, line, num_records = b"", 0, 0
    with files.stream(name) as handle, reading_bar(name, num_bytes) as bar:
        while True:
            content = handle.read(BLOCK_BYTES)
            block, _, tail = (rest + content).rpartition(b"\n") if content else (rest, b"", b"")
            if len(tail) > MAX_LINE_BYTES:
                raise DataError(f"{name}, line {line + 1}: a line of more than {MAX_LINE_BYTES >> 20} MiB")
            rest = tail
            for entry in block.split(b"\n") if block else ():
                line += 1
                if entry.strip():
                    num_records += 1
                    yield line, _record(entry, name=name, line=line, is_python=is_python)
            bar.advance(min(len(content) >> 20, num_bytes >> 20))
            if not content:
                break
    if not num_records:
        raise DataError(f"{name} is empty", value=str(files.path))


def _record(entry: bytes, *, name: str, line: int, is_python: bool) -> Record:
    where = f"{name}, line {line}"
    try:
        text = entry.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}, character {error.start + 1}: not UTF-8 text", value=f"byte 0x{entry[error.start]:02x}"
        ) from None
    try:
        value = ast.literal_eval(text.strip()) if is_python else json.loads(text)
    except RecursionError:
        raise DataError(f"{where}: nested too deeply") from None
    except SyntaxError as error:
        raise DataError(f"{where}, character {error.offset or 1}: not a Python dict ({error.msg})", value=text[:60]) from None
    except (ValueError, MemoryError) as error:
        column = getattr(error, "colno", 1)
        kind = "a Python dict" if is_python else "JSON"
        raise DataError(f"{where}, character {column}: not {kind} ({getattr(error, 'msg', error)})", value=text[:60]) from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: not a record", value=text[:60], allowed="one object of names and values a line")
    return value


def is_python_lines(files: SourceFiles, name: str) -> bool:
    """Whether a file's first line is a Python dict and not JSON."""
    first = next((line for line in files.head(name, 1 << 20).split(b"\n") if line.strip()), b"")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first.lstrip()[:2] in (b"{'", b"{u") or b"': " in first[:200]
    return False


@dataclass(slots=True)
class ItemTable:
    """Items as they are read, record by record: only those that the interactions have."""

    wanted: set[str]
    where: str
    item_ids: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    titles: list[Any] = field(default_factory=list)
    cells: dict[str, list[Any]] = field(default_factory=dict)
    num_seen: int = 0
    some_ids: list[str] = field(default_factory=list)
    _line_of: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, item_id: Any, title: Any, values: Mapping[str, Any]) -> None:
        """One item.

        Raises:
            DataError: no id, or an id twice.
        """
        if not isinstance(item_id, (str, int)) or isinstance(item_id, bool) or not str(item_id).strip():
            raise DataError(f"{self.where}, line {line}: no item id", value=visible(repr(item_id)))
        text = encodable(str(item_id).strip())
        self.num_seen += 1
        if len(self.some_ids) < 5:
            self.some_ids.append(text)
        if text not in self.wanted:
            return
        if text in self._line_of:
            if all(self.cells.get(name, [])[self._row(text)] == value for name, value in values.items()):
                return
            raise DataError(f"{self.where}, lines {self._line_of[text]} and {line}: the same item id twice", value=text)
        self._line_of[text] = line
        self.item_ids.append(text)
        self.lines.append(line)
        self.titles.append(encodable(title) if isinstance(title, str) else None)
        for name, value in values.items():
            self.cells.setdefault(name, []).append(_storable(value))

    def _row(self, item_id: str) -> int:
        return self.item_ids.index(item_id)

    def finish(
        self,
        config: LayoutConfig,
        findings: Findings,
        *,
        interactions: RawInteractions,
        kinds: Mapping[str, str],
        apart: Sequence[str] = (),
    ) -> RawItems:
        """The items with the attributes of the layout: `kinds` says which; `apart` only tell items of one title apart."""
        identity.check_match(
            findings, interactions.item_ids, self.item_ids or self.some_ids, interactions="the reviews", items=self.where
        )
        if self.num_seen > len(self.item_ids):
            findings.note(
                "items",
                f"{self.num_seen - len(self.item_ids):,} of {self.num_seen:,} items have no interaction",
                "they are not in the pool",
            )
        options = config.attributes
        merged = AttributeOptions(
            kinds={**kinds, **options.kinds},
            separators=options.separators,
            separator=options.separator,
            missing=options.missing,
            max_values=options.max_values,
            chosen=options.chosen,
        )
        columns = [
            Column(name=name, cells=cells, place=lambda row: f"{self.where}, line {self.lines[row]}")
            for name, cells in self.cells.items()
            if name not in apart and any(cell is not None for cell in cells)
        ]
        attributes, aside = to_attributes(columns, merged, findings)
        told = [
            RawAttribute(name=name, kind="category", values=[None if cell is None else str(cell) for cell in self.cells[name]])
            for name in apart
            if name in self.cells
        ]
        titles = title_texts(self.titles, findings, options)
        return RawItems(item_ids=self.item_ids, titles=titles, attributes=attributes, aside=[*aside, *told])


def raw_data(
    config: LayoutConfig, layout: str, files: SourceFiles, interactions: RawInteractions, items: RawItems, findings: Findings
) -> RawData:
    """The source, read."""
    return RawData(
        name=config.name,
        layout=layout,
        interactions=interactions,
        items=items,
        domain=config.domain,
        origin={"file": files.label, "sha256": files.checksums},
        findings=findings,
    )


def one_file(files: SourceFiles, matches: Callable[[str], bool], *, what: str, allowed: str) -> str:
    """The one file of a source that is meant.

    Raises:
        DataError: none or several are there.
    """
    found = [name for name in files.names if matches(name)]
    if len(found) != 1:
        raise DataError(
            f"the source has {f'{len(found)} files' if found else 'no file'} with {what}",
            value=", ".join((found or files.names)[:8]),
            allowed=allowed,
        )
    return found[0]


def plain(value: Any) -> str | None:
    """A text without entities and outer blanks, None where it is empty or no text."""
    if not isinstance(value, str):
        return None
    text = html.unescape(value) if "&" in value else value
    return " ".join(text.split()) or None


def number(value: Any) -> float | None:
    """A number out of a number or a text such as `$25.00`; None where it is none, or a range."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if value == value and abs(value) != float("inf") else None
    if not isinstance(value, str):
        return None
    text = value.strip().removeprefix("$").replace(",", "")
    try:
        result = float(text)
    except ValueError:
        return None
    return result if result == result and abs(result) != float("inf") else None


def _storable(value: Any) -> Any:
    """A value of JSON without halves of surrogate pairs, which JSON may carry and Parquet cannot."""
    if isinstance(value, str):
        return encodable(value)
    return [_storable(one) for one in value] if isinstance(value, list) else value
