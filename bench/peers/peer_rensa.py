"""rensa: keep-first with estimated similarities, word n-grams made in Python (its API takes token lists)."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
from rensa import RMinHashDeduplicator
from setting import BANDS, PERMUTATIONS, THRESHOLD, shingles


def main(folder: str, out: str) -> None:
    """Read the folder, keep what `add_pairs` lets in, write it."""
    table = pq.read_table(folder)
    dedup = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True, num_bands=BANDS)
    texts = table["text"].to_pylist()
    kept = dedup.add_pairs((str(at), shingles(text)) for at, text in enumerate(texts))
    pq.write_table(table.filter(pa.array(kept)), out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
