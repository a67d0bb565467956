"""Hard histories: what a user's surrogate and every recommender read in the place of the user's own history.

Targets stay as they are and are never looked at: an item that is put in may be the target, which masking then makes
unreachable; the protocol counts these users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from toolrec.data import Dataset, Pool, Split
from toolrec.errors import ConfigError
from toolrec.stress.config import HistoryKind, StressSettings

SHORT_ITEMS = 2
LONG_ITEMS = 200
RARE_SHARE = 0.1
"""The tenth of the pool whose attribute values are rarest."""


def with_hard_histories(dataset: Dataset, stress: StressSettings) -> Dataset:
    """The data set with other histories before the targets of `valid` and `test`; itself where they are the users' own.

    Raises:
        ConfigError: the pool has no category attribute that tells another taste.
    """
    if stress.histories == "own":
        return dataset
    return _HardHistories(dataset, stress.histories, stress.seed)


def as_the_run_read(dataset: Dataset, settings: Mapping[str, Any]) -> Dataset:
    """The data set with the histories that a finished run's users were shown.

    Args:
        dataset: as it is stored.
        settings: of the run's manifest; those of earlier versions name no histories.
    """
    names = {name: settings[f"stress.{name}"] for name in ("histories", "seed") if f"stress.{name}" in settings}
    return with_hard_histories(dataset, StressSettings(**names))


class _HardHistories(Dataset):
    """A data set whose held-out histories are made anew, each the same whenever it is asked for."""

    def __init__(self, dataset: Dataset, kind: HistoryKind, seed: int) -> None:
        self.__dict__.update(dataset.__dict__)  # the same arrays, read-only
        self._kind, self._seed = kind, seed
        self._made: dict[tuple[int, str], tuple[np.ndarray, np.ndarray | None]] = {}
        self._strange: Callable[[np.ndarray], np.ndarray] | None = None
        if kind in ("contradictory", "rare"):
            tastes = _Tastes(self.pool)
            self._strange = tastes.rare if kind == "rare" else tastes.opposite

    def history(self, user_index: int, split: Split) -> np.ndarray:
        own = super().history(user_index, split)
        return own if split == "train" else self._of(user_index, split)[0]

    def history_ratings(self, user_index: int, split: Split) -> np.ndarray | None:
        own = super().history_ratings(user_index, split)
        return own if split == "train" else self._of(user_index, split)[1]

    def _of(self, user_index: int, split: Split) -> tuple[np.ndarray, np.ndarray | None]:
        key = (user_index, split)
        if key not in self._made:
            own, ratings = super().history(user_index, split), super().history_ratings(user_index, split)
            draw = np.random.default_rng([self._seed, user_index])
            if self._strange is None:
                place_L = self._places(len(own), draw)
                items, rated = own[place_L], None if ratings is None else ratings[place_L]
            else:
                items, rated = self._mixed(own, self._strange(own), draw), ratings
            items.setflags(write=False)
            self._made[key] = items, rated
        return self._made[key]

    def _places(self, num_items: int, draw: np.random.Generator) -> np.ndarray:
        """Which of the own items follow each other."""
        place_L = np.arange(num_items)
        if self._kind == "shuffled":
            return draw.permutation(num_items)
        if self._kind == "short":
            return place_L[-SHORT_ITEMS:]
        times = -(-LONG_ITEMS // max(num_items, 1))
        return np.tile(place_L, times)[-max(LONG_ITEMS, num_items) :]

    @staticmethod
    def _mixed(own: np.ndarray, strange: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Every second item, the last but one and so on, is a strange one; the user's latest item stays."""
        items = own.copy()
        place_S = np.arange(len(own) - 2, -1, -2)
        if len(strange) and len(place_S):
            items[place_S] = draw.choice(strange, size=len(place_S), replace=len(strange) < len(place_S))
        return items


class _Tastes:
    """Items that are unlike a history, by the pool's first category attribute."""

    def __init__(self, pool: Pool) -> None:
        name = next((name for name, spec in pool.attributes.items() if spec.kind in ("category", "categories")), None)
        if name is None:
            raise ConfigError(
                "these histories need an attribute of kind category or categories, and the data set has none",
                allowed="stress.histories: shuffled, short or long",
            )
        vocabulary, offsets, value_ids = pool.categories(name)
        holder_V: np.ndarray = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        self._has_IV = np.zeros((pool.num_items + 1, len(vocabulary)), dtype=bool)
        self._has_IV[holder_V, value_ids] = True
        count_V = self._has_IV.sum(axis=0)
        # An item is as rare as its rarest value; one without values says nothing.
        rarity_I = np.where(self._has_IV, count_V, np.iinfo(np.int64).max).min(axis=1)
        known = np.flatnonzero(self._has_IV.any(axis=1))
        ordered = known[np.argsort(rarity_I[known], kind="stable")]
        self._rare = ordered[: max(1, int(len(ordered) * RARE_SHARE))]

    def rare(self, own: np.ndarray) -> np.ndarray:
        """Items with the rarest values that are not in the history."""
        return np.setdiff1d(self._rare, own).astype(own.dtype)

    def opposite(self, own: np.ndarray) -> np.ndarray:
        """Items with none of the values that are frequent in the history: only values of its rarer half."""
        times_V = self._has_IV[own].sum(axis=0)
        wanted_V = times_V > np.median(times_V)
        strange_I = np.asarray(self._has_IV.any(axis=1) & ~self._has_IV[:, wanted_V].any(axis=1))
        strange_I[0] = False
        return np.setdiff1d(np.flatnonzero(strange_I), own).astype(own.dtype)
