"""The user's own files: any table of interactions, and any table of items. What is not said is found out and told."""

from __future__ import annotations

from typing import Any

from toolrec.data.pool import DomainWords
from toolrec.data.raw import RawData, RawItems
from toolrec.data.reading.files import data_name
from toolrec.data.reading.findings import Findings
from toolrec.data.sources.own.columns import ROLES, find_roles
from toolrec.data.sources.own.config import OwnConfig
from toolrec.data.sources.own.interactions import read_interactions, reading_bar
from toolrec.data.sources.own.items import read_extra_items, read_items, title_texts
from toolrec.data.sources.own.tables import is_frame, open_part

__all__ = ["OwnConfig", "find_roles", "read_extra_items", "read_interactions", "read_own", "reading_bar", "title_texts"]


def read_own(config: OwnConfig) -> RawData:
    """Reads the interactions and the items.

    Raises:
        DataError: a file is missing or damaged, or a cell cannot be read: with file, line and column.
        ConfigError: a named column that is not there.
    """
    findings = Findings()
    table, files = open_part(config.interactions, "interactions", config, ROLES, findings)
    roles = find_roles(table, config, findings)
    interactions = read_interactions(table, roles, config, findings)
    origin: dict[str, Any] = {"file": _label(config.interactions), "sha256": {} if files is None else files.checksums}
    if config.items is None:
        items = RawItems(item_ids=[], titles=[])
        findings.warn(
            "items",
            "no table of items: no titles and no attributes",
            "an LLM knows the items by their ids only",
            change="--items",
        )
    else:
        is_same = not is_frame(config.items) and str(config.items) == str(config.interactions)
        items, ids, item_files = read_items(config, interactions.item_ids, findings, is_same=is_same)
        interactions.item_ids[:] = ids
        origin["items_file"] = _label(config.items)
        if item_files is not None and not is_same:
            origin["sha256"] = {**origin["sha256"], **item_files.checksums}
    return RawData(
        name=config.name or ("frame" if is_frame(config.interactions) else data_name(config.interactions)),
        layout="own",
        interactions=interactions,
        items=items,
        domain=config.domain or DomainWords(),
        origin=origin,
        findings=findings,
    )


def _label(source: Any) -> str:
    return "pandas frame" if is_frame(source) else str(source).rstrip("/").rpartition("/")[2]
