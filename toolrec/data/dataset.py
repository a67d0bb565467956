"""A prepared data set: histories by user, the split and the pool, read from one Parquet folder.

Leave-one-out, the default: of a user's items, oldest first, the last is the test target and the last but one the validation
target. `toolrec.data.splits` has the other splits.

    split    history        target
    train    items[:-2]     -
    valid    items[:-2]     items[-2]
    test     items[:-1]     items[-1]
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolrec.data.pool import Pool
from toolrec.data.small import TooSmall, too_small
from toolrec.data.splits import NO_TARGET, Bounds, SplitConfig, split_bounds, split_name, split_words
from toolrec.data.store import MANIFEST, read_folder
from toolrec.errors import ConfigError, DataError
from toolrec.storage.cache import on_this_node
from toolrec.util.urls import place_of

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


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
        bounds: Bounds | None = None,
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
        if bounds is None:
            bounds, _ = split_bounds(SplitConfig(), np.diff(offsets)[1:])
        self._ends = {"train": bounds.train_end, "valid": bounds.valid_at, "test": bounds.test_at}
        self._num_targets = {"valid": bounds.valid_num, "test": bounds.test_num}
        self._index_by_id = {user_id: index for index, user_id in enumerate(user_ids) if index}

    def with_pool(self, pool: Pool) -> Dataset:
        """The same users and items under a pool with other names."""
        other = copy.copy(self)
        other.pool = pool
        return other

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
        """The held-out item of `valid` or `test`; of several the first, which comes next after the history."""
        return int(self.items[self._history_slice(user_index, _with_target(split)).stop])

    @property
    def split_name(self) -> str:
        """The split in a few words, for the line of a protocol."""
        return split_name(self.manifest.get("split", "leave_one_out"), self.manifest.get("split_settings") or {})

    @property
    def split_words(self) -> str:
        """How the data set is split, for protocols."""
        return split_words(self.manifest.get("split", "leave_one_out"), self.manifest.get("split_settings") or {})

    def users_with_target(self, split: Split) -> np.ndarray:
        """The users that have a target in `valid` or `test`, ascending: int32; under leave-one-out all."""
        return (np.flatnonzero(self._ends[_with_target(split)] != NO_TARGET) + 1).astype(np.int32)

    def targets(self, split: Split) -> np.ndarray:
        """Each user's target, of several the first: int32 `[num_users + 1]`, 0 at index 0 and where a user has none."""
        targets = np.zeros(self.num_users + 1, dtype=np.int32)
        users = self.users_with_target(split)
        targets[users] = self.items[self.offsets[users] + self._ends[split][users - 1]]
        return targets

    def all_targets(self, split: Split) -> np.ndarray:
        """Each user's targets, next one first: int32 `[num_users + 1, most]`; 0 is none.

        An item that is held out twice is a target once: a list can hold it once only.
        """
        num_U = self._num_targets[_with_target(split)]
        if num_U is None:
            return self.targets(split)[:, None]
        users = self.users_with_target(split)
        num_U = num_U[users - 1]
        targets = np.zeros((self.num_users + 1, int(num_U.max(initial=1))), dtype=np.int32)
        first_U = self.offsets[users] + self._ends[split][users - 1]
        for place in range(targets.shape[1]):
            has = num_U > place
            item_H = self.items[first_U[has] + place]
            is_new_H = (targets[users[has], :place] != item_H[:, None]).all(axis=1)
            targets[users[has], place] = np.where(is_new_H, item_H, 0)
        return targets

    @property
    def num_trained(self) -> np.ndarray:
        """How many items of each user are in training, by user_index: int64 `[num_users + 1]`."""
        return np.concatenate([[0], self._ends["train"]]).astype(np.int64)

    @property
    def too_small(self) -> list[TooSmall]:
        """Why figures on this data set say nothing; empty where it is large enough."""
        return too_small(self.num_items, np.diff(self.offsets)[self.users_with_target("test")])

    def train_sequences(self) -> list[np.ndarray]:
        """The training history of every user that has one, int32, oldest first, by user_index."""
        return [
            self.history(user_index, "train")
            for user_index in range(1, self.num_users + 1)
            if self._ends["train"][user_index - 1]
        ]

    def sample_users(self, num: int | None, seed: int, *, split: Split = "test") -> np.ndarray:
        """Users with a target, drawn without replacement; a smaller sample of the same seed is the beginning of a larger one.

        Args:
            num: how many; None for all of them, in the order of their index.
            seed: of the draw.
            split: whose targets.

        Raises:
            ConfigError: fewer than 1 or more than there are.
        """
        users = self.users_with_target(split)
        if num is None:
            return users
        if not 1 <= num <= len(users):
            raise ConfigError("cannot draw that many users", value=num, allowed=f"1 to {len(users)}, or all")
        return users[np.random.default_rng(seed).permutation(len(users))[:num]]

    def _history_slice(self, user_index: int, split: str) -> slice:
        if not 1 <= user_index <= self.num_users:
            raise DataError("no such user index", value=user_index, allowed=f"1 to {self.num_users}")
        if split not in SPLITS:
            raise ConfigError("unknown split", value=split, allowed=SPLITS)
        end = int(self._ends[split][user_index - 1])
        if end == NO_TARGET:
            raise DataError(f"the user has no target in the {split} split", value=self.user_ids[user_index])
        start = int(self.offsets[user_index])
        return slice(start, start + end)


def _with_target(split: str) -> str:
    if split not in ("valid", "test"):
        raise ConfigError("only these splits have a target", value=split, allowed=["valid", "test"])
    return split


def load_dataset(path: str | Path) -> Dataset:
    """Reads a data set folder and checks it against its manifest.

    Args:
        path: the folder, as `toolrec data prepare` writes it, or its URL.

    Raises:
        DataError: the folder is missing, is not a data set, is damaged, or its content is not that of its checksum; or the
            URL cannot be read.
    """
    place = place_of(path)
    folder = read_folder(on_this_node(place, manifest=MANIFEST, check=read_folder, error=DataError))
    interactions = folder.interactions
    num_users = len(folder.user_ids) - 1
    offsets = np.zeros(num_users + 2, dtype=np.int64)
    np.cumsum(np.bincount(interactions.user_index, minlength=num_users + 1)[1:], out=offsets[2:])
    items = interactions.item_index.astype(np.int32)
    ratings = None if interactions.rating is None else interactions.rating.astype(np.float32)
    for array in (items, offsets, *(() if ratings is None else (ratings,))):
        array.setflags(write=False)
    return Dataset(
        path=place,
        manifest=folder.manifest,
        pool=folder.pool,
        user_ids=folder.user_ids,
        offsets=offsets,
        items=items,
        ratings=ratings,
        bounds=folder.bounds,
    )
