"""The data set folder: three Parquet files and a manifest, written whole, read back with a check of the content.

interactions.parquet   user_index, item_index, rating (null where there is none), timestamp (likewise),
                       sequence_index (0-based place in the user's history); by user, oldest first
pool.parquet           item_index, item_id, title, then one column an attribute: string (category),
                       list<string> (categories) or double (number)
users.parquet          user_index, user_id
manifest.json          name, checksum, source, options, counts, attributes and their kind, domain words
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toolrec.columns import Columns
from toolrec.data.pool import AttributeSpec, DomainWords, Pool
from toolrec.errors import ConfigError, DataError
from toolrec.files import atomic_folder, read_json

SCHEMA_VERSION = 1
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


def write_folder(
    path: Path, *, interactions: Interactions, pool: Pool, user_ids: list[str], manifest: dict[str, Any]
) -> dict[str, Any]:
    """Writes a data set folder, whole or not at all; a data set that is already there is replaced.

    Args:
        path: the folder.
        interactions: by user, oldest first.
        pool: the items.
        user_ids: index 0 is "".
        manifest: name, source, options, timestamp_kind, counts and notes; the rest is added here.

    Returns:
        The complete manifest.

    Raises:
        DataError: something that is not a data set is already there.
        StorageError: the place cannot be written.
    """
    refuse_other_folder(path)
    tables = {
        INTERACTIONS: _interactions_table(interactions),
        POOL: _pool_table(pool),
        USERS: pa.table({Columns.USER_INDEX: pa.array(range(1, len(user_ids)), pa.int32()), Columns.USER_ID: user_ids[1:]}),
    }
    complete = {
        "schema_version": SCHEMA_VERSION,
        **manifest,
        "checksum": content_checksum(tables),
        "attributes": [{**asdict(spec), "coverage": round(pool.coverage(spec.name), 6)} for spec in pool.attributes.values()],
        "domain": asdict(pool.domain),
    }
    with atomic_folder(path) as temporary:
        for name, table in tables.items():
            pq.write_table(table, temporary / name, compression="zstd")
        text = json.dumps(complete, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
    return complete


def refuse_other_folder(path: Path) -> None:
    """Makes sure that writing a data set at `path` replaces at most another data set.

    Raises:
        DataError: a file, or a folder that is not a data set, is already there.
    """
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
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    if not (path / MANIFEST).is_file():
        raise DataError(
            f"not a data set folder: it has no {MANIFEST}", value=str(path), hint="make one with `toolrec data prepare`"
        )
    manifest = read_json(path / MANIFEST, error=DataError)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError("the data set has another schema version", value=version, allowed=SCHEMA_VERSION, hint="prepare it again")
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
