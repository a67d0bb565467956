"""Intervals and paired tests for every figure of every recommender at once.

Figures are means over users of values in [0, 1] that are 0 for most users: a miss is 0, a hit its gain. Percentile
bootstrap intervals are too short there, so intervals come from score tests, and the paired test flips signs. What was
held against what stands in docs/concepts/statistics.md.

Shapes: `B` users, `M` figures, `R` resamples of one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

BATCH_CELLS = 1_500_000
"""Users times resamples of the bootstrap worked on at a time (12 MB an array of 8 bytes)."""

PERMUTATION_BATCH_CELLS = 8_000_000
PERMUTATION_BATCH = 256
"""The permutation test takes each user in turn in every batch: a few large batches, bounded by cells for many users."""

PSEUDO_HITS = 0.5
"""Added, with the gain 1, to the hits from which the spread of gains is estimated; 0 hits are then no special case."""

FEW_DIFFERING = 5
"""Where fewer users differ, the largest difference seen says little of what there can be: it is taken to be 1."""

BISECTIONS = 60
POWER = 0.8
"""The chance of finding a difference for which minimum detectable effects are given."""


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

    @property
    def critical_value(self) -> float:
        """The normal quantile of the two-sided level, 1.96 for 95 %."""
        return float(stats.norm.ppf(0.5 + self.confidence / 2))

    def as_json(self) -> dict[str, Any]:
        """What summary.json says of the method."""
        return {
            "interval": "score interval (Wilson's for recall)",
            "difference_interval": "paired score interval (Tango's for recall), in agreement with the test",
            "test": "two-sided paired permutation test, signs of the users' differences (scipy.stats.permutation_test)",
            "correction": "Holm, over the comparisons of one figure's table",
            "power": POWER,
            **asdict(self),
        }

    def batch(self, num_users: int, *, cells: int = BATCH_CELLS) -> int:
        """Resamples in one batch, so that memory stays bounded."""
        return max(1, min(self.num_resamples, cells // max(num_users, 1)))


def score_intervals(value_BM: np.ndarray, config: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Score intervals of the mean over users, of values in [0, 1]: those means that a score test does not reject.

    The share of hits is unknown, the gains of hits are taken as observed (and `PSEUDO_HITS` of gain 1). The variance of
    a mean m is then r m - m^2, where r is the mean squared gain over the mean gain. Where every hit counts 1, as in
    recall, this is Wilson's interval.

    Returns:
        low_M and high_M; NaN where there are fewer than two users.

    Source: Wilson 1927; the variance function for graded gains is ours.
    """
    num_users, num_figures = value_BM.shape
    if num_users < 2 or num_figures == 0:
        return np.full(num_figures, np.nan), np.full(num_figures, np.nan)
    _require_within(value_BM, 0.0)
    sum_M, square_M = value_BM.sum(axis=0), (value_BM**2).sum(axis=0)
    mean_M = sum_M / num_users
    ratio_M = (square_M + PSEUDO_HITS) / (sum_M + PSEUDO_HITS)
    share = config.critical_value**2 / num_users
    # (mean - m)^2 = share * (ratio * m - m^2), solved for m.
    middle_M = mean_M + share * ratio_M / 2
    spread_M = np.sqrt(np.maximum(middle_M**2 - (1 + share) * mean_M**2, 0.0))
    low_M, high_M = (middle_M - spread_M) / (1 + share), (middle_M + spread_M) / (1 + share)
    return np.clip(low_M, 0.0, mean_M), np.clip(high_M, mean_M, 1.0)


def difference_intervals(difference_BM: np.ndarray, p_M: np.ndarray, config: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Score intervals of mean paired differences, of values in [-1, 1], that agree with the paired test.

    The shares of users who gain and who lose are unknown, the sizes of gains and losses are taken as observed (and
    `PSEUDO_HITS` each of the largest size observed; of size 1 where fewer than `FEW_DIFFERING` users differ). For
    differences of -1, 0 and 1, as in recall, this is Tango's interval. 0 lies outside exactly where `p_M` is at most
    1 - confidence: where score test and permutation test disagree, the interval's critical value is moved until its end
    meets 0.

    Args:
        difference_BM: each user's difference of each figure.
        p_M: of `paired_p_values`.
        config: gives the confidence.

    Returns:
        low_M and high_M; NaN where there are fewer than two users.

    Source: Tango 1998, equations 5 to 8; differences other than -1, 0 and 1, and the agreement with the test, are ours.
    """
    num_users, num_figures = difference_BM.shape
    if num_users < 2 or num_figures == 0:
        return np.full(num_figures, np.nan), np.full(num_figures, np.nan)
    _require_within(difference_BM, -1.0)
    score = _PairedScore(difference_BM)
    at_zero_M = np.abs(score.of(np.zeros(num_figures)))
    is_rejected_M = p_M <= 1 - config.confidence
    # A hair beyond the statistic itself, so that rounding does not decide on which side 0 lies.
    critical_M = np.where(
        is_rejected_M,
        np.minimum(config.critical_value, at_zero_M * (1 - 1e-9)),
        np.maximum(config.critical_value, at_zero_M * (1 + 1e-9)),
    )
    mean_M = score.mean_M
    low_M = _boundary(lambda value_M: score.of(value_M) > critical_M, -score.loss_M, mean_M)
    high_M = _boundary(lambda value_M: score.of(value_M) >= -critical_M, mean_M, score.gain_M)
    return _beside_zero(np.minimum(low_M, mean_M), is_rejected_M), _beside_zero(np.maximum(high_M, mean_M), is_rejected_M)


def _beside_zero(end_M: np.ndarray, is_rejected_M: np.ndarray) -> np.ndarray:
    """Ends that were moved to 0 are 0 where 0 belongs to the interval; the search leaves them a hair off."""
    beside_M: np.ndarray = np.where(~is_rejected_M & (np.abs(end_M) < 1e-9), 0.0, end_M)
    return beside_M


class _PairedScore:
    """The score statistic of a mean paired difference, for any hypothetical difference."""

    def __init__(self, difference_BM: np.ndarray) -> None:
        self.num_users = len(difference_BM)
        self.mean_M = difference_BM.mean(axis=0)
        num_differing_M = (difference_BM != 0).sum(axis=0)
        largest_M = np.where(num_differing_M < FEW_DIFFERING, 1.0, np.abs(difference_BM).max(axis=0))
        self.num_gains_M, self.gain_M, self.gain_square_M = _moments(np.maximum(difference_BM, 0.0), largest_M)
        self.num_losses_M, self.loss_M, self.loss_square_M = _moments(np.maximum(-difference_BM, 0.0), largest_M)

    def of(self, value_M: np.ndarray) -> np.ndarray:
        """The statistic where the true differences are `value_M`; it falls as they grow."""
        n, gain_M, loss_M = self.num_users, self.gain_M, self.loss_M
        # The share of users who lose, most likely under gain * share_of_gains - loss * share_of_losses = value.
        scale_M, rest_M = loss_M / gain_M + 1, 1 - value_M / gain_M
        a_M = scale_M * loss_M * n
        b_M = scale_M * value_M * (n - self.num_gains_M) - loss_M * rest_M * (self.num_gains_M + self.num_losses_M)
        c_M = -self.num_losses_M * value_M * rest_M
        losing_M = np.maximum((-b_M + np.sqrt(np.maximum(b_M**2 - 4 * a_M * c_M, 0.0))) / (2 * a_M), 0.0)
        gaining_M = np.maximum((value_M + loss_M * losing_M) / gain_M, 0.0)
        variance_M = self.gain_square_M * gaining_M + self.loss_square_M * losing_M - value_M**2
        score_M: np.ndarray = np.sqrt(n) * (self.mean_M - value_M) / np.sqrt(np.maximum(variance_M, 1e-12))
        return score_M


def _moments(part_BM: np.ndarray, largest_M: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many values are above 0, their mean and their mean square, each with `PSEUDO_HITS` of the largest size."""
    num_M = (part_BM > 0).sum(axis=0)
    mean_M = (part_BM.sum(axis=0) + PSEUDO_HITS * largest_M) / (num_M + PSEUDO_HITS)
    square_M = ((part_BM**2).sum(axis=0) + PSEUDO_HITS * largest_M**2) / (num_M + PSEUDO_HITS)
    return num_M, mean_M, square_M


def _boundary(is_left: Callable[[np.ndarray], np.ndarray], low_M: np.ndarray, high_M: np.ndarray) -> np.ndarray:
    """Where `is_left` turns from true to false between two bounds."""
    low_M, high_M = low_M.astype(np.float64), high_M.astype(np.float64)
    for _ in range(BISECTIONS):
        middle_M = (low_M + high_M) / 2
        left_M = is_left(middle_M)
        low_M, high_M = np.where(left_M, middle_M, low_M), np.where(left_M, high_M, middle_M)
    boundary_M: np.ndarray = (low_M + high_M) / 2
    return boundary_M


def _require_within(value_BM: np.ndarray, low: float) -> None:
    if not ((value_BM >= low) & (value_BM <= 1.0)).all():
        raise ValueError(f"score intervals are for values from {low:g} to 1")


def bootstrap_intervals(value_BM: np.ndarray, config: Resampling) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the mean over users, for amounts without an upper bound (tokens, dollars).

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
        config: resamples and seed; with few users who differ every combination of signs is counted instead of drawn.

    Returns:
        p_M; NaN where there are fewer than two users.
    """
    num_users, num_figures = difference_BM.shape
    if num_users < 2 or num_figures == 0:
        return np.full(num_figures, np.nan)
    # Flipping the sign of 0 changes nothing: users who differ in no figure are left out.
    differing_BM = difference_BM[(difference_BM != 0).any(axis=1)]
    if len(differing_BM) < 2:
        return np.ones(num_figures)

    def mean_difference(sign: np.ndarray, axis: int) -> np.ndarray:
        # Rounded, so that sums of the same numbers in another order stay ties.
        mean: np.ndarray = np.round(sign @ differing_BM / num_users, 12)
        return mean

    result = stats.permutation_test(
        (np.ones(len(differing_BM)),),
        mean_difference,
        permutation_type="samples",
        n_resamples=config.num_resamples,
        batch=min(PERMUTATION_BATCH, config.batch(num_users, cells=PERMUTATION_BATCH_CELLS)),
        vectorized=True,
        rng=np.random.default_rng(config.seed),
    )
    return np.asarray(result.pvalue)


def holm(p_M: np.ndarray) -> np.ndarray:
    """The p-values of one family corrected after Holm (1979); NaN stays NaN and is no part of the family.

    statsmodels has the same, but collects Python's garbage at each call, which took longer than the rest of a summary.
    """
    corrected_M = np.full(len(p_M), np.nan)
    [known] = np.nonzero(~np.isnan(p_M))
    ascending = known[np.argsort(p_M[known], kind="stable")]
    stepped = p_M[ascending] * np.arange(len(ascending), 0, -1)
    corrected_M[ascending] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected_M


def number_or_none(value: float) -> float | None:
    """A figure as JSON holds it: None where it is not known."""
    return None if np.isnan(value) else float(value)


def spread_of(low: float, high: float, num_users: int, *, confidence: float = 0.95) -> float:
    """The standard deviation of a user's difference that an interval over `num_users` users stands for."""
    return (high - low) / 2 / Resampling(confidence=confidence).critical_value * float(np.sqrt(num_users))


def minimum_detectable(spread: float, num_users: int, *, confidence: float = 0.95, power: float = POWER) -> float:
    """The true difference that a two-sided paired test over `num_users` users finds with this power.

    Args:
        spread: standard deviation of a user's difference.
        num_users: in the test.
        confidence: 1 - the test's level.
        power: the chance to find it.
    """
    return _standard_errors(confidence, power) * spread / float(np.sqrt(num_users))


def users_needed(difference: float, spread: float, *, confidence: float = 0.95, power: float = POWER) -> int:
    """How many users a two-sided paired test needs to find a true difference with this power."""
    return max(2, int(np.ceil((_standard_errors(confidence, power) * spread / difference) ** 2)))


def power_of(difference: float, spread: float, num_users: int, *, confidence: float = 0.95) -> float:
    """The chance that a two-sided paired test over `num_users` users finds a true difference."""
    shift = abs(difference) / spread * float(np.sqrt(num_users))
    critical = Resampling(confidence=confidence).critical_value
    return float(stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift))


def _standard_errors(confidence: float, power: float) -> float:
    """How many standard errors a difference must be from 0; normal approximation."""
    return Resampling(confidence=confidence).critical_value + float(stats.norm.ppf(power))
