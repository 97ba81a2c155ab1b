"""datasketch: MinHash.generator (bulk signatures) and MinHashLSH, keep-first on unchecked candidates."""

import sys

import pyarrow as pa
import pyarrow.parquet as pq
from datasketch import MinHash, MinHashLSH
from setting import PERMUTATIONS, THRESHOLD, shingles


def main(folder: str, out: str) -> None:
    """Read the folder, keep every row for which the index of kept rows holds no candidate, write them."""
    table = pq.read_table(folder)
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    encoded = ([shingle.encode() for shingle in shingles(text)] for text in table["text"].to_pylist())
    kept = []
    for at, signature in enumerate(MinHash.generator(encoded, num_perm=PERMUTATIONS)):
        is_new = not lsh.query(signature)
        if is_new:
            lsh.insert(at, signature, check_duplication=False)
        kept.append(is_new)
    pq.write_table(table.filter(pa.array(kept)), out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
