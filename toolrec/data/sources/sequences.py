"""Files of one user a line, `user item item …`: KGAT's amazon-book and yelp2018, and the sequences of S3-Rec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from toolrec.data.raw import RawAttribute, RawData, RawInteractions, RawItems
from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.tables import decode
from toolrec.data.sources.layout import LayoutConfig, one_file, raw_data
from toolrec.errors import DataError

_LIST_COLUMNS = ("org_id", "remap_id")


def read_kgat(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads `train.txt`, `test.txt` and, where they are there, `item_list.txt` and `user_list.txt`.

    Each user's items are those of `train.txt`, then those of `test.txt`. KGAT's split is random, not by time: it is put
    together and split anew.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    for name in ("train.txt", "test.txt"):
        one_file(files, lambda found, name=name: found == name, what=name, allowed="KGAT's train.txt and test.txt")  # type: ignore[misc]
    lines: dict[str, list[str]] = {}
    for name in ("train.txt", "test.txt"):
        for _, user_id, item_ids in _lines(files, name):
            lines.setdefault(user_id, []).extend(item_ids)
    findings.warn("interactions", "train.txt and test.txt are put together", "KGAT's split is random; the data set is split anew")
    findings.warn(
        "timestamps", "none: the order of a user's line is taken for the order in time", "KGAT's files promise no order"
    )
    users = _ids_by_number(files, "user_list.txt")
    items = _ids_by_number(files, "item_list.txt")
    interactions = _interactions(lines, users, items, findings)
    findings.warn("items", "no titles and no attributes", "give a table of them with --items")
    return raw_data(config, "kgat", files, interactions, RawItems(item_ids=[], titles=[]), findings)


def read_s3rec(files: SourceFiles, config: LayoutConfig) -> RawData:
    """Reads `X.txt` and, where it is there, `X_item2attributes.json`.

    Raises:
        DataError: missing or damaged.
    """
    findings = Findings()
    name = one_file(
        files,
        lambda found: found.endswith(".txt") and not found.startswith("README") and "_sample" not in found,
        what="sequences",
        allowed="S3-Rec's X.txt, one user a line",
    )
    lines = {user_id: item_ids for _, user_id, item_ids in _lines(files, name)}
    interactions = _interactions(lines, {}, {}, findings)
    findings.note("timestamps", "the order of a user's line is the order in time", "as S3-Rec writes its files")
    attributes = files.ending_with("item2attributes.json")
    items = RawItems(item_ids=[], titles=[])
    if attributes:
        items = _s3rec_items(files, attributes[0], set(interactions.item_ids))
        findings.note("titles", "none: S3-Rec's files have numbers only", "an LLM knows the items by their ids only")
    return raw_data(config, "s3rec", files, interactions, items, findings)


def _lines(files: SourceFiles, name: str) -> Iterator[tuple[int, str, list[str]]]:
    seen: dict[str, int] = {}
    for line, text in enumerate(decode(files.read(name), where=name).rstrip("\n").split("\n"), start=1):
        parts = text.split()
        if not parts:
            raise DataError(f"{name}, line {line}: an empty line")
        for column, part in enumerate(parts, start=1):
            if not part.isascii() or not part.isdigit():
                raise DataError(
                    f"{name}, line {line}, column {column}: not a whole number", value=part, allowed="user item item …"
                )
        if parts[0] in seen:
            raise DataError(f"{name}, lines {seen[parts[0]]} and {line}: the same user twice", value=parts[0])
        seen[parts[0]] = line
        yield line, parts[0], parts[1:]


def _ids_by_number(files: SourceFiles, name: str) -> dict[str, str]:
    """Original ids by the number that the lists have; empty without such a file."""
    if not files.has(name):
        return {}
    ids: dict[str, str] = {}
    for line, text in enumerate(decode(files.read(name), where=name).rstrip("\n").split("\n"), start=1):
        parts = text.split()
        if line == 1 and tuple(parts[:2]) == _LIST_COLUMNS:
            continue
        if len(parts) < 2:
            raise DataError(f"{name}, line {line}: {len(parts)} columns where at least 2 are expected", value=text[:60])
        if parts[1] in ids:
            raise DataError(f"{name}, line {line}, column 2: the same number twice", value=parts[1])
        ids[parts[1]] = parts[0]
    return ids


def _interactions(
    lines: dict[str, list[str]], user_names: dict[str, str], item_names: dict[str, str], findings: Findings
) -> RawInteractions:
    user_ids = [user_names.get(user, user) for user in lines]
    code_of: dict[str, int] = {}
    items = np.array([code_of.setdefault(item, len(code_of)) for row in lines.values() for item in row], dtype=np.int32)
    unnamed = sum(item not in item_names for item in code_of) if item_names else 0
    if unnamed:
        findings.warn("item ids", f"{unnamed:,} of {len(code_of):,} items are not in item_list.txt", "they keep their numbers")
    findings.found("interactions", f"{len(items):,} rows, {len(lines):,} users, {len(code_of):,} items")
    return RawInteractions(
        user_ids=user_ids,
        item_ids=[item_names.get(item, item) for item in code_of],
        users=np.repeat(np.arange(len(lines), dtype=np.int32), [len(row) for row in lines.values()]),
        items=items,
        ratings=None,
        timestamps=None,
    )


def _s3rec_items(files: SourceFiles, name: str, wanted: set[str]) -> RawItems:
    text = decode(files.read(name), where=name)
    try:
        found: Any = json.loads(text)
    except RecursionError:
        raise DataError(f"{name}: nested too deeply") from None
    except ValueError as error:
        raise DataError(
            f"{name}, line {getattr(error, 'lineno', 1)}, character {getattr(error, 'colno', 1)}: not JSON",
            value=str(getattr(error, "msg", error)),
        ) from None
    if not isinstance(found, dict) or not all(isinstance(values, list) for values in found.values()):
        raise DataError(f"{name}: not a map of items to lists of attributes", value=text[:60])
    item_ids = [item_id for item_id in found if item_id in wanted]
    if not item_ids:
        raise DataError(f"{name}: none of its items is in the sequences", value=", ".join(list(found)[:5]))
    values = [tuple(str(value) for value in found[item_id]) or None for item_id in item_ids]
    return RawItems(
        item_ids=item_ids,
        titles=[""] * len(item_ids),
        attributes=[
            RawAttribute(name="attribute", kind="categories", values=values, description="numbers of S3-Rec's attributes")
        ],
    )
