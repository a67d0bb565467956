import numpy as np
import pytest
from scipy import stats

from toolrec.evaluation.statistics import Resampling, bootstrap_intervals, paired_p_values

QUICK = Resampling(num_resamples=1999)


def test_interval_of_identical_values_is_a_point():
    low, high = bootstrap_intervals(np.full((50, 1), 0.25), QUICK)
    assert (low[0], high[0]) == (pytest.approx(0.25), pytest.approx(0.25))


def test_interval_of_a_share_is_the_normal_one():
    values = np.repeat([1.0, 0.0], [80, 320])[:, None]
    low, high = bootstrap_intervals(values, Resampling(num_resamples=4999))
    half = 1.96 * np.sqrt(0.2 * 0.8 / 400)
    assert low[0] == pytest.approx(0.2 - half, abs=0.006)
    assert high[0] == pytest.approx(0.2 + half, abs=0.006)


def test_interval_is_scipys_own():
    values = np.random.default_rng(3).random(60)
    ours = bootstrap_intervals(values[:, None], Resampling(num_resamples=500, seed=5))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=500, batch=500, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours[0][0] == pytest.approx(theirs.low)
    assert ours[1][0] == pytest.approx(theirs.high)


def test_interval_does_not_depend_on_the_batch():
    values = np.random.default_rng(4).random((3000, 2))
    config = Resampling(num_resamples=600)
    assert config.batch(3000) < 600, "the test needs more than one batch"
    low, high = bootstrap_intervals(values, config)
    rng = np.random.default_rng(config.seed)
    means = np.concatenate([values[rng.integers(0, 3000, (n, 3000))].mean(axis=1) for n in (500, 100)])
    assert low == pytest.approx(np.percentile(means, 2.5, axis=0))
    assert high == pytest.approx(np.percentile(means, 97.5, axis=0))


def test_same_seed_same_figures_and_figures_share_their_resamples():
    values = np.random.default_rng(1).random((40, 1))
    low, high = bootstrap_intervals(np.concatenate([values, values + 1], axis=1), QUICK)
    assert low[1] == pytest.approx(low[0] + 1)
    assert bootstrap_intervals(values, QUICK)[1][0] == pytest.approx(high[0])


def test_wider_confidence_gives_a_wider_interval():
    values = np.random.default_rng(2).random((40, 1))
    narrow = bootstrap_intervals(values, Resampling(num_resamples=999, confidence=0.5))
    wide = bootstrap_intervals(values, Resampling(num_resamples=999, confidence=0.99))
    assert wide[0][0] < narrow[0][0] < narrow[1][0] < wide[1][0]


def test_identical_rows_have_p_of_one():
    assert paired_p_values(np.zeros((30, 1)), QUICK).tolist() == [1.0]


def test_a_constant_difference_has_the_smallest_p_there_is():
    config = Resampling(num_resamples=999)
    assert paired_p_values(np.full((40, 1), 0.1), config).tolist() == [pytest.approx(2 / (999 + 1))]


def test_few_users_are_counted_exactly():
    assert paired_p_values(np.full((5, 1), 0.1), QUICK).tolist() == [pytest.approx(2 / 2**5)]


def test_exact_p_by_hand():
    # Sums of +-3 +-1: 4, 2, -2, -4; at least 2 in two of four, so two-sided 2 * 2/4.
    assert paired_p_values(np.array([[3.0], [-1.0]]), QUICK).tolist() == [1.0]


def test_p_is_near_the_sign_tests_for_differences_of_one():
    # With differences of -1 and 1 alone the permutation test is the sign test.
    difference = np.repeat([1.0, -1.0], [40, 22])[:, None]
    expected = stats.binomtest(40, 62).pvalue
    assert paired_p_values(difference, Resampling(num_resamples=9999))[0] == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3)])
def test_fewer_than_two_users_have_no_interval(shape):
    low, high = bootstrap_intervals(np.ones(shape), QUICK)
    assert np.isnan(low).all() and np.isnan(high).all() and len(low) == 3
    assert np.isnan(paired_p_values(np.ones(shape), QUICK)).all()


@pytest.mark.parametrize("wrong", [{"num_resamples": 0}, {"confidence": 1.0}, {"confidence": 0.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Resampling(**wrong)
