"""The figures of `toolrec data check`, each with a judgement where one can be given."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from toolrec.data.dataset import Dataset
from toolrec.data.reading.findings import escaped
from toolrec.data.reading.times import Ties, date_range, ties_of
from toolrec.data.store import read_folder

Level = Literal["", "note", "warning"]
SHORT_HISTORY = 5
LIST_LENGTH = 10
_DROPPED = {
    "outside_time": "interactions outside the time asked for",
    "below_min_rating": "interactions below the minimum rating",
    "repeated_pairs": "repeated interactions of a user with an item",
    "rare_items": "items with too few interactions",
    "k_core_items": "items outside the core",
    "k_core_users": "users outside the core",
    "short_users": "users with too few interactions for the split",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One figure: what it is of, its name, its value, and what it means where it means something."""

    section: str
    name: str
    value: str
    meaning: str = ""
    level: Level = ""


@dataclass(slots=True, kw_only=True)
class Check:
    """All figures, the sentences of the verdict, and what the plots show."""

    name: str
    rows: list[CheckRow] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    lengths: np.ndarray = field(default_factory=lambda: np.empty(0))
    popularity: np.ndarray = field(default_factory=lambda: np.empty(0))
    seconds: np.ndarray | None = None
    coverage: dict[str, float] = field(default_factory=dict)

    def add(self, section: str, name: str, value: str, meaning: str = "", level: Level = "") -> None:
        """Adds a figure; a warning is also a sentence of the verdict."""
        self.rows.append(CheckRow(section=section, name=name, value=value, meaning=meaning, level=level))
        if level == "warning":
            self.verdict.append(f"{name}: {value}. {meaning[:1].upper()}{meaning[1:]}.")

    def as_json(self) -> dict[str, Any]:
        """Figures and verdict as plain values."""
        return {"name": self.name, "rows": [asdict(row) for row in self.rows], "verdict": self.verdict}


def check_dataset(dataset: Dataset) -> Check:
    """Measures a prepared data set."""
    timestamps = read_folder(dataset.path).interactions.timestamp
    kind = dataset.manifest["timestamp_kind"]
    seconds = None
    if timestamps is not None and kind in ("unix_seconds", "unix_milliseconds"):
        seconds = timestamps / 1000 if kind == "unix_milliseconds" else timestamps
    lengths = np.diff(dataset.offsets)[1:]
    user = np.repeat(np.arange(1, dataset.num_users + 1), lengths)
    place = np.arange(len(dataset.items)) - np.repeat(dataset.offsets[1:-1], lengths)
    train_ends = np.array([len(dataset.history(index, "train")) for index in range(1, dataset.num_users + 1)])
    is_train = place < np.repeat(train_ends, lengths)
    counts = np.bincount(dataset.items, minlength=dataset.num_items + 1)[1:]
    check = Check(
        name=dataset.name, lengths=lengths, popularity=np.sort(counts)[::-1], seconds=seconds,
        coverage={name: dataset.pool.coverage(name) for name in dataset.pool.attributes},
    )  # fmt: skip
    _size(check, dataset, lengths)
    _dropped(check, dataset, user)
    _times(check, dataset, user, timestamps, seconds)
    _targets(check, dataset, is_train, train_ends)
    _leakage(check, dataset, is_train, seconds)
    _popularity(check, counts)
    _attributes(check, dataset)
    _titles(check, dataset)
    if not check.verdict:
        check.verdict.append("Nothing that was measured speaks against figures on this data set.")
    return check


def _size(check: Check, dataset: Dataset, lengths: np.ndarray) -> None:
    check.add("size", "users", f"{dataset.num_users:,}", *_few(dataset.num_users, 200, "figures have wide intervals"))
    left = dataset.num_items - float(np.median(lengths))
    is_small = left <= 10 * LIST_LENGTH
    meaning = f"a random list of {LIST_LENGTH} hits {min(1.0, LIST_LENGTH / max(left, 1)):.0%} of the targets" if is_small else ""
    check.add("size", "items", f"{dataset.num_items:,}", meaning, "warning" if is_small else "")
    check.add("size", "interactions", f"{len(dataset.items):,}")
    check.add("size", "density", f"{len(dataset.items) / (dataset.num_users * dataset.num_items):.3%}")
    check.add("size", "interactions of a user", f"min {lengths.min():,}, median {np.median(lengths):,g}, max {lengths.max():,}")
    check.add("size", "split", dataset.split_words)


def _few(number: int, least: int, meaning: str) -> tuple[str, Level]:
    return (meaning, "warning") if number < least else ("", "")


def _dropped(check: Check, dataset: Dataset, user: np.ndarray) -> None:
    for key, name in _DROPPED.items():
        count = dataset.manifest.get("dropped", {}).get(key, 0)
        if count:
            check.add("dropped", name, f"{count:,}")
    repeats = len(dataset.items) - len(np.unique(user.astype(np.int64) * (dataset.num_items + 1) + dataset.items))
    meaning = "with seen items masked, a repeated target can never be hit" if repeats else ""
    check.add("dropped", "repeats that are kept", f"{repeats:,}", meaning, "note" if repeats else "")


def _times(check: Check, dataset: Dataset, user: np.ndarray, timestamps: np.ndarray | None, seconds: np.ndarray | None) -> None:
    kind = dataset.manifest["timestamp_kind"]
    meanings = {
        "none": "the order of the source's rows is taken for the order in time",
        "position": "places in each user's history, not times: no temporal split, no measure of leakage",
        "unknown": "numbers that are no times: order and split may mean nothing",
    }
    level: Level = "warning" if kind in ("none", "unknown") else "note" if kind == "position" else ""
    check.add("time", "timestamps", kind.replace("_", " "), meanings.get(kind, ""), level)
    if seconds is not None:
        check.add("time", "from and to", date_range(seconds[seconds != 0]))
    if timestamps is None:
        return
    ties = ties_of(user, timestamps, dataset.items, dataset.pool.item_ids, target_rows(dataset))
    _tied(check, dataset, ties)


def _tied(check: Check, dataset: Dataset, ties: Ties) -> None:
    tie_break = dataset.manifest["tie_break"].replace("_", " ")
    check.add("time", "neighbours in a history with equal times", f"{ties.neighbours:.1%}")
    meaning = f"for these users, chance or the {tie_break} decides which item is the target" if ties.targets else ""
    check.add("time", "tied test targets", f"{ties.targets:.1%}", meaning, "warning" if ties.targets > 0.05 else "")
    if ties.in_id_order:
        check.add(
            "time",
            "order of tied items",
            "that of their ids",
            "ids of one release stand together: figures may be inflated",
            "warning",
        )


def _targets(check: Check, dataset: Dataset, is_train: np.ndarray, train_ends: np.ndarray) -> None:
    seen = np.bincount(dataset.items[is_train], minlength=dataset.num_items + 1) > 0
    for split, name in (("valid", "validation"), ("test", "test")):
        users = dataset.users_with_target(split)  # type: ignore[arg-type]
        targets = dataset.all_targets(split)[users]  # type: ignore[arg-type]
        targets = targets[targets > 0]
        cold = float((~seen[targets]).mean())
        meaning = "no trained recommender can find them" if cold else ""
        level: Level = "warning" if cold > 0.05 else "note" if cold else ""
        check.add("targets", f"{name} targets that training never saw", f"{cold:.1%} of {len(targets):,}", meaning, level)
        without = dataset.num_users - len(users)
        if without:
            check.add("targets", f"users without a {name} target", f"{without:,}", "they are not evaluated", "note")
    cold_users = int((train_ends == 0).sum())
    short = int(((train_ends > 0) & (train_ends < SHORT_HISTORY)).sum())
    check.add("targets", "cold-start users: nothing in training", f"{cold_users:,}", "", "note" if cold_users else "")
    check.add("targets", f"users with fewer than {SHORT_HISTORY} items in training", f"{short / dataset.num_users:.1%}")
    check.add("targets", "items that training never saw", f"{int((~seen[1:]).sum()):,} of {dataset.num_items:,}")


def target_rows(dataset: Dataset) -> np.ndarray:
    """Rows of the test targets among all interactions."""
    users = dataset.users_with_target("test")
    return np.asarray(dataset.offsets[users] + np.array([len(dataset.history(int(user), "test")) for user in users]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What training knows of the time after a user's target: mean share of its interactions that come later, and the share
    of users whose target's item has interactions in training only later."""

    later_share: float
    future_items: float


def leakage_of(dataset: Dataset, seconds: np.ndarray, is_train: np.ndarray) -> Leakage:
    """Measures how far training looks into the future of the test targets."""
    at = target_rows(dataset)
    target_time, target_item = seconds[at], dataset.items[at]
    train_times = np.sort(seconds[is_train])
    later = 1 - np.searchsorted(train_times, target_time, side="right") / max(len(train_times), 1)
    first = np.full(dataset.num_items + 1, np.inf)
    np.minimum.at(first, dataset.items[is_train], seconds[is_train])
    is_future = np.isfinite(first[target_item]) & (first[target_item] > target_time)
    return Leakage(later_share=float(later.mean()), future_items=float(is_future.mean()))


def _leakage(check: Check, dataset: Dataset, is_train: np.ndarray, seconds: np.ndarray | None) -> None:
    if seconds is None:
        check.add("leakage", "other users' futures in training", "not measurable", "the timestamps are no times", "note")
        return
    found = leakage_of(dataset, seconds, is_train)
    meaning = "training holds what other users did after the target; a temporal split does not" if found.later_share else ""
    check.add(
        "leakage", "training interactions later than the test target, on average", f"{found.later_share:.1%}", meaning,
        "warning" if found.later_share > 0.1 else "note" if found.later_share else "",
    )  # fmt: skip
    check.add("leakage", "test targets whose item training knows from later only", f"{found.future_items:.1%}")


def _popularity(check: Check, counts: np.ndarray) -> None:
    ordered = np.sort(counts)[::-1]
    total = int(ordered.sum())
    ranks = np.arange(1, len(ordered) + 1)
    gini = float((2 * (ranks[::-1] * ordered).sum() / (len(ordered) * total)) - (len(ordered) + 1) / len(ordered))
    for share in (0.01, 0.1):
        top = max(1, int(share * len(ordered)))
        check.add("popularity", f"interactions with the {share:.0%} most popular items", f"{ordered[:top].sum() / total:.1%}")
    check.add("popularity", "Gini coefficient", f"{abs(gini):.2f}", "0: all items equally popular; 1: one item has all")
    check.add("popularity", "items with one interaction", f"{int((counts == 1).sum()):,}")


def _attributes(check: Check, dataset: Dataset) -> None:
    if not dataset.pool.attributes:
        check.add("attributes", "attributes", "none", "there is no attribute tool, and an LLM sees titles only", "warning")
    for name, spec in dataset.pool.attributes.items():
        coverage = dataset.pool.coverage(name)
        is_rare = coverage < 0.5
        meaning = "few items have it" if is_rare else ""
        level: Level = "note" if is_rare else ""
        check.add(
            "attributes", escaped(name), f"{spec.kind}, {spec.num_values:,} values, {coverage:.1%} of items", meaning, level
        )  # type: ignore[arg-type]


def _titles(check: Check, dataset: Dataset) -> None:
    titles = Counter(" ".join(title.casefold().split()) for title in dataset.pool.titles[1:])
    shared = sum(count for count in titles.values() if count > 1)
    meaning = "an LLM can name them by their ids only" if shared else ""
    share = shared / dataset.num_items
    check.add(
        "titles",
        "items that share their title",
        f"{shared:,} ({share:.1%})",
        meaning,
        "warning" if share > 0.05 else "note" if shared else "",
    )
    no_title = sum(title == item_id for title, item_id in zip(dataset.pool.titles[1:], dataset.pool.item_ids[1:], strict=True))
    meaning = "an LLM knows nothing of them" if no_title else ""
    level: Level = "warning" if no_title > 0.05 * dataset.num_items else "note" if no_title else ""
    check.add("titles", "items whose id stands for their title", f"{no_title:,}", meaning, level)
