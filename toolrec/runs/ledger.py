"""The ledger: what each round spent, by user, round, tool and purpose, and which spend was void."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import pandas as pd

from toolrec.records import Usage
from toolrec.runs.rows import Row, usage_of

SpendKey = Literal["user", "round", "tool", "purpose"]
"""What the ledger is summed by."""

NO_TOOL = "none"
"""Stands for the tool of a round that ended without a call."""

_COLUMNS: dict[SpendKey, str] = {"user": "user_index", "round": "round", "tool": "tool", "purpose": "purpose"}
_USAGE_FIELDS = [field.name for field in fields(Usage)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What was spent under one key; `void_usage` is the void part of `usage`."""

    key: str | int
    usage: Usage
    void_usage: Usage


def ledger_of(journal: Sequence[Row], users: pd.DataFrame) -> pd.DataFrame:
    """The ledger: one row for each round, attempt and purpose, with `Usage`'s fields and `is_void`.

    Spend is void if it is in no committed trace: earlier attempts at a round, and all rounds of users that are not
    committed.

    Args:
        journal: the entries of `spend.jsonl`, each once.
        users: the committed users; `user_index` and `num_rounds` are read.
    """
    where = ("user_index", "attempt", "round", "purpose")
    rows = [
        {**{name: entry[name] for name in where}, "tool": entry.get("tool") or NO_TOOL, **asdict(usage_of(entry))}
        for entry in journal
    ]
    ledger = pd.DataFrame(rows, columns=[*where, "tool", *_USAGE_FIELDS])
    latest = ledger.groupby(["user_index", "round"])["attempt"].transform("max")
    num_rounds = ledger["user_index"].map(dict(zip(users["user_index"].tolist(), users["num_rounds"].tolist(), strict=True)))
    held = (ledger["attempt"] == latest) & (ledger["round"] <= num_rounds.fillna(-1))
    return ledger.assign(is_void=~held)


def spend_by(ledger: pd.DataFrame, key: SpendKey) -> list[Spend]:
    """The ledger's sums by one key: rounds in order, everything else with the most tokens first."""
    spends = []
    for value, part in ledger.groupby(_COLUMNS[key]):
        shown = value if isinstance(value, str) else int(str(value))
        spends.append(Spend(key=shown, usage=total_usage(part), void_usage=total_usage(part[part["is_void"]])))
    if key == "round":
        return spends
    return sorted(spends, key=lambda spend: -(spend.usage.prompt_tokens + spend.usage.completion_tokens))


def total_usage(ledger: pd.DataFrame) -> Usage:
    """The sum over all rows."""
    return Usage(**{name: int(ledger[name].sum()) for name in _USAGE_FIELDS})


def void_spend(ledger: pd.DataFrame) -> dict[str, Usage]:
    """Void usage by purpose."""
    void = ledger[ledger["is_void"]]
    return {str(purpose): total_usage(part) for purpose, part in void.groupby("purpose")}
