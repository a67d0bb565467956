"""Opens what a person names as a table: a file, a folder of part files, a URL or a frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolrec.data.reading.files import SourceFiles
from toolrec.data.reading.findings import Findings
from toolrec.data.reading.formats import (
    FrameTable,
    PartsTable,
    Table,
    TextOptions,
    normal_name,
    open_table,
)
from toolrec.data.sources.own.config import OwnConfig
from toolrec.errors import DataError
from toolrec.util.urls import is_url


def is_frame(source: Any) -> bool:
    """Whether it is a pandas frame and not a path or URL."""
    return not isinstance(source, (str, Path))


def open_part(
    source: Any, part: str, config: OwnConfig, roles: Mapping[str, tuple[str, ...]], findings: Findings
) -> tuple[Table, SourceFiles | None]:
    """The table, and its files unless it is a frame.

    Args:
        source: what the person named.
        part: what it holds, for messages: `interactions` or `items`.
        config: separator, encoding, header and column names that were given.
        roles: names by which columns are known; they tell a header from a first row.
        findings: gets what was found out.

    Raises:
        DataError: missing, damaged, or a folder of several kinds of files.
    """
    table: Table
    if is_frame(source):
        table, files = FrameTable(source, f"{part} frame"), None
    else:
        files = SourceFiles(source if is_url(source) else Path(source), allow_large=config.allow_large)
        known = frozenset(name for names in roles.values() for name in names) | {
            normal_name(name) for name in config.columns.values()
        }
        options = TextOptions(
            separator=config.text.separator, encoding=config.text.encoding, has_header=config.text.has_header, known_columns=known
        )
        names = [
            name
            for name in files.names
            if not name.startswith(("_", ".")) and not name.lower().endswith((".crc", ".md", ".toml"))
        ]
        if not names:
            raise DataError(f"no file of {part} in the folder", value=str(source), allowed=files.names[:10])
        endings = Counter(name.rpartition(".")[2] for name in names)
        if len(endings) > 1:
            raise DataError(
                f"the folder of {part} has files of several kinds",
                value=", ".join(names[:8]),
                hint="give one file, or a folder of part files",
            )
        tables = [open_table(files, name, options) for name in names]
        table = tables[0] if len(tables) == 1 else PartsTable(tables, names[0])
    for what, found, why in table.written.facts:
        findings.found(f"{part} ({table.name})", f"{what}: {found}", why)
    return table, files
