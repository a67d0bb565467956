"""What the person says of files, and which own ones are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolrec.data.pool import DomainWords
from toolrec.data.reading.attributes import AttributeOptions
from toolrec.data.reading.formats import TextOptions
from toolrec.data.reading.times import TimeUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnConfig:
    """What the person says of the files; None is found out.

    Attributes:
        name: of the data set.
        interactions: own files: a file, a folder of part files, an fsspec URL, or a pandas frame.
        items: likewise, or None.
        columns: column by role (`user`, `item`, `rating`, `time`, `title`, `items_id`); own files and RecBole.
        text: how own files are written.
        time_unit: of the interactions' times.
        keep: column -> values; other interactions are dropped.
        rename: column -> attribute name.
        attributes: kinds, separators, missing values, caps.
        domain: words that take the place of the source's own.
        allow_large: read archive members however large they state to be.
    """

    name: str | None = None
    interactions: Any = None
    items: Any = None
    columns: Mapping[str, str] = field(default_factory=dict)
    text: TextOptions = field(default_factory=TextOptions)
    time_unit: TimeUnit = "auto"
    keep: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    attributes: AttributeOptions = field(default_factory=AttributeOptions)
    domain: DomainWords | None = None
    allow_large: bool = False
