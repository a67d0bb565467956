"""What experiments show of a cell beside its quality, each from the cell's run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolrec.config import CompleteConfig
from toolrec.recommenders import recommenders_manifest
from toolrec.recommenders.config import BACKBONE
from toolrec.stress.replies import INJECTED, INJECTED_WRONG

REPAIRED = ("memory_near", "memory_title", "memory_form")
REFUSED = ("memory_unknown", "memory_mismatch")
GAVE_UP = ("finish_gave_up", "rank_gave_up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of a cell: its settings, its summary, its lists, and the lists of the point that it is compared to.

    `reference_BK` is along the same users; None where the users are others.
    """

    config: CompleteConfig
    summary: Mapping[str, Any]
    list_BK: np.ndarray
    reference_BK: np.ndarray | None
    num_items: int

    @property
    def num_users(self) -> int:
        return int(self.summary["counts"]["users"])

    def events(self, *kinds: str) -> int:
        """How often something happened, over all users."""
        counted = self.summary["counts"]["events"]
        return sum(int(counted.get(kind, 0)) for kind in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of a cell; `shape` is how it is printed."""

    heading: str
    meaning: str
    of: Callable[[Seen], float | None]
    shape: str = "{:.2f}"


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(name: str) -> Callable[[Seen], float | None]:
    return lambda seen: float(seen.summary["behaviour"][name]["mean"])


def _tokens(seen: Seen) -> float:
    total = seen.summary["tokens"]["total"]
    names = ("prompt_tokens", "completion_tokens", "saved_prompt_tokens", "saved_completion_tokens")
    return float(sum(total.get(name, 0) for name in names)) / seen.num_users


def _same_items(seen: Seen) -> float | None:
    """The share of a list's items that the reference's list has too, mean over users with both lists."""
    if seen.reference_BK is None:
        return None
    shares = [
        len(set(items[items > 0]) & set(other[other > 0])) / max((items > 0).sum(), (other > 0).sum())
        for items, other in zip(seen.list_BK, seen.reference_BK, strict=True)
        if (items > 0).any() and (other > 0).any()
    ]
    return float(np.mean(shares)) if shares else None


def _same_first(seen: Seen) -> float | None:
    return None if seen.reference_BK is None else float((seen.list_BK[:, 0] == seen.reference_BK[:, 0]).mean())


def _weights(seen: Seen) -> tuple[int, list[int]]:
    """Bytes of the backbone's weights, and of each attribute's encoder that the cell has a tool of."""
    folder, kept = seen.config.recommenders, seen.config.tools.attributes
    members = recommenders_manifest(folder)["members"]
    sizes = {member["name"]: (folder / member["folder"] / "weights.safetensors").stat().st_size for member in members}
    encoders = [member["name"] for member in members if member["kind"] == "attribute_encoder"]
    return sizes[BACKBONE], [sizes[name] for name in encoders if kept is None or name in kept]


def _tools_mb(seen: Seen) -> float:
    backbone, encoders = _weights(seen)
    return (backbone + sum(encoders)) / 1e6


def _tuned_mb(seen: Seen) -> float:
    """A backbone for the tool without an attribute, and one more for every attribute."""
    backbone, encoders = _weights(seen)
    return (backbone + sum(backbone + encoder for encoder in encoders)) / 1e6


def _measured(name: str, factor: float = 1.0) -> Callable[[Seen], float | None]:
    return lambda seen: factor * float(seen.summary["measured"][name])


MEASURES: Mapping[str, Measure] = {
    "backbone": Measure(
        heading="backbone NDCG@10",
        meaning="of the backbone on the same histories",
        shape="{:.4f}",
        of=lambda seen: seen.summary["backbone"]["ndcg@10"],
    ),
    "finished": Measure(
        heading="finished",
        meaning="share of users whose surrogate gave a list",
        shape="{:.0%}",
        of=lambda seen: _share(seen.summary["counts"]["finished"], seen.num_users),
    ),
    "forced": Measure(
        heading="forced",
        meaning="share of users that had to finish as no round was left",
        shape="{:.0%}",
        of=lambda seen: _share(seen.summary["counts"]["ended_by"].get("forced_finish", 0), seen.num_users),
    ),
    "mean_rounds": Measure(heading="rounds", meaning="a user, mean", of=_mean("rounds")),
    "tool_calls": Measure(heading="tool calls", meaning="a user, mean", of=_mean("tool_calls")),
    "reasks": Measure(
        heading="re-asks",
        meaning="replies that were asked for again, rankings included, a user",
        of=lambda seen: seen.events("reask", "rank_reask") / seen.num_users,
    ),
    "tokens": Measure(
        heading="tokens", meaning="of prompts and replies, stored ones included, a user", of=_tokens, shape="{:,.0f}"
    ),
    "seconds": Measure(
        heading="s/user",
        meaning="wall time over users; stored replies take none",
        shape="{:.3f}",
        of=lambda seen: seen.summary["wall_s"] / seen.num_users,
    ),
    "candidates": Measure(
        heading="candidates",
        meaning="items that the tools brought, a user",
        shape="{:.0f}",
        of=lambda seen: seen.summary["hits"]["ceiling"]["mean_candidates"],
    ),
    "ceiling": Measure(
        heading="ceiling",
        meaning="share of users whose target is among the candidates",
        shape="{:.3f}",
        of=lambda seen: seen.summary["hits"]["ceiling"]["recall"],
    ),
    "repeats": Measure(
        heading="repeats",
        meaning="share of tool calls that repeat an earlier one of the user",
        shape="{:.1%}",
        of=lambda seen: _share(seen.events("repeat"), seen.summary["behaviour"]["tool_calls"]["total"]),
    ),
    "injected": Measure(
        heading="injected", meaning="entries that were replaced, a user", of=lambda seen: seen.events(INJECTED) / seen.num_users
    ),
    "repaired": Measure(
        heading="repaired",
        meaning="accepted entries that are no exact ids, of those injected",
        shape="{:.1%}",
        of=lambda seen: _share(seen.events(*REPAIRED), seen.events(INJECTED)),
    ),
    "refused": Measure(
        heading="refused",
        meaning="entries that stand for no item, of those injected; their lists are asked for again",
        shape="{:.1%}",
        of=lambda seen: _share(seen.events(*REFUSED), seen.events(INJECTED)),
    ),
    "wrong": Measure(
        heading="wrong item",
        meaning="entries taken for another item than the one meant, of those injected",
        shape="{:.1%}",
        of=lambda seen: _share(seen.events(INJECTED_WRONG), seen.events(INJECTED)),
    ),
    "gave_up": Measure(
        heading="gave up",
        meaning="lists that stayed incomplete after all re-asks, a user",
        of=lambda seen: seen.events(*GAVE_UP) / seen.num_users,
    ),
    "empty_slots": Measure(
        heading="lost slots",
        meaning="empty places in the final list, a user",
        of=lambda seen: float((seen.list_BK == 0).sum(axis=1).mean()),
    ),
    "outside_pool": Measure(
        heading="outside pool",
        meaning="items of final lists that the pool does not have",
        shape="{:.0f}",
        of=lambda seen: float(((seen.list_BK < 0) | (seen.list_BK > seen.num_items)).sum()),
    ),
    "same_items": Measure(
        heading="same items",
        meaning="share of the list's items that the first row's list has too",
        shape="{:.0%}",
        of=_same_items,
    ),
    "same_first": Measure(
        heading="same first",
        meaning="share of users with the same first item as in the first row",
        shape="{:.0%}",
        of=_same_first,
    ),
    "parameters": Measure(
        heading="trained parameters", meaning="weights that training changes", shape="{:,.0f}", of=_measured("parameters")
    ),
    "learning_rate": Measure(
        heading="best rate",
        meaning="the learning rate with the best NDCG@10 on validation",
        shape="{:g}",
        of=_measured("learning_rate"),
    ),
    "validation_ndcg": Measure(
        heading="valid. NDCG@10",
        meaning="of that learning rate, on validation",
        shape="{:.4f}",
        of=_measured("validation_ndcg"),
    ),
    "epoch_s": Measure(heading="s/epoch", meaning="wall time, validation included", of=_measured("epoch_s")),
    "tools_mb": Measure(
        heading="MB of tools", meaning="weights of the backbone and of the attributes' encoders on it", of=_tools_mb
    ),
    "tuned_mb": Measure(
        heading="MB if tuned",
        meaning="the same if every attribute had a fully fine-tuned backbone of its own; frozen-vs-full has quality and time",
        of=_tuned_mb,
    ),
    "list_ms": Measure(heading="ms/list", meaning="wall time of a user's list, many asked at once", of=_measured("list_ms")),
    "peak_gb": Measure(heading="peak GB", meaning="most memory of the cell's process", of=_measured("peak_bytes", 1e-9)),
    "index_s": Measure(
        heading="index s", meaning="to index the pool's titles for memory's check, once a process", of=_measured("index_s")
    ),
    "check_ms": Measure(
        heading="ms/ check", meaning="for memory to look up a title with two letters swapped", of=_measured("check_ms")
    ),
}
"""By name."""
