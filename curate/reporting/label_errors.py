"""Which rows have a label that their text does not support: a classifier that never saw the row, and the confident-learning rule.

The classifier is least squares on the indicators of the labels with a ridge. Its leave-one-out predictions have a closed form (Allen
1974: the residual over one minus the leverage): as if it were trained once for each row without it, at the cost of one training. Scores
become probabilities by a softmax whose temperature makes the mean confidence equal the share of right answers (Guo et al. 2017).

The rule is confident learning's (Northcutt, Jiang and Chuang 2021): the threshold of a label is the mean probability that rows with this
label get for it; a row is a probable error if another label reaches its own threshold and is the most probable of those that do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RIDGE = 1.0  # makes the least squares solvable where rows are fewer than dimensions
LEAST = 5  # rows of a label without which it is neither judged nor suggested
MOST_LABELS = 1000  # the most frequent ones are judged: the classifier holds DIMENSIONS numbers for each
OTHERS = 3  # labels beside its own that are kept for each row: the rule looks for one among them
CALIBRATED = 5000  # rows that set the temperature


class Sums:
    """What the classifier is solved from, added up over batches: bounded however many rows there are."""

    def __init__(self, dimensions: int, labels: int) -> None:
        self.gram, self.by_label = np.zeros((dimensions, dimensions)), np.zeros((dimensions, labels))

    def add(self, vectors: np.ndarray, labels: np.ndarray) -> None:
        """Take (n, d) f64 vectors of length 1 and the number of the label of each."""
        self.gram += vectors.T @ vectors
        for label in np.unique(labels):
            self.by_label[:, label] += vectors[labels == label].sum(axis=0)

    def solve(self) -> "Classifier":
        """The classifier of all rows that were added."""
        from scipy.linalg import cho_solve, cholesky

        gram = self.gram.copy()
        gram[np.diag_indices_from(gram)] += RIDGE
        factor = cholesky(gram, lower=True)
        return Classifier(cho_solve((factor, True), self.by_label), factor)


@dataclass(frozen=True)
class Classifier:
    """`weights` (d, labels), and the lower Cholesky factor (d, d) of the Gram matrix."""

    weights: np.ndarray
    factor: np.ndarray

    def scores(self, vectors: np.ndarray, labels: np.ndarray, member: np.ndarray) -> np.ndarray:
        """(n, labels): how much each text is like each label; a row that the classifier learnt from (`member`) as if it had not."""
        from scipy.linalg import solve_triangular

        scores: np.ndarray = vectors @ self.weights
        inside = np.flatnonzero(member)
        if len(inside):
            leverage = np.square(solve_triangular(self.factor, vectors[inside].T, lower=True)).sum(axis=0)
            scores[inside, labels[inside]] -= leverage
            scores[inside] /= (1 - leverage)[:, None]
        return scores


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """(n, labels), rows with sum 1."""
    raised = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    probabilities: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return probabilities


def temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the mean of the highest probabilities is the share of rows whose highest score is their own label's."""
    right = min(max(float((scores.argmax(axis=1) == labels).mean()), 0.01), 0.99)
    low, high = 1e-3, 10.0
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if softmax(scores, middle).max(axis=1).mean() > right else (low, middle)
    return low


@dataclass(frozen=True)
class Beliefs:
    """What the classifier holds of rows: the probability of their own label, and of the `OTHERS` most probable other ones."""

    own: np.ndarray  # (n,)
    others: np.ndarray  # (n, up to OTHERS) i64, most probable first
    probable: np.ndarray  # the same shape: their probabilities

    @staticmethod
    def of(probabilities: np.ndarray, labels: np.ndarray) -> "Beliefs":
        rows = np.arange(len(labels))
        rest = probabilities.copy()
        rest[rows, labels] = -1
        count = min(OTHERS, rest.shape[1] - 1)
        others, probable = np.empty((len(labels), count), dtype=np.int64), np.empty((len(labels), count))
        for place in range(count):
            others[:, place] = rest.argmax(axis=1)
            probable[:, place] = rest[rows, others[:, place]]
            rest[rows, others[:, place]] = -1
        return Beliefs(probabilities[rows, labels], others, probable)

    @staticmethod
    def joined(parts: "Sequence[Beliefs]") -> "Beliefs":
        return Beliefs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("own", "others", "probable")))


@dataclass(frozen=True)
class Judged:
    """`score` (n,): one minus the probability of the row's own label. `better` (n,): a label more probable than its own, or -1.
    `sure` (n,): whether the rule calls `better` the right one."""

    score: np.ndarray
    better: np.ndarray
    sure: np.ndarray


def thresholds(own: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(count,): the mean probability that rows with a label get for it; 1 for a label without rows."""
    rows = np.bincount(labels, minlength=count)
    means: np.ndarray = np.where(rows > 0, np.bincount(labels, weights=own, minlength=count) / np.maximum(rows, 1), 1.0)
    return means


def judge(beliefs: Beliefs, labels: np.ndarray, count: int) -> Judged:
    """Apply the rule. `count`: how many labels there are.

    >>> beliefs = Beliefs(np.array([0.9, 0.1, 0.8]), np.array([[1], [0], [0]]), np.array([[0.1], [0.9], [0.2]]))
    >>> found = judge(beliefs, np.array([0, 1, 1]), 2)
    >>> found.better.tolist(), found.sure.tolist(), found.score.round(1).tolist()
    ([-1, 0, -1], [False, True, False], [0.1, 0.9, 0.2])
    """
    least = thresholds(beliefs.own, labels, count)
    reached = np.where(beliefs.probable >= least[beliefs.others], beliefs.probable, -1)
    at, rows = reached.argmax(axis=1), np.arange(len(labels))
    own = np.where(beliefs.own >= least[labels], beliefs.own, -1)  # its own label takes part in the rule like any other
    sure = (reached[rows, at] > own) & (reached[rows, at] > 0)
    first = np.where(beliefs.probable[:, 0] > beliefs.own, beliefs.others[:, 0], -1)
    better = np.where(sure, beliefs.others[rows, at], first)
    return Judged(1 - beliefs.own, better, sure)
