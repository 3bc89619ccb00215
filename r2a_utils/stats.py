"""Statistics: intervals, paired tests, reliability and null distributions.

Arrays, counts and frames in; numbers and frames out. Nothing here knows a model or a file. What
`scipy.stats` has is called, not written again. The comparison of the two conditions over a frame
of answers is in `comparison.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
"""The level at which this book calls a test passed; every page quotes it from here."""
CONFIDENCE = 1 - LEVEL
"""What an interval holds where nothing else is asked."""

FEWEST_FOR_A_MEAN = 5
"""Cases below which a page flags their mean: one more case could turn it round."""

# 10,000 resamples put the Monte Carlo error of a 95 % interval's end near 1 % of its width.
RESAMPLES = 10_000
# Resamples drawn at a time: 1,000 × 1,000 cases of float64 are 8 MB.
BATCH = 1_000


def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927).

    Raises ValueError unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: need 0 <= successes <= n and n >= 1")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar p-value from the two discordant counts (binomial, one half).

    Without a discordant pair nothing speaks against equality: 1.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(int(only_first), int(only_first + only_second), 0.5).pvalue)


def paired_t(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """t and two-sided p of the paired t-test, the paper's test (its stage 1).

    NaN, NaN where it is not defined: fewer than two pairs, or differences that are all the same.
    """
    differences = _differences(first, second)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float("nan"), float("nan")
    result = stats.ttest_rel(first, second)
    return float(result.statistic), float(result.pvalue)


def wilcoxon_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; ties of zero are left out, as he does.

    1 where every pair is tied.
    """
    differences = _differences(first, second)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979).

    A NaN (a test that was not defined) stays NaN and is not counted among the tests.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def bootstrap_interval(
    values: Sequence[float],
    confidence: float = CONFIDENCE,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Bootstrap interval (BCa, Efron 1987) of the mean; give paired differences for a paired one.

    Values that are all the same give an interval without width: the bootstrap cannot see what
    the sample never showed, so read it together with n. One value alone gives NaN, NaN.
    """
    values = _one_dimensional(values)
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, batch=BATCH,
        method="BCa", vectorized=True, rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = result.confidence_interval
    return float(low), float(high)


def share_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a mean share over problems: Wilson's where each is 0 or 1, else the bootstrap."""
    values = _one_dimensional(values)
    if np.isin(values, (0.0, 1.0)).all():
        return wilson_interval(int(values.sum()), len(values), confidence)
    return bootstrap_interval(values, confidence)


def mean_share_interval(
    share: float, n: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Wilson's interval for the mean `share` of n values within [0, 1], not each of them 0 or 1.

    Their variance is at most share (1 − share), that of values which are, so that it is never too
    narrow for that; of values that are 0 or 1 it is `wilson_interval`. Raises ValueError for n < 1.
    """
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"a share of {share} of {n}: need a share within [0, 1] and n >= 1")
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    middle, half = share + z2 / (2 * n), np.sqrt(z2 * share * (1 - share) / n + (z2 / (2 * n)) ** 2)
    ends = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))


def bootstrap_means(values: np.ndarray, seed: int = 0, resamples: int = 1_000) -> np.ndarray:
    """Means over resampled cases: [case, …] -> [resample, …].

    Every resample draws the same cases for all units, so that what is computed from one resample
    (a ranking of heads, a difference of two heads) is one possible replication of the study.
    """
    values = _cases(values)
    n_cases = len(values)
    draws = np.random.default_rng(seed).multinomial(
        n_cases, np.full(n_cases, 1 / n_cases), size=resamples
    )
    flat = values.reshape(n_cases, -1)
    return (draws @ flat / n_cases).reshape(resamples, *values.shape[1:])


def bootstrap_mean_intervals(
    values: np.ndarray, confidence: float = CONFIDENCE, seed: int = 0, resamples: int = 1_000
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the mean over cases for many units at once.

    [case, …] -> low […] and high […]. For one mean, `bootstrap_interval` is more accurate.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(bootstrap_means(values, seed, resamples), [tail, 1 - tail], axis=0)
    return low, high


def few(n: int) -> str:
    """What stands behind a count of cases whose mean a page prints, where they are too few for one.

    Empty from `FEWEST_FOR_A_MEAN` cases on, and where there is none. All stages.
    """
    return ": too few for a mean" if 0 < n < FEWEST_FOR_A_MEAN else ""


@dataclass(frozen=True)
class Reliability:
    """How alike two halves of the cases rank the units.

    `spearman` is the mean over random halvings, `low` and `high` the range that holds 95 % of
    them, `full_length` the Spearman–Brown estimate for all the cases instead of half of them.
    """

    spearman: float
    low: float
    high: float
    full_length: float


def partial_spearman(
    first: Sequence[float], second: Sequence[float], given: Sequence[float]
) -> float:
    """Spearman correlation of two lists when what a third explains of both is taken away.

    Pearson's partial correlation of the ranks. NaN where it is not defined: fewer than four cases,
    a list of equal values, or one that the third determines.
    """
    ranks = np.array([stats.rankdata(_one_dimensional(v)) for v in (first, second, given)])
    if ranks.shape[1] < 4 or (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    (_, r, r_first), (_, _, r_second), _ = np.corrcoef(ranks)
    left = (1 - r_first**2) * (1 - r_second**2)
    return float((r - r_first * r_second) / np.sqrt(left)) if left > 1e-12 else float("nan")


def split_half_reliability(values: np.ndarray, seed: int = 0, splits: int = 200) -> Reliability:
    """Spearman correlation of the unit means of two random halves of the cases; [case, …unit].

    The receiver heads of Thought Anchors reach 0.84. Raises ValueError for fewer than four cases
    or three units, where a correlation says nothing.
    """
    values = _cases(values)
    flat = values.reshape(len(values), -1)
    n_cases, n_units = flat.shape
    if n_cases < 4 or n_units < 3:
        raise ValueError(f"need at least 4 cases and 3 units, got {n_cases} and {n_units}")
    generator = np.random.default_rng(seed)
    half = n_cases // 2
    correlations = np.empty(splits)
    for i in range(splits):
        order = generator.permutation(n_cases)
        first, second = flat[order[:half]].mean(axis=0), flat[order[half:]].mean(axis=0)
        correlations[i] = stats.spearmanr(first, second).statistic
    mean = float(correlations.mean())
    low, high = np.quantile(correlations, [0.025, 0.975])
    return Reliability(mean, float(low), float(high), 2 * mean / (1 + mean))


def empirical_p(observed: float, null: Sequence[float], alternative: str = "greater") -> float:
    """p of an observed value among values drawn under a null: (1 + as extreme) / (1 + drawn).

    The observed value counts as one draw, so p is never 0 (Phipson & Smyth 2010).
    `alternative`: "greater", "less" or "two-sided" (twice the smaller tail).
    """
    null = _one_dimensional(null)
    above = (1 + np.count_nonzero(null >= observed)) / (1 + len(null))
    below = (1 + np.count_nonzero(null <= observed)) / (1 + len(null))
    tails = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}
    if alternative not in tails:
        raise ValueError(f"alternative {alternative!r}: choose one of {', '.join(tails)}")
    return float(tails[alternative])


def overlap_p(shared: int, n_first: int, n_second: int, n_all: int) -> float:
    """Chance that two sets of these sizes, drawn blindly from `n_all`, share `shared` or more.

    Hypergeometric upper tail: how surprising it is that two lists of heads overlap.
    """
    if not 0 <= shared <= min(n_first, n_second) <= max(n_first, n_second) <= n_all:
        raise ValueError(f"{shared} shared by sets of {n_first} and {n_second} of {n_all}?")
    return float(stats.hypergeom.sf(shared - 1, n_all, n_first, n_second))


def _differences(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    first, second = _one_dimensional(first), _one_dimensional(second)
    if len(first) != len(second):
        raise ValueError(f"pairs needed, got {len(first)} values and {len(second)}")
    return first - second


def _one_dimensional(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"a list of numbers is needed, got the shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {len(values)} values are NaN")
    return values


def _cases(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim < 1 or len(values) == 0:
        raise ValueError(f"cases are needed along the first axis, got the shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError("some values are NaN: choose units that every case has")
    return values
