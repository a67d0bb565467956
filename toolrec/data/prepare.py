"""From a source to a data set folder: choose attributes, filter, order, split, index, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolrec import __version__
from toolrec.data.filters import FilterConfig, chronological, item_id_keys, keep, timestamp_kind
from toolrec.data.pool import AttributeSpec, Pool, is_valid_id
from toolrec.data.raw import RawData, RawItems, choose_attributes
from toolrec.data.reading.findings import Findings, examples, visible
from toolrec.data.reading.times import report_ties, ties_of
from toolrec.data.reading.titles import distinguished
from toolrec.data.small import too_small
from toolrec.data.splits import Bounds, SplitConfig, gives_targets, split_bounds
from toolrec.data.store import Interactions, refuse_other_folder, write_folder
from toolrec.errors import DataError
from toolrec.grammar import without_marks


def prepare(
    raw: RawData,
    out: Path,
    *,
    filters: FilterConfig,
    attributes: Sequence[str] | None = None,
    split: SplitConfig | None = None,
    plain_titles: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepares one source and writes its data set folder, whole or not at all.

    The pool is every item that is left in the interactions, in the order of the source's item file; items without an
    entry there come last, with their id as the title.

    Args:
        raw: the source, read.
        out: the data set folder.
        filters: what stays, and the tie-break.
        attributes: names, in the order in which prompts show them; None for all that have a value.
        split: None for the one that the source gives, or leave-one-out where it gives none.
        plain_titles: leave titles that several items have as they are.
        overwrite: replace another data set that is already at `out`.

    Returns:
        The manifest; `notes` in it tell what was dropped and assumed.

    Raises:
        ConfigError: an unknown attribute, or a filter or split that does not fit the source.
        DataError: nothing is left, an id cannot be used, or something else is at `out`.
        StorageError: `out` cannot be written.
    """
    refuse_other_folder(out)
    interactions = raw.interactions
    is_given = interactions.parts is not None and gives_targets(interactions.users, interactions.parts)
    split = split or SplitConfig(kind="given" if is_given else "leave_one_out")
    if not len(interactions.users):
        raise DataError("the source has no interactions", value=raw.name)
    findings = Findings()
    items, notes = choose_attributes(raw.items, attributes)
    kind = timestamp_kind(interactions.users, interactions.timestamps)
    tie_keys = item_id_keys(interactions.item_ids)[interactions.items] if filters.tie_break == "item_id" else None
    parts = interactions.parts if split.kind == "given" else None
    order = chronological(interactions.users, interactions.timestamps, tie_keys, parts)
    rows, report = keep(
        interactions.users,
        interactions.items,
        interactions.ratings,
        order,
        filters,
        seconds=_seconds(interactions.timestamps, kind),
        min_user_interactions=split.min_user_interactions,
    )
    users, row_items = interactions.users[rows], interactions.items[rows]
    times = None if interactions.timestamps is None else interactions.timestamps[rows]
    kept_users = np.unique(users)
    user_ids = ["", *(interactions.user_ids[code] for code in kept_users)]
    pool, index_of_code, pool_notes = _pool(raw, items, np.unique(row_items), findings, plain_titles=plain_titles)
    _check_user_ids(user_ids[1:])
    user_index = np.searchsorted(kept_users, users) + 1
    starts = np.searchsorted(user_index, user_index)
    lengths = np.bincount(user_index)[1:]
    bounds, split_settings = split_bounds(
        split, lengths, timestamps=times, timestamp_kind=kind, parts=None if parts is None else parts[rows]
    )
    if interactions.parts is not None and split.kind != "given":
        why = "" if is_given else "in the source's split no user has both a history and a held-out item"
        findings.warn("split", f"the source's is not kept; split anew: {split.kind.replace('_', ' ')}", why)
    ties = None if times is None else ties_of(user_index, times, row_items, interactions.item_ids, _test_rows(lengths, bounds))
    if ties is not None:
        report_ties(findings, ties, tie_break=filters.tie_break)
    item_index = index_of_code[row_items]
    targets = _target_facts(item_index, lengths, bounds, pool.num_items, findings)
    for reason in too_small(pool.num_items, lengths):
        findings.warn(*reason)
    if filters.repeats == "keep":
        notes += _repeated_targets(users, row_items, lengths, bounds)
    taken = asdict(report)
    sentences = taken.pop("sentences")
    is_leave_one_out = split.kind == "leave_one_out"
    return write_folder(
        out,
        interactions=Interactions(
            user_index=user_index,
            item_index=item_index,
            rating=None if interactions.ratings is None else interactions.ratings[rows],
            timestamp=times,
            sequence_index=np.arange(len(rows)) - starts,
        ),
        pool=pool,
        user_ids=user_ids,
        bounds=None if is_leave_one_out else bounds,
        overwrite=overwrite,
        manifest={
            "name": raw.name,
            "source": {"layout": raw.layout, **raw.origin},
            "split": split.kind,
            **({} if is_leave_one_out else {"split_settings": split_settings}),
            "filters": {
                key: value
                for key, value in asdict(filters).items()
                if key != "tie_break" and (value is not None or key == "min_rating")
            },
            "tie_break": filters.tie_break,
            "timestamp_kind": kind,
            "counts": {
                "num_users": len(user_ids) - 1,
                "num_items": pool.num_items,
                "num_interactions": len(rows),
                "history_length": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
            },
            "targets": targets,
            "ties": None
            if ties is None
            else {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(ties).items()},
            "dropped": taken,
            "findings": [*raw.findings.as_json(), *findings.as_json()],
            "notes": [*raw.notes, *raw.findings.sentences(), *notes, *sentences, *pool_notes, *findings.sentences()],
            "toolrec_version": __version__,
        },
    )


def _seconds(timestamps: np.ndarray | None, kind: str) -> np.ndarray | None:
    if timestamps is None or kind not in ("unix_seconds", "unix_milliseconds"):
        return None
    return timestamps / 1000 if kind == "unix_milliseconds" else timestamps


def _pool(
    raw: RawData, items: RawItems, kept_codes: np.ndarray, findings: Findings, *, plain_titles: bool
) -> tuple[Pool, np.ndarray, list[str]]:
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
            value=visible(bad[0]),
        )
    twins = [item_id for item_id in item_ids if (bare := without_marks(item_id)) != item_id and bare in code_of]
    if twins:
        findings.warn(
            "item ids",
            f"{len(twins)} differ from another id only by marks around it: {examples(twins)}",
            "an LLM that leaves the marks out names the other item",
            change="give the items other ids",
        )
    index_of_code = np.zeros(len(raw.interactions.item_ids), dtype=np.int32)
    for index, item_id in enumerate(item_ids, start=1):
        index_of_code[code_of[item_id]] = index
    own_titles = [items.titles[row].strip() for row in rows]
    if not plain_titles:
        marks = [
            replace(attribute, values=[attribute.values[row] for row in rows]) for attribute in (*items.attributes, *items.aside)
        ]
        own_titles = distinguished(own_titles, marks, findings)
    titles = [title or items.item_ids[row] for title, row in zip(own_titles, rows, strict=True)]
    num_untitled = sum(not title for title in own_titles)
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
            raise DataError(
                "no item that is left after filtering has a value for this attribute",
                value=name,
                hint="choose others with --attributes",
            )
    notes = []
    if undescribed:
        notes.append(f"items without an entry in the item file, their id is their title: {len(undescribed):,}")
    if num_untitled:
        notes.append(f"items without a title, their id is their title: {num_untitled:,}")
    return pool, index_of_code, notes


def _test_rows(lengths: np.ndarray, bounds: Bounds) -> np.ndarray:
    has = bounds.test_at >= 0
    return np.asarray((np.cumsum(lengths) - lengths + bounds.test_at)[has])


def _target_facts(
    items: np.ndarray, lengths: np.ndarray, bounds: Bounds, num_items: int, findings: Findings
) -> dict[str, dict[str, int]]:
    """How many users have a target, and how many targets training never saw."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = np.arange(len(items)) - np.repeat(starts, lengths)
    is_trained = place < np.repeat(bounds.train_end, lengths)
    seen = np.bincount(items[is_trained], minlength=num_items + 1) > 0
    facts = {}
    for name, ends, nums in (("valid", bounds.valid_at, bounds.valid_num), ("test", bounds.test_at, bounds.test_num)):
        has = ends >= 0
        first = np.repeat(ends, lengths)
        end = np.repeat(ends + (1 if nums is None else nums), lengths)
        found = items[np.repeat(has, lengths) & (place >= first) & (place < end)]
        cold = int((~seen[found]).sum())
        facts[name] = {"users": int(has.sum()), "users_without": int((~has).sum()), "cold_items": cold}
        if nums is not None:
            facts[name]["targets"] = len(found)
        if cold and name == "test":
            findings.note(
                "targets",
                f"{cold:,} of {len(found):,} test targets ({cold / len(found):.1%}) are items that training never saw",
                "no trained recommender can find them",
            )
        if name == "test" and not has.all():
            findings.note(
                "targets",
                f"{int((~has).sum()):,} users have no test target",
                "they have no item before the moment of the split, or none after it",
            )
    facts["train"] = {"users_without": int((bounds.train_end == 0).sum()), "items_unseen": int(num_items - seen[1:].sum())}
    return facts


def _repeated_targets(users: np.ndarray, items: np.ndarray, lengths: np.ndarray, bounds: Bounds) -> list[str]:
    """A note on test targets, all of a user, that stand in the user's history before them."""
    _, first, pair = np.unique(users.astype(np.int64) * (int(items.max()) + 1) + items, return_index=True, return_inverse=True)
    at = np.repeat(np.cumsum(lengths) - lengths + bounds.test_at, lengths)
    num = np.repeat(np.ones_like(lengths) if bounds.test_num is None else bounds.test_num, lengths)
    row = np.arange(len(items))
    is_target = np.repeat(bounds.test_at >= 0, lengths) & (row >= at) & (row < at + num)
    num_repeated = len(np.unique(pair[is_target & (first[pair] < at)]))
    return (
        [f"test targets that the user had before, a sure miss where seen items are masked: {num_repeated:,}"]
        if num_repeated
        else []
    )


def _check_user_ids(user_ids: list[str]) -> None:
    bad = [user_id for user_id in user_ids if not user_id or not user_id.isprintable()]
    if bad:
        raise DataError(f"{len(bad)} user ids are empty or have control characters", value=visible(bad[0]))
