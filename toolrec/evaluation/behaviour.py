"""Counts of what the surrogates did: rounds, tool calls, LLM calls, tokens, failures, speed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from toolrec.evaluation.coverage import listed
from toolrec.records import FINISHED, ToolCall, Usage
from toolrec.util.printable import printable

TOKEN_FIELDS = tuple(field.name for field in fields(Usage))
ERROR_LENGTH = 200
"""Characters of an error's text by which equal errors are counted, for people to read."""

ROUND_COLUMNS = ("user_index", "attempt", "round", "call", "observation_error")
"""The columns of the rounds that the summary reads."""


def is_finished(users: pd.DataFrame) -> np.ndarray:
    """`finished_B`: users whose surrogate gave a list, by itself or forced; all others failed."""
    return users["ended_by"].isin(sorted(FINISHED)).to_numpy(dtype=bool)


def counts_of(users: pd.DataFrame) -> dict[str, Any]:
    """Users, how they ended, failures by kind, and their errors in words."""
    finished_B = is_finished(users)
    ended_by = Counter(str(kind) for kind in users["ended_by"])
    errors = Counter(printable(str(text), limit=ERROR_LENGTH) for text in users["error"][~finished_B].dropna())
    return {
        "users": len(users),
        "finished": int(finished_B.sum()),
        "failed": int((~finished_B).sum()),
        "ended_by": listed(ended_by),
        "failures": listed({kind: count for kind, count in ended_by.items() if kind not in FINISHED}),
        "failure_kinds": listed(Counter(str(kind) for kind in users["failure_kind"].dropna())),
        "errors": listed(errors),
        "events": listed(_event_counts(users["counts"])),
    }


def _event_counts(counts: Iterable[Iterable[Mapping[str, Any]]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for entries in counts:
        for entry in entries:
            total[str(entry["kind"])] += int(entry["count"])
    return total


def behaviour_of(users: pd.DataFrame, rounds: pd.DataFrame | None) -> dict[str, Any]:
    """Means and distributions per user, and tool calls by mark if the rounds are given."""
    llm_calls = np.array([sum(int(part["num_calls"]) for part in usage) for usage in users["usage"]], dtype=np.int64)
    reasks = np.array(
        [sum(int(entry["count"]) for entry in entries if entry["kind"] == "reask") for entries in users["counts"]],
        dtype=np.int64,
    )
    final_lengths = np.array([sum(1 for item in items if item) for items in users["final_items"]], dtype=np.int64)
    behaviour: dict[str, Any] = {
        "rounds": _distribution(users["num_rounds"].to_numpy(dtype=np.int64)),
        "tool_calls": _distribution(users["num_tool_calls"].to_numpy(dtype=np.int64)),
        "llm_calls": _distribution(llm_calls),
        "reasks": _distribution(reasks),
        "final_list_items": _distribution(final_lengths),
    }
    if rounds is not None:
        behaviour["tool_calls_by_mark"] = calls_by_mark(users, rounds)
    return behaviour


def _distribution(value_B: np.ndarray) -> dict[str, Any]:
    numbers, counts = np.unique(value_B, return_counts=True)
    return {
        "mean": float(value_B.mean()),
        "total": int(value_B.sum()),
        "distribution": {str(int(number)): int(count) for number, count in zip(numbers, counts, strict=True)},
    }


def calls_by_mark(users: pd.DataFrame, rounds: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Tool calls of the committed attempts by mark, and how many of them failed."""
    keys = pd.MultiIndex.from_frame(users[["user_index", "attempt"]])
    of_users = pd.MultiIndex.from_frame(rounds[["user_index", "attempt"]]).isin(keys)
    called, failed = Counter[str](), Counter[str]()
    kept = rounds[of_users]
    for call, error in zip(kept["call"], kept["observation_error"], strict=True):
        mark = mark_of(call)
        if mark is not None:
            called[mark] += 1
            failed[mark] += isinstance(error, str) and bool(error)
    return {"calls": listed(called), "errors": listed(+failed)}


def mark_of(call: object) -> str | None:
    """The mark of a call as the rounds store it (JSON of a ToolCall); None for a finish or where no call was made."""
    if not isinstance(call, str) or not call:
        return None
    fields = json.loads(call)
    if fields.get("name") not in ("retrieve", "rank"):
        return None
    return printable(ToolCall(name=fields["name"], attribute=fields.get("attribute")).mark, limit=80)


def tokens_of(users: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Calls and tokens of the LLM by purpose, and their `total`."""
    by_purpose: dict[str, dict[str, int]] = {}
    for usage in users["usage"]:
        for part in usage:
            sums = by_purpose.setdefault(str(part["purpose"]), dict.fromkeys(TOKEN_FIELDS, 0))
            for field in TOKEN_FIELDS:
                sums[field] += int(part[field] or 0)  # null in folders that are older than the field
    ordered = {purpose: by_purpose[purpose] for purpose in sorted(by_purpose)}
    ordered["total"] = {field: sum(sums[field] for sums in by_purpose.values()) for field in TOKEN_FIELDS}
    return ordered


def wall_s_of(users: pd.DataFrame) -> float:
    """Seconds from the first user's start to the last one's end, without the time in which no user was in flight.

    A resumed run was at rest in between: only the time in which it worked counts.
    """
    busy_s, until_s = 0.0, -np.inf
    for started_s, ended_s in users[["started_s", "ended_s"]].sort_values("started_s").to_numpy():
        busy_s += max(ended_s - max(started_s, until_s), 0.0)
        until_s = max(until_s, ended_s)
    return float(busy_s)
