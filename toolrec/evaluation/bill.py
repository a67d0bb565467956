"""The bill of a whole run, estimated from a few users.

Shapes: `B` users, `M` amounts.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from toolrec.evaluation.statistics import Resampling, bootstrap_intervals, number_or_none
from toolrec.llm.prices import Price
from toolrec.records import Usage

AMOUNTS: tuple[str, ...] = ("LLM calls", "prompt tokens", "of them cached", "reply tokens")
DOLLARS = "dollars"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean amount of one user, with its interval (None for a single user); times `num_users` it is the whole run's."""

    name: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What was measured on a few users.

    Args:
        estimates: one an amount, dollars last where the price is known.
        num_tried: users that were measured, failed ones among them.
        num_users: users of the whole run.
        num_stored_replies: calls that stored replies answered; they are in the estimates at what they had cost.
    """

    estimates: tuple[Estimate, ...]
    num_tried: int
    num_users: int
    num_stored_replies: int


def estimate_bill(
    users: pd.DataFrame, *, num_users: int, price: Price | None = None, resampling: Resampling | None = None
) -> Bill:
    """Means a user with percentile bootstrap intervals over the users.

    Args:
        users: one row a user; `usage` is read.
        num_users: users of the whole run.
        price: what the model costs, where it is known.
        resampling: how intervals are drawn.
    """
    used = [_at_full_cost(usage) for usage in users["usage"]]
    columns = [[part.num_calls, part.prompt_tokens, part.cached_tokens, part.completion_tokens] for part in used]
    amount_BM = np.array(columns, dtype=np.float64)
    names = AMOUNTS
    if price is not None:
        usd_B = np.array([price.cost_usd(part) for part in used])
        amount_BM, names = np.column_stack([amount_BM, usd_B]), (*AMOUNTS, DOLLARS)
    low_M, high_M = bootstrap_intervals(amount_BM, resampling or Resampling())
    return Bill(
        estimates=tuple(
            Estimate(name=name, mean=float(mean), low=number_or_none(low), high=number_or_none(high))
            for name, mean, low, high in zip(names, amount_BM.mean(axis=0), low_M, high_M, strict=True)
        ),
        num_tried=len(users),
        num_users=num_users,
        num_stored_replies=sum(part.num_stored_replies for part in used),
    )


def _at_full_cost(usage: list[dict[str, int]]) -> Usage:
    """A user's usage over all purposes, as if no reply had come from a store."""
    names = [field.name for field in fields(Usage)]
    total = sum((Usage(**{name: int(part[name] or 0) for name in names}) for part in usage), Usage())
    return Usage(
        num_calls=total.num_calls,
        prompt_tokens=total.prompt_tokens + total.saved_prompt_tokens,
        cached_tokens=total.cached_tokens + total.saved_cached_tokens,
        completion_tokens=total.completion_tokens + total.saved_completion_tokens,
        num_stored_replies=total.num_stored_replies,
    )
