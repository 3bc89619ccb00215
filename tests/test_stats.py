"""Statistics against hand-computed cases, against scipy, and against the paper's own t and p."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from r2a_utils import paper
from r2a_utils.stats import (
    bootstrap_interval,
    bootstrap_mean_intervals,
    bootstrap_means,
    empirical_p,
    few,
    holm,
    mcnemar_exact,
    mean_share_interval,
    overlap_p,
    paired_t,
    partial_spearman,
    split_half_reliability,
    wilcoxon_p,
    wilson_interval,
)


def graded(n: int, only_with: int, only_without: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 grades of n problems with these discordant counts; the others are right both times."""
    with_, without = np.ones(n), np.ones(n)
    without[:only_with] = 0
    with_[only_with : only_with + only_without] = 0
    return with_, without


@pytest.mark.parametrize(
    "row", paper.published()["stage1_math500"]["rows"], ids=lambda r: r["model"]
)
def test_the_papers_t_and_p_come_out(row):
    # The discordant counts are found from n, the accuracies and t; p is then a prediction.
    counts = paper.discordant_pairs(
        row["n"], row["with_reasoning"], row["without_reasoning"], row["t"]
    )
    t, p = paired_t(*graded(row["n"], *counts))
    assert t == pytest.approx(row["t"], abs=1e-6)
    assert p == pytest.approx(row["p"], rel=1e-6)


def test_wilson_matches_its_formula():
    n, k, z = 50, 12, stats.norm.ppf(0.975)
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson_interval(k, n) == pytest.approx((centre - half, centre + half))
    low, high = wilson_interval(0, 10)
    assert low == pytest.approx(0, abs=1e-12) and 0.25 < high < 0.30
    with pytest.raises(ValueError, match="11 successes of 10"):
        wilson_interval(11, 10)


def test_exact_mcnemar_by_hand():
    # Of 6 discordant pairs 1 the other way: 2 * (1 + 6) / 2**6.
    assert mcnemar_exact(5, 1) == pytest.approx(14 / 64)
    assert mcnemar_exact(1, 5) == mcnemar_exact(5, 1)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(3, 3) == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def test_paired_t_is_undefined_where_nothing_varies():
    assert all(math.isnan(x) for x in paired_t([1, 1], [0, 0]))
    assert all(math.isnan(x) for x in paired_t([1], [0]))
    with pytest.raises(ValueError, match="pairs needed"):
        paired_t([1, 0], [1])
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        paired_t([1, np.nan], [1, 0])


def test_wilcoxon_by_hand():
    # Differences 1, 2, 3, 4, -5: the ranks of the negative ones sum to 5; of the 32 sign patterns
    # 10 sum to at most 5 on one side.
    p = wilcoxon_p([1, 2, 3, 4, 0], [0, 0, 0, 0, 5])
    assert p == pytest.approx(2 * 10 / 32)
    assert wilcoxon_p([3, 4], [3, 4]) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    adjusted = holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and np.isnan(adjusted[1])
    assert len(holm([])) == 0


def test_overlap_of_lists_of_heads():
    # The overlaps of the paper's Reasoning-Focus and retrieval heads, by the sum over all of them.
    published = paper.published()
    shared = {
        model: len(
            {tuple(h) for h in published["stage2_reasoning_focus_heads_top10"][model]}
            & {tuple(h) for h in published["stage2_retrieval_heads_top10"][model]}
        )
        for model in ("R1-Qwen-1.5B", "R1-Llama-8B", "R1-Qwen-7B")
    }
    n_heads = {"R1-Qwen-1.5B": 28 * 12, "R1-Llama-8B": 32 * 32, "R1-Qwen-7B": 28 * 28}
    expected = {"R1-Qwen-1.5B": (4, 8e-5), "R1-Llama-8B": (2, 4e-3), "R1-Qwen-7B": (1, 0.12)}
    for model, (count, p) in expected.items():
        n = n_heads[model]
        tail = sum(math.comb(10, k) * math.comb(n - 10, 10 - k) for k in range(count, 11))
        assert shared[model] == count
        assert overlap_p(count, 10, 10, n) == pytest.approx(tail / math.comb(n, 10), rel=1e-9)
        assert overlap_p(count, 10, 10, n) == pytest.approx(p, rel=0.1)
    assert overlap_p(0, 10, 10, 100) == 1.0
    with pytest.raises(ValueError, match="11 shared"):
        overlap_p(11, 10, 10, 100)


def test_the_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(
            rng.normal(size=30), confidence=0.9, seed=seed, resamples=500
        )
        covered += low <= 0 <= high
    # 90 % of 200, within three standard errors and the known slight shortness at n = 30.
    assert 160 <= covered <= 193


def test_the_bootstrap_interval_is_repeatable_and_narrows():
    values = np.random.default_rng(0).exponential(size=400)
    first = bootstrap_interval(values, seed=1)
    assert first == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    few, many = bootstrap_interval(values[:50], seed=1), first
    assert many[1] - many[0] < few[1] - few[0]
    # Close to the normal interval, and shifted to the right as exponential data want it.
    normal = stats.norm.interval(0.95, values.mean(), values.std() / 20)
    assert many == pytest.approx(normal, abs=0.03)
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    assert all(math.isnan(end) for end in bootstrap_interval([2.0]))
    with pytest.raises(ValueError, match="list of numbers"):
        bootstrap_interval([])


def test_bootstrap_means_resample_whole_cases():
    values = np.random.default_rng(0).normal(size=(25, 3, 4))
    values[:, 2] = 1 - values[:, 1]
    means = bootstrap_means(values, seed=1, resamples=50)
    assert means.shape == (50, 3, 4)
    assert np.allclose(means[:, 2], 1 - means[:, 1])
    assert not np.allclose(means[0], means[1])
    low, high = bootstrap_mean_intervals(values, seed=1)
    assert low.shape == high.shape == (3, 4)
    assert (low < values.mean(axis=0)).all() and (values.mean(axis=0) < high).all()
    one = bootstrap_interval(values[:, 0, 0], seed=1)
    assert (low[0, 0], high[0, 0]) == pytest.approx(one, abs=0.1)


def test_reliability_is_high_for_signal_and_absent_for_noise():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=60)
    noisy = signal + rng.normal(size=(40, 60))
    reliability = split_half_reliability(noisy, seed=1)
    # Halves of 20 cases: variance of the signal 1, of the noise 1/20, so about 1/1.05.
    assert reliability.spearman == pytest.approx(1 / 1.05, abs=0.03)
    assert reliability.low <= reliability.spearman <= reliability.high
    spearman_brown = 2 * reliability.spearman / (1 + reliability.spearman)
    assert reliability.full_length == pytest.approx(spearman_brown)
    assert abs(split_half_reliability(rng.normal(size=(40, 6, 10)), seed=1).spearman) < 0.15
    with pytest.raises(ValueError, match="at least 4 cases and 3 units"):
        split_half_reliability(noisy[:3])


def test_an_empirical_p_counts_the_observed_value_too():
    null = np.arange(1, 100)
    assert empirical_p(200, null) == pytest.approx(1 / 100)
    assert empirical_p(99, null) == pytest.approx(2 / 100)
    assert empirical_p(0, null, "less") == pytest.approx(1 / 100)
    assert empirical_p(200, null, "two-sided") == pytest.approx(2 / 100)
    assert empirical_p(50, null, "two-sided") == 1.0
    with pytest.raises(ValueError, match="choose one of greater, less, two-sided"):
        empirical_p(1, null, "upper")


def test_the_interval_of_a_mean_share_is_wilson_s_and_never_narrower_than_halves_need():
    for successes, n in ((0, 3), (3, 3), (5, 12)):
        expected = pytest.approx(wilson_interval(successes, n))
        assert mean_share_interval(successes / n, n) == expected
    low, high = mean_share_interval(0.75, 2, confidence=0.9)
    assert 0 < low < wilson_interval(3, 4, 0.9)[0] and high > wilson_interval(3, 4, 0.9)[1]
    for wrong in ((0.5, 0), (1.1, 3)):
        with pytest.raises(ValueError, match="within"):
            mean_share_interval(*wrong)


def test_partial_spearman_is_the_correlation_of_rank_residuals():
    random = np.random.default_rng(0)
    given = random.normal(size=40)
    first, second = given + random.normal(size=40), given + random.normal(size=40)
    x, y, z = (stats.rankdata(values) for values in (first, second, given))
    left = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (x, y)]
    expected = stats.pearsonr(*left).statistic
    assert partial_spearman(first, second, given) == pytest.approx(expected)
    assert abs(expected) < stats.spearmanr(first, second).statistic - 0.1
    for undefined in ((first, given, given), (first[:3], second[:3], given[:3])):
        assert np.isnan(partial_spearman(*undefined))
    assert np.isnan(partial_spearman(np.ones(40), second, given))


def test_fewer_than_five_cases_are_too_few_for_a_mean_and_none_has_none():
    assert [bool(few(n)) for n in (0, 1, 4, 5, 60)] == [False, True, True, False, False]
