"""Data-Juicer's whole way: white space, Unicode, e-mails, IPs, three filters and near-duplicates, as one recipe of its default executor."""

import json
import sys
from pathlib import Path

from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor
from data_juicer.ops import base_op
from setting import PERMUTATIONS, PROCESSES, THRESHOLD, WORDS

RECIPE = [
    {"whitespace_normalization_mapper": {}},
    {"fix_unicode_mapper": {"normalization": "NFC"}},
    {"clean_email_mapper": {"repl": "<EMAIL_ADDRESS>"}},
    {"clean_ip_mapper": {"repl": "<IP_ADDRESS>"}},
    {"text_length_filter": {"min_len": 5, "max_len": 1_000_000}},
    {"words_num_filter": {"min_num": 1, "max_num": 1_000_000}},
    {"word_repetition_filter": {"rep_len": 4, "max_ratio": 0.45}},
    {
        "document_minhash_deduplicator": {
            "tokenization": "space",
            "window_size": WORDS,
            "num_permutations": PERMUTATIONS,
            "jaccard_threshold": THRESHOLD,
        }
    },
]


def main(folder: str, out: str) -> None:
    """Write the recipe that a user would write, and run it."""
    work = Path(f"{out}.work")
    work.mkdir()
    recipe = {
        "project_name": "bench",
        "dataset_path": folder,
        "export_path": out,
        "export_type": "parquet",
        "work_dir": str(work),
        "np": PROCESSES,
        "use_cache": False,
        "text_keys": "text",
        "process": RECIPE,
    }
    config = work / "recipe.yaml"
    config.write_text(json.dumps(recipe))  # JSON is YAML
    base_op.free_models = lambda: None  # after a run it empties CUDA's cache, and would download torch for that in the middle of the run
    DefaultExecutor(init_configs(["--config", str(config)])).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
