"""The item pool directory: every item's id, title and attribute values, in plain arrays that ship cheaply to actors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from toolrec.columns import PADDING_INDEX, PLAIN_BACKBONE, Columns
from toolrec.errors import ConfigError, DataError
from toolrec.grammar import FORBIDDEN_IN_ID, clean

AttributeKind = Literal["category", "categories", "number", "text"]
ATTRIBUTE_KINDS: tuple[AttributeKind, ...] = ("category", "categories", "number", "text")
MAX_ID_CHARACTERS = 512
"""What the prompt grammar reads back as one id."""
MAX_SHOWN_TEXT = 100
"""Characters of a text that prompts show."""

_FORBIDDEN_IN_NAME = FORBIDDEN_IN_ID + ",:"
_RESERVED_NAMES = frozenset({PLAIN_BACKBONE, Columns.ITEM_INDEX, Columns.ITEM_ID, Columns.TITLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainWords:
    """How prompts speak of the items: one, several, and what users did with them.

    `rating` is how a rating reads, as `{rating} of 5`; it begins with `{rating}`, the number.
    """

    item: str = "item"
    items: str = "items"
    consumed: str = "interacted with"
    is_movies: bool = False
    rating: str = "{rating}"

    def __post_init__(self) -> None:
        for word in (self.item, self.items, self.consumed):
            if not word.strip() or not word.isprintable():
                raise ConfigError("a domain word must be printable and not empty", value=word)
        rest = self.rating.removeprefix("{rating}")
        if (
            rest == self.rating
            or not self.rating.isprintable()
            or any(character in rest for character in "{}<>|[],:")
            or len(rest) > 40
        ):
            raise ConfigError("how a rating reads begins with {rating}, as in {rating} of 5", value=self.rating)


MOVIES = DomainWords(item="movie", items="movies", consumed="watched", is_movies=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeSpec:
    """One attribute of the pool.

    `kind` is `category` (one value an item), `categories` (several), `number` (ordered) or `text` (free text, read by its
    meaning). `num_values` counts the distinct values that items of the pool have.
    """

    name: str
    kind: AttributeKind
    description: str = ""
    num_values: int = 0

    def __post_init__(self) -> None:
        if not is_attribute_name(self.name):
            raise ConfigError(
                f"an attribute's name may not be empty, one of {', '.join(sorted(_RESERVED_NAMES))}, begin or end with white "
                f"space, or have control characters or any of {' '.join(_FORBIDDEN_IN_NAME)}",
                value=self.name,
            )
        if self.kind not in ATTRIBUTE_KINDS:
            raise ConfigError("unknown kind of attribute", value=self.kind, allowed=ATTRIBUTE_KINDS)


def is_attribute_name(name: str) -> bool:
    """Whether prompts can carry `name` as an attribute's name."""
    return (
        bool(name)
        and name.casefold() not in _RESERVED_NAMES
        and name == name.strip()
        and name.isprintable()
        and not any(character in _FORBIDDEN_IN_NAME for character in name)
    )


def is_valid_id(text: str) -> bool:
    """Whether prompts can carry `text` as an item id."""
    return (
        0 < len(text) <= MAX_ID_CHARACTERS
        and text == text.strip()
        and text.isprintable()
        and not any(character in FORBIDDEN_IN_ID for character in text)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Categories:
    """Values of a category attribute as CSR over item_index; `vocabulary[0]` is "" (padding)."""

    vocabulary: list[str]
    offsets: np.ndarray
    value_ids: np.ndarray


class Pool:
    """Every item of a data set by `item_index`, `1..num_items`; index 0 is padding.

    Args:
        item_ids: index 0 is "".
        titles: along `item_ids`.
        attributes: specs in the order in which prompts show them.
        values: for each attribute, along `item_ids` **without** the padding: `str | None` for `category`, a sequence of
            `str` (or None) for `categories`, `float | None` for `number`, `str | None` for `text`.
        domain: how prompts speak of the items.
    """

    def __init__(
        self,
        *,
        item_ids: Sequence[str],
        titles: Sequence[str],
        attributes: Sequence[AttributeSpec],
        values: Mapping[str, Sequence[Any]],
        domain: DomainWords,
    ) -> None:
        self.item_ids = list(item_ids)
        self.titles = list(titles)
        self.num_items = len(self.item_ids) - 1
        self.domain = domain
        self._index_by_id = {item_id: index for index, item_id in enumerate(self.item_ids) if index != PADDING_INDEX}
        self._categories: dict[str, _Categories] = {}
        self._numbers: dict[str, np.ndarray] = {}
        self._texts: dict[str, list[str]] = {}
        self.attributes: dict[str, AttributeSpec] = {}
        for spec in attributes:
            if spec.kind == "number":
                self._numbers[spec.name] = _numbers(values[spec.name])
            elif spec.kind == "text":
                self._texts[spec.name] = ["", *(" ".join((text or "").split()) for text in values[spec.name])]
            else:
                self._categories[spec.name] = _categories(values[spec.name], is_multiple=spec.kind == "categories")
            self.attributes[spec.name] = AttributeSpec(**{**asdict(spec), "num_values": self._num_values(spec.name)})

    def _num_values(self, attribute: str) -> int:
        if attribute in self._categories:
            return len(self._categories[attribute].vocabulary) - 1
        if attribute in self._texts:
            return len({text for text in self._texts[attribute] if text})
        numbers = self._numbers[attribute]
        return len(np.unique(numbers[~np.isnan(numbers)]))

    def renamed(self, *, item_ids: Sequence[str], titles: Sequence[str]) -> Pool:
        """The same items under other ids and titles, index 0 is ""; attributes are shared."""
        other = copy.copy(self)
        other.item_ids, other.titles = list(item_ids), list(titles)
        other._index_by_id = {item_id: index for index, item_id in enumerate(other.item_ids) if index != PADDING_INDEX}
        return other

    def widened(self, *, item_ids: Sequence[str], titles: Sequence[str]) -> Pool:
        """The same items and further ones after them, known by id and title alone: their attributes cannot be asked for."""
        other = self.renamed(item_ids=[*self.item_ids, *item_ids], titles=[*self.titles, *titles])
        other.num_items = len(other.item_ids) - 1
        return other

    def index_of(self, item_id: str) -> int | None:
        """The item_index of an exact item_id, or None."""
        return self._index_by_id.get(item_id)

    def values(self, attribute: str, item_index: int) -> tuple[str, ...]:
        """The values of one item as people read them, a text cut to `MAX_SHOWN_TEXT`; `()` where the item has none.

        Raises:
            DataError: no such attribute.
        """
        spec = self._spec(attribute)
        if spec.kind == "number":
            number = float(self._numbers[attribute][item_index])
            return () if np.isnan(number) else (format_number(number),)
        if spec.kind == "text":
            text = clean(self._texts[attribute][item_index], limit=MAX_SHOWN_TEXT)
            return (text,) if text else ()
        return tuple(self._categories[attribute].vocabulary[value] for value in self.category_ids(attribute, item_index))

    def category_ids(self, attribute: str, item_index: int) -> np.ndarray:
        """The value ids (`1..V`) of one item for an attribute of kind `category` or `categories`."""
        _, offsets, value_ids = self.categories(attribute)
        return value_ids[offsets[item_index] : offsets[item_index + 1]]

    def fields(self, item_index: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """All attributes that the item has, in order, as `grammar.ItemLine` takes them."""
        named = ((name, self.values(name, item_index)) for name in self.attributes)
        return tuple((name, values) for name, values in named if values)

    def categories(self, attribute: str) -> tuple[list[str], np.ndarray, np.ndarray]:
        """An attribute of kind `category` or `categories` for the whole pool, as CSR over item_index.

        Returns:
            vocabulary: `V + 1` strings; index 0 is "" (padding), so that `vocabulary[value_id]` is the value.
            offsets: int64 `[num_items + 2]`; item i has `value_ids[offsets[i]:offsets[i + 1]]`, padding has none.
            value_ids: int32, each in `1..V`.

        Raises:
            DataError: no such attribute, or it is a number or a text.
        """
        kind = self._spec(attribute).kind
        if kind in ("number", "text"):
            raise DataError(f"this attribute is a {kind}, it has no categories", value=attribute)
        packed = self._categories[attribute]
        return packed.vocabulary, packed.offsets, packed.value_ids

    def numbers(self, attribute: str) -> np.ndarray:
        """An attribute of kind `number` for the whole pool: float64 `[num_items + 1]`, NaN where missing.

        Raises:
            DataError: no such attribute, or it is not a number.
        """
        if self._spec(attribute).kind != "number":
            raise DataError("this attribute is not a number", value=attribute)
        return self._numbers[attribute]

    def texts(self, attribute: str) -> list[str]:
        """An attribute of kind `text` for the whole pool, uncut: `num_items + 1` strings, "" where missing.

        Raises:
            DataError: no such attribute, or it is not a text.
        """
        if self._spec(attribute).kind != "text":
            raise DataError("this attribute is not a text", value=attribute)
        return self._texts[attribute]

    def coverage(self, attribute: str) -> float:
        """The share of items that have a value."""
        if self._spec(attribute).kind == "number":
            return float(np.mean(~np.isnan(self._numbers[attribute][1:])))
        if attribute in self._texts:
            return float(np.mean([bool(text) for text in self._texts[attribute][1:]]))
        return float(np.mean(np.diff(self._categories[attribute].offsets)[1:] > 0))

    def _spec(self, attribute: str) -> AttributeSpec:
        spec = self.attributes.get(attribute)
        if spec is None:
            raise DataError("unknown attribute", value=attribute, allowed=list(self.attributes))
        return spec


def format_number(number: float) -> str:
    """A number as prompts show it: integers without decimals, others with at most 6 significant digits."""
    return str(int(number)) if number.is_integer() else format(number, ".6g")


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    numbers = np.full(len(values) + 1, np.nan)
    numbers[1:] = [np.nan if value is None else value for value in values]
    return numbers


def _categories(values: Sequence[Any], *, is_multiple: bool) -> _Categories:
    rows: list[tuple[str, ...]]
    if is_multiple:
        rows = [tuple(dict.fromkeys(value or ())) for value in values]
    else:
        rows = [(value,) if value is not None else () for value in values]
    vocabulary = ["", *sorted({value for row in rows for value in row})]
    id_of = {value: value_id for value_id, value in enumerate(vocabulary)}
    offsets = np.zeros(len(rows) + 2, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[2:])
    value_ids = np.fromiter((id_of[value] for row in rows for value in row), dtype=np.int32, count=int(offsets[-1]))
    return _Categories(vocabulary=vocabulary, offsets=offsets, value_ids=value_ids)
