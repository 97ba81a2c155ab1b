"""Intervals and tests against scipy, hand-computed values, and their own promises."""

import math

import numpy as np
import pytest
from scipy import stats

from bench import coverage
from evaluate import power
from evaluate.statistics import bootstrap, holm, mcnemar, paired_shares, sign_flip, wilson


def test_wilson_by_hand():
    z, p, n = 1.959963984540054, 0.3, 40
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = wilson(12, 40)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_wilson_at_the_edges():
    none, every = wilson(0, 20), wilson(20, 20)
    assert none.low == pytest.approx(0, abs=1e-9) and 0.1 < none.high < 0.2
    assert every.high == pytest.approx(1, abs=1e-9) and 0.8 < every.low < 0.9
    assert math.isnan(wilson(0, 0).value)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_bootstrap_agrees_with_scipy(draw):
    random = np.random.default_rng(7)
    data = random.normal(0.3, 1, 60) if draw == "normal" else random.exponential(1, 60)
    ours = bootstrap(data, seed=1, resamples=40_000)
    theirs = stats.bootstrap((data,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(2)).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(data.mean())
    assert abs(ours.low - theirs.low) < 0.03 * width and abs(ours.high - theirs.high) < 0.03 * width


def test_bootstrap_leans_to_the_long_tail():
    skewed = np.random.default_rng(3).exponential(1, 40)
    found = bootstrap(skewed, seed=0)
    assert found.high - found.value > found.value - found.low


def test_bootstrap_is_seeded_and_holds_its_level():
    random = np.random.default_rng(11)
    data = random.normal(0, 1, 50)
    assert bootstrap(data, seed=5) == bootstrap(data, seed=5) != bootstrap(data, seed=6)
    holds = [each.low <= 0 <= each.high for each in (bootstrap(random.normal(0, 1, 30), seed, 1000) for seed in range(300))]
    assert 0.90 <= np.mean(holds) <= 0.98


def test_bootstrap_without_spread():
    assert math.isnan(bootstrap([], seed=0).value)
    one = bootstrap([2.0], seed=0)
    assert (one.low, one.high) == (-math.inf, math.inf)
    alike = bootstrap([0.1] * 7, seed=0)
    assert alike.low == alike.high == pytest.approx(0.1)


def test_sign_flip_counts_every_sign_of_few_pairs():
    exact = stats.permutation_test(([1.0, 2.0, 3.0, 4.0, 5.0],), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert exact == pytest.approx(2 / 32)
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0], seed=0, resamples=50_000) == pytest.approx(exact, abs=0.005)


def test_sign_flip_of_nothing_much():
    assert sign_flip([], seed=0) == 1.0
    assert sign_flip([0.0, 0.0], seed=0) == 1.0
    assert sign_flip([0.1, -0.1, 0.2, -0.2], seed=0) == 1.0
    assert sign_flip(np.full(30, 0.5), seed=0) == pytest.approx(1 / 10_001)


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_shares_as_published():
    # Newcombe (1998), table II: of 50 items 36 right with both, 12 with one only, 2 with the other only, none with neither
    found = paired_shares(2, 12, 50, 48)
    assert found.value == pytest.approx(-0.2)
    assert -0.36 < found.low < -0.2 < found.high < -0.03
    none = paired_shares(0, 0, 40, 20)
    assert none.low < 0 < none.high  # a bootstrap would have no width here


def test_groups_say_less_than_as_many_single_items():
    random = np.random.default_rng(4)
    values = np.repeat(random.normal(0.3, 1, 40), 5)
    groups = np.repeat(np.arange(40), 5).tolist()
    single, grouped = bootstrap(values, 0), bootstrap(values, 0, groups=groups)
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(5**0.5, rel=0.15)
    assert sign_flip(values, 0, groups=groups) > sign_flip(values, 0)
    once = bootstrap(values[::5], 0)
    assert (grouped.low, grouped.high) == pytest.approx((once.low, once.high))
    assert bootstrap([1.0, 2.0], 0, groups=["a", "a"]).high == math.inf


def test_simulated_hold_outs_keep_their_word():
    """The quick form of bench/coverage.py."""
    assert 0.93 <= coverage.coverage(coverage.accuracy, 400, 1) <= 0.975
    assert 0.925 <= coverage.coverage(coverage.share_difference, 400, 1) <= 0.975
    assert coverage.called("share", 0.0, 150, 200, 2)[0] <= 0.05
    assert coverage.called("share", coverage.stated("share", 150, 1), 150, 100, 3)[0] >= 0.8
    assert coverage.called("mean", coverage.stated("mean", 150, 1), 150, 100, 3)[0] >= 0.8
    assert power.of_shares(0, 0, 5) is None and power.of_means(np.array([0.1, 0.2])) is None
