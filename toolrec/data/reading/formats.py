"""Tables as people have them: delimited text, JSON lines, Parquet, pandas frames. Found out, then read in batches.

A table is never held whole: `batches` gives the columns that are asked for, some ten thousand rows at a time. Whatever is
wrong with a file is said with its name, line and column.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from toolrec.data.reading.files import SourceFiles
from toolrec.errors import ConfigError, DataError
from toolrec.grammar import encodable

Format = Literal["delimited", "json", "parquet", "frame"]
SAMPLE_BYTES, SAMPLE_ROWS = 1 << 20, 1000
"""What is looked at to find out how a file is written."""
BLOCK_BYTES = 16 << 20
MAX_LINE_BYTES = 256 << 20
SEPARATORS = ("\t", ",", ";", "|", "::", " ")
"""Column separators that are recognised; of several that fit, the one with the most columns, then the first."""
SEPARATOR_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe", "::": "double colon", " ": "blank"}
FALLBACK_ENCODING = "cp1252"
_MAX_COLUMNS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """What the person says of a text file; None is found out."""

    separator: str | None = None
    encoding: str | None = None
    has_header: bool | None = None
    known_columns: frozenset[str] = frozenset()
    """Normal forms of column names; a first line that has one of them is a header."""


@dataclass(slots=True, kw_only=True)
class Written:
    """How a table is written, for the person: `facts` is a list of (what, found, why)."""

    format: Format
    facts: list[tuple[str, str, str]] = field(default_factory=list)


class Table(Protocol):
    """One table, to be read in batches."""

    name: str

    @property
    def columns(self) -> list[str]:
        """Names, as the file has them."""
        ...

    @property
    def written(self) -> Written:
        """How the table is written."""
        ...

    def sample(self) -> dict[str, list[Any]]:
        """The first rows, by column."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """All rows, some at a time: the columns asked for, strings or their own type."""
        ...

    def place(self, row: int) -> str:
        """Where a 0-based row stands, as in `clicks.csv, line 17`."""
        ...

    def num_bytes(self) -> int | None:
        """Size on disk, where it is known."""
        ...


def normal_name(column: str) -> str:
    """A column's name without case, blanks, hyphens and RecBole's type."""
    name, colon, kind = column.strip().rpartition(":")
    bare = name if colon and kind in ("token", "token_seq", "float", "float_seq") else column
    return bare.strip().casefold().replace(" ", "_").replace("-", "_").replace(".", "_")


def open_table(files: SourceFiles, name: str, options: TextOptions) -> Table:
    """Finds out how a file is written.

    Raises:
        DataError: empty, or of a kind that is not read.
    """
    head = files.head(name, SAMPLE_BYTES)
    if not head.strip():
        raise DataError(f"{name} is empty", value=str(files.path))
    if head[:4] == b"PAR1":
        return ParquetTable(files, name)
    encoding, facts = _encoding(head, name, options)
    if encoding == "utf-8" and b"\x00" in head:
        raise DataError(f"{name} is not a text file and not Parquet (it has null bytes)", value=name)
    text = head.decode(encoding, "ignore").lstrip("\ufeff")
    first = text.lstrip()[:1]
    if first == "{":
        return JsonTable(files, name, encoding, facts)
    if first == "[":
        raise DataError(
            f"{name}, line 1: a JSON array", value=text.lstrip()[:40], allowed="JSON lines, one object a line", hint="rewrite it"
        )
    return DelimitedTable(files, name, text, encoding, options, facts)


def _encoding(head: bytes, name: str, options: TextOptions) -> tuple[str, list[tuple[str, str, str]]]:
    if options.encoding is not None:
        try:
            codecs.lookup(options.encoding)
        except LookupError:
            raise ConfigError(
                "unknown encoding", value=options.encoding, allowed="a codec of Python, as utf-8 or latin-1"
            ) from None
        return options.encoding, [("encoding", options.encoding, "given")]
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if head.startswith(mark):
            return encoding, [("encoding", encoding, "byte order mark")]
    try:
        # The sample may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        line = head.count(b"\n", 0, error.start) + 1
        return FALLBACK_ENCODING, [("encoding", FALLBACK_ENCODING, f"byte 0x{head[error.start]:02x} in line {line} is not UTF-8")]
    return "utf-8", []


class _Transcoded(io.RawIOBase):
    """Text of any encoding as UTF-8, without a byte order mark."""

    def __init__(self, source: IO[bytes], encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("replace" if encoding == FALLBACK_ENCODING else "strict")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            content = self._source.read(1 << 20)
            self._ready = self._decoder.decode(content, final=not content).encode("utf-8", "replace")
            if not content:
                break
        taken, self._ready = self._ready[: len(buffer)], self._ready[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _as_utf8(handle: IO[bytes], encoding: str) -> IO[bytes]:
    if encoding in ("utf-8", "utf8"):
        return handle
    return io.BufferedReader(_Transcoded(handle, encoding), buffer_size=1 << 20)


class _TextTable:
    """What delimited text and JSON lines share."""

    def __init__(self, files: SourceFiles, name: str, encoding: str) -> None:
        self._files, self.name, self._encoding = files, name, encoding

    def num_bytes(self) -> int | None:
        return self._files.num_bytes(self.name)

    def _blocks(self) -> Iterator[tuple[bytes, int, int]]:
        """Blocks of whole lines with the number of their first line and how many line feeds they have; all UTF-8."""
        rest, line = b"", 1
        with self._files.stream(self.name) as raw:
            handle = _as_utf8(raw, self._encoding)
            while True:
                try:
                    content = handle.read(BLOCK_BYTES)
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.name}: not {self._encoding} text ({error.reason})", hint="--encoding says another"
                    ) from None
                joined = rest + content if rest else content
                end = joined.rfind(b"\n") + 1 if content else len(joined)
                block, rest = joined[:end], joined[end:]
                if len(rest) > MAX_LINE_BYTES:
                    raise DataError(f"{self.name}, line {line}: a line of more than {MAX_LINE_BYTES >> 20} MiB")
                if block:
                    num_feeds = block.count(b"\n")
                    yield block, line, num_feeds
                    line += num_feeds
                if not content:
                    return

    def _refuse_bad_text(self) -> None:
        """Names the first line that is not UTF-8."""
        for block, first_line, _ in self._blocks():
            try:
                block.decode("utf-8")
            except UnicodeDecodeError as error:
                line = first_line + block.count(b"\n", 0, error.start)
                start = block.rfind(b"\n", 0, error.start) + 1
                raise DataError(
                    f"{self.name}, line {line}, character {error.start - start + 1}: not UTF-8 text ({error.reason})",
                    value=f"byte 0x{block[error.start]:02x}",
                    hint="save the file as UTF-8, or give its encoding with --encoding",
                ) from None


class JsonTable(_TextTable):
    """JSON lines: one object a line."""

    def __init__(self, files: SourceFiles, name: str, encoding: str, facts: list[tuple[str, str, str]]) -> None:
        super().__init__(files, name, encoding)
        self.written = Written(format="json", facts=[("format", "JSON lines", "lines begin with {"), *facts])
        self._rows: list[dict[str, Any]] = []
        head = files.head(name, 8 * SAMPLE_BYTES)
        lines = head.decode("utf-8" if encoding == "utf-8" else encoding, "ignore").lstrip("\ufeff").split("\n")
        is_cut = len(head) == 8 * SAMPLE_BYTES and len(lines) > 1
        for line, text in enumerate(lines[: -1 if is_cut else None][:SAMPLE_ROWS], start=1):
            if text.strip():
                self._rows.append(_json_object(text, name=name, line=line))
        self.columns = list(dict.fromkeys(key for row in self._rows for key in row))

    def sample(self) -> dict[str, list[Any]]:
        return {column: [row.get(column) for row in self._rows] for column in self.columns}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        schema = self._schema(columns)
        for block, first_line, num_feeds in self._blocks():
            table = None if schema is None else _quick_json(block, schema, num_lines=num_feeds + (not block.endswith(b"\n")))
            yield table if table is not None else self._slow_json(block, first_line, columns)

    def place(self, row: int) -> str:
        for block, first_line, _ in self._blocks():
            for line, text in enumerate(block.split(b"\n"), start=first_line):
                if text.strip():
                    if row == 0:
                        return f"{self.name}, line {line}"
                    row -= 1
        return self.name

    def _schema(self, columns: Sequence[str]) -> pa.Schema | None:
        """Arrow types of the columns, or None where one has several: then every line is read by Python."""
        fields = []
        for column in columns:
            kinds = {type(row[column]) for row in self._rows if row.get(column) is not None}
            if kinds <= {str}:
                fields.append((column, pa.string()))
            elif kinds == {int}:
                fields.append((column, pa.int64()))
            elif kinds <= {int, float}:
                fields.append((column, pa.float64()))
            else:
                return None
        return pa.schema(fields)

    def _slow_json(self, block: bytes, first_line: int, columns: Sequence[str]) -> pa.Table:
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError:
            self._refuse_bad_text()
            raise
        rows = []
        for line, entry in enumerate(text.split("\n"), start=first_line):
            if entry.strip():
                rows.append(_json_object(entry, name=self.name, line=line))
        return pa.table({column: objects_array([row.get(column) for row in rows]) for column in columns})


def objects_array(values: list[Any]) -> pa.Array:
    """Values of any JSON kind: lists of texts stay lists, the rest becomes text; null stays null."""
    if any(isinstance(value, list) for value in values):
        rows = [
            None if value is None else [_text(part) for part in (value if isinstance(value, list) else [value])]
            for value in values
        ]
        return pa.array(rows, pa.list_(pa.string()))
    if all(value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values):
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            pass
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return encodable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _json_object(text: str, *, name: str, line: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise DataError(f"{name}, line {line}: nested too deeply") from None
    except ValueError as error:
        column = getattr(error, "colno", 1)
        raise DataError(
            f"{name}, line {line}, character {column}: not JSON ({getattr(error, 'msg', error)})",
            value=text.strip()[max(0, column - 20) : column + 40],
            allowed="one JSON object a line",
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{name}, line {line}: not a JSON object", value=text.strip()[:60], allowed="one JSON object a line")
    return value


def _quick_json(block: bytes, schema: pa.Schema, *, num_lines: int) -> pa.Table | None:
    """The block's columns by Arrow; None where Python must look at it."""
    try:
        table = pajson.read_json(
            pa.BufferReader(block),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        table.validate(full=True)
    except (pa.ArrowException, UnicodeError):
        return None
    return table if table.num_rows == num_lines else None


class DelimitedTable(_TextTable):
    """Delimited text, quoted as in RFC 4180."""

    def __init__(
        self,
        files: SourceFiles,
        name: str,
        head: str,
        encoding: str,
        options: TextOptions,
        facts: list[tuple[str, str, str]],
    ) -> None:
        super().__init__(files, name, encoding)
        lines = head.splitlines(keepends=True)
        if len(head) >= SAMPLE_BYTES // 4 and len(lines) > 1:
            lines = lines[:-1]
        self._separator, why = _separator(lines[:300], options, name)
        rows = list(_split(iter(lines[: SAMPLE_ROWS + 1]), self._separator))
        if not rows:
            raise DataError(f"{name} has no rows", value=name)
        self._has_header, header_why = _has_header(rows, options)
        width = len(rows[0])
        if self._has_header:
            self.columns = [column.strip() for column in rows[0]]
            padded = [column for column in rows[0] if column != column.strip()]
            if padded:
                facts = [*facts, ("header", "blanks around names left out", ", ".join(repr(column) for column in padded[:5]))]
        else:
            self.columns = [f"column_{place}" for place in range(1, width + 1)]
        if len(rows) == self._has_header:
            raise DataError(f"{name} has a header and no rows", value=name)
        twice = [column for column, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise DataError(f"{name}, line 1: a column twice", value=", ".join(map(repr, twice[:5])))
        self._rows = [row for row in rows[self._has_header :] if len(row) == width]
        self.written = Written(
            format="delimited",
            facts=[
                ("format", "delimited text", ""),
                ("separator", SEPARATOR_NAMES.get(self._separator, repr(self._separator)), why),
                ("header", "yes" if self._has_header else "no: columns are numbered", header_why),
                *facts,
            ],
        )

    def sample(self) -> dict[str, list[Any]]:
        return {column: [row[place] for row in self._rows] for place, column in enumerate(self.columns)}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise DataError(f"{self.name}, line 1: no column {', '.join(missing)}", value=", ".join(self.columns[:20]))
        if len(self._separator) > 1:
            yield from self._by_python(columns)
            return
        convert = pacsv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=False,
            null_values=[],
            quoted_strings_can_be_null=False,
        )
        try:
            with self._files.stream(self.name) as raw:
                reader = pacsv.open_csv(
                    pa.PythonFile(_as_utf8(raw, self._encoding), mode="r"),
                    read_options=pacsv.ReadOptions(
                        use_threads=False,
                        block_size=BLOCK_BYTES,
                        column_names=self.columns,
                        skip_rows=int(self._has_header),
                    ),
                    parse_options=pacsv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
                    convert_options=convert,
                )
                for batch in reader:
                    yield pa.Table.from_batches([batch])
        except pa.ArrowInvalid as error:
            self._refuse_bad_text()
            self._refuse_bad_row()
            raise DataError(f"{self.name}: cannot be read ({error})", value=self.name) from None
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}: not {self._encoding} text ({error.reason})", hint="--encoding says another") from None

    def place(self, row: int) -> str:
        for number, (line, _) in enumerate(self._numbered()):
            if number == row + self._has_header:
                return f"{self.name}, line {line}"
        return self.name

    def _by_python(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        places = [self.columns.index(column) for column in columns]
        held: list[list[str]] = []
        for number, (line, row) in enumerate(self._numbered()):
            if number < self._has_header:
                continue
            self._check_width(line, row)
            held.append([row[place] for place in places])
            if len(held) == 100_000:
                yield _texts_table(columns, held)
                held = []
        if held:
            yield _texts_table(columns, held)

    def _numbered(self) -> Iterator[tuple[int, list[str]]]:
        """Rows that are not empty, with the line on which each ends."""
        with self._files.stream(self.name) as raw:
            text = io.TextIOWrapper(_as_utf8(raw, self._encoding), encoding="utf-8-sig", errors="replace", newline="")  # type: ignore[arg-type]
            if len(self._separator) > 1:
                for line, entry in enumerate(text, start=1):
                    if entry.strip():
                        yield line, entry.rstrip("\r\n").split(self._separator)
            else:
                reader = csv.reader(text, delimiter=self._separator)
                while True:
                    try:
                        row = next(reader)
                    except StopIteration:
                        return
                    except csv.Error as error:
                        raise DataError(f"{self.name}, line {reader.line_num}: {error}") from None
                    if row:
                        yield reader.line_num, row

    def _refuse_bad_row(self) -> None:
        for line, row in self._numbered():
            self._check_width(line, row)

    def _check_width(self, line: int, row: list[str]) -> None:
        if len(row) != len(self.columns):
            raise DataError(
                f"{self.name}, line {line}: {len(row)} columns where {len(self.columns)} are expected",
                value=self._separator.join(row)[:100],
                hint=f"columns are separated by {SEPARATOR_NAMES.get(self._separator, self._separator)}; a value that has the "
                "separator or a line break needs quotation marks around it",
            )


def _texts_table(columns: Sequence[str], rows: list[list[str]]) -> pa.Table:
    return pa.table({column: pa.array([row[place] for row in rows], pa.string()) for place, column in enumerate(columns)})


def _split(lines: Iterator[str], separator: str) -> Iterator[list[str]]:
    if len(separator) > 1:
        yield from (line.rstrip("\r\n").split(separator) for line in lines if line.strip())
        return
    try:
        yield from (row for row in csv.reader(lines, delimiter=separator) if row)
    except csv.Error:
        return


def _separator(lines: list[str], options: TextOptions, name: str) -> tuple[str, str]:
    if options.separator is not None:
        separator = {"\\t": "\t", "tab": "\t"}.get(options.separator, options.separator)
        if not separator or (len(separator) > 1 and len(set(separator)) > 1):
            raise ConfigError("a column separator is one character, or one twice", value=options.separator)
        return separator, "given"
    best: tuple[float, int, int] = (0.0, 0, 0)
    chosen = None
    for place, candidate in enumerate(SEPARATORS):
        widths = Counter(len(row) for row in _split(iter(lines), candidate))
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        share = count / sum(widths.values())
        if not 1 < width <= _MAX_COLUMNS or (candidate == " " and share < 1):
            continue
        rank = (round(share, 1), width if candidate != " " else 0, -place)
        if share >= 0.5 and rank > best:
            best, chosen = rank, candidate
    if chosen is None:
        raise DataError(
            f"{name}, line 1: no column separator found",
            value=lines[0].strip()[:100] if lines else "",
            allowed="tab, comma, semicolon, pipe, ::, blank",
            hint="give it with --separator; a table needs at least a user and an item column",
        )
    return chosen, f"gives {best[1]} columns in {best[0]:.0%} of the first {len(lines)} lines" if best[1] else "fits every line"


def _has_header(rows: list[list[str]], options: TextOptions) -> tuple[bool, str]:
    if options.has_header is not None:
        return options.has_header, "given"
    first = [normal_name(cell) for cell in rows[0]]
    known = [cell for cell in first if cell in options.known_columns]
    if known:
        return True, f"line 1 has {known[0]}"
    if any(_is_number(cell) for cell in rows[0]):
        return False, "line 1 has a number"
    below = rows[1:200]
    has_numbers_below = any(all(len(row) > place and _is_number(row[place]) for row in below) for place in range(len(first)))
    if below and has_numbers_below:
        return True, "line 1 has words where numbers follow"
    is_distinct = all(cell for cell in first) and len(set(first)) == len(first)
    seen = {cell for row in below for cell in row}
    return (True, "no cell of line 1 comes again") if is_distinct and not any(c in seen for c in rows[0]) else (
        False, "line 1 looks like the others"
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class ParquetTable:
    """A Parquet file."""

    def __init__(self, files: SourceFiles, name: str) -> None:
        self._files, self.name = files, name
        with self._open() as file:
            schema = file.schema_arrow
            self.columns = list(schema.names)
            rows = next(file.iter_batches(batch_size=SAMPLE_ROWS), None)
        self._sample = {} if rows is None else {column: rows.column(column).to_pylist() for column in self.columns}
        if not rows:
            raise DataError(f"{name} has no rows", value=name)
        self.written = Written(format="parquet", facts=[("format", "Parquet", "begins with PAR1")])

    def num_bytes(self) -> int | None:
        return self._files.num_bytes(self.name)

    def sample(self) -> dict[str, list[Any]]:
        return self._sample

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        with self._files.stream(self.name) as handle:  # for the checksum
            while handle.read(BLOCK_BYTES):
                pass
        with self._open() as file:
            try:
                for batch in file.iter_batches(batch_size=1 << 17, columns=list(columns)):
                    table = pa.Table.from_batches([batch])
                    table.validate(full=True)
                    yield table
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.name} is damaged ({error})", value=self.name, hint="get the file again") from None

    def place(self, row: int) -> str:
        return f"{self.name}, row {row + 1}"

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(pa.PythonFile(self._files.seekable(self.name), mode="r"))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name} is not a whole Parquet file ({error})", value=self.name, hint="get it again") from None


class FrameTable:
    """A pandas frame."""

    def __init__(self, frame: Any, name: str) -> None:
        self.name = name
        try:
            self._table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError):
            texts = frame.map(lambda value: value if isinstance(value, (list, str)) or value is None else str(value))
            self._table = pa.table({str(column): objects_array(texts[column].tolist()) for column in frame.columns})
        self.columns = list(self._table.column_names)
        self.written = Written(format="frame", facts=[("format", "pandas frame", "")])
        if not self._table.num_rows:
            raise DataError(f"{name} has no rows", value=name)

    def num_bytes(self) -> int | None:
        return None

    def sample(self) -> dict[str, list[Any]]:
        head = self._table.slice(0, SAMPLE_ROWS)
        return {column: head[column].to_pylist() for column in self.columns}

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        yield self._table.select(list(columns))

    def place(self, row: int) -> str:
        return f"{self.name}, row {row + 1}"


class PartsTable:
    """Several files with the same columns, one after the other.

    Args:
        parts: the files.
        name: of the whole.
        split: the part of the split that each file is, as a code of `splits.PARTS`; None where files give no split.
    """

    def __init__(self, parts: list[Table], name: str, *, split: Sequence[int] | None = None) -> None:
        self._parts, self.name, self._split = parts, name, split
        self._num_rows = 0
        self.columns = parts[0].columns
        self.written = parts[0].written
        self._starts: list[int] = []
        for part in parts[1:]:
            missing = sorted(set(self.columns) - set(part.columns))
            if missing:
                raise DataError(f"{part.name} lacks columns that {parts[0].name} has", value=", ".join(map(repr, missing[:5])))
        if len(parts) > 1:
            self.written.facts.insert(0, ("part files", f"{len(parts)}: {parts[0].name} … {parts[-1].name}", "same columns"))

    def num_bytes(self) -> int | None:
        sizes = [part.num_bytes() for part in self._parts]
        return None if None in sizes else sum(size for size in sizes if size)

    def sample(self) -> dict[str, list[Any]]:
        return self._parts[0].sample()

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        self._starts, start = [], 0
        for part in self._parts:
            self._starts.append(start)
            for batch in part.batches(columns):
                start += batch.num_rows
                yield batch
        self._num_rows = start

    def split_of_rows(self) -> np.ndarray | None:
        """The part of the split that each row is in, once all batches are read."""
        if self._split is None:
            return None
        return np.repeat(np.array(self._split, dtype=np.int8), np.diff([*self._starts, self._num_rows]))

    def place(self, row: int) -> str:
        number = max((n for n, start in enumerate(self._starts) if start <= row), default=0)
        return self._parts[number].place(row - self._starts[number])


def as_texts(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as strings; whole numbers without decimals, null stays null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_texts(array.dictionary_decode())
    if pa.types.is_string(kind):
        return array
    if pa.types.is_floating(kind):
        texts = [
            None if n is None or n != n else str(int(n)) if float(n).is_integer() and abs(n) < 2**53 else repr(n)
            for n in array.to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_integer(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        return pc.cast(array, pa.string())
    return pa.array([None if value is None else _text_of(value) for value in array.to_pylist()], pa.string())


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
