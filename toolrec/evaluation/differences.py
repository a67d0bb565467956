"""What tables and pages say of a paired difference.

Shapes: `B` users, `M` comparisons.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolrec.evaluation.statistics import (
    POWER,
    Resampling,
    difference_intervals,
    minimum_detectable,
    number_or_none,
    spread_of,
)


def describe_differences(
    difference_BM: np.ndarray, p_M: np.ndarray, holm_M: np.ndarray, resampling: Resampling
) -> list[dict[str, Any]]:
    """One entry for each column: mean, interval, both p-values, users better and worse, effect size, and what could be shown.

    Args:
        difference_BM: each user's difference.
        p_M: of the paired test.
        holm_M: the same, corrected over a family that the caller knows.
        resampling: as for `p_M`.
    """
    low_M, high_M = difference_intervals(difference_BM, p_M, resampling)
    described = []
    for column in range(difference_BM.shape[1]):
        difference_B = difference_BM[:, column]
        mean, deviation = float(difference_B.mean()), float(difference_B.std())
        low, high = number_or_none(low_M[column]), number_or_none(high_M[column])
        described.append(
            {
                "mean": mean,
                "low": low,
                "high": high,
                "p_value": number_or_none(p_M[column]),
                "p_value_holm": number_or_none(holm_M[column]),
                "num_better": int((difference_B > 0).sum()),
                "num_worse": int((difference_B < 0).sum()),
                "effect_size": mean / deviation if deviation > 0 else None,
                "minimum_detectable": _detectable(low, high, len(difference_B), resampling),
            }
        )
    return described


def _detectable(low: float | None, high: float | None, num_users: int, resampling: Resampling) -> float | None:
    if low is None or high is None:
        return None
    spread = spread_of(low, high, num_users, confidence=resampling.confidence)
    return minimum_detectable(spread, num_users, confidence=resampling.confidence, power=POWER)
