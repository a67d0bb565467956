"""What all exports read: a run's traces block by block, and its data set, where that is still the one it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolrec.data import Dataset, Pool, load_dataset
from toolrec.data.obscure import obscured
from toolrec.errors import ConfigError
from toolrec.metrics import ndcg_at_k, pad_lists, positions_of
from toolrec.records import FINISHED, Trace
from toolrec.runs.folder import traces_by_part
from toolrec.runs.run import Run, find_dataset, load_run
from toolrec.stress.histories import as_the_run_read

UserSplit = Literal["train", "valid", "test"]
USER_SHARES: tuple[tuple[UserSplit, float], ...] = (("train", 0.8), ("valid", 0.9), ("test", 1.0))
"""The parts of the users, each with the upper end of its share."""

POLL_S = 2.0
"""How often a run that goes on is looked at again."""


class Source:
    """A run to be exported.

    Args:
        path: the run folder.
        dataset: the data set's folder; None for the one that the manifest names.

    Raises:
        RunFolderError: there is no run.
        ConfigError: the data set that was given is not the run's.
    """

    def __init__(self, path: Path, dataset: Path | None = None) -> None:
        self.run: Run = load_run(path)
        self.settings: dict[str, Any] = self.run.manifest["settings"]
        self.name = path.resolve().name
        self._given = dataset
        if dataset is not None and load_dataset(dataset).checksum != self.settings["dataset_checksum"]:
            raise ConfigError("the run was made with another data set", value=str(dataset), hint="give its own as --dataset")

    @cached_property
    def dataset(self) -> Dataset | None:
        """The run's data set; None where it is gone or another one by now, `missing` says which."""
        found, self._missing = self._find_dataset()
        return found

    @property
    def missing(self) -> str:
        """Why there is no data set; empty where there is one."""
        _ = self.dataset
        return self._missing

    def needed_dataset(self, purpose: str) -> Dataset:
        """The run's data set.

        Args:
            purpose: what cannot be done without it, for the error.

        Raises:
            ConfigError: it is gone, or another one by now.
        """
        if self.dataset is None:
            raise ConfigError(f"{purpose} needs the run's data set: {self.missing}", hint="give its folder as --dataset")
        return self.dataset

    def _find_dataset(self) -> tuple[Dataset | None, str]:
        found, why_not = find_dataset(self.run, self._given)
        return None if found is None else as_the_run_read(found, self.settings), why_not

    @property
    def model(self) -> str:
        """The surrogates' LLM."""
        return str(self.settings["llm.model"])

    @property
    def target_split(self) -> Literal["test", "valid"]:
        """Which held-out items the run's targets are."""
        split: Literal["test", "valid"] = self.settings["split"]
        return split

    @property
    def created_s(self) -> float:
        """When the run was started, in seconds since the epoch."""
        import calendar

        return float(calendar.timegm(time.strptime(self.run.manifest["created"], "%Y-%m-%dT%H:%M:%SZ")))

    def traces(self) -> Iterator[Trace]:
        """Every user that has ended."""
        for _, traces in traces_by_part(self.run.path):
            yield from traces

    def followed_traces(self) -> Iterator[list[Trace]]:
        """Users that have ended, as they end, until nobody works on the run any more."""
        done: set[str] = set()
        while True:
            if self.run.path != self.run.place:  # a copy, which does not grow by itself
                self.run = load_run(self.run.place)
            is_running = self.run.status == "running"  # before the look: what is written after it is found by the next one
            for name, traces in traces_by_part(self.run.path, done=done):
                done.add(name)
                yield traces
            if not is_running:
                return
            time.sleep(POLL_S)

    def targets(self, trace: Trace) -> tuple[int, ...] | None:
        """The user's held-out items, next one first; None without the data set."""
        if self._targets is None:
            return None
        return tuple(int(item) for item in self._targets[trace.user_index] if item)

    @cached_property
    def _targets(self) -> np.ndarray | None:
        return None if self.dataset is None else self.dataset.all_targets(self.target_split)

    @cached_property
    def told_pool(self) -> Pool | None:
        """The pool as the surrogate was told of it: under `--obscure` with neutral names."""
        return None if self.dataset is None else obscured(self.dataset.pool, self.settings.get("surrogate.obscure"))

    def item_id(self, item_index: int) -> str | None:
        """The id of an item; None for an empty slot and without the data set."""
        return self.dataset.pool.item_ids[item_index] if self.dataset is not None and item_index else None

    def title(self, item_index: int) -> str | None:
        """The title of an item; None for an empty slot and without the data set."""
        return self.dataset.pool.titles[item_index] if self.dataset is not None and item_index else None


def is_finished(trace: Trace) -> bool:
    """Whether the surrogate gave a list; every other user counts as a miss."""
    return trace.ended_by in FINISHED


def position_of(trace: Trace, targets: Sequence[int] | None) -> int | None:
    """The 1-based position of the first target on the list as it counts; 0 for a miss, None where targets are unknown."""
    if targets is None:
        return None
    return first_position(trace.final_items, targets) if is_finished(trace) else 0


def ndcg_at_10(trace: Trace, targets: Sequence[int] | None) -> float | None:
    """The user's NDCG@10 by the list as it counts; None where targets are unknown."""
    if targets is None:
        return None
    list_BK = pad_lists([trace.final_items if is_finished(trace) else ()], length=10)
    return float(ndcg_at_k(positions_of(list_BK, np.array([targets])), 10)[0])


def first_position(items: Sequence[int], targets: Sequence[int]) -> int:
    """The 1-based position of the first of the targets in a list; 0 where none is on it."""
    return next((position for position, item in enumerate(items, start=1) if item in targets), 0)


def user_split(user_id: str, seed: int) -> UserSplit:
    """The part that a user belongs to: 80 % train, 10 % valid, 10 % test, by a hash of seed and id.

    It depends on nothing else: the same user is in the same part in every run, whatever its sample.
    """
    digest = hashlib.sha256(f"{seed}\0{user_id}".encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for name, end in USER_SHARES if share < end)
