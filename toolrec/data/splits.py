"""Splits: where each user's training ends, and which items are the targets of validation and of test.

A user's items stand oldest first. Targets are the items that come next after a history:

    leave_one_out   test: the last item; validation: the last but one; training: what comes before
    leave_k_out     test: the last k items, all of them targets; validation: the k before; training: what comes before
    given           the parts that the source's own files give, all items of a part targets
    temporal        one moment for all: training ends at `valid_from`; validation: a user's first item from then on and before
                    `test_from`; test: the first item from `test_from` on. A user without such an item, or without any item
                    before it, has no target.

Training and its early stopping look at the first target of a user only; evaluation looks at all.

Known bias: leave_one_out and leave_k_out let training see other users' later interactions; `toolrec data check` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from toolrec.data.reading.times import as_date
from toolrec.errors import ConfigError, DataError

SplitKind = Literal["leave_one_out", "leave_k_out", "temporal", "given"]
SPLIT_KINDS: tuple[SplitKind, ...] = ("leave_one_out", "leave_k_out", "temporal", "given")
PARTS = ("train", "valid", "test")
"""The parts of a given split; their places in this tuple are their codes."""
NO_TARGET = -1
_MS = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """How a data set is split.

    Attributes:
        kind: one of `SPLIT_KINDS`.
        k: items held out for each of validation and test by `leave_k_out`.
        valid_from, test_from: Unix seconds; `temporal` needs both, or both shares.
        valid_share, test_share: share of all interactions, the latest of which are test, and those before them validation.
    """

    kind: SplitKind = "leave_one_out"
    k: int = 1
    valid_from: float | None = None
    test_from: float | None = None
    valid_share: float | None = None
    test_share: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in SPLIT_KINDS:
            raise ConfigError("unknown split", value=self.kind, allowed=SPLIT_KINDS)
        if self.k < 1:
            raise ConfigError("a split holds out at least 1 item", value=self.k)
        if self.kind != "leave_k_out" and self.k != 1:
            raise ConfigError("--hold-out is for --split leave_k_out", value=self.k)
        moments = (self.valid_from, self.test_from, self.valid_share, self.test_share)
        if self.kind != "temporal":
            if any(value is not None for value in moments):
                raise ConfigError("times and shares of a split are for --split temporal", value=self.kind)
            return
        by_time, by_share = None not in moments[:2], None not in moments[2:]
        if by_time == by_share or (by_time and any(moments[2:])) or (by_share and any(moments[:2])):
            raise ConfigError("a temporal split needs --valid-from and --test-from, or --valid-share and --test-share")
        if self.valid_from is not None and self.test_from is not None and self.valid_from >= self.test_from:
            raise ConfigError(
                "validation must begin before test", value=f"{as_date(self.valid_from)} and {as_date(self.test_from)}"
            )
        if self.valid_share is not None and self.test_share is not None:
            is_good = self.valid_share > 0 and self.test_share > 0 and self.valid_share + self.test_share < 1
            if not is_good:
                raise ConfigError(
                    "the shares of validation and test must be above 0 and below 1 together",
                    value=f"{self.valid_share} and {self.test_share}",
                )

    @property
    def min_user_interactions(self) -> int:
        """Fewer give no history, or no target."""
        return 2 if self.kind in ("temporal", "given") else 2 * self.k + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Places within each user's items, along `user_index - 1`; `NO_TARGET` where a user has no target.

    `valid_num` and `test_num` are how many items from `valid_at` and `test_at` on are targets; None for one.
    """

    train_end: np.ndarray
    valid_at: np.ndarray
    test_at: np.ndarray
    valid_num: np.ndarray | None = None
    test_num: np.ndarray | None = None


def split_bounds(
    config: SplitConfig,
    lengths: np.ndarray,
    *,
    timestamps: np.ndarray | None = None,
    timestamp_kind: str = "none",
    parts: np.ndarray | None = None,
) -> tuple[Bounds, dict[str, Any]]:
    """Where every user's parts begin, and the facts of the split for the manifest.

    Args:
        config: the split.
        lengths: interactions of every user.
        timestamps: along the interactions, by user, oldest first.
        timestamp_kind: what they are.
        parts: along the interactions, the part of `PARTS` that the source gives each; ascending within a user.

    Raises:
        ConfigError: a temporal split where there are no times, or a given one where the source gives none.
        DataError: nobody has a target.
    """
    lengths = lengths.astype(np.int64)
    if config.kind == "temporal":
        return _temporal(config, lengths, timestamps, timestamp_kind)
    if config.kind == "given":
        return _given(lengths, parts), {}
    train_end, test_at = lengths - 2 * config.k, lengths - config.k
    if config.kind == "leave_one_out":
        return Bounds(train_end=train_end, valid_at=train_end, test_at=test_at), {}
    num = np.full(len(lengths), config.k)
    bounds = Bounds(train_end=train_end, valid_at=train_end, test_at=test_at, valid_num=num, test_num=num)
    return bounds, {"k": config.k, "targets": "all"}


def gives_targets(users: np.ndarray, parts: np.ndarray) -> bool:
    """Whether a split that files give has users with a history and a target, in validation and in test.

    It has none where whole users were held out.
    """
    train, valid, test = (np.unique(users[parts == code]) for code in range(len(PARTS)))
    return bool(np.isin(valid, train).any() and np.isin(test, np.union1d(train, valid)).any())


def _given(lengths: np.ndarray, parts: np.ndarray | None) -> Bounds:
    if parts is None:
        raise ConfigError(
            "the source gives no split",
            value="given",
            allowed="leave_one_out, leave_k_out, temporal",
            hint="benchmark files give one: x.train.inter, x.valid.inter, x.test.inter",
        )
    user = np.repeat(np.arange(len(lengths)), lengths)
    num = {name: np.bincount(user[parts == code], minlength=len(lengths)) for code, name in enumerate(PARTS)}
    test_at = num["train"] + num["valid"]
    has_valid, has_test = (num["train"] >= 1) & (num["valid"] >= 1), (test_at >= 1) & (num["test"] >= 1)
    for name, has in (("validation", has_valid), ("test", has_test)):
        if not has.any():
            raise DataError(
                f"in the split that the source gives, no user has an item in {name} and one before it",
                hint="split anew with --split leave_one_out",
            )
    return Bounds(
        train_end=num["train"],
        valid_at=np.where(has_valid, num["train"], NO_TARGET),
        test_at=np.where(has_test, test_at, NO_TARGET),
        valid_num=num["valid"],
        test_num=num["test"],
    )


def _temporal(
    config: SplitConfig, lengths: np.ndarray, timestamps: np.ndarray | None, timestamp_kind: str
) -> tuple[Bounds, dict[str, Any]]:
    if timestamps is None or timestamp_kind not in ("unix_seconds", "unix_milliseconds"):
        told = {"none": "it has none", "position": "its timestamps are positions in each user's history"}
        raise ConfigError(
            "a temporal split needs real times",
            value=told.get(timestamp_kind, f"its timestamps are {timestamp_kind}"),
            allowed="leave_one_out, leave_k_out",
        )
    seconds = timestamps / _MS if timestamp_kind == "unix_milliseconds" else timestamps
    valid_from, test_from = config.valid_from, config.test_from
    if config.valid_share is not None and config.test_share is not None:
        ordered = np.sort(seconds)
        num_test = max(1, round(config.test_share * len(ordered)))
        num_valid = max(1, round(config.valid_share * len(ordered)))
        test_from = float(ordered[-num_test])
        valid_from = float(ordered[max(0, len(ordered) - num_test - num_valid)])
    assert valid_from is not None and test_from is not None  # checked with the configuration
    user = np.repeat(np.arange(len(lengths)), lengths)
    before_valid = np.bincount(user[seconds < valid_from], minlength=len(lengths))
    before_test = np.bincount(user[seconds < test_from], minlength=len(lengths))
    has_valid = (before_valid >= 1) & (before_test > before_valid)
    has_test = (before_test >= 1) & (lengths > before_test)
    for name, has, moment in (("validation", has_valid, valid_from), ("test", has_test, test_from)):
        if not has.any():
            raise DataError(
                f"no user has a target of {name}",
                value=f"from {as_date(moment)}",
                allowed=f"{as_date(float(seconds.min()))} to {as_date(float(seconds.max()))}",
            )
    bounds = Bounds(
        train_end=before_valid,
        valid_at=np.where(has_valid, before_valid, NO_TARGET),
        test_at=np.where(has_test, before_test, NO_TARGET),
    )
    return bounds, {"valid_from": valid_from, "test_from": test_from}


def split_name(kind: str, settings: dict[str, Any]) -> str:
    """The split in a few words, for the line of a protocol."""
    if kind == "leave_k_out":
        return f"leave-{settings['k']}-out, {'all targets' if settings.get('targets') else 'next item'}"
    if kind == "given":
        return "the split of the source's files, all targets"
    if kind == "temporal":
        return f"global temporal split, test from {as_date(settings['test_from'])}, next item"
    return "leave-one-out"


def split_words(kind: str, settings: dict[str, Any]) -> str:
    """The split in words, for protocols."""
    if kind == "leave_k_out":
        k = settings["k"]
        which = "all of them targets" if settings.get("targets") else "the first of each the target"
        return f"leave-{k}-out: each user's last {k} items test, the {k} before validation, {which}"
    if kind == "given":
        return "as the source's files give it: training, validation and test, every held-out item a target"
    if kind == "temporal":
        days = f"validation from {as_date(settings['valid_from'])}, test from {as_date(settings['test_from'])}"
        return f"global temporal: {days}, each user's first item from then on the target"
    return "leave-one-out: last item test, last but one validation"
