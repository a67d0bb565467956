"""What every source gives: interactions as coded arrays and items with their attribute values, before any filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from toolrec.data.pool import AttributeKind, DomainWords
from toolrec.data.reading.findings import Findings
from toolrec.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawInteractions:
    """Interactions in source order.

    `users` and `items` are codes into `user_ids` and `item_ids` (0-based, by first appearance); `ratings` float32 and
    `timestamps` float64 run along them, or are None where the source has none. So does `parts`, the split that the source
    gives, as codes of `splits.PARTS`.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None
    timestamps: np.ndarray | None
    parts: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAttribute:
    """One attribute with its values along the items, as `Pool` takes them (None where missing)."""

    name: str
    kind: AttributeKind
    values: list[Any]
    description: str = ""

    def is_empty(self) -> bool:
        """Whether no item has a value."""
        return not any(value is not None and value != () for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawItems:
    """The source's items: ids, titles and attributes, in source order; ids are unique.

    `aside` holds attributes that are left out unless they are named; they may tell items of one title apart.
    """

    item_ids: list[str]
    titles: list[str]
    attributes: list[RawAttribute] = field(default_factory=list)
    aside: list[RawAttribute] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """One source, read.

    `layout` and `origin` (file names and checksums, or seed and size) end in the manifest, and so do `notes`, sentences
    about what was left out, and `findings`, the report of what was read and assumed.
    """

    name: str
    layout: str
    interactions: RawInteractions
    items: RawItems
    domain: DomainWords
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)


def choose_attributes(items: RawItems, names: Sequence[str] | None) -> tuple[RawItems, list[str]]:
    """Keeps the named attributes, in the order named; without names, all that have a value.

    Raises:
        ConfigError: an unknown attribute, or one named twice.
        DataError: a named attribute of which no item has a value.
    """
    known = {attribute.name: attribute for attribute in items.attributes}
    aside = {attribute.name: attribute for attribute in items.aside if attribute.name not in known}
    notes = []
    if names is None:
        chosen = [attribute for attribute in items.attributes if not attribute.is_empty()]
        notes = [f"attribute {name} has no value at all and is left out" for name in known if known[name].is_empty()]
    else:
        known |= {name: aside[name] for name in names if name in aside}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(
                "unknown attribute",
                value=", ".join(unknown),
                allowed=list(dict.fromkeys([*known, *aside])) or "none: the source has no attributes",
            )
        if len(set(names)) < len(names):
            raise ConfigError("an attribute is named twice", value=", ".join(names))
        chosen = [known[name] for name in names]
        for attribute in chosen:
            if attribute.is_empty():
                raise DataError(
                    "no item has a value for this attribute", value=attribute.name, hint="leave it out of --attributes"
                )
    _refuse_alike([attribute.name for attribute in chosen])
    return replace(items, attributes=chosen), notes


def _refuse_alike(names: list[str]) -> None:
    """Names that differ in their case only would be one and the same for a surrogate."""
    alike = [name for name in names if sum(name.casefold() == other.casefold() for other in names) > 1]
    if alike:
        raise ConfigError("these attributes differ in upper and lower case only", value=", ".join(alike),
                          hint="choose one with --attributes")  # fmt: skip
