"""Uncertainty where the same users were simulated several times, or with several trainings of the recommenders.

Users and runs are two crossed random factors without replication: what a run adds to every user (a lucky seed, a better
training) is apart from how much users differ, and both are apart from what is left in a user's figure from run to run.

Shapes: `U` users, `R` runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """The mean of a figure over users and runs, and where its uncertainty comes from.

    Args:
        num_users, num_runs: how many of each.
        mean: over all of them.
        between_users: variance of users' own means.
        between_runs: variance of what a run adds to every user.
        within_users: variance of a user's figure from run to run, beside the run's own part.
        standard_error: of the mean, over new users and new runs.
        low, high: the confidence interval.
        p_value: of the mean being 0, two-sided.
    """

    num_users: int
    num_runs: int
    mean: float
    between_users: float
    between_runs: float
    within_users: float
    standard_error: float
    low: float
    high: float
    p_value: float

    @property
    def share_of_runs(self) -> float | None:
        """The part of the mean's variance that comes from runs, 0 to 1; None where there is no variance."""
        total = self.standard_error**2
        return self.between_runs / self.num_runs / total if total > 0 else None


def variance_over_runs(value_UR: np.ndarray, *, confidence: float = 0.95) -> Variance:
    """The mean of a figure, or of a paired difference, with an interval over new users and new runs.

    The components are those of the two-way analysis of variance, negative ones taken as 0. The interval is Student's, with
    Satterthwaite's degrees of freedom: of two runs that differ by much little is known, and the interval says so.

    Raises:
        ValueError: fewer than two users or runs.

    Source: Searle, Casella and McCulloch 1992, chapter 4; Satterthwaite 1946.
    """
    num_users, num_runs = value_UR.shape
    if num_users < 2 or num_runs < 2:
        raise ValueError(f"variances need two users and two runs, got {num_users} and {num_runs}")
    mean = float(value_UR.mean())
    user_U, run_R = value_UR.mean(axis=1), value_UR.mean(axis=0)
    rest_UR = value_UR - user_U[:, None] - run_R[None, :] + mean
    square_users = num_runs * float(((user_U - mean) ** 2).sum()) / (num_users - 1)
    square_runs = num_users * float(((run_R - mean) ** 2).sum()) / (num_runs - 1)
    square_rest = float((rest_UR**2).sum()) / ((num_users - 1) * (num_runs - 1))
    between_users = max(0.0, (square_users - square_rest) / num_runs)
    between_runs = max(0.0, (square_runs - square_rest) / num_users)
    variance = between_users / num_users + between_runs / num_runs + square_rest / (num_users * num_runs)
    error = float(np.sqrt(variance))
    degrees = _degrees(square_users, square_runs, square_rest, num_users, num_runs)
    reach = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, degrees)) if error > 0 else float(mean == 0)
    return Variance(
        num_users=num_users,
        num_runs=num_runs,
        mean=mean,
        between_users=between_users,
        between_runs=between_runs,
        within_users=square_rest,
        standard_error=error,
        low=mean - reach,
        high=mean + reach,
        p_value=p_value,
    )


def _degrees(square_users: float, square_runs: float, square_rest: float, num_users: int, num_runs: int) -> float:
    """Satterthwaite's degrees of freedom of (users + runs - rest) / (U R), where a component below 0 is left out."""
    parts = [(square_users, num_users - 1)] if square_users > square_rest else []
    parts += [(square_runs, num_runs - 1)] if square_runs > square_rest else []
    rest_factor = 1 - len(parts)
    parts_and_rest = [*parts, (rest_factor * square_rest, (num_users - 1) * (num_runs - 1))]
    total = sum(square for square, _ in parts_and_rest)
    spread = sum(square**2 / degrees for square, degrees in parts_and_rest)
    return max(1.0, total**2 / spread) if spread > 0 and total > 0 else float((num_users - 1) * (num_runs - 1))
