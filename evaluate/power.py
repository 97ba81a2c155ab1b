"""The smallest true difference that an evaluation of this size would most likely find: what "not shown" can still hide."""

from functools import lru_cache

import numpy as np
from scipy import stats

LEVEL = 0.05  # of the two-sided tests
# The chance aimed at. 0.8 is what is promised: the spread is itself estimated, and a group's items may differ more than its mean tells.
POWER = 0.9


def of_means(differences: np.ndarray, clusters: int | None = None) -> float | None:
    """Minimum detectable mean of paired differences, in their unit; None for fewer than three (groups of) pairs.

    Source: J. Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2, with t instead of normal quantiles.
    """
    n = len(differences) if clusters is None else clusters
    if n < 3:
        return None
    reach = float(stats.t.ppf(1 - LEVEL / 2, n - 1) + stats.t.ppf(POWER, n - 1))
    return float(reach * float(np.std(differences, ddof=1)) / n**0.5)


@lru_cache(maxsize=4096)
def of_shares(gained: int, lost: int, n: int) -> float | None:
    """Minimum detectable difference of two shares on the same `n` items by the exact McNemar test; None if none can be detected.

    The share of items on which the systems differ is taken from the data (at least five items: with fewer no difference is ever
    significant), and the smallest difference is searched whose exact power reaches `POWER`.

    Source: J. T. Connett, J. A. Smith and R. B. McHugh, Sample size and power for pair-matched case-control studies, Statistics in
    Medicine 6 (1987), 53-59.
    """
    if n < 6:
        return None
    seen = max(gained + lost, 5) / n
    low, high = 0.0, 1.0
    if _power(n, 1.0, 1.0) < POWER:
        return None
    for _ in range(20):
        middle = (low + high) / 2
        if _power(n, middle, max(seen, middle)) < POWER:
            low = middle
        else:
            high = middle
    return high


def _power(n: int, difference: float, differing: float) -> float:
    """Chance of p < `LEVEL` if a share `differing` of the items differs and the gained exceed the lost by `difference`."""
    chance = (differing + difference) / (2 * differing)
    counts = np.arange(n + 1)
    weights = stats.binom.pmf(counts, n, differing)
    likely = counts[(weights > 1e-9) & (counts > 0)]
    below = stats.binom.ppf(LEVEL / 2, likely, 0.5).astype(int)  # two-sided: reject at or under the largest count with cdf <= LEVEL / 2
    below = np.where(stats.binom.cdf(below, likely, 0.5) <= LEVEL / 2, below, below - 1)
    rejected = stats.binom.cdf(below, likely, chance) + stats.binom.sf(likely - below - 1, likely, chance)
    return float((weights[likely] * np.where(below >= 0, rejected, 0.0)).sum())
