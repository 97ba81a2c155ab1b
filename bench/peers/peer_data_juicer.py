"""Data-Juicer: its default executor with `document_minhash_deduplicator` on white-space words."""

import json
import sys
from pathlib import Path

from data_juicer.config import init_configs
from data_juicer.core import DefaultExecutor
from data_juicer.ops import base_op
from setting import PERMUTATIONS, PROCESSES, THRESHOLD, WORDS


def main(folder: str, out: str) -> None:
    """Write the recipe that a user would write, and run it."""
    work = Path(f"{out}.work")
    work.mkdir()
    deduplicator = {"tokenization": "space", "window_size": WORDS, "num_permutations": PERMUTATIONS, "jaccard_threshold": THRESHOLD}
    recipe = {
        "project_name": "bench",
        "dataset_path": folder,
        "export_path": out,
        "export_type": "parquet",
        "work_dir": str(work),
        "np": PROCESSES,
        "use_cache": False,
        "text_keys": "text",
        "process": [{"document_minhash_deduplicator": deduplicator}],
    }
    config = work / "recipe.yaml"
    config.write_text(json.dumps(recipe))  # JSON is YAML
    base_op.free_models = lambda: None  # after a run it empties CUDA's cache, and would download torch for that in the middle of the run
    DefaultExecutor(init_configs(["--config", str(config)])).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
