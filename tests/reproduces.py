"""A fresh clone's `dvc repro` of the curate stages gives the committed dvc.lock. `python -m tests.reproduces`, from .ci/run.

Works on a clone in a temporary folder, so that neither this checkout nor its cache is used. The base model's weights, the adapter and the
evaluation differ between processors and are left out; the tokenizer, on which the formatted rows depend, is not.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from curate.stages import STAGES
from tests.helpers import ROOT

COMPARED = (*STAGES, "report")


def lock_of(folder: Path) -> dict[str, Any]:
    """The lock's entries of the curate stages."""
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    return {stage: stages.get(stage) for stage in COMPARED}


def main() -> None:
    """Clone, repro, compare; exit 1 with the first differing entries."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "finery"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        before = lock_of(clone)
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "report"], cwd=clone, env=environment, check=True)
        after = lock_of(clone)
    differing = [stage for stage in COMPARED if before[stage] != after[stage]]
    for stage in differing:
        print(f"{stage}: committed {before[stage]}\n{' ' * len(stage)}  fresh     {after[stage]}")
    if differing:
        raise SystemExit("dvc.lock is not what a fresh run gives: run `dvc repro` and commit dvc.lock with the change.")
    print(f"dvc.lock: a fresh run reproduces all {len(COMPARED)} curate stages")


if __name__ == "__main__":
    main()
