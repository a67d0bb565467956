"""Users and runs as crossed random factors."""

from __future__ import annotations

import numpy as np
import pytest

from toolrec.evaluation.variance import variance_over_runs


def drawn(num_users: int, num_runs: int, *, users: float, runs: float, rest: float, seed: int, mean: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    user_U, run_R = draw.normal(0, users, num_users), draw.normal(0, runs, num_runs)
    return mean + user_U[:, None] + run_R[None, :] + draw.normal(0, rest, (num_users, num_runs))


def test_components_by_hand():
    # Runs differ by 1 for every user, users by 2, nothing is left.
    found = variance_over_runs(np.array([[0.0, 1.0], [2.0, 3.0]]))
    assert found.mean == 1.5
    assert found.between_users == pytest.approx(2.0)  # of 0.5 and 2.5
    assert found.between_runs == pytest.approx(0.5)  # of 1 and 2
    assert found.within_users == pytest.approx(0.0)
    assert found.standard_error == pytest.approx(np.sqrt(2.0 / 2 + 0.5 / 2))
    assert found.share_of_runs == pytest.approx((0.5 / 2) / (2.0 / 2 + 0.5 / 2))


def test_components_are_found_again():
    found = [variance_over_runs(drawn(400, 6, users=0.3, runs=0.1, rest=0.2, seed=seed)) for seed in range(60)]
    assert np.mean([f.between_users for f in found]) == pytest.approx(0.3**2, rel=0.1)
    assert np.mean([f.between_runs for f in found]) == pytest.approx(0.1**2, rel=0.25)
    assert np.mean([f.within_users for f in found]) == pytest.approx(0.2**2, rel=0.1)


@pytest.mark.parametrize("runs", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("num_runs", [2, 5])
def test_intervals_hold_the_mean_as_often_as_they_say(num_runs: int, runs: float):
    found = [variance_over_runs(drawn(200, num_runs, users=0.3, runs=runs, rest=0.2, seed=seed, mean=0.1)) for seed in range(600)]
    share = np.mean([f.low <= 0.1 <= f.high for f in found])
    # Two runs say little of how runs differ: where that is most of the variance, intervals are somewhat too short.
    assert share >= (0.88 if num_runs == 2 else 0.92)


def test_deterministic_runs_leave_the_users_alone():
    value_U = np.random.default_rng(0).random(50)
    found = variance_over_runs(np.repeat(value_U[:, None], 3, axis=1))
    assert found.between_runs == pytest.approx(0)
    assert found.within_users == pytest.approx(0)
    assert found.standard_error == pytest.approx(value_U.std(ddof=1) / np.sqrt(50))


def test_no_difference_at_all():
    found = variance_over_runs(np.zeros((10, 2)))
    assert (found.low, found.high, found.p_value, found.share_of_runs) == (0, 0, 1, None)


def test_one_run_has_no_variance_between_runs():
    with pytest.raises(ValueError, match="two runs"):
        variance_over_runs(np.zeros((10, 1)))
