"""`python -m bench.label_errors --data FILE`: how many labels that were flipped on purpose the report's judge finds, and how fast.

FILE is Banking77's train split (columns text, category). A share of the labels is replaced by another one at random, for each of some
seeds; the judge of `curate/reporting/label_errors.py` ranks all rows. Beside it stand logistic regression of scikit-learn, five-fold, and
other vectors: `--vectors static:offline-minilm --vectors offline-minilm` adds models of curate/embed.py to the report's own.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from curate import embed
from curate.reporting import label_errors, wordvectors

OWN = "words and letters"


def flipped(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, rows that were flipped): each to one of the other labels, all alike."""
    random, count = np.random.default_rng(seed), int(labels.max()) + 1
    rows = random.choice(len(labels), int(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[rows] = (changed[rows] + random.integers(1, count, len(rows))) % count
    return changed, rows


def own_judge(vectors: np.ndarray, labels: np.ndarray) -> label_errors.Judged:
    """As `curate/reporting/suspicious.py` does it, all rows at once."""
    count = int(labels.max()) + 1
    sums = label_errors.Sums(vectors.shape[1], count)
    sums.add(vectors, labels)
    scores = sums.solve().scores(vectors, labels, np.ones(len(labels), dtype=bool))
    heat = label_errors.temperature(scores[: label_errors.CALIBRATED], labels[: label_errors.CALIBRATED])
    return label_errors.judge(label_errors.Beliefs.of(label_errors.softmax(scores, heat), labels), labels, count)


def logistic(vectors: np.ndarray, labels: np.ndarray) -> label_errors.Judged:
    """Five-fold logistic regression and the same rule."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    found = cross_val_predict(LogisticRegression(C=10, max_iter=200), vectors, labels, cv=folds, method="predict_proba")
    return label_errors.judge(label_errors.Beliefs.of(found, labels), labels, int(labels.max()) + 1)


def measured(labels: np.ndarray, share: float, seeds: int, judge: Callable[[np.ndarray], label_errors.Judged]) -> dict[str, Any]:
    """Means over the seeds."""
    rows = []
    for seed in range(seeds):
        given, changed = flipped(labels, share, seed)
        start = time.perf_counter()
        found = judge(given)
        seconds = time.perf_counter() - start
        first = np.argsort(-found.score, kind="stable")
        hit = [np.isin(changed, first[: int(top * len(labels))]).mean() for top in (0.05, 0.1)]
        named = changed[found.sure[changed]]
        right = (found.better[named] == labels[named]).mean() if len(named) else 0.0
        rows.append((*hit, found.sure.mean(), len(named) / len(changed), right, seconds))
    names = ("top_5", "top_10", "rule_rows", "rule_flipped", "right_label", "seconds")
    return dict(zip(names, np.mean(rows, axis=0).round(3).tolist(), strict=True))


def vectors_of(texts: pl.Series, name: str) -> np.ndarray:
    """f64, of the report's own kind or of a model."""
    if name != OWN:
        return embed.embed(texts.to_list(), name, 64).astype(np.float64)
    counted = wordvectors.Frequencies()
    counted.add(texts)
    return wordvectors.vectors(texts, counted.weights())


def main() -> None:
    """Print one line for each kind of vectors and classifier."""
    parser = argparse.ArgumentParser(prog="python -m bench.label_errors", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77_train.csv"), help="CSV with columns text and category")
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are flipped (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average (default: %(default)s)")
    parser.add_argument(
        "--vectors", action="append", default=[], metavar="MODEL", help="a model of curate/embed.py beside the report's own"
    )
    parser.add_argument("--logistic", action="store_true", help="logistic regression as well: minutes")
    options = parser.parse_args()
    rows = pl.read_csv(options.data)
    texts, labels = rows["text"], rows["category"].rank("dense").cast(pl.Int64).to_numpy() - 1
    wordvectors.vectors(texts[:1], np.ones(wordvectors.BUCKETS))  # compiles
    with threadpool_limits(1):
        for name in (OWN, *options.vectors):
            start = time.perf_counter()
            vectors = vectors_of(texts, name)
            print(f"{name}: {vectors.shape}, {time.perf_counter() - start:.1f} s", flush=True)
            print("  least squares", measured(labels, options.share, options.seeds, partial(own_judge, vectors)), flush=True)
            if options.logistic:
                print("  logistic", measured(labels, options.share, 1, partial(logistic, vectors)), flush=True)


if __name__ == "__main__":
    main()
