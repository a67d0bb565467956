"""What was spent on attempts that came to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from toolrec.records import Usage
from toolrec.simulation.rows import Row


def void_spend(journal: Sequence[Row], users: pd.DataFrame) -> dict[str, Usage]:
    """Usage by purpose of journalled rounds that no committed trace holds.

    A committed user's trace holds one run of each of its rounds, the latest; every earlier run of the same round, and
    every round of a user that is not committed, was spent for nothing.
    """
    num_rounds = dict(zip(users["user_index"].tolist(), users["num_rounds"].tolist(), strict=True))
    unique = {(e["user_index"], e["attempt"], e["round"], e["purpose"]): e for e in journal}
    latest: dict[tuple[int, int], int] = {}
    for user_index, attempt, number, _ in unique:
        latest[user_index, number] = max(attempt, latest.get((user_index, number), 0))
    void: dict[str, Usage] = {}
    names = [field.name for field in fields(Usage)]
    for (user_index, attempt, number, purpose), entry in unique.items():
        held = number <= num_rounds.get(user_index, 0) and attempt == latest[user_index, number]
        if not held:
            void[purpose] = void.get(purpose, Usage()) + Usage(**{name: entry[name] for name in names})
    return void
