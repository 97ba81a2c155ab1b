"""`python -m bench.coverage [--trials N]`: do intervals, verdicts and the stated detectable size hold? Simulated, seeded.

Coverage: how often a 95 % interval holds the true value. Null: how often two systems of equal worth are told apart. Power: how often a
true effect of the size that `evaluate.power` states is found. One core, about half a minute at the default of 400 trials.
"""

import argparse
from collections.abc import Callable

import numpy as np

from evaluate import power
from evaluate.metrics import binary_difference, mean_difference
from evaluate.statistics import Interval, bootstrap, wilson

TRIALS, RESAMPLES = 400, 2000
Draw = Callable[[np.random.Generator, int, float], np.ndarray]


def coverage(trial: Callable[[np.random.Generator], tuple[Interval, float]], trials: int, seed: int) -> float:
    """Share of trials whose interval holds the true value."""
    random = np.random.default_rng(seed)
    held = [interval.low <= true <= interval.high for interval, true in (trial(random) for _ in range(trials))]
    return float(np.mean(held))


def accuracy(random: np.random.Generator) -> tuple[Interval, float]:
    """Accuracies between 20 % and 95 %, on 50 to 400 items."""
    true, n = random.uniform(0.2, 0.95), int(random.integers(50, 401))
    return wilson(int(random.binomial(n, true)), n), true


def mean(random: np.random.Generator) -> tuple[Interval, float]:
    """Losses of a skewed (gamma) distribution, 50 to 400 items."""
    n = int(random.integers(50, 401))
    return bootstrap(random.gamma(2.0, 0.5, n), int(random.integers(1 << 30)), RESAMPLES), 1.0


def grouped_mean(random: np.random.Generator) -> tuple[Interval, float]:
    """The same in 50 to 200 groups of one to five items that share most of their loss."""
    sizes = random.integers(1, 6, int(random.integers(50, 201)))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    values = random.gamma(2.0, 0.35, len(sizes))[groups] + random.gamma(2.0, 0.15, len(groups))
    return bootstrap(values, int(random.integers(1 << 30)), RESAMPLES, groups.tolist()), 1.0


def skewed_difference(random: np.random.Generator) -> tuple[Interval, float]:
    """Paired loss differences, skewed, 50 to 400 items."""
    data = losses(random, int(random.integers(50, 401)), 0.2)
    return bootstrap(data, int(random.integers(1 << 30)), RESAMPLES), 0.2


def share_difference(random: np.random.Generator) -> tuple[Interval, float]:
    """Differences of paired accuracies, 50 to 400 items."""
    n, effect = int(random.integers(50, 401)), random.uniform(-0.1, 0.1)
    first, second = answers(random, n, effect)
    return binary_difference(first, second, None, 0, RESAMPLES).difference, effect


def losses(random: np.random.Generator, n: int, effect: float) -> np.ndarray:
    """Paired differences of mean `effect`: skewed, with a few large ones."""
    return effect + random.gamma(2.0, 0.5, n) - 1.0 + random.normal(0, 0.3, n)


def answers(random: np.random.Generator, n: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Right (1) or wrong (0) with two systems, right more often with the second by `effect`; they differ on about a quarter."""
    kind = random.choice(4, n, p=[0.4, 0.35, 0.125 + effect / 2, 0.125 - effect / 2])
    return np.isin(kind, (0, 3)).astype(float), np.isin(kind, (0, 2)).astype(float)


def called(kind: str, effect: float, n: int, trials: int, seed: int) -> tuple[float, float]:
    """Shares of trials that the rule calls better and worse."""
    random = np.random.default_rng(seed)
    words = []
    for trial in range(trials):
        if kind == "mean":
            words.append(mean_difference(losses(random, n, effect), None, True, trial, RESAMPLES).verdict)
        else:
            words.append(binary_difference(*answers(random, n, effect), None, trial, RESAMPLES).verdict)
    return words.count("better") / trials, words.count("worse") / trials


def stated(kind: str, n: int, seed: int) -> float:
    """The detectable size that one earlier evaluation of `n` items (without an effect) states."""
    random = np.random.default_rng(seed)
    if kind == "mean":
        return power.of_means(losses(random, n, 0.0)) or 0.0
    first, second = answers(random, n, 0.0)
    return power.of_shares(int((second > first).sum()), int((first > second).sum()), n) or 0.0


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    trials = parser.parse_args().trials
    for trial in (accuracy, mean, grouped_mean, skewed_difference, share_difference):
        print(f"coverage of {trial.__name__}: {coverage(trial, 5 * trials, 1):.1%} of {5 * trials}")
    for kind in ("mean", "share"):
        better, worse = called(kind, 0.0, 150, trials, 2)
        print(f"null, {kind}: better {better:.1%}, worse {worse:.1%} of {trials}")
        size = float(np.median([stated(kind, 150, seed) for seed in range(20)]))
        print(
            f"power, {kind}: effect {size:.3f}, the stated detectable size: better {called(kind, size, 150, trials, 3)[0]:.1%} of {trials}"
        )


if __name__ == "__main__":
    main()
