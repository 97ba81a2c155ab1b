"""`python -m bench.semantic [--vectors FILE]`: the measurements behind dedup_semantic.

1. Approximate neighbours: the stage's own greedy pass with usearch, faiss and hnswlib (those that import) beside all pairs, each in a
   process of its own on one thread: seconds, peak memory above the vectors, share of true duplicates that are dropped, share of kept rows
   that still have a kept row at the threshold, and whether a second run gives the same bytes.
2. The static model beside the model it comes from: texts/s, rank correlation of cosines, share of duplicates found.

Vectors: random ones of which half have a neighbour planted; with --vectors those of an embeddings.parquet or .npy; with --texts FILE
(one column of a parquet or CSV file, `file:column`) the static vectors of these texts. What is not given is not measured.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
os.environ.update(ONE)

# isort: split
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import psutil  # noqa: E402

from curate import embed, neighbours, record  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SEARCHES = ("exact", "usearch", "hnswlib", "faiss-hnsw", "faiss-ivf", "faiss-ivf-f16")
LINKS, WHILE_ADDING, WHILE_SEARCHING = 16, 128, 64  # of the HNSW graphs


class Hnswlib:
    """HNSW of hnswlib."""

    def __init__(self, dimensions: int, rows: int) -> None:
        import hnswlib

        self.graph = hnswlib.Index(space="ip", dim=dimensions)
        self.graph.init_index(rows, ef_construction=WHILE_ADDING, M=LINKS, random_seed=1)
        self.graph.set_ef(WHILE_SEARCHING)

    def add(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        self.graph.add_items(vectors, positions, num_threads=1)

    def search(self, vectors: np.ndarray, count: int) -> np.ndarray:
        count = min(count, self.graph.get_current_count())
        return self.graph.knn_query(vectors, count, num_threads=1)[0].astype(np.int64)  # type: ignore[no-any-return]


class FaissHnsw:
    """faiss, the same."""

    def __init__(self, dimensions: int) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.positions = np.zeros(0, dtype=np.int64)
        self.graph = faiss.IndexHNSWFlat(dimensions, LINKS, faiss.METRIC_INNER_PRODUCT)
        self.graph.hnsw.efConstruction, self.graph.hnsw.efSearch = WHILE_ADDING, WHILE_SEARCHING

    def add(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        self.positions = np.concatenate((self.positions, positions))
        self.graph.add(vectors)

    def search(self, vectors: np.ndarray, count: int) -> np.ndarray:
        _, found = self.graph.search(vectors, count)
        return np.where(found >= 0, self.positions[found], -1)


class Usearch:
    """usearch, the same, over f16."""

    def __init__(self, dimensions: int) -> None:
        from usearch.index import Index

        self.graph = Index(
            ndim=dimensions,
            metric="ip",
            dtype="f16",
            connectivity=LINKS,
            expansion_add=WHILE_ADDING,
            expansion_search=WHILE_SEARCHING,
        )

    def add(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        self.graph.add(positions.astype(np.uint64), vectors.astype(np.float16), threads=1)

    def search(self, vectors: np.ndarray, count: int) -> np.ndarray:
        found = self.graph.search(vectors.astype(np.float16), count, threads=1)
        keys = found.keys.reshape(len(vectors), -1).astype(np.int64)
        return np.where(np.arange(keys.shape[1]) < np.asarray(getattr(found, "counts", keys.shape[1])).reshape(-1, 1), keys, -1)


def index_of(name: str, vectors: np.ndarray) -> neighbours.Index | None:
    """The index by that name; none for all pairs."""
    rows, dimensions = vectors.shape
    if name == "exact":
        return None
    if name == "hnswlib":
        return Hnswlib(dimensions, rows)
    if name == "faiss-hnsw":
        return FaissHnsw(dimensions)
    if name.startswith("faiss-ivf"):
        return neighbours.Lists(vectors, np.arange(rows), threads=1, half=name.endswith("f16"))
    return Usearch(dimensions)


def planted(rows: int, dimensions: int) -> np.ndarray:
    """Random unit vectors as f16, in random order; every second has a neighbour at a cosine between 0.85 and 1."""
    draw = np.random.default_rng(1)
    base = draw.normal(size=(rows, dimensions)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    half = rows // 2
    away = draw.normal(size=(half, dimensions)).astype(np.float32)
    away -= (away * base[:half]).sum(axis=1, keepdims=True) * base[:half]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    cosine = draw.uniform(0.85, 1, half).astype(np.float32)[:, None]
    base[half : 2 * half] = cosine * base[:half] + np.sqrt(1 - cosine**2) * away
    return base[draw.permutation(rows)].astype(np.float16)


def one(name: str, path: Path, threshold: float, out: Path) -> None:
    """One pass in this process; leaves the nearest kept rows in `out` and prints seconds and peak memory as JSON."""
    vectors = np.load(path)
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    index = index_of(name, vectors)
    ranked = np.arange(len(vectors))
    nearest, cosine = neighbours.greedy(vectors, ranked, np.zeros(len(vectors), dtype=bool), threshold, threshold, index)
    seconds = time.monotonic() - start
    peak = int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))) * 1024
    np.savez(out, nearest=nearest, cosine=cosine)
    print(json.dumps({"seconds": seconds, "bytes": peak - before, "processor": time.process_time()}))


def left_over(vectors: np.ndarray, kept: np.ndarray, threshold: float) -> int:
    """Kept rows with another kept row at the threshold, by all pairs."""
    found = 0
    for at in range(0, len(kept), 2048):
        rows = neighbours.unit(vectors, kept[at : at + 2048])
        best = np.full(len(rows), -1.0)
        for start in range(0, len(kept), 2048):
            products = rows @ neighbours.unit(vectors, kept[start : start + 2048]).T
            if start == at:
                np.fill_diagonal(products, -1)
            best = np.maximum(best, products.max(axis=1))
        found += int((best >= threshold + neighbours.SLACK / 10).sum())
    return found


def compare_searches(title: str, vectors: np.ndarray, threshold: float) -> None:
    """The table of one set of vectors."""
    print(f"\n{title}: {len(vectors):,} x {vectors.shape[1]}, threshold {threshold}, one thread\n")
    print("| search | seconds | peak MB | duplicates dropped | kept rows with a kept duplicate | same bytes twice |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vectors.npy"
        np.save(path, vectors)
        truth: np.ndarray | None = None
        for name in SEARCHES:
            results, digests = [], []
            for run in range(1 if name == "exact" else 2):
                out = Path(scratch) / f"{name}-{run}.npz"
                command = [sys.executable, "-m", "bench.semantic", "--one", name, str(path), str(threshold), str(out)]
                done = subprocess.run(command, cwd=ROOT, env=os.environ | ONE, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"| {name} | {done.stderr.strip().splitlines()[-1]} | | | | |", flush=True)
                    break
                results.append(json.loads(done.stdout))
                with np.load(out) as found:
                    nearest = found["nearest"]
                    digests.append(hashlib.sha256(nearest.tobytes() + found["cosine"].tobytes()).hexdigest())
            else:
                truth = nearest >= 0 if truth is None else truth
                left = left_over(vectors, np.flatnonzero(nearest < 0), threshold)
                recall = (
                    f"{((nearest >= 0) & truth).sum():,} of {truth.sum():,} ({((nearest >= 0) & truth).sum() / max(truth.sum(), 1):.2%})"
                )
                best = min(results, key=lambda each: each["seconds"])
                same = "" if name == "exact" else "yes" if len(set(digests)) == 1 else "NO"
                print(f"| {name} | {best['seconds']:.1f} | {best['bytes'] / 1e6:.0f} | {recall} | {left} | {same} |", flush=True)


def compare_models(texts: list[str], model: str, threshold: float) -> None:
    """The static model beside the model: speed, agreement over random pairs and neighbours, duplicates."""
    found, rate = {}, {}
    for name in (model, embed.STATIC + model):
        embed.embed(texts[:1], name, 64)
        start = time.monotonic()
        found[name] = embed.embed(texts, name, 64)
        rate[name] = len(texts) / (time.monotonic() - start)
        print(f"{name}: {rate[name]:,.0f} texts/s on one thread", flush=True)
    agreement(found[model], found[embed.STATIC + model], threshold)


def agreement(full: np.ndarray, static: np.ndarray, threshold: float) -> None:
    """Spearman of the cosines of random pairs and of nearest pairs; where the static threshold must lie to find the duplicates."""
    from scipy.stats import spearmanr

    draw = np.random.default_rng(2)
    a, b = draw.integers(0, len(full), (2, 200_000))
    print(f"Spearman of cosines, 200 000 random pairs: {spearmanr((full[a] * full[b]).sum(1), (static[a] * static[b]).sum(1))[0]:.3f}")
    pairs = full @ full.T
    row, other = np.nonzero(np.triu(pairs, 1) >= threshold - 0.15)
    full_cosine, static_cosine = pairs[row, other], (static[row] * static[other]).sum(axis=1)
    print(f"Spearman, {len(row):,} pairs from {threshold - 0.15:.2f} up: {spearmanr(full_cosine, static_cosine)[0]:.3f}")
    true = full_cosine >= threshold
    all_static = np.triu(static @ static.T, 1)
    for at in (threshold, threshold - 0.02, threshold - 0.05, threshold - 0.1):
        proposed = int((all_static >= at).sum())
        hit = int((static_cosine[true] >= at).sum())
        print(f"static >= {at:.2f}: {hit} of {int(true.sum())} pairs that the model has >= {threshold}; {proposed} pairs in all")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.semantic", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="embeddings.parquet or .npy")
    parser.add_argument("--texts", action="append", default=[], metavar="FILE:COLUMN", help="texts for static vectors; may be repeated")
    parser.add_argument("--models", metavar="FILE:COLUMN", help="texts to compare the static model with the model on")
    parser.add_argument("--model", default=embed.OFFLINE)
    parser.add_argument("--planted", type=int, default=50_000, help="random rows (0: none)")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--one", nargs=4, metavar=("NAME", "VECTORS", "THRESHOLD", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, path, threshold, out = options.one
        one(name, Path(path), float(threshold), Path(out))
        return
    if options.planted:
        compare_searches("planted", planted(options.planted, 384), options.threshold)
    if options.vectors:
        stored = options.vectors.suffix == ".npy"
        found = np.load(options.vectors) if stored else pl.read_parquet(options.vectors)["vector"].to_numpy()
        compare_searches(options.vectors.name, found.astype(np.float16), options.threshold)
    if options.texts:
        texts = [text for each in options.texts for text in read_texts(each)]
        made = embed.embed(texts, embed.STATIC + options.model, 64)
        compare_searches("static", made[np.any(made != 0, axis=1)].astype(np.float16), options.threshold)
    if options.models:
        compare_models(read_texts(options.models), options.model, options.threshold)


def read_texts(spec: str) -> list[str]:
    """The folded texts of one column."""
    file, _, column = spec.rpartition(":")
    rows = pl.read_csv(file) if file.endswith(".csv") else pl.read_parquet(file)
    folded: list[str] = rows.select(record.fold(pl.col(column)).alias("text"))["text"].to_list()
    return folded


if __name__ == "__main__":
    main()
