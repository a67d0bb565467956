"""Intervals and paired tests by scipy's resampling, for every figure of every recommender at once.

Shapes: `B` users, `M` figures, `R` resamples of one batch. All figures share the same resamples of users: a row's interval
and its difference to another row are paired by construction, and thousands of resamples cost seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

BATCH_CELLS = 1_500_000
"""Users times resamples of the bootstrap worked on at a time (12 MB an array of 8 bytes)."""

PERMUTATION_BATCH_CELLS = 8_000_000
PERMUTATION_BATCH = 256
"""The permutation test takes each user in turn in every batch: a few large batches, bounded by cells for many users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How uncertainty is estimated; the same seed gives the same figures."""

    num_resamples: int = 9_999
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_resamples < 1:
            raise ValueError(f"num_resamples must be at least 1, got {self.num_resamples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {self.confidence}")

    def as_json(self) -> dict[str, Any]:
        """What summary.json says of the method."""
        return {
            "interval": "percentile bootstrap over users (scipy.stats.bootstrap)",
            "test": "two-sided paired permutation test, signs of the users' differences (scipy.stats.permutation_test)",
            **asdict(self),
        }

    def batch(self, num_users: int, *, cells: int = BATCH_CELLS) -> int:
        """Resamples in one batch, so that memory stays bounded."""
        return max(1, min(self.num_resamples, cells // max(num_users, 1)))


def bootstrap_intervals(value_BM: np.ndarray, config: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the mean over users.

    Args:
        value_BM: each user's value of each figure (or difference of two).
        config: resamples, confidence, seed.

    Returns:
        low_M and high_M; NaN where there are fewer than two users.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    num_users, num_figures = value_BM.shape
    if num_users < 2 or num_figures == 0:
        return np.full(num_figures, np.nan), np.full(num_figures, np.nan)
    result = stats.bootstrap(
        (np.arange(num_users),),
        _means_of(value_BM),
        n_resamples=config.num_resamples,
        batch=config.batch(num_users),
        confidence_level=config.confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(config.seed),
    )
    interval = result.confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def _means_of(value_BM: np.ndarray) -> Any:
    """The statistic over drawn user numbers: how often each user was drawn, times the users' values."""
    num_users = len(value_BM)

    def means(drawn: np.ndarray, axis: int) -> np.ndarray:
        drawn_RB = np.atleast_2d(drawn)
        cells = drawn_RB + np.arange(len(drawn_RB))[:, None] * num_users
        times_RB = np.bincount(cells.ravel(), minlength=len(drawn_RB) * num_users).reshape(len(drawn_RB), num_users)
        mean_RM: np.ndarray = (times_RB @ value_BM) / num_users
        return mean_RM[0] if drawn.ndim == 1 else mean_RM.T

    return means


def paired_p_values(difference_BM: np.ndarray, config: Resampling) -> np.ndarray:
    """Two-sided p-values of paired differences: were the signs of the users' differences drawn by a fair coin?

    Args:
        difference_BM: each user's difference of each figure.
        config: resamples and seed; with few users every combination of signs is counted instead of drawn.

    Returns:
        p_M; NaN where there are fewer than two users.
    """
    num_users, num_figures = difference_BM.shape
    if num_users < 2 or num_figures == 0:
        return np.full(num_figures, np.nan)

    def mean_difference(sign: np.ndarray, axis: int) -> np.ndarray:
        # Rounded, so that sums of the same numbers in another order stay ties.
        mean: np.ndarray = np.round(sign @ difference_BM / num_users, 12)
        return mean

    result = stats.permutation_test(
        (np.ones(num_users),),
        mean_difference,
        permutation_type="samples",
        n_resamples=config.num_resamples,
        batch=min(PERMUTATION_BATCH, config.batch(num_users, cells=PERMUTATION_BATCH_CELLS)),
        vectorized=True,
        rng=np.random.default_rng(config.seed),
    )
    return np.asarray(result.pvalue)
