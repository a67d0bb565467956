"""Ids: missing ones are dropped, blanks at the ends and Unicode forms are mended, and the two files' ids are compared."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toolrec.data.reading.findings import Findings, examples
from toolrec.errors import DataError

MISSING_WORDS = ("", "nan", "none", "null", "n/a", "na", "<na>", "nat", "#n/a", "-", "–", "—", "(no genres listed)", "\\n")
"""What stands for a missing value, in any case of letters (`\\n` is MySQL's)."""
_INTEGRAL = re.compile(r"^-?\d+\.0+$")
LOW_MATCH = 0.9
"""Of fewer items than this with an entry in the item file, a warning is given."""


def is_missing(text: str | None, words: Collection[str] = MISSING_WORDS) -> bool:
    """Whether a cell has no value."""
    return text is None or text.strip().casefold() in words


def mended_ids(
    ids: Sequence[str | None], *, words: Collection[str] = MISSING_WORDS
) -> tuple[list[str | None], dict[str, list[str]]]:
    """Ids without blanks at their ends and in Unicode's composed form, None where missing; and what was changed, by reason."""
    changed: dict[str, list[str]] = {}
    mended: list[str | None] = []
    for text in ids:
        if text is None or is_missing(text, words):
            changed.setdefault("missing", []).append("" if text is None else text)
            mended.append(None)
            continue
        bare = text.strip()
        if bare != text:
            changed.setdefault("blanks at the ends", []).append(text)
        if not bare.isascii():
            composed = unicodedata.normalize("NFC", bare)
            if composed != bare:
                changed.setdefault("not in Unicode's composed form (NFC)", []).append(text)
            bare = composed
        mended.append(bare)
    return mended, changed


def recode(codes: np.ndarray, ids: Sequence[str | None]) -> tuple[np.ndarray, list[str]]:
    """Codes along ids that may repeat or be missing -> codes by first appearance along distinct ids; -1 where missing."""
    place_of: dict[str, int] = {}
    new_of = np.full(len(ids) + 1, -1, dtype=np.int64)
    for code, text in enumerate(ids):
        if text is not None:
            new_of[code] = place_of.setdefault(text, len(place_of))
    return new_of[codes], list(place_of)


def report_changes(findings: Findings, subject: str, changed: dict[str, list[str]], *, merged: int) -> None:
    """Says what was done to ids."""
    for reason, texts in changed.items():
        if reason == "missing":
            continue
        what = f"{len(texts):,} ids mended"
        findings.warn(
            subject,
            what + (f", {merged:,} of them are now one with another id" if merged else ""),
            f"{reason}: {examples(texts)}",
        )


def unified(interaction_ids: list[str], item_ids: list[str]) -> tuple[list[str], list[str], str]:
    """Item ids of the two files in one form, where pandas wrote whole numbers of one of them with decimals (`1.0`)."""
    known = set(item_ids)
    num_matched = sum(item_id in known for item_id in interaction_ids)
    for here, there, name in ((interaction_ids, item_ids, "interactions"), (item_ids, interaction_ids, "items")):
        if here and all(_INTEGRAL.match(text) for text in here) and not any(_INTEGRAL.match(text) for text in there):
            bare = [text.partition(".")[0] for text in here]
            if len(set(bare)) == len(set(here)) and len(set(bare) & set(there)) > num_matched:
                both = (bare, item_ids) if name == "interactions" else (interaction_ids, bare)
                return *both, f"all ids of the {name} end in .0 and those of the other file do not"
    return interaction_ids, item_ids, ""


def check_match(
    findings: Findings, interaction_ids: Collection[str], item_ids: Collection[str], *, interactions: str, items: str
) -> None:
    """Says how many items have an entry in the item file.

    Raises:
        DataError: none has.
    """
    known = set(item_ids)
    unmatched = [item_id for item_id in interaction_ids if item_id not in known]
    num_ids = len(interaction_ids)
    matched = num_ids - len(unmatched)
    if not matched:
        raise DataError(
            f"0 of {num_ids:,} item ids of {interactions} are in {items}",
            value=f"{examples(list(interaction_ids), limit=3)} against {examples(list(item_ids), limit=3)}",
            hint="the two files need the same ids; without the item file the data set has no titles and no attributes",
        )
    what = f"{matched:,} of {num_ids:,} item ids have an entry in {items}"
    if matched < LOW_MATCH * num_ids:
        folded = {_folded(item_id) for item_id in item_ids}
        alike = sum(_folded(item_id) in folded for item_id in unmatched)
        hint = f"; {alike:,} would match but for upper and lower case, leading zeros or decimals" if alike else ""
        findings.warn(
            "item ids", what, f"without: {examples(unmatched)}{hint}; their ids become titles and they have no attributes"
        )
    elif unmatched:
        findings.note("item ids", what, f"without: {examples(unmatched)}")
    else:
        findings.found("item ids", what)


def _folded(text: str) -> str:
    bare = text.casefold()
    return bare.partition(".")[0].lstrip("0") if _INTEGRAL.match(bare) or bare.isdigit() else bare


def refuse_repeated_ids(item_ids: Sequence[str], *, where: str, places: Sequence[str] | None = None) -> None:
    """Refuses an item file with two entries for one id.

    Raises:
        DataError: with both places.
    """
    twice = [item_id for item_id, count in Counter(item_ids).items() if count > 1]
    if not twice:
        return
    rows = [row for row, item_id in enumerate(item_ids) if item_id == twice[0]][:2]
    shown = " and ".join(places[row] for row in rows) if places else where
    raise DataError(f"{shown}: the same item id twice", value=twice[0])


def distinct(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes of a column of strings by first appearance (the number of distinct strings where null), and the strings."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries()
    dictionary = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], pa.string())
    codes = [pc.fill_null(chunk.indices, len(dictionary)).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return np.concatenate(codes) if codes else np.empty(0, dtype=np.int32), dictionary


def need_no_mending(ids: pa.Array, words: Collection[str]) -> bool:
    """Whether `mended_ids` would change nothing; far quicker to tell."""
    if ids.null_count or not pc.all(pc.string_is_ascii(ids)).as_py():
        return False
    is_bare = pc.all(pc.equal(pc.utf8_trim_whitespace(ids), ids)).as_py()
    short = ids.filter(pc.less_equal(pc.binary_length(ids), max(map(len, words), default=0)))
    return bool(is_bare) and not pc.any(pc.is_in(pc.utf8_lower(short), value_set=pa.array(sorted(words), pa.string()))).as_py()
