"""Tastes: what a history's attributes tell, and how well an item fits them. Formula: docs/concepts/embedded-endpoint.md."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from toolrec.grammar import ItemLine

RECENCY = 0.9
"""Each item of the history weighs this times the next newer one."""

RATING_SLOPE, RATING_RANGE = 0.25, (0.5, 1.5)
"""A rating one above the user's own mean weighs a quarter more, within the range."""

SHARPNESS = 2.0
"""Two numbers that are one spread apart agree by exp(-2)."""

MAX_HISTORY = 50
RATING_FIELD = "rating"
NOT_ATTRIBUTES = frozenset({RATING_FIELD, "score"})

Fields = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Taste:
    """What the history says about one attribute.

    `telling` is the mean agreement of two of its items, 0 to 1; `fit` gives an item's mean agreement with them.
    `summary` says it in words.
    """

    attribute: str
    telling: float
    fit: Callable[[Fields], float]
    summary: str


def fields_of(item: ItemLine) -> Fields:
    """The item's fields by name."""
    return dict(item.fields)


def read_tastes(history: Sequence[ItemLine], attributes: Iterable[str], around: Sequence[Fields]) -> dict[str, Taste]:
    """The tastes by attribute.

    Args:
        history: oldest first.
        attributes: the names to look at.
        around: fields of the items that tools have shown; they give numbers their usual spread.
    """
    recent = history[-MAX_HISTORY:]
    shown = [fields_of(item) for item in recent]
    weights = _weights(shown)
    tastes = {}
    for attribute in attributes:
        known = [(fields[attribute], w) for fields, w in zip(shown, weights, strict=True) if fields.get(attribute)]
        if len(known) < 2:
            continue
        numbers = [number for values, _ in known if len(values) == 1 and (number := number_in(values[0])) is not None]
        if len(numbers) == len(known):
            tastes[attribute] = _number_taste(attribute, numbers, [w for _, w in known], around)
        else:
            tastes[attribute] = _category_taste(attribute, known)
    return tastes


def overall_fits(around: Sequence[Fields], tastes: dict[str, Taste]) -> list[float]:
    """Each item's mean fit over all attributes, weighed by how much they tell."""
    total = sum(taste.telling for taste in tastes.values())
    if total <= 0:
        return [0.0] * len(around)
    shares = [(taste.telling / total, taste.fit) for taste in tastes.values()]
    return [sum(share * fit(fields) for share, fit in shares) for fields in around]


def own_fit(tastes: dict[str, Taste]) -> float:
    """The mean fit of the history's items with one another."""
    total = sum(taste.telling for taste in tastes.values())
    return sum(taste.telling * taste.telling for taste in tastes.values()) / total if total > 0 else 0.0


def number_in(text: str) -> float | None:
    """The finite number that `text` is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e15 else None


def _weights(shown: Sequence[Fields]) -> list[float]:
    """A weight for each history item, oldest first, by recency and rating."""
    weights = [RECENCY ** (len(shown) - 1 - place) for place in range(len(shown))]
    ratings = [_rating(fields) for fields in shown]
    given = [rating for rating in ratings if rating is not None]
    if not given:
        return weights
    mean = sum(given) / len(given)
    low, high = RATING_RANGE
    return [
        w if rating is None else w * min(high, max(low, 1 + RATING_SLOPE * (rating - mean)))
        for w, rating in zip(weights, ratings, strict=True)
    ]


def _rating(fields: Fields) -> float | None:
    values = fields.get(RATING_FIELD)
    return number_in(values[0].partition(" ")[0]) if values else None  # as in `4 of 5`


def _category_taste(attribute: str, known: Sequence[tuple[tuple[str, ...], float]]) -> Taste:
    """Agreement of two items: the cosine of their sets of values."""
    profile: dict[str, float] = {}
    counts: dict[str, int] = {}
    for values, weight in known:
        distinct = dict.fromkeys(values)
        for value in distinct:
            profile[value] = profile.get(value, 0.0) + weight / math.sqrt(len(distinct))
            counts[value] = counts.get(value, 0) + 1
    total, squares = sum(w for _, w in known), sum(w * w for _, w in known)
    telling = (sum(share * share for share in profile.values()) - squares) / (total * total - squares)

    def fit(fields: Fields) -> float:
        values = fields.get(attribute)
        if not values:
            return 0.0
        return sum(profile.get(value, 0.0) for value in values) / (math.sqrt(len(values)) * total)

    favourite = max(counts, key=lambda value: (profile[value], value))
    summary = f"{counts[favourite]} of {len(known)} are {favourite}"
    return Taste(attribute, min(1.0, max(0.0, telling)), fit, summary)


def _number_taste(attribute: str, numbers: Sequence[float], weights: Sequence[float], around: Sequence[Fields]) -> Taste:
    """Agreement of two items: closeness, against the spread of all numbers that the prompt shows."""
    seen = [*numbers, *(n for fields in around if fields.get(attribute) and (n := number_in(fields[attribute][0])) is not None)]
    middle = statistics.median(seen)
    spread = sum(abs(number - middle) for number in seen) / len(seen)

    def agreement(a: float, b: float) -> float:
        if spread <= 0:
            return 1.0 if a == b else 0.0
        return math.exp(-SHARPNESS * abs(a - b) / spread)

    total, weighed = 0.0, 0.0
    for i in range(len(numbers)):
        for j in range(i):
            pair = weights[i] * weights[j]
            total += pair
            weighed += pair * agreement(numbers[i], numbers[j])
    sum_weights = sum(weights)
    known: dict[str, float] = {}

    def fit(fields: Fields) -> float:
        values = fields.get(attribute)
        if not values:
            return 0.0
        if values[0] not in known:
            number = number_in(values[0])
            near = [0.0] if number is None else [w * agreement(number, own) for own, w in zip(numbers, weights, strict=True)]
            known[values[0]] = sum(near) / sum_weights
        return known[values[0]]

    summary = f"mostly around {statistics.median_low(numbers):g}, from {min(numbers):g} to {max(numbers):g}"
    return Taste(attribute, weighed / total, fit, summary)
