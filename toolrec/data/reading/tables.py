"""Delimited text to columns and coded interactions; every complaint names the file and the line."""

from __future__ import annotations

import io
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from toolrec.data.raw import RawInteractions
from toolrec.errors import DataError

_BLOCK_BYTES = 1 << 24
_EMPTY_LINE = re.compile(rb"(?:^|\n)\r?\n")


def decode(content: bytes, *, where: str) -> str:
    """UTF-8 text without a byte order mark.

    Raises:
        DataError: another encoding, with the line where it shows.
    """
    refuse_wide(content, where=where)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: not UTF-8 text ({error.reason})", hint="save the file as UTF-8") from None


def decode_latin(content: bytes, *, where: str) -> str:
    """Text of the old GroupLens files: latin-1, but UTF-8 where somebody saved them again as that."""
    refuse_wide(content, where=where)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def refuse_wide(content: bytes, *, where: str) -> None:
    """Refuses UTF-16, UTF-32 and binary files, which latin-1 would read as nonsense.

    Raises:
        DataError: the content has null bytes.
    """
    if b"\x00" in content:
        raise DataError(f"{where}: not a text file of one byte a character (it has null bytes)", hint="save the file as UTF-8")


def read_columns(content: bytes, *, where: str, separator: str, num_columns: int, first_line: int = 1) -> list[pa.Array]:
    """Columns of strings from delimited UTF-8 text without quoting.

    Args:
        content: rows; no header.
        where: the file's name, for messages.
        separator: one character, or one character twice (GroupLens' `::`).
        num_columns: how many there must be in every row.
        first_line: line number of the first row.

    Raises:
        DataError: an empty line, a row with another number of columns, or a wrong encoding.
    """
    decode(content, where=where)
    content = content.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"
    empty = _EMPTY_LINE.search(content)
    if empty:
        line = content.count(b"\n", 0, empty.end()) + first_line - 1
        raise DataError(f"{where}, line {line}: an empty line")
    # `a::b` is split at every colon, and the empty columns in between are left out: far quicker than splitting at two characters.
    step = len(separator)
    width = num_columns * step - (step - 1)
    problems: list[str] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        line = "?" if row.number is None else row.number + first_line - 1
        columns = (row.actual_columns + step - 1) // step
        problems.append(f"{where}, line {line}: {columns} columns where {num_columns} are expected")
        return "error"

    names = [str(column) for column in range(width)]
    try:
        table = pacsv.read_csv(
            io.BytesIO(content),
            read_options=pacsv.ReadOptions(column_names=names, use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=pacsv.ParseOptions(
                delimiter=separator[0], quote_char=False, ignore_empty_lines=False, invalid_row_handler=refuse
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, null_values=[]
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(
            problems[0] if problems else f"{where}: cannot be read ({error})", hint=f"columns are separated by {separator!r}"
        ) from None
    return [table.column(column).combine_chunks() for column in range(0, width, step)]


def to_numbers(column: pa.Array, *, name: str, where: str, first_line: int = 1, empty_is_missing: bool = False) -> np.ndarray:
    """A column of strings as float64; NaN for an empty string where that may be.

    Raises:
        DataError: an entry is not a finite number, with its line.
    """
    if empty_is_missing:
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column)
    try:
        numbers = pc.cast(column, pa.float64())
        values = numbers.to_numpy(zero_copy_only=False)
        if bool(np.all(np.isfinite(values) | pc.is_null(column).to_numpy(zero_copy_only=False))):
            return np.asarray(values)
    except pa.ArrowInvalid:
        pass
    for row, text in enumerate(column.to_pylist()):
        if text is not None and as_number(text) is None:
            raise DataError(f"{where}, line {row + first_line}: {name} is not a number", value=text)
    return np.array([math.nan if text is None else float(text) for text in column.to_pylist()])


def as_number(text: str) -> float | None:
    """The finite number that a text is, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def code_interactions(
    user_ids: pa.Array, item_ids: pa.Array, ratings: np.ndarray | None, timestamps: np.ndarray | None
) -> RawInteractions:
    """Codes users and items by first appearance."""
    users, items = user_ids.dictionary_encode(), item_ids.dictionary_encode()
    return RawInteractions(
        user_ids=users.dictionary.to_pylist(),
        item_ids=items.dictionary.to_pylist(),
        users=users.indices.to_numpy(),
        items=items.indices.to_numpy(),
        ratings=None if ratings is None else ratings.astype(np.float32),
        timestamps=timestamps,
    )


def refuse_repeated_ids(item_ids: list[str], *, where: str, first_line: int = 1) -> None:
    """Refuses an item file with two entries for one id.

    Raises:
        DataError: with both lines.
    """
    lines: dict[str, int] = {}
    for line, item_id in enumerate(item_ids, start=first_line):
        if item_id in lines:
            raise DataError(f"{where}, lines {lines[item_id]} and {line}: the same item id twice", value=item_id)
        lines[item_id] = line
