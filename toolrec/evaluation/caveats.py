"""What the intervals and p-values of a summary leave out, in words: it stands under every table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolrec.evaluation.baselines import ATTRIBUTE_PREFIX, BACKBONE
from toolrec.evaluation.summary import FUSIONS, SURROGATE, UNREACHABLE, references_of, rows_of

FEW_DIFFERING = 20
"""Where fewer users differ, a comparison rests on single users."""

WEAK_MARK = "†"
"""Stands behind a fusion that is worse than its best tool."""

METRIC = "ndcg@10"
"""The figure that the caveats are about: the first of the tables."""

ONE_TRAINING = (
    "one training: intervals and p-values are over users only; another training of the same recommenders can move "
    "figures and differences by as much as these intervals, so a small p here may not come back there"
)


def caveats(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must have in mind, most serious first. Keys that older summaries lack are passed over."""
    found = [
        *_leaks(summary),
        *_unreachable(summary),
        *_weak_fusions(summary),
        ONE_TRAINING,
        *_few_differing(summary),
        *_not_detectable(summary),
    ]
    return [text for text in found if text]


def _leaks(summary: Mapping[str, Any]) -> Iterable[str]:
    leaks = summary.get("leaks")
    if leaks and leaks["num_leaks"]:
        yield (
            f"THE TARGET WAS IN {leaks['num_leaks']:,} PROMPTS of {leaks['num_users']:,} users before any tool had brought "
            "it: the surrogate's figures are not valid"
        )


def _unreachable(summary: Mapping[str, Any]) -> Iterable[str]:
    stated = summary["protocol"].get(UNREACHABLE)
    if stated:
        yield f"no list can hold the targets of {stated}: every recommender misses them"


def weak_fusions(summary: Mapping[str, Any]) -> dict[str, str]:
    """Fusions whose figure is below that of the best tool alone, and the name of this tool."""
    rows = rows_of(summary)
    tools = {
        name: row[METRIC]
        for name, row in rows.items()
        if (name == BACKBONE or name.startswith(ATTRIBUTE_PREFIX)) and row.get(METRIC) is not None
    }
    if not tools:
        return {}
    best = max(tools, key=tools.__getitem__)
    return {name: best for name in FUSIONS if name in rows and (rows[name].get(METRIC) or 0.0) < tools[best]}


def _weak_fusions(summary: Mapping[str, Any]) -> Iterable[str]:
    weak = weak_fusions(summary)
    if weak:
        best = next(iter(weak.values()))
        names = ", ".join(name.replace("_", " ") for name in weak)
        yield (
            f"{WEAK_MARK} worse in {METRIC.upper()} than the best tool alone ({best.removeprefix(ATTRIBUTE_PREFIX)} "
            f"{rows_of(summary)[best][METRIC]:.4f}): {names}"
        )


def _few_differing(summary: Mapping[str, Any]) -> Iterable[str]:
    """Rows of which hardly any user's figure differs from the backbone's."""
    few = {}
    for name, row in rows_of(summary).items():
        difference = row.get(f"difference_to_{BACKBONE}", {}).get(METRIC) or {}
        if "num_better" in difference and (num := difference["num_better"] + difference["num_worse"]) < FEW_DIFFERING:
            few[name.replace("_", " ")] = num
    if few:
        shown = ", ".join(f"{name} {num}" for name, num in few.items())
        yield f"fewer than {FEW_DIFFERING} users differ from the {BACKBONE} in {METRIC.upper()}: {shown}"


def _not_detectable(summary: Mapping[str, Any]) -> Iterable[str]:
    """The surrogate's differences that are smaller than what this number of users can show."""
    power = summary["statistics"].get("power")
    row = rows_of(summary).get(SURROGATE, {})
    for reference in references_of(summary["protocol"]):
        difference = row.get(f"difference_to_{reference}", {}).get(METRIC) or {}
        least = difference.get("minimum_detectable")
        if power and least is not None and abs(difference["mean"]) < least:
            yield (
                f"with {row['num_users']:,} users a difference of {METRIC.upper()} to the {reference.replace('_', ' ')} is "
                f"found {power:.0%} of the time if it is at least {least:.4f}; the one here is {difference['mean']:+.4f} "
                "(`toolrec plan-users` says how many users it takes)"
            )
