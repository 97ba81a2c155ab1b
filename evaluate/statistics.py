"""Intervals and paired tests: what may be said from a hold-out of limited size, and no more.

Pure functions on numbers. All that is drawn at random comes from the seed given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
BLOCK = 1 << 22  # values drawn at once: 32 MiB of doubles


@dataclass(frozen=True)
class Interval:
    """An estimate from `n` items with its 95 % interval. All three numbers are NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a proportion. It stays inside 0 to 1 and is honest for few items and for 0 % or 100 %.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.

    >>> wilson(8, 10)
    Interval(value=0.8, low=0.4901624715, high=0.9433178485, n=10)
    """
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    bounds = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, round(float(bounds.low), 10), round(float(bounds.high), 10), n)


def paired_shares(gained: int, lost: int, n: int, right: int) -> Interval:
    """Difference of two proportions seen on the same `n` items: second minus first system, each item right or wrong with both.

    `gained` items are right with the second system only, `lost` with the first only, `right` is how many the first has right. Unlike a
    bootstrap it has a width where no item changed.

    Source: R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data,
    Statistics in Medicine 17 (1998), 2635-2650, method 10 (score limits, corrected correlation).

    >>> paired_shares(9, 1, 40, 20)
    Interval(value=0.2, low=0.0473949391, high=0.3370933225, n=40)
    """
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    second = right + gained - lost
    first, other = wilson(right, n), wilson(second, n)
    both, neither = right - lost, n - right - gained
    edge = right * (n - right) * second * (n - second)
    product = both * neither - gained * lost
    phi = 0.0 if edge == 0 else (max(product - n / 2, 0) if product > 0 else product) / edge**0.5
    value = (gained - lost) / n
    low = ((other.value - other.low) ** 2 - 2 * phi * (other.value - other.low) * (first.high - first.value)) + (
        first.high - first.value
    ) ** 2
    high = ((first.value - first.low) ** 2 - 2 * phi * (first.value - first.low) * (other.high - other.value)) + (
        other.high - other.value
    ) ** 2
    return Interval(value, round(value - max(low, 0) ** 0.5, 10), round(value + max(high, 0) ** 0.5, 10), n)


def kappa(table: Sequence[Sequence[int]] | np.ndarray, ordered: bool = False, confidence: float = CONFIDENCE) -> Interval:
    """Cohen's kappa of two raters: how far they agree beyond what their own shares of each word give by chance (1: always; 0: no more).

    `table` (words, words): how many items the first rater gave the word of the row and the second that of the column. With `ordered` the
    words are marks on a scale, and being off by one counts less than being off by more (quadratic weights). NaN where there is no item, or
    both use one and the same word only.

    The interval is of the large-sample variance, on Fisher's scale (atanh), with Student's t, and with half an item spread over the cells:
    without it, raters who always agree would get an interval of no width.

    Source: J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20 (1960), 37-46, and
    Weighted kappa, Psychological Bulletin 70 (1968), 213-220; J. L. Fleiss, J. Cohen and B. S. Everitt, Large sample standard errors of
    kappa and weighted kappa, Psychological Bulletin 72 (1969), 323-327.

    >>> round(kappa([[20, 5], [10, 15]]).value, 10)
    0.4
    """
    counts = np.asarray(table, dtype=np.float64)
    n, words = int(counts.sum()), len(counts)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    apart = np.abs(np.subtract.outer(np.arange(words), np.arange(words))) / max(words - 1, 1)
    worth = 1 - apart**2 if ordered else np.eye(words)
    value, _ = _kappa(counts / n, worth)
    if not np.isfinite(value):
        return Interval(np.nan, np.nan, np.nan, n)
    used = (counts.sum(axis=1) + counts.sum(axis=0)) > 0
    near, spread = _kappa(((counts + 0.5 / used.sum() ** 2) / (n + 0.5))[np.ix_(used, used)], worth[np.ix_(used, used)])
    reach = float(stats.t.ppf((1 + confidence) / 2, max(n - 2, 1))) * (spread / n) ** 0.5 / (1 - near**2)
    low, high = np.tanh(np.arctanh(near) - reach), np.tanh(np.arctanh(near) + reach)
    return Interval(float(value), min(float(low), float(value)), max(float(high), float(value)), n)


def _kappa(shares: np.ndarray, worth: np.ndarray) -> tuple[float, float]:
    """Kappa of a table of shares, and the variance of one item's influence on it; NaN where chance alone agrees always."""
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, chance = float((worth * shares).sum()), float((worth * np.outer(rows, columns)).sum())
    if chance >= 1 - 1e-12:
        return np.nan, np.nan
    influence = worth * (1 - chance) - np.add.outer(worth @ columns, rows @ worth) * (1 - agreed)
    mean = agreed * (1 - chance) - 2 * chance * (1 - agreed)
    return (agreed - chance) / (1 - chance), max(float((shares * influence**2).sum()) - mean**2, 0.0) / (1 - chance) ** 4


def bootstrap(
    values: Sequence[float] | np.ndarray,
    seed: int,
    resamples: int = 10_000,
    groups: Sequence[object] | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The mean of `values` with its bias-corrected and accelerated (BCa) bootstrap interval. For paired data give the differences.

    With `groups` (one a value) whole groups are drawn: values of one group say less than as many of different ones. One group, or values
    all alike, have no spread to resample: the interval is then unbounded for one group and the value itself otherwise.

    Source: B. Efron, Better bootstrap confidence intervals, JASA 82 (1987), 171-185; groups: A. C. Davison and D. V. Hinkley,
    Bootstrap Methods and their Application (1997), section 3.8.
    """
    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(data.mean())
    sums, sizes = _by_group(data, groups)
    if len(sums) == 1:
        return Interval(mean, -np.inf, np.inf, n)
    away = mean - (data.sum() - sums) / (n - sizes)  # what each group moves the mean by: the jackknife's influence
    away = away - away.mean()
    square = float((away**2).sum())
    if square <= (np.finfo(np.float64).eps * max(abs(mean), float(np.abs(data).max()))) ** 2:
        return Interval(mean, mean, mean, n)
    means = np.sort(_resampled_means(sums, sizes, np.random.default_rng(seed), resamples))
    below = float((means < mean).sum() + (means == mean).sum() / 2) / resamples
    bias = float(stats.norm.ppf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples)))
    acceleration = float((away**3).sum()) / (6 * square**1.5)
    tail = stats.norm.ppf(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    moved = stats.norm.cdf(bias + (bias + tail) / (1 - acceleration * (bias + tail)))
    low, high = np.quantile(means, moved)
    return Interval(mean, float(low), float(high), n)


def _by_group(data: np.ndarray, groups: Sequence[object] | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each group; every value is its own where no groups are given."""
    if groups is None:
        return data, np.ones(len(data), dtype=np.int64)
    places: dict[object, int] = {}
    at = np.array([places.setdefault(each, len(places)) for each in groups])
    return np.bincount(at, weights=data, minlength=len(places)), np.bincount(at, minlength=len(places))


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, random: np.random.Generator, resamples: int) -> np.ndarray:
    means = np.empty(resamples)
    alike = bool((sizes == 1).all())
    step = max(1, BLOCK // len(sums))
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = random.integers(0, len(sums), (stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / (len(sums) if alike else sizes[drawn].sum(axis=1))
    return means


def sign_flip(
    differences: Sequence[float] | np.ndarray, seed: int, resamples: int = 10_000, groups: Sequence[object] | None = None
) -> float:
    """Two-sided p of a mean difference of zero: how often pairs with their signs drawn at random lie as far from zero.

    The observed signs count as one of the draws, so p is never 0 and the test is exact at any number of draws. With `groups` the signs of
    whole groups are drawn.

    Source: R. A. Fisher, The Design of Experiments (1935), section 21; B. Phipson and G. K. Smyth, Permutation p-values should never
    be zero, Statistical Applications in Genetics and Molecular Biology 9 (2010), article 39.
    """
    data = np.asarray(differences, dtype=np.float64)
    if len(data) == 0:
        return 1.0
    data, _ = _by_group(data, groups)
    random = np.random.default_rng(seed)
    observed = abs(float(data.sum()))
    nearly = observed * (1 - 1e-12)  # the same sum in another order must count as equal
    as_far, step = 0, max(1, BLOCK // len(data))
    for start in range(0, resamples, step):
        signs = random.integers(0, 2, (min(step, resamples - start), len(data))) * 2.0 - 1.0
        as_far += int((np.abs(signs @ data) >= nearly).sum())
    return (1 + as_far) / (1 + resamples)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: of the items that only one system has right, is each system's share a half?

    `gained` items are right with the second system only, `lost` with the first only. 1.0 if there are none of either.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947), 153-157;
    in its exact binomial form.

    >>> mcnemar(0, 5)
    0.0625
    """
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for being looked at together: the chance of even one false alarm among them stays below the level.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979), 65-70.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = highest
    return adjusted
