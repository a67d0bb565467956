"""Export of a prepared data set, so that others can check it: RecBole atomic files, plain Parquet, RecTools frames.

Every user's items stand oldest first. `split` is train, valid or test: the part in which an interaction is held out. Under a
split with one target a user, interactions of a held-out part that are no target are marked with the part they lie in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from toolrec.columns import Columns
from toolrec.data.dataset import Dataset
from toolrec.data.pool import format_number
from toolrec.data.splits import NO_TARGET
from toolrec.data.store import read_folder
from toolrec.errors import ConfigError, DataError
from toolrec.util.files import atomic_folder

ExportFormat = Literal["recbole", "parquet", "rectools"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = ("recbole", "parquet", "rectools")
SPLIT = "split"
_RECBOLE_TYPES = {"category": "token", "categories": "token_seq", "number": "float", "text": "token_seq"}
_LIST_SEPARATOR = "|"


def export_dataset(dataset: Dataset, out: Path, kind: ExportFormat) -> list[Path]:
    """Writes a data set for other programs, whole or not at all.

    Args:
        dataset: prepared.
        out: a folder that is not there yet.
        kind: one of `EXPORT_FORMATS`.

    Returns:
        The files.

    Raises:
        ConfigError: an unknown format, or something is already at `out`.
        StorageError: the place cannot be written.
    """
    if kind not in EXPORT_FORMATS:
        raise ConfigError("unknown format", value=kind, allowed=EXPORT_FORMATS)
    if out.exists():
        raise ConfigError("something is already there", value=str(out), hint="choose another --out")
    write: dict[str, Callable[[Dataset, Path], None]] = {"recbole": _recbole, "parquet": _parquet, "rectools": _rectools}
    with atomic_folder(out.resolve()) as temporary:
        write[kind](dataset, temporary)
    return sorted(out.iterdir())


def interactions_frame(dataset: Dataset) -> pd.DataFrame:
    """Interactions with the source's ids: user_id, item_id, rating and timestamp where there are any, sequence_index, split.

    Without timestamps, `timestamp` is the place in the user's history.
    """
    stored = read_folder(dataset.path).interactions
    user_ids, item_ids = np.array(dataset.user_ids, dtype=object), np.array(dataset.pool.item_ids, dtype=object)
    frame = pd.DataFrame(
        {
            Columns.USER_ID: user_ids[stored.user_index],
            Columns.ITEM_ID: item_ids[stored.item_index],
            Columns.SEQUENCE_INDEX: stored.sequence_index,
            Columns.TIMESTAMP: stored.sequence_index.astype(float) if stored.timestamp is None else stored.timestamp,
            SPLIT: _parts(dataset, stored.user_index, stored.sequence_index),
        }
    )
    if stored.rating is not None:
        frame[Columns.RATING] = stored.rating
    return frame


def items_frame(dataset: Dataset) -> pd.DataFrame:
    """Items with the source's ids: item_id, title, and a column an attribute; lists for categories, None where missing."""
    indexes = range(1, dataset.num_items + 1)
    columns: dict[str, list[object]] = {
        Columns.ITEM_ID: list(dataset.pool.item_ids[1:]),
        Columns.TITLE: list(dataset.pool.titles[1:]),
    }
    for name, spec in dataset.pool.attributes.items():
        if spec.kind == "number":
            columns[name] = [None if np.isnan(value) else float(value) for value in dataset.pool.numbers(name)[1:]]
        elif spec.kind == "text":
            columns[name] = [text or None for text in dataset.pool.texts(name)[1:]]
        else:
            values = (dataset.pool.values(name, index) for index in indexes)
            columns[name] = [(list(row) if spec.kind == "categories" else row[0]) if row else None for row in values]
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def _parts(dataset: Dataset, user_index: np.ndarray, place: np.ndarray) -> np.ndarray:
    ends = {
        split: np.array([_end(dataset, user, split) for user in range(1, dataset.num_users + 1)])
        for split in ("train", "valid", "test")
    }
    row = user_index - 1
    is_train = place < ends["train"][row]
    # A user without a validation target has no interaction of validation, or none of training before it.
    is_test = np.where(ends["test"][row] != NO_TARGET, place >= ends["test"][row], False)
    return np.where(is_train, "train", np.where(is_test, "test", "valid"))


def _end(dataset: Dataset, user: int, split: Literal["train", "valid", "test"]) -> int:
    try:
        return len(dataset.history(user, split))
    except DataError:
        return NO_TARGET


def _recbole(dataset: Dataset, folder: Path) -> None:
    """`.inter` in order of time with equal times told apart by nothing: RecBole needs `TIME_FIELD: timestamp`."""
    interactions = interactions_frame(dataset)
    head = [f"{Columns.USER_ID}:token", f"{Columns.ITEM_ID}:token"]
    columns = [interactions[Columns.USER_ID], interactions[Columns.ITEM_ID]]
    if Columns.RATING in interactions:
        head.append(f"{Columns.RATING}:float")
        columns.append(interactions[Columns.RATING].map(lambda value: "" if np.isnan(value) else f"{value:g}"))
    head.append(f"{Columns.TIMESTAMP}:float")
    columns.append(
        interactions[Columns.TIMESTAMP].map(lambda value: str(int(value)) if float(value).is_integer() else repr(value))
    )
    _write_atomic(folder / f"{dataset.name}.inter", head, list(zip(*columns, strict=True)))
    items = items_frame(dataset)
    specs = dataset.pool.attributes
    head = [
        f"{Columns.ITEM_ID}:token",
        f"{Columns.TITLE}:token_seq",
        *(f"{name}:{_RECBOLE_TYPES[spec.kind]}" for name, spec in specs.items()),
    ]
    _write_atomic(folder / f"{dataset.name}.item", head, items.itertuples(index=False, name=None))
    facts = {
        "field_separator": "\t",
        "seq_separator": _LIST_SEPARATOR,
        "USER_ID_FIELD": Columns.USER_ID,
        "ITEM_ID_FIELD": Columns.ITEM_ID,
        "TIME_FIELD": Columns.TIMESTAMP,
        "split": dataset.split_words,
        "checksum": dataset.checksum,
    }
    (folder / "recbole.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_atomic(path: Path, head: list[str], rows: object) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        handle.write("\t".join(head) + "\n")
        for row in rows:  # type: ignore[attr-defined]
            handle.write("\t".join(map(_cell, row)) + "\n")


def _cell(value: object) -> str:
    """A cell without tabs and line breaks, which atomic files cannot have."""
    if value is None:
        return ""
    if isinstance(value, list):
        return _LIST_SEPARATOR.join(" ".join(str(part).replace(_LIST_SEPARATOR, "/").split()) for part in value)
    if isinstance(value, float):
        return format_number(value)
    return " ".join(str(value).split())


def _parquet(dataset: Dataset, folder: Path) -> None:
    pq.write_table(pa.Table.from_pandas(interactions_frame(dataset), preserve_index=False), folder / "interactions.parquet")
    pq.write_table(pa.Table.from_pandas(items_frame(dataset), preserve_index=False), folder / "items.parquet")
    (folder / "manifest.json").write_text(json.dumps(dataset.manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _rectools(dataset: Dataset, folder: Path) -> None:
    """Frames with RecTools' column names: `Dataset.construct(interactions, item_features_df=item_features)`."""
    frame = interactions_frame(dataset)
    seconds = dataset.manifest["timestamp_kind"] in ("unix_seconds", "unix_milliseconds")
    unit = "ms" if dataset.manifest["timestamp_kind"] == "unix_milliseconds" else "s"
    # Places in a history become days, so that their order is one in time.
    moments = pd.to_datetime(frame[Columns.TIMESTAMP], unit=unit if seconds else "D")  # type: ignore[call-overload]
    interactions = pd.DataFrame(
        {
            "user_id": frame[Columns.USER_ID],
            "item_id": frame[Columns.ITEM_ID],
            "weight": frame.get(Columns.RATING, 1.0),
            "datetime": moments,
            SPLIT: frame[SPLIT],
        }
    )
    pq.write_table(pa.Table.from_pandas(interactions, preserve_index=False), folder / "interactions.parquet")
    rows = [
        (dataset.pool.item_ids[index], name, value)
        for name, spec in dataset.pool.attributes.items()
        if spec.kind != "text"
        for index in range(1, dataset.num_items + 1)
        for value in dataset.pool.values(name, index)
    ]
    features = pd.DataFrame(rows, columns=["id", "feature", "value"])
    pq.write_table(pa.Table.from_pandas(features, preserve_index=False), folder / "item_features.parquet")
