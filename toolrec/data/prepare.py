"""From a source to a data set folder: choose attributes, filter, order, index, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from toolrec import __version__
from toolrec.data.filters import FilterConfig, chronological, first_of_pairs, item_id_keys, keep, timestamp_kind
from toolrec.data.pool import AttributeSpec, Pool, is_valid_id
from toolrec.data.raw import RawData, RawItems, choose_attributes
from toolrec.data.store import Interactions, refuse_other_folder, write_folder
from toolrec.errors import DataError


def prepare(raw: RawData, out: Path, *, filters: FilterConfig, attributes: Sequence[str] | None = None) -> dict[str, Any]:
    """Prepares one source and writes its data set folder, whole or not at all.

    The pool is every item that is left in the interactions, in the order of the source's item file; items without an
    entry there come last, with their id as the title.

    Args:
        raw: the source, read.
        out: the data set folder.
        filters: what stays, and the tie-break.
        attributes: names, in the order in which prompts show them; None for all that have a value.

    Returns:
        The manifest; `notes` in it tell what was dropped.

    Raises:
        ConfigError: an unknown attribute, or a filter that does not fit the source.
        DataError: nothing is left, an id cannot be used, or `out` is not a data set.
        StorageError: `out` cannot be written.
    """
    refuse_other_folder(out)
    interactions = raw.interactions
    if not len(interactions.users):
        raise DataError("the source has no interactions", value=raw.name)
    items, notes = choose_attributes(raw.items, attributes)
    tie_keys = item_id_keys(interactions.item_ids)[interactions.items] if filters.tie_break == "item_id" else None
    order = chronological(interactions.users, interactions.timestamps, tie_keys)
    rows, report = keep(interactions.users, interactions.items, interactions.ratings, order, filters)
    kept_users = np.unique(interactions.users[rows])
    user_ids = ["", *(interactions.user_ids[code] for code in kept_users)]
    pool, index_of_code, pool_notes = _pool(raw, items, np.unique(interactions.items[rows]))
    _check_user_ids(user_ids[1:])
    user_index = np.searchsorted(kept_users, interactions.users[rows]) + 1
    starts = np.searchsorted(user_index, user_index)
    lengths = np.bincount(user_index)[1:]
    if filters.repeats == "keep":
        notes += _repeated_targets(interactions.users[rows], interactions.items[rows], lengths)
    taken = asdict(report)
    sentences = taken.pop("sentences")
    return write_folder(
        out,
        interactions=Interactions(
            user_index=user_index,
            item_index=index_of_code[interactions.items[rows]],
            rating=None if interactions.ratings is None else interactions.ratings[rows],
            timestamp=None if interactions.timestamps is None else interactions.timestamps[rows],
            sequence_index=np.arange(len(rows)) - starts,
        ),
        pool=pool,
        user_ids=user_ids,
        manifest={
            "name": raw.name,
            "source": {"layout": raw.layout, **raw.origin},
            "split": "leave_one_out",
            "filters": {key: value for key, value in asdict(filters).items() if key != "tie_break"},
            "tie_break": filters.tie_break,
            "timestamp_kind": timestamp_kind(interactions.users, interactions.timestamps),
            "counts": {
                "num_users": len(user_ids) - 1,
                "num_items": pool.num_items,
                "num_interactions": len(rows),
                "history_length": {
                    "min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())
                },
            },
            "dropped": taken,
            "notes": [*raw.notes, *notes, *sentences, *pool_notes],
            "toolrec_version": __version__,
        },
    )  # fmt: skip


def _pool(raw: RawData, items: RawItems, kept_codes: np.ndarray) -> tuple[Pool, np.ndarray, list[str]]:
    """The pool of the kept items, and the item_index of every item code (0 where it was dropped)."""
    code_of = {raw.interactions.item_ids[code]: int(code) for code in kept_codes}
    rows = [row for row, item_id in enumerate(items.item_ids) if item_id in code_of]
    described = {items.item_ids[row] for row in rows}
    undescribed = [item_id for item_id in code_of if item_id not in described]
    item_ids = [items.item_ids[row] for row in rows] + undescribed
    bad = [item_id for item_id in item_ids if not is_valid_id(item_id)]
    if bad:
        raise DataError(
            f"{len(bad)} item ids cannot be used: an id has 1 to 512 printable characters, no white space at its ends, "
            "and none of < > | [ ]",
            value=bad[0],
        )
    index_of_code = np.zeros(len(raw.interactions.item_ids), dtype=np.int32)
    for index, item_id in enumerate(item_ids, start=1):
        index_of_code[code_of[item_id]] = index
    titles = [items.titles[row].strip() or items.item_ids[row] for row in rows]
    num_untitled = sum(not items.titles[row].strip() for row in rows)
    missing: list[Any] = [None] * len(undescribed)
    pool = Pool(
        item_ids=["", *item_ids],
        titles=["", *titles, *undescribed],
        attributes=[
            AttributeSpec(name=attribute.name, kind=attribute.kind, description=attribute.description)
            for attribute in items.attributes
        ],
        values={attribute.name: [attribute.values[row] for row in rows] + missing for attribute in items.attributes},
        domain=raw.domain,
    )
    for name in pool.attributes:
        if pool.attributes[name].num_values == 0:
            raise DataError("no item that is left after filtering has a value for this attribute", value=name,
                            hint="choose others with --attributes")  # fmt: skip
    notes = []
    if undescribed:
        notes.append(f"items without an entry in the item file, their id is their title: {len(undescribed):,}")
    if num_untitled:
        notes.append(f"items without a title, their id is their title: {num_untitled:,}")
    return pool, index_of_code, notes


def _repeated_targets(users: np.ndarray, items: np.ndarray, lengths: np.ndarray) -> list[str]:
    firsts = first_of_pairs(users, items)
    num_repeated = len(lengths) - int(np.isin(np.cumsum(lengths) - 1, firsts).sum())
    return (
        [f"test targets that the user had before, a sure miss where seen items are masked: {num_repeated:,}"]
        if num_repeated
        else []
    )


def _check_user_ids(user_ids: list[str]) -> None:
    bad = [user_id for user_id in user_ids if not user_id or not user_id.isprintable()]
    if bad:
        raise DataError(f"{len(bad)} user ids are empty or have control characters", value=bad[0])
