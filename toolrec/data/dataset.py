"""A prepared data set: histories by user, the leave-one-out split and the pool, read from one Parquet folder.

Leave-one-out: of a user's items, oldest first, the last is the test target and the last but one the validation target.

    split    history        target
    train    items[:-2]     -
    valid    items[:-2]     items[-2]
    test     items[:-1]     items[-1]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolrec.data.pool import Pool
from toolrec.data.store import read_folder
from toolrec.errors import ConfigError, DataError

Split = Literal["train", "valid", "test"]
_HELD_OUT: dict[str, int] = {"train": 2, "valid": 2, "test": 1}


class Dataset:
    """Histories and pool of one data set folder; made by `load_dataset`.

    Attributes:
        items: int32 `[num_interactions]`, item_index of every interaction, by user, oldest first.
        offsets: int64 `[num_users + 2]`; user u of `1..num_users` has `items[offsets[u]:offsets[u + 1]]`.
        ratings: float32 along `items`, or None where the source has none.
        user_ids: index 0 is "" (padding).
        checksum: hex SHA-256 over the content of the Parquet files; checkpoints and runs bind to it.
    """

    def __init__(
        self,
        *,
        path: Path,
        manifest: dict[str, Any],
        pool: Pool,
        user_ids: list[str],
        offsets: np.ndarray,
        items: np.ndarray,
        ratings: np.ndarray | None,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.name: str = manifest["name"]
        self.checksum: str = manifest["checksum"]
        self.pool = pool
        self.user_ids = user_ids
        self.offsets = offsets
        self.items = items
        self.ratings = ratings
        self.has_ratings = ratings is not None
        self.has_timestamps: bool = manifest["timestamp_kind"] != "none"
        self.num_users = len(user_ids) - 1
        self.num_items = pool.num_items
        self._index_by_id = {user_id: index for index, user_id in enumerate(user_ids) if index}

    def user_index_of(self, user_id: str) -> int:
        """The user_index of a user_id.

        Raises:
            DataError: the data set has no such user.
        """
        index = self._index_by_id.get(user_id)
        if index is None:
            raise DataError(f"no such user in the data set {self.name}", value=user_id)
        return index

    def history(self, user_index: int, split: Split) -> np.ndarray:
        """The user's items that come before the target of `split`: int32, oldest first, a read-only view."""
        return self.items[self._history_slice(user_index, split)]

    def history_ratings(self, user_index: int, split: Split) -> np.ndarray | None:
        """The ratings along `history`: float32, or None where the data set has none."""
        return None if self.ratings is None else self.ratings[self._history_slice(user_index, split)]

    def target(self, user_index: int, split: Split) -> int:
        """The held-out item of `valid` or `test`."""
        return int(self.items[self._history_slice(user_index, _with_target(split)).stop])

    def targets(self, split: Split) -> np.ndarray:
        """The targets of all users by user_index: int32 `[num_users + 1]`, 0 at index 0."""
        targets = np.zeros(self.num_users + 1, dtype=np.int32)
        targets[1:] = self.items[self.offsets[2:] - _HELD_OUT[_with_target(split)]]
        return targets

    def train_sequences(self) -> list[np.ndarray]:
        """The training history of every user, int32, oldest first; entry 0 is user 1."""
        return [self.history(user_index, "train") for user_index in range(1, self.num_users + 1)]

    def sample_users(self, num: int | None, seed: int) -> np.ndarray:
        """User indexes drawn without replacement; a smaller sample of the same seed is the beginning of a larger one.

        Args:
            num: how many; None for all users, in the order of their index.
            seed: of the draw.

        Raises:
            ConfigError: fewer than 1 or more than there are.
        """
        if num is None:
            return np.arange(1, self.num_users + 1, dtype=np.int32)
        if not 1 <= num <= self.num_users:
            raise ConfigError("cannot draw that many users", value=num, allowed=f"1 to {self.num_users}, or all")
        order = np.random.default_rng(seed).permutation(self.num_users)[:num] + 1
        return order.astype(np.int32)

    def _history_slice(self, user_index: int, split: str) -> slice:
        if not 1 <= user_index <= self.num_users:
            raise DataError("no such user index", value=user_index, allowed=f"1 to {self.num_users}")
        if split not in _HELD_OUT:
            raise ConfigError("unknown split", value=split, allowed=list(_HELD_OUT))
        return slice(int(self.offsets[user_index]), int(self.offsets[user_index + 1]) - _HELD_OUT[split])


def _with_target(split: str) -> str:
    if split not in ("valid", "test"):
        raise ConfigError("only these splits have a target", value=split, allowed=["valid", "test"])
    return split


def load_dataset(path: Path) -> Dataset:
    """Reads a data set folder and checks it against its manifest.

    Raises:
        DataError: the folder is missing, is not a data set, is damaged, or its content is not that of its checksum.
    """
    folder = read_folder(Path(path))
    interactions = folder.interactions
    num_users = len(folder.user_ids) - 1
    offsets = np.zeros(num_users + 2, dtype=np.int64)
    np.cumsum(np.bincount(interactions.user_index, minlength=num_users + 1)[1:], out=offsets[2:])
    items = interactions.item_index.astype(np.int32)
    ratings = None if interactions.rating is None else interactions.rating.astype(np.float32)
    for array in (items, offsets, *(() if ratings is None else (ratings,))):
        array.setflags(write=False)
    return Dataset(
        path=Path(path),
        manifest=folder.manifest,
        pool=folder.pool,
        user_ids=folder.user_ids,
        offsets=offsets,
        items=items,
        ratings=ratings,
    )
