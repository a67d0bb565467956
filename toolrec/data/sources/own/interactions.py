"""All rows of a table of interactions, in batches: coded ids, ratings and times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toolrec.data.raw import RawInteractions
from toolrec.data.reading import identity
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import (
    BLOCK_BYTES,
    PartsTable,
    Table,
    as_texts,
    normal_name,
)
from toolrec.data.reading.times import bad_cell, in_one_unit, to_times
from toolrec.data.sources.own.columns import Roles, exact_column, number_or_none
from toolrec.data.sources.own.config import OwnConfig
from toolrec.errors import DataError
from toolrec.util.progress import Progress, track

_MANY_MISSING = 0.05
SHOWN_FROM_BYTES = 32 << 20
"""Files from this size on are read with a progress bar."""


def read_interactions(table: Table, roles: Roles, config: OwnConfig, findings: Findings) -> RawInteractions:
    """All rows, in batches: coded ids, ratings and times; rows without a user or an item are dropped and counted."""
    columns = list(dict.fromkeys([*roles.columns(), *(exact_column(name, table, "keep") for name in config.keep)]))
    parts: list[pa.Table] = []
    ratings: list[np.ndarray] = []
    times: list[np.ndarray] = []
    masks: list[np.ndarray | None] = []
    are_dates: set[bool] = set()
    start = num_other = 0
    size = table.num_bytes() or 0
    with reading_bar(table.name, size) as bar:
        reached = 0
        for batch in table.batches(columns):
            num_rows = batch.num_rows
            users, items = as_texts(batch[roles.user]), as_texts(batch[roles.item])
            mask, dropped = _kept(batch, config.keep, table)
            num_other += dropped
            masks.append(mask)
            if roles.rating:
                ratings.append(_selected(_ratings(batch[roles.rating], table, roles.rating, start, config), mask))
            if roles.time:
                values, is_date, cell = to_times(_combined(batch[roles.time]))
                if cell is not None:
                    raise bad_cell(
                        table.place(start + cell.row),
                        roles.time,
                        cell.text,
                        expected="a time (Unix seconds or milliseconds, or a date)",
                    )
                if not np.isnan(values).all():
                    are_dates.add(is_date)
                times.append(_selected(values, mask))
            if mask is not None:
                users, items = users.filter(pa.array(mask)), items.filter(pa.array(mask))
            parts.append(pa.table({"user": users.dictionary_encode(), "item": items.dictionary_encode()}))
            start += num_rows
            now = min(size >> 20, reached + (BLOCK_BYTES >> 20))
            bar.advance(now - reached)
            reached = now
    if not start:
        raise DataError(f"{table.name} has no rows", value=table.name)
    if len(are_dates) > 1:
        raise DataError(f"{table.name}, column {roles.time}: numbers and dates are mixed", hint="write all times in one way")
    if config.keep:
        kept = start - num_other
        findings.note(
            "interactions",
            f"{kept:,} of {start:,} rows kept",
            ", ".join(f"{name} is {' or '.join(values)}" for name, values in config.keep.items()),
        )
        if not kept:
            raise DataError(
                "--keep leaves no interaction",
                value=", ".join(f"{name}={','.join(values)}" for name, values in config.keep.items()),
            )
    together = pa.concat_tables(parts)
    words = frozenset(config.attributes.missing)
    user_codes, user_ids = _ids(together["user"], "user ids", words, findings)
    item_codes, item_ids = _ids(together["item"], "item ids", words, findings)
    del parts, together
    rating = np.concatenate(ratings) if ratings else None
    time = np.concatenate(times) if times else None
    split = table.split_of_rows() if isinstance(table, PartsTable) else None
    if split is not None and masks and masks[0] is not None:
        split = split[np.concatenate([mask for mask in masks if mask is not None])]
    good = (user_codes >= 0) & (item_codes >= 0)
    good = _report_lost(findings, table, roles, user_codes, item_codes, time, user_ids, item_ids, good)
    if not good.all():
        user_codes, item_codes = user_codes[good], item_codes[good]
        rating, time, split = (None if values is None else values[good] for values in (rating, time, split))
        user_codes, user_ids = _compacted(user_codes, user_ids)
        item_codes, item_ids = _compacted(item_codes, item_ids)
    if not len(user_codes):
        raise DataError(f"{table.name}: no row has both a user and an item", value=f"{roles.user}, {roles.item}")
    if time is not None:
        time = in_one_unit(time, findings, subject=f"column {roles.time}", unit=config.time_unit, is_dates=True in are_dates)
    if rating is not None:
        rating = _report_ratings(rating, roles.rating or "", findings)
    findings.found("interactions", f"{len(user_codes):,} rows, {len(user_ids):,} users, {len(item_ids):,} items")
    return RawInteractions(
        user_ids=user_ids,
        item_ids=item_ids,
        users=user_codes.astype(np.int32),
        items=item_codes.astype(np.int32),
        ratings=None if rating is None else rating.astype(np.float32),
        timestamps=time,
        parts=split,
    )


@contextlib.contextmanager
def reading_bar(name: str, num_bytes: int) -> Iterator[Progress]:
    """The progress of reading a file; small ones are read before anybody looks."""
    if num_bytes < SHOWN_FROM_BYTES:
        yield _NoBar()
    else:
        with track(f"reading {name}", total=num_bytes >> 20, unit="MiB") as bar:
            yield bar


class _NoBar:
    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Nothing is shown."""


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _selected(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return values if mask is None else values[mask]


def _kept(batch: pa.Table, keep: Mapping[str, Sequence[str]], table: Table) -> tuple[np.ndarray | None, int]:
    mask: np.ndarray | None = None
    for name, values in keep.items():
        found = pc.is_in(as_texts(batch[exact_column(name, table, "keep")]), value_set=pa.array(list(values), pa.string()))
        now = found.to_numpy(zero_copy_only=False)
        mask = now if mask is None else mask & now
    return mask, 0 if mask is None else int((~mask).sum())


def _ratings(column: pa.ChunkedArray, table: Table, name: str, start: int, config: OwnConfig) -> np.ndarray:
    array = _combined(column)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return np.asarray(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    texts = pc.utf8_trim_whitespace(as_texts(array))
    gone = pc.is_in(pc.utf8_lower(pc.fill_null(texts, "")), value_set=pa.array(list(config.attributes.missing), pa.string()))
    texts = pc.if_else(gone, None, texts)
    try:
        numbers = np.asarray(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowInvalid:
        row = next(row for row, text in enumerate(texts.to_pylist()) if text is not None and number_or_none(text) is None)
        raise bad_cell(table.place(start + row), name, texts[row].as_py(), expected="a number") from None
    infinite = np.isinf(numbers)
    if infinite.any():
        row = int(np.flatnonzero(infinite)[0])
        raise bad_cell(table.place(start + row), name, str(numbers[row]), expected="a finite number")
    return numbers


def _ids(column: pa.ChunkedArray, subject: str, words: frozenset[str], findings: Findings) -> tuple[np.ndarray, list[str]]:
    codes, distinct = identity.distinct(column)
    ids = distinct.to_numpy(zero_copy_only=False).tolist()
    if (not len(codes) or int(codes.max()) < len(ids)) and identity.need_no_mending(distinct, words):
        return codes, ids
    mended, changed = identity.mended_ids(ids, words=words)
    before = sum(text is not None for text in mended)
    new_codes, kept = identity.recode(codes, mended)
    identity.report_changes(findings, subject, changed, merged=before - len(kept))
    return new_codes, kept


def _compacted(codes: np.ndarray, ids: list[str]) -> tuple[np.ndarray, list[str]]:
    used = np.unique(codes)
    place = np.full(len(ids), -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return place[codes], [ids[code] for code in used]


def _report_lost(
    findings: Findings,
    table: Table,
    roles: Roles,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray | None,
    user_ids: list[str],
    item_ids: list[str],
    good: np.ndarray,
) -> np.ndarray:
    """Says which rows are dropped for what; a second header is none of the data."""
    for codes, name in ((users, roles.user), (items, roles.item)):
        gone = int((codes < 0).sum())
        if gone:
            tell = findings.warn if gone > _MANY_MISSING * len(codes) else findings.note
            tell(
                "interactions",
                f"{gone:,} of {len(codes):,} rows dropped: no value in column {name}",
                table.place(int(np.argmax(codes < 0))),
            )
    headers = (_code(user_ids, roles.user), _code(item_ids, roles.item))
    if None not in headers:
        again = (users == headers[0]) & (items == headers[1])
        if again.any():
            findings.warn(
                "interactions", f"{int(again.sum()):,} rows dropped: the header once more", table.place(int(np.argmax(again)))
            )
            good = good & ~again
    if times is not None:
        gone_times = np.isnan(times) & good
        if gone_times.all():
            raise DataError(f"{table.name}, column {roles.time}: no row has a time", hint="choose another with --time-column")
        if gone_times.any():
            findings.warn(
                "interactions",
                f"{int(gone_times.sum()):,} of {len(times):,} rows dropped: no value in column {roles.time}",
                table.place(int(np.argmax(gone_times))),
            )
            good = good & ~gone_times
    return good


def _code(ids: list[str], header: str) -> int | None:
    """The code of the id that is the column's own name."""
    form = normal_name(header)
    likely = ((code, text) for code, text in enumerate(ids) if text[:1].casefold() == form[:1] and len(text) <= len(form) + 20)
    return next((code for code, text in likely if normal_name(text) == form), None)


def _report_ratings(ratings: np.ndarray, name: str, findings: Findings) -> np.ndarray | None:
    known = ratings[~np.isnan(ratings)]
    if not len(known):
        findings.note("ratings", f"column {name} has no value", "read as a source without ratings")
        return None
    findings.found("ratings", f"{known.min():g} to {known.max():g}, mean {known.mean():.2f}", f"column {name}")
    gone = len(ratings) - len(known)
    if gone:
        findings.note("ratings", f"{gone:,} of {len(ratings):,} interactions have none", "they are kept; --min-rating drops them")
    if known.min() == known.max():
        findings.note("ratings", f"every rating is {known.min():g}", "they say nothing")
    return ratings
