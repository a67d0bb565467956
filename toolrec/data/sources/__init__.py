"""Where data sets come from; every source gives the same `RawData`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from toolrec.data.extras import merge_items
from toolrec.data.pool import AttributeKind, DomainWords
from toolrec.data.raw import RawData
from toolrec.data.sources.demo import DemoConfig, read_demo
from toolrec.data.sources.download import GROUPLENS_URL, MOVIELENS, fetch
from toolrec.data.sources.files import SourceFiles
from toolrec.data.sources.movielens import read_movielens
from toolrec.data.sources.recbole import RecBoleConfig, read_items, read_recbole
from toolrec.errors import ConfigError

__all__ = ["SourceConfig", "SourceName", "read_source"]


class SourceName(str, Enum):
    """The sources that `prepare` knows."""

    DEMO = "demo"
    ML_100K = "ml-100k"
    ML_1M = "ml-1m"
    RECBOLE = "recbole"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What to read, and how.

    Attributes:
        source: which reader.
        path: folder, zip or file; MovieLens without one is downloaded.
        name: of the data set; None for the source's own.
        demo: size and seed; only for the demo.
        title_column: only for RecBole's layout.
        sequence_separator: likewise.
        kinds: attribute kinds that should not be inferred; likewise.
        extra_items: a RecBole `.item` file, or a folder or zip with one, whose attributes join the items.
        domain: words that take the place of the source's own.
        mirror_url: where MovieLens is downloaded from.
    """

    source: SourceName
    path: Path | None = None
    name: str | None = None
    demo: DemoConfig | None = None
    title_column: str | None = None
    sequence_separator: str | None = None
    kinds: Mapping[str, AttributeKind] = field(default_factory=dict)
    extra_items: Path | None = None
    domain: DomainWords | None = None
    mirror_url: str = GROUPLENS_URL

    def __post_init__(self) -> None:
        if self.source is SourceName.DEMO and self.path is not None:
            raise ConfigError("the demo is made from its seed and takes no --source", value=str(self.path))
        if self.source is not SourceName.DEMO and self.demo is not None:
            raise ConfigError("--seed, --users and --items are only for the demo", value=self.source.value)
        if self.source is SourceName.RECBOLE and self.path is None:
            raise ConfigError("recbole needs --source", allowed="a folder or zip with one .inter and one .item file")
        if self.source is not SourceName.RECBOLE and self.title_column is not None:
            raise ConfigError("--title-column is only for recbole", value=self.source.value)
        if self.source is not SourceName.RECBOLE and self.extra_items is None and (self.sequence_separator or self.kinds):
            raise ConfigError("--sequence-separator and attribute kinds are only for RecBole's layout", value=self.source.value)


def read_source(config: SourceConfig) -> RawData:
    """Reads a source, with its extra items.

    Raises:
        DataError: missing, damaged, wrongly encoded or of another layout; or it cannot be downloaded.
        ConfigError: a setting that does not fit the source.
    """
    raw = _read(config)
    if config.extra_items is not None:
        extra, _ = read_items(SourceFiles(config.extra_items), _recbole(config, title_column=None))
        raw = merge_items(raw, extra, where=config.extra_items.name)
    kinds = {attribute.name: attribute.kind for attribute in raw.items.attributes}
    for name, kind in config.kinds.items():
        if kinds.get(name, kind) != kind:
            raise ConfigError(f"the kind of {name} is fixed in this source: {kinds[name]}", value=kind)
    return replace(raw, name=config.name or raw.name, domain=config.domain or raw.domain)


def _read(config: SourceConfig) -> RawData:
    if config.source is SourceName.DEMO:
        return read_demo(config.demo or DemoConfig())
    if config.source is SourceName.RECBOLE:
        assert config.path is not None  # checked with the configuration
        return read_recbole(SourceFiles(config.path), _recbole(config, title_column=config.title_column))
    name = config.source.value
    return read_movielens(name, config.path or fetch(MOVIELENS[name], base_url=config.mirror_url))


def _recbole(config: SourceConfig, *, title_column: str | None) -> RecBoleConfig:
    return RecBoleConfig(
        name=config.path.stem if config.path else config.source.value,
        kinds=config.kinds,
        title_column=title_column,
        sequence_separator=config.sequence_separator,
    )
