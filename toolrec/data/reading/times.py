"""Times of interactions: units, dates, positions; what they look like is said, what contradicts itself is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from toolrec.data.reading.findings import Findings, visible
from toolrec.data.reading.identity import MISSING_WORDS
from toolrec.errors import DataError

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "mixed"]
TIME_UNITS: tuple[TimeUnit, ...] = ("auto", "s", "ms", "us", "ns", "mixed")
UNIT_FROM = {"s": 1e8, "ms": 1e11, "us": 1e14, "ns": 1e17}
"""From which size a number is read in a unit: 10^8 s is 1973, 10^11 s would be the year 5138."""
UNIT_WORDS = {"s": "Unix seconds", "ms": "Unix milliseconds", "us": "Unix microseconds", "ns": "Unix nanoseconds"}
_DIVISOR = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_TIED_WARNING = 0.05
_MIN_TIED = 10
_DIGITS = re.compile(r"(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value that cannot be read, and its row."""

    row: int
    text: str


def to_times(column: pa.Array) -> tuple[np.ndarray, bool, Cell | None]:
    """A column as float64, NaN where missing: numbers as they are, dates as Unix seconds.

    Returns:
        values; whether they were dates; the first cell that is neither, or None.
    """
    kind = column.type
    if pa.types.is_temporal(kind):
        stamps = pc.cast(column, pa.timestamp("us"), safe=False)
        seconds = pc.cast(stamps, pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
        seconds[pc.is_null(column).to_numpy(zero_copy_only=False)] = np.nan
        return seconds, True, None
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), False, None
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64), False, None
    texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    gone = pc.is_in(pc.utf8_lower(pc.fill_null(texts, "")), value_set=pa.array(MISSING_WORDS))
    texts = pc.if_else(gone, None, texts)
    try:
        return pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64), False, None
    except pa.ArrowInvalid:
        pass
    series = texts.to_pandas()
    numbers = pd.to_numeric(series, errors="coerce")
    left = series.notna() & numbers.isna()
    if bool((numbers.notna()).any()):
        row = int(np.flatnonzero(left.to_numpy())[0]) if bool(left.any()) else 0
        return numbers.to_numpy(dtype=np.float64), False, Cell(row, str(series.iloc[row])) if bool(left.any()) else None
    dates = _dates(series)
    bad = series.notna().to_numpy() & np.isnan(dates)
    cell = None
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        cell = Cell(row, str(series.iloc[row]))
    return dates, True, cell


def _dates(series: pd.Series) -> np.ndarray:
    best = np.full(len(series), np.nan)
    for options in ({"format": "ISO8601"}, {"format": "mixed"}):
        try:
            parsed = pd.to_datetime(series, errors="coerce", utc=True, **options)  # type: ignore[call-overload]
        except (ValueError, OverflowError, TypeError):
            continue
        # Dates beyond what nanoseconds hold have another unit.
        seconds = np.asarray(parsed.astype("datetime64[us, UTC]").astype("int64"), dtype=np.float64) / 1e6
        best = np.where(parsed.isna().to_numpy(), np.nan, seconds)
        if not np.isnan(best[series.notna().to_numpy()]).any():
            break
    return best


def in_one_unit(
    times: np.ndarray, findings: Findings, *, subject: str, unit: TimeUnit = "auto", is_dates: bool = False
) -> np.ndarray:
    """Times in seconds or milliseconds (kept as they are), micro- and nanoseconds as seconds.

    Raises:
        DataError: seconds and milliseconds mixed.
    """
    known = times[~np.isnan(times)]
    if is_dates:
        findings.found(subject, f"dates, {date_range(known)}", "read as Unix seconds")
        return times
    if not len(known):
        return times
    if unit not in ("auto", "mixed"):
        findings.found(subject, f"{UNIT_WORDS[unit]}, {date_range(known / _DIVISOR[unit])}", "given")
        return times if unit in ("s", "ms") else times / _DIVISOR[unit]
    size = np.abs(known)
    counts = {name: int(np.sum(size >= low)) for name, low in UNIT_FROM.items()}
    exact = {
        "s": counts["s"] - counts["ms"],
        "ms": counts["ms"] - counts["us"],
        "us": counts["us"] - counts["ns"],
        "ns": counts["ns"],
    }
    present = [name for name, count in exact.items() if count]
    if not present:
        return times
    if len(present) > 1:
        shares = ", ".join(f"{UNIT_WORDS[name]}: {exact[name]:,} rows" for name in present)
        if unit != "mixed":
            raise DataError(
                f"{subject}: times of several units are mixed ({shares}): all rows of one would come after those of the other",
                hint="--time-unit mixed reads each by its size; or mend the file",
            )
        findings.warn(subject, "each time read by its size", shares)
        result = times.copy()
        for name in ("ms", "us", "ns"):
            result = np.where(np.abs(times) >= UNIT_FROM[name], times / _DIVISOR[name], result)
        return result
    name = present[0]
    small = int(np.sum(size < UNIT_FROM["s"]))
    seconds = known[size >= UNIT_FROM["s"]] / _DIVISOR[name]
    findings.found(subject, f"{UNIT_WORDS[name]}, {date_range(seconds)}", "by the size of the numbers", change="--time-unit")
    if small:
        zeros = int(np.sum(known == 0))
        what = f"{zeros:,} times are 0" if zeros == small else f"{small:,} times are before 1973, {zeros:,} of them 0"
        findings.warn(subject, what, "such rows become their user's oldest; 0 often stands for a missing time")
    return times if name in ("s", "ms") else times / _DIVISOR[name]


def date_range(seconds: np.ndarray) -> str:
    """The first and last day in words."""
    if not len(seconds):
        return "no dates"
    return f"{as_date(float(np.min(seconds)))} to {as_date(float(np.max(seconds)))}"


def as_date(seconds: float) -> str:
    """A day in UTC, or the number where it is none."""
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """How far the order of a user's items is known.

    `neighbours` is the share of a user's consecutive items with equal times, `targets` that of test targets that have
    the time of the item before, `in_id_order` whether tied items stand in the order of their ids throughout.
    """

    neighbours: float
    targets: float
    in_id_order: bool


def ties_of(user_index: np.ndarray, times: np.ndarray, items: np.ndarray, item_ids: Sequence[str], targets: np.ndarray) -> Ties:
    """Ties of interactions by user, oldest first; `items` are codes into `item_ids`, `targets` rows of test targets."""
    if len(times) < 2:
        return Ties(neighbours=0.0, targets=0.0, in_id_order=False)
    same_user = user_index[1:] == user_index[:-1]
    tied = same_user & (times[1:] == times[:-1])
    num_pairs = int(same_user.sum())
    is_target_tied = tied[targets[targets > 0] - 1]
    num_tied = int(tied.sum())
    return Ties(
        neighbours=num_tied / max(num_pairs, 1),
        targets=int(is_target_tied.sum()) / max(len(targets), 1),
        in_id_order=num_tied >= _MIN_TIED and _stand_in_id_order(items[:-1][tied], items[1:][tied], item_ids),
    )


def _stand_in_id_order(first: np.ndarray, second: np.ndarray, item_ids: Sequence[str]) -> bool:
    """Whether every second id comes after the first, by text or by the numbers in it."""
    for key in (lambda text: text, _natural):
        rises = (key(item_ids[a]) < key(item_ids[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True))
        if all(rises):
            return True
    return False


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(text)]


def report_ties(findings: Findings, ties: Ties, *, tie_break: str) -> None:
    """Says how many neighbours and test targets are tied."""
    if not ties.neighbours:
        return
    what = f"{ties.neighbours:.1%} of neighbours in a history have equal times, {ties.targets:.1%} of test targets are tied"
    why = f"tied items stand in {tie_break.replace('_', ' ')}"
    if ties.in_id_order and tie_break == "source_order":
        why += ", which is the order of the item ids here: it says nothing of time and can inflate figures"
    tell = findings.warn if ties.targets > _TIED_WARNING or ties.in_id_order else findings.note
    tell("timestamps", what, why, change="--tie-break")


def bad_cell(place: str, column: str, text: str, *, expected: str) -> DataError:
    """The error for a cell that cannot be read."""
    return DataError(f"{place}, column {column}: not {expected}", value=visible(text))
