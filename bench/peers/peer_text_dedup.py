"""text-dedup: the steps of its own `main`, clusters not verified (its default), the last one writing parquet."""

import json
import sys
from pathlib import Path

from setting import PERMUTATIONS, PROCESSES, THRESHOLD, WORDS, part_paths
from text_dedup import minhash
from text_dedup.config.base import load_config_from_toml

# What is written into it are strings, numbers and lists, which JSON and TOML write alike.
SETTINGS = """
[input]
input_type = "local_files"
file_type = "parquet"
[input.read_arguments]
path = "parquet"
split = "train"
data_files = {files}
[algorithm]
algorithm_name = "minhash"
text_column = "text"
num_perm = {permutations}
ngram_size = {words}
threshold = {threshold}
num_proc = {processes}
[output]
output_dir = {unused}
[debug]
enable_profiling = false
"""


def with_survivors(clusters: dict[int, int]) -> dict[int, int]:
    """Name each cluster after its first row, which is the row that stays. As released, 0.4.1 numbers clusters and drops all of their rows
    (ChenghaoMou/text-dedup#129, mended after the release): measured like that it would look worse than it is."""
    first: dict[int, int] = {}
    for row, cluster in clusters.items():
        first[cluster] = min(row, first.get(cluster, row))
    return {row: first[cluster] for row, cluster in clusters.items()}


def main(folder: str, out: str) -> None:
    """Read the folder, fingerprint, cluster, keep one row a cluster, write it. Texts under 5 words are gone: `min_length` as it comes."""
    settings = Path(f"{out}.toml")
    settings.write_text(
        SETTINGS.format(
            files=json.dumps(part_paths(folder)),
            permutations=PERMUTATIONS,
            words=WORDS,
            threshold=THRESHOLD,
            processes=PROCESSES,
            unused=json.dumps(f"{out}.unused"),
        )
    )
    config = load_config_from_toml(settings)
    rows, _, _ = minhash.load_and_preprocess(config)
    clusters = with_survivors(minhash.cluster(config, minhash.fingerprint(config, rows)))
    kept = minhash.remove_duplicates(config, minhash.assign(config, rows, clusters))
    kept.select_columns(["id", "text"]).to_parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
