"""datatrove: its four MinHash steps with the local executor, 16 buckets of 8 hashes (no threshold)."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from setting import BANDS, PERMUTATIONS, PROCESSES, WORDS


def main(folder: str, out: str) -> None:
    """Read the folder, one task a file, and write the rows that its filter lets through."""
    scratch = Path(f"{out}.scratch")
    config = MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=PERMUTATIONS // BANDS)
    signatures, buckets, remove, kept = (str(scratch / name) for name in ("signatures", "buckets", "remove", "kept"))
    files = len(list(Path(folder).glob("*.parquet")))

    def run(steps: list[Any], tasks: int) -> None:
        LocalPipelineExecutor(
            steps, tasks=tasks, workers=min(tasks, PROCESSES), logging_dir=str(scratch / f"log-{len(steps)}-{tasks}")
        ).run()

    run([ParquetReader(folder), MinhashDedupSignature(signatures, config=config)], files)
    run([MinhashDedupBuckets(signatures, buckets, config=config)], BANDS)
    run([MinhashDedupCluster(buckets, remove, config=config)], 1)
    run([ParquetReader(folder), MinhashDedupFilter(remove), ParquetWriter(kept)], files)
    pq.write_table(pq.read_table(kept, columns=["id", "text"]), out)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
