import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from toolrec.evaluation.statistics import (
    Resampling,
    bootstrap_intervals,
    difference_intervals,
    holm,
    minimum_detectable,
    paired_p_values,
    power_of,
    score_intervals,
    spread_of,
    users_needed,
)
from toolrec.metrics import values_of

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


@pytest.mark.parametrize(("hits", "users"), [(0, 200), (1, 50), (40, 200), (200, 200)])
def test_the_interval_of_recall_is_wilsons(hits, users):
    low, high = score_intervals(np.repeat([1.0, 0.0], [hits, users - hits])[:, None], QUICK)
    wilson = stats.binomtest(hits, users).proportion_ci(0.95, method="wilson")
    assert (low[0], high[0]) == (pytest.approx(wilson.low, abs=1e-12), pytest.approx(wilson.high))


def test_no_hits_leave_room_for_some():
    z = stats.norm.ppf(0.975)
    low, high = score_intervals(np.zeros((200, 1)), QUICK)
    assert (low[0], high[0]) == (0.0, pytest.approx(z**2 / (200 + z**2)))
    low, high = difference_intervals(np.zeros((200, 1)), np.ones(1), QUICK)
    assert (low[0], high[0]) == (pytest.approx(-(z**2) / (200 + z**2)), pytest.approx(z**2 / (200 + z**2)))


def test_the_score_interval_of_many_users_is_the_normal_one():
    value = values_of(np.random.default_rng(0).integers(0, 30, 20_000), ["ndcg@10"])
    low, high = score_intervals(value, QUICK)
    half = 1.96 * value.std() / np.sqrt(20_000)
    assert low[0] == pytest.approx(value.mean() - half, abs=half / 50)
    assert high[0] == pytest.approx(value.mean() + half, abs=half / 50)


def test_the_interval_of_a_recall_difference_is_tangos():
    # Both ends are where the restricted maximum likelihood statistic of Tango 1998 is +-1.96: solved here by a grid.
    gains, losses, users = 9, 3, 60
    difference = np.repeat([1.0, -1.0, 0.0], [gains, losses, users - gains - losses])[:, None]
    p = paired_p_values(difference, QUICK)
    grid = np.linspace(-0.5, 0.5, 200_001)
    b = -gains - losses + (2 * users - gains + losses) * grid
    c = -losses * grid * (1 - grid)
    losing = (np.sqrt(b**2 - 8 * users * c) - b) / (4 * users)
    score = (gains - losses - users * grid) / np.sqrt(users * (2 * losing + grid * (1 - grid)))
    inside = grid[np.abs(score) <= stats.norm.ppf(0.975)]
    low, high = difference_intervals(difference, p, QUICK)
    assert p[0] > 0.05
    assert (low[0], high[0]) == (pytest.approx(inside[0], abs=2e-5), pytest.approx(inside[-1], abs=2e-5))


@pytest.mark.parametrize("seed", range(4))
def test_interval_and_test_always_agree_on_zero(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 25, (2, 120, 300))
    second = np.where(rng.random((120, 300)) < rng.random(300), first, second)
    difference = np.stack(
        [values_of(f, ["ndcg@10"])[:, 0] - values_of(s, ["ndcg@10"])[:, 0] for f, s in zip(first.T, second.T, strict=True)],
        axis=1,
    )
    p = paired_p_values(difference, QUICK)
    low, high = difference_intervals(difference, p, QUICK)
    assert ((p <= 0.05) == ((low > 0) | (high < 0))).all()
    assert (p <= 0.05).any() and (p > 0.05).any(), "both cases must occur"
    assert ((low <= difference.mean(axis=0)) & (difference.mean(axis=0) <= high)).all()


def test_swapping_the_rows_mirrors_the_interval():
    rng = np.random.default_rng(5)
    difference = rng.choice([0, 0, 0, 0.3, -0.5, 1.0], (90, 4))
    p = paired_p_values(difference, QUICK)
    low, high = difference_intervals(difference, p, QUICK)
    mirrored = difference_intervals(-difference, p, QUICK)
    assert (-mirrored[1] == pytest.approx(low)) and (-mirrored[0] == pytest.approx(high))


def test_intervals_refuse_values_without_bounds():
    with pytest.raises(ValueError, match="from 0 to 1"):
        score_intervals(np.array([[0.5], [2.0]]), QUICK)


def test_one_user_who_differs_is_no_evidence():
    assert paired_p_values(np.eye(40)[:, :1], QUICK).tolist() == [1.0]


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(5)
    for size in (0, 1, 2, 36, 225):
        given = np.round(rng.beta(0.3, 1.0, size), 3)  # with ties, zeros and ones
        expected = multipletests(given, method="holm")[1] if size else given
        np.testing.assert_allclose(holm(given), expected, rtol=1e-12)


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, 0.04 * 2, 0.3 * 1, each at least the one before; what is unknown does not count.
    given = np.array([0.04, 0.01, np.nan, 0.3, 0.02])
    assert holm(given)[[1, 4, 0, 3]] == pytest.approx([0.04, 0.06, 0.08, 0.3])
    assert np.isnan(holm(given)[2])
    assert np.isnan(holm(np.full(2, np.nan))).all()


def test_planning_figures_belong_together():
    least = minimum_detectable(0.4, 1000)
    assert least == pytest.approx((1.959964 + 0.841621) * 0.4 / np.sqrt(1000))
    assert power_of(least, 0.4, 1000) == pytest.approx(0.8, abs=1e-4)
    assert users_needed(least, 0.4) in (1000, 1001)
    assert spread_of(-1.959964 * 0.4 / 10, 1.959964 * 0.4 / 10, 100) == pytest.approx(0.4)
    assert power_of(0.0, 0.4, 1000) == pytest.approx(0.05)


def test_the_power_formula_is_what_a_simulated_test_finds():
    # 10 % of the users gain a hit and 6 % lose one: McNemar's test in 4,000 simulated runs of 600 users.
    rng, users = np.random.default_rng(0), 600
    gains, losses, _ = rng.multinomial(users, [0.10, 0.06, 0.84], size=4_000).T
    found = np.abs(gains - losses) / np.sqrt(gains + losses) > stats.norm.ppf(0.975)
    spread = np.sqrt(0.16 - 0.04**2)
    assert found.mean() == pytest.approx(power_of(0.04, spread, users), abs=0.03)
