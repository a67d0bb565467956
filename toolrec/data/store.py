"""The data set folder: three Parquet files and a manifest, written whole, read back with a check of the content.

interactions.parquet   user_index, item_index, rating (null where there is none), timestamp (likewise),
                       sequence_index (0-based place in the user's history); by user, oldest first
pool.parquet           item_index, item_id, title, then one column an attribute: string (category),
                       list<string> (categories) or double (number)
users.parquet          user_index, user_id; for another split than leave-one-out also train_end, valid_at, test_at (places in
                       the user's history, -1 where the user has no target), and valid_num, test_num where there can be several
                       targets
manifest.json          name, checksum, source, options, counts, attributes and their kind, domain words
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolrec.columns import Columns
from toolrec.data.pool import AttributeSpec, DomainWords, Pool
from toolrec.data.splits import Bounds
from toolrec.errors import ConfigError, DataError
from toolrec.storage.remote import RemoteFolder, at_the_start
from toolrec.storage.upload import making_place, refuse_other_objects, upload_folder
from toolrec.util.files import atomic_folder, read_json
from toolrec.util.urls import Url

SCHEMA_VERSION, SPLIT_SCHEMA_VERSION = 1, 2
"""Version 2 has another split than leave-one-out: readers of version 1 would take the wrong targets."""
_BOUNDS = ("train_end", "valid_at", "test_at")
_NUM_TARGETS = ("valid_num", "test_num")
MANIFEST = "manifest.json"
INTERACTIONS, POOL, USERS = "interactions.parquet", "pool.parquet", "users.parquet"
_TABLES = (INTERACTIONS, POOL, USERS)
_ATTRIBUTE_TYPES = {"category": pa.string(), "categories": pa.list_(pa.string()), "number": pa.float64(), "text": pa.string()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interactions:
    """Arrays of one row an interaction, by user and oldest first; `rating` and `timestamp` may be absent."""

    user_index: np.ndarray
    item_index: np.ndarray
    rating: np.ndarray | None
    timestamp: np.ndarray | None
    sequence_index: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What a data set folder holds."""

    manifest: dict[str, Any]
    interactions: Interactions
    pool: Pool
    user_ids: list[str]
    bounds: Bounds | None = None


def write_folder(
    path: Path,
    *,
    interactions: Interactions,
    pool: Pool,
    user_ids: list[str],
    manifest: dict[str, Any],
    bounds: Bounds | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a data set folder, whole or not at all; another data set that is already there is replaced only if that is asked.

    Args:
        path: the folder, or its URL.
        interactions: by user, oldest first.
        pool: the items.
        user_ids: index 0 is "".
        manifest: name, source, options, timestamp_kind, counts and notes; the rest is added here.
        bounds: of another split than leave-one-out.
        overwrite: replace another data set.

    Returns:
        The complete manifest.

    Raises:
        DataError: another data set, or something that is none, is already there.
        StorageError: the place cannot be written.
    """
    if isinstance(path, Url):
        place = making_place(path)
        contents = {"interactions": interactions, "pool": pool, "user_ids": user_ids, "manifest": manifest, "bounds": bounds}
        complete = write_folder(place, **contents, overwrite=True)  # type: ignore[arg-type]
        if not overwrite:
            _refuse_other_data_set(path, complete)
        upload_folder(place, path, manifest=MANIFEST)
        return complete
    path = path.resolve()  # a link stays a link
    refuse_other_folder(path)
    users = {
        Columns.USER_INDEX: pa.array(range(1, len(user_ids)), pa.int32()),
        Columns.USER_ID: pa.array(user_ids[1:], pa.string()),
    }
    if bounds is not None:
        places = {name: getattr(bounds, name) for name in (*_BOUNDS, *_NUM_TARGETS)}
        users |= {name: pa.array(values, pa.int32()) for name, values in places.items() if values is not None}
    tables = {INTERACTIONS: _interactions_table(interactions), POOL: _pool_table(pool), USERS: pa.table(users)}
    complete = {
        "schema_version": SCHEMA_VERSION if bounds is None else SPLIT_SCHEMA_VERSION,
        **manifest,
        "checksum": content_checksum(tables),
        "attributes": [{**asdict(spec), "coverage": round(pool.coverage(spec.name), 6)} for spec in pool.attributes.values()],
        "domain": {key: value for key, value in asdict(pool.domain).items() if key != "rating" or value != DomainWords().rating},
    }
    if not overwrite:
        _refuse_other_data_set(path, complete)
    _remove_abandoned(path)
    with atomic_folder(path, temporary=_temporary(path)) as temporary, _held(temporary):
        for name, table in tables.items():
            pq.write_table(table, temporary / name, compression="zstd")
        text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
    return complete


def _refuse_other_data_set(path: Path, complete: dict[str, Any]) -> None:
    """The same data set may be written again."""
    there = _manifest_at(path)
    if there is None:
        return
    if not isinstance(there, dict) or there.get("checksum") != complete["checksum"] or there.get("name") != complete["name"]:
        name = there.get("name") if isinstance(there, dict) else "?"
        raise DataError(
            f"another data set is already there ({name})",
            value=str(path),
            hint="choose another --out, or replace it with --overwrite",
        )


def _manifest_at(path: Path) -> Any:
    if not isinstance(path, Url):
        return read_json(path / MANIFEST, error=DataError) if (path / MANIFEST).is_file() else None
    with at_the_start(DataError):
        content = RemoteFolder(path).find(MANIFEST)
    try:
        return None if content is None else json.loads(content)
    except ValueError:
        return {}


_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{8}\.preparing$")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.preparing")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder for as long as it is being written; a killed process lets it go."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    """Removes what killed preparations of this data set left behind."""
    if not path.parent.is_dir():
        return
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*.preparing"):
        if not _TEMPORARY.match(folder.name) or folder.is_symlink():
            continue
        try:
            with _held(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # another process is writing it


def refuse_other_folder(path: Path) -> None:
    """Makes sure that writing a data set at `path` replaces at most another data set; at a URL also, that it can be written.

    Raises:
        DataError: a file, or a folder that is not a data set, is already there.
    """
    if isinstance(path, Url):
        refuse_other_objects(path, is_ours={MANIFEST, *_TABLES}.__eq__, error=DataError)
        return
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    hint = "choose another --out, or move it away"
    if not path.is_dir():
        raise DataError("a file is in the place of the data set folder", value=str(path), hint=hint)
    if not all((path / name).is_file() for name in (MANIFEST, *_TABLES)):
        raise DataError("this folder is not a data set of toolrec and will not be replaced", value=str(path), hint=hint)
    others = sorted(child.name for child in path.iterdir() if child.name not in (MANIFEST, *_TABLES))
    if others:
        raise DataError(
            f"this data set folder also holds {', '.join(others[:5])}, which replacing would delete", value=str(path), hint=hint
        )


def content_checksum(tables: dict[str, pa.Table]) -> str:
    """Hex SHA-256 over names, types and values of the tables; independent of how Parquet compressed them."""
    digest = hashlib.sha256()
    for table_name in sorted(tables):
        table = tables[table_name]
        for field in table.schema:
            column = table.column(field.name).combine_chunks()
            # Not `field.type`: Parquet gives the entries of a list another name when it reads them back.
            kind = f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else str(field.type)
            digest.update(f"{table_name}/{field.name}/{kind}/{len(column)}\n".encode())
            if pa.types.is_floating(field.type):
                column = column.fill_null(float("nan"))
            if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
                digest.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
            else:
                digest.update(json.dumps(column.to_pylist(), ensure_ascii=False, separators=(",", ":")).encode())
    return digest.hexdigest()


def read_folder(path: Path) -> Folder:
    """Reads a data set folder back.

    Raises:
        DataError: missing, not a data set, of another schema, damaged, or changed since it was written.
    """
    if not path.is_dir():
        raise DataError("no such data set folder", value=str(path), hint="make one with `toolrec data prepare`")
    manifest = _read_manifest(path)
    try:
        specs = [AttributeSpec(**{key: raw[key] for key in ("name", "kind", "description")}) for raw in manifest["attributes"]]
        domain = DomainWords(**manifest["domain"])
        expected = {key: manifest[key] for key in ("name", "checksum", "timestamp_kind", "counts")}
        counts = {key: int(expected["counts"][key]) for key in ("num_users", "num_items", "num_interactions")}
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"the manifest is damaged ({error})", value=str(path / MANIFEST), hint="prepare it again") from None
    tables = {name: _read_table(path / name) for name in _TABLES}
    _check_columns(tables, specs, path)
    if content_checksum(tables) != expected["checksum"]:
        raise DataError("the content of the data set is not that of its checksum", value=str(path), hint="prepare it again")
    rows = {"num_users": USERS, "num_items": POOL, "num_interactions": INTERACTIONS}
    for key, name in rows.items():
        if counts[key] != tables[name].num_rows:
            raise DataError(f"{name} has {tables[name].num_rows} rows and the manifest says {counts[key]}",
                            value=str(path), hint="prepare it again")  # fmt: skip
    interactions, pool = tables[INTERACTIONS], tables[POOL]
    return Folder(
        manifest=manifest,
        interactions=Interactions(
            user_index=interactions[Columns.USER_INDEX].to_numpy(),
            item_index=interactions[Columns.ITEM_INDEX].to_numpy(),
            rating=_optional(interactions[Columns.RATING]),
            timestamp=_optional(interactions[Columns.TIMESTAMP]),
            sequence_index=interactions[Columns.SEQUENCE_INDEX].to_numpy(),
        ),
        pool=Pool(
            item_ids=["", *pool[Columns.ITEM_ID].to_pylist()],
            titles=["", *pool[Columns.TITLE].to_pylist()],
            attributes=specs,
            values={spec.name: pool[spec.name].to_pylist() for spec in specs},
            domain=domain,
        ),
        user_ids=["", *tables[USERS][Columns.USER_ID].to_pylist()],
        bounds=_bounds(tables[USERS], tables[INTERACTIONS], path) if manifest["schema_version"] == SPLIT_SCHEMA_VERSION else None,
    )


def _bounds(users: pa.Table, interactions: pa.Table, path: Path) -> Bounds:
    found = {name: users[name].to_numpy().astype(np.int64) for name in _BOUNDS if name in users.column_names}
    lengths = np.bincount(interactions[Columns.USER_INDEX].to_numpy(), minlength=users.num_rows + 1)[1:]
    nums = {name: users[name].to_numpy().astype(np.int64) for name in _NUM_TARGETS if name in users.column_names}
    is_good = len(found) == len(_BOUNDS) and all(np.all((places >= -1) & (places <= lengths)) for places in found.values())
    for name, num in nums.items():
        at = found.get(name.replace("_num", "_at"))
        is_good = is_good and at is not None and bool(np.all((num >= 0) & ((at < 0) | (at + num <= lengths))))
    if not is_good:
        raise DataError("the users' places in the split are damaged", value=str(path / USERS), hint="prepare it again")
    return Bounds(**found, **nums)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise DataError(
            f"not a data set folder: it has no {MANIFEST}", value=str(path), hint="make one with `toolrec data prepare`"
        )
    manifest = read_json(path / MANIFEST, error=DataError)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version not in (SCHEMA_VERSION, SPLIT_SCHEMA_VERSION):
        raise DataError("the data set has another schema version", value=version,
                        allowed=(SCHEMA_VERSION, SPLIT_SCHEMA_VERSION), hint="prepare it again")  # fmt: skip
    assert isinstance(manifest, dict)
    return manifest


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"the data set folder has no {path.name}", value=str(path.parent), hint="prepare it again")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read ({error})", value=str(path), hint="prepare it again") from None


def _interactions_table(interactions: Interactions) -> pa.Table:
    num_rows = len(interactions.user_index)

    def optional(values: np.ndarray | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(num_rows, kind) if values is None else pa.array(values, kind, from_pandas=True)

    return pa.table(
        {
            Columns.USER_INDEX: pa.array(interactions.user_index, pa.int32()),
            Columns.ITEM_INDEX: pa.array(interactions.item_index, pa.int32()),
            Columns.RATING: optional(interactions.rating, pa.float32()),
            Columns.TIMESTAMP: optional(interactions.timestamp, pa.float64()),
            Columns.SEQUENCE_INDEX: pa.array(interactions.sequence_index, pa.int32()),
        }
    )


def _pool_table(pool: Pool) -> pa.Table:
    indexes = range(1, pool.num_items + 1)
    columns: dict[str, pa.Array] = {
        Columns.ITEM_INDEX: pa.array(indexes, pa.int32()),
        Columns.ITEM_ID: pa.array(pool.item_ids[1:], pa.string()),
        Columns.TITLE: pa.array(pool.titles[1:], pa.string()),
    }
    for name, spec in pool.attributes.items():
        kind = _ATTRIBUTE_TYPES[spec.kind]
        if spec.kind == "number":
            columns[name] = pa.array(pool.numbers(name)[1:], kind, from_pandas=True)
        elif spec.kind == "text":
            columns[name] = pa.array([text or None for text in pool.texts(name)[1:]], kind)
        elif spec.kind == "category":
            columns[name] = pa.array([next(iter(pool.values(name, index)), None) for index in indexes], kind)
        else:
            columns[name] = pa.array([list(pool.values(name, index)) for index in indexes], kind)
    return pa.table(columns)


def _check_columns(tables: dict[str, pa.Table], specs: list[AttributeSpec], path: Path) -> None:
    expected = {
        INTERACTIONS: {
            Columns.USER_INDEX: pa.int32(),
            Columns.ITEM_INDEX: pa.int32(),
            Columns.RATING: pa.float32(),
            Columns.TIMESTAMP: pa.float64(),
            Columns.SEQUENCE_INDEX: pa.int32(),
        },
        POOL: {
            Columns.ITEM_INDEX: pa.int32(),
            Columns.ITEM_ID: pa.string(),
            Columns.TITLE: pa.string(),
            **{spec.name: _ATTRIBUTE_TYPES[spec.kind] for spec in specs},
        },
        USERS: {Columns.USER_INDEX: pa.int32(), Columns.USER_ID: pa.string()},
    }
    for name, columns in expected.items():
        schema = tables[name].schema
        for column, kind in columns.items():
            if column not in schema.names:
                raise DataError(f"{name} has no column {column}", value=str(path), hint="prepare it again")
            found = schema.field(column).type
            if found != kind and not (pa.types.is_list(found) and pa.types.is_list(kind) and found.value_type == kind.value_type):
                raise DataError(f"{name}: column {column} is {found}, not {kind}", value=str(path), hint="prepare it again")


def _optional(column: pa.ChunkedArray) -> np.ndarray | None:
    return None if column.null_count == len(column) else column.to_numpy()
