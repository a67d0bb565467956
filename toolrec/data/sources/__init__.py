"""Where data sets come from; every source gives the same `RawData`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolrec.data.extras import merge_items
from toolrec.data.raw import RawData
from toolrec.data.reading.files import SourceFiles, data_name
from toolrec.data.reading.findings import Findings
from toolrec.data.sources.demo import DemoConfig, read_demo
from toolrec.data.sources.download import fetch
from toolrec.data.sources.layout import LayoutConfig
from toolrec.data.sources.own import OwnConfig, read_extra_items, read_own
from toolrec.data.sources.recbole import RecBoleConfig, read_items, read_recbole
from toolrec.data.sources.registry import REGISTRY
from toolrec.errors import ConfigError

__all__ = ["DEMO", "OWN", "RECBOLE", "SOURCES", "SourceConfig", "read_source"]

DEMO, RECBOLE, OWN = "demo", "recbole", "own"
SOURCES = (DEMO, OWN, RECBOLE, *REGISTRY)
"""Names that `prepare` takes; `own` is what `--interactions` means without a name."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig(OwnConfig):
    """What to read, and how. None is the source's own, or found out.

    Attributes:
        source: which reader, one of `SOURCES`.
        path: folder, archive, file or URL; MovieLens without one is downloaded.
        demo: size and seed; only for the demo.
        extra_items: a table whose attributes join the items by their id: a RecBole `.item` file, CSV, JSON lines or Parquet.
        mirror_url: where MovieLens is downloaded from.
    """

    source: str
    path: Path | str | None = None
    demo: DemoConfig | None = None
    extra_items: Path | str | None = None
    mirror_url: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError("unknown source", value=self.source, allowed=SOURCES)
        if self.source == DEMO and self.path is not None:
            raise ConfigError("the demo is made from its seed and takes no --source", value=str(self.path))
        if self.source != DEMO and self.demo is not None:
            raise ConfigError("--seed, --users and --items N are only for the demo", value=self.source)
        if self.source == OWN and self.interactions is None:
            raise ConfigError(
                "own files need --interactions", allowed="a CSV, TSV, JSON lines or Parquet file, a folder or a URL of them"
            )
        if self.source != OWN and (self.interactions is not None or self.items is not None):
            raise ConfigError("--interactions and --items are only for own files", value=self.source)
        if self.source not in (DEMO, OWN) and self.path is None and self._download() is None:
            raise ConfigError(f"{self.source} needs --source", allowed=self._needed())
        if self.source not in (RECBOLE, OWN) and self.columns:
            raise ConfigError("columns are fixed in this source", value=", ".join(self.columns), allowed="recbole, own")
        if self.source in (*REGISTRY, DEMO) and self.extra_items is None and self.attributes.separator:
            raise ConfigError("--sequence-separator is only for RecBole's layout and own files", value=self.source)

    def _download(self) -> Any:
        entry = REGISTRY.get(self.source)
        return None if entry is None else entry.download

    def _needed(self) -> str:
        if self.source == RECBOLE:
            return "a folder or zip with one .inter and one .item file"
        entry = REGISTRY[self.source]
        return f"a folder, zip or tar with {entry.files}; get it from {entry.home_page}"


def read_source(config: SourceConfig) -> RawData:
    """Reads a source, with its extra items.

    Raises:
        DataError: missing, damaged, wrongly encoded or of another layout; or it cannot be downloaded.
        ConfigError: a setting that does not fit the source.
    """
    raw = _read(config)
    if config.extra_items is not None:
        raw = _with_extra_items(raw, config)
    kinds = {attribute.name: attribute.kind for attribute in raw.items.attributes}
    if config.source == DEMO or (config.source in REGISTRY and raw.layout in ("grouplens",)):
        for name, kind in config.attributes.kinds.items():
            if kinds.get(name, kind) != kind:
                raise ConfigError(f"the kind of {name} is fixed in this source: {kinds[name]}", value=kind)
    return replace(raw, name=config.name or raw.name, domain=config.domain or raw.domain)


def _read(config: SourceConfig) -> RawData:
    if config.source == DEMO:
        return read_demo(config.demo or DemoConfig())
    if config.source == OWN:
        return read_own(config)
    if config.source == RECBOLE:
        assert config.path is not None  # checked with the configuration
        return read_recbole(SourceFiles(config.path, allow_large=config.allow_large), _recbole(config))
    entry = REGISTRY[config.source]
    path = config.path
    if path is None:
        assert entry.download is not None  # checked with the configuration
        path = fetch(entry.download, base_url=config.mirror_url)
    layout = LayoutConfig(
        name=config.source, attributes=config.attributes, keep=config.keep, time_unit=config.time_unit, domain=entry.domain
    )  # fmt: skip
    return entry.read(SourceFiles(path, allow_large=config.allow_large), layout)


def _recbole(config: SourceConfig) -> RecBoleConfig:
    columns = {role: name for role, name in config.columns.items() if role != "title"}
    return RecBoleConfig(
        name=data_name(config.path) if config.path else config.source,
        title_column=config.columns.get("title"),
        columns=columns,
        keep=config.keep,
        time_unit=config.time_unit,
        attributes=config.attributes,
        rename=config.rename,
    )


def _with_extra_items(raw: RawData, config: SourceConfig) -> RawData:
    assert config.extra_items is not None
    files = SourceFiles(config.extra_items, allow_large=config.allow_large)
    findings = Findings()
    if files.ending_with(".item"):
        extra = read_items(files, replace(_recbole(config), title_column=None), findings)
    else:
        extra = read_extra_items(config.extra_items, config, raw.interactions.item_ids, findings)
    has_titles = any(raw.items.titles)  # which stay, whatever the extra table has
    raw.findings.entries.extend(entry for entry in findings.entries if not (has_titles and entry.subject == "titles"))
    return merge_items(raw, extra, where=files.label)
