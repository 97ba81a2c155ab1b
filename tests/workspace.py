"""A workspace of its own for the tests of the whole pipeline: a copy of the project in which `dvc repro` runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

SOURCES = ("curate", "train", "evaluate", "flows", "data/raw", "data/benchmarks", "data/pins", "data/sample")
FILES = ("dvc.yaml", "params.yaml", ".dvcignore", "data/decisions.jsonl")
SMALLER = {"  generate_items: 64 ": "  generate_items: 24 ", "  few_shot: 2 ": "  few_shot: 0 "}  # minutes matter more here


def environment(folder: Path) -> dict[str, str]:
    """This Python first on the PATH, Prefect's files in the workspace, two workers."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = os.environ | {"PATH": path, "PREFECT_HOME": str(folder / ".prefect"), "FINERY_WORKERS": "2"}
    settings.pop("FINERY_DEBUG", None)
    return settings


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in `folder`, with this Python; fails the test with its output where `check` is set and it failed."""
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def copy_project(folder: Path) -> Path:
    """The project's code, settings (fewer answers to judge) and sample as a fresh workspace with an empty cache."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / name)
    params = (folder / "params.yaml").read_text()
    for whole, smaller in SMALLER.items():
        assert whole in params, whole
        params = params.replace(whole, smaller)
    (folder / "params.yaml").write_text(params)
    run(folder, "-m", "dvc", "init", "--no-scm", "--quiet")
    run(folder, "-m", "dvc", "config", "core.analytics", "false")
    return folder


def start_build(folder: Path) -> subprocess.Popen[bytes]:
    """The workspace's first `dvc repro`, in the background, with its log in build.log."""
    settings = environment(folder) | {"OMP_NUM_THREADS": "2"}
    with (folder / "build.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=folder, env=settings, stdout=log, stderr=log)
