"""Where an adapter comes from: hashes of data, base and weights (`curate/hashing.py`), the commit, all params, seeds, versions, machine."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import orjson
import yaml

from curate import store
from curate.hashing import dataset_sha256, file_sha256, folder_sha256
from curate.record import InputError

FILE = "provenance.json"
NOT_HASHED = (
    FILE,
    "README.md",
    ".under-way",
)  # the record itself, the card, which its reader may edit, and the mark of a folder being written
LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "polars",
    "dvclive",
)
SECRET_ENDINGS = ("secret", "password", "api_key", "token_value")  # values of such keys in params.yaml are not written down


def text_sha256(content: bytes) -> str:
    """sha256 in hex.

    >>> text_sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def dataset(data: Path) -> dict[str, Any]:
    """Hash of the parquet files of train and validation, row counts, and the hash of format's template where there is one.

    Raises InputError if `data` holds no parts or the training split no rows.
    """
    parts = store.parts(data)
    used = [part for part in parts if part.split in ("train", "validation")]
    rows = {split: sum(part.rows for part in used if part.split == split) for split in ("train", "validation")}
    if not rows["train"]:
        raise InputError(f"{data}: the training split has no rows. See the dropped.parquet of the stages before, and split.ratios.")
    template = data / "template.jinja"
    return {
        "sha256": dataset_sha256(data),
        "rows": rows,
        "template_sha256": file_sha256(template) if template.is_file() else None,
    }


def base(folder: Path) -> dict[str, Any]:
    """Name, revision and hash of a base: of all of its folder, which for a model of the hub holds the pinned revision, not the weights.

    Raises InputError if there is no base.
    """
    info = read_base(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"name": info.get("name"), "revision": info.get("revision"), "kind": info.get("kind"), "sha256": folder_sha256(folder, files)}


def read_base(folder: Path) -> dict[str, Any]:
    """What the base stage wrote. Raises InputError if it is missing or not JSON."""
    path = folder / "base.json"
    try:
        loaded = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Run the base stage first (`dvc repro base` does).") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}). Run the base stage again.") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: expected an object, found {type(loaded).__name__}. Run the base stage again.")
    return loaded


def weights(adapter: Path) -> dict[str, str]:
    """sha256 of every file of an adapter folder but the record and the card, by relative name."""
    files = sorted(path for path in adapter.rglob("*") if path.is_file())
    return {path.relative_to(adapter).as_posix(): file_sha256(path) for path in files if path.name not in NOT_HASHED}


def versions() -> dict[str, str | None]:
    """Version of Python and of each library that takes part; null where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def code(folder: Path) -> dict[str, Any]:
    """The commit of the repository around `folder`, and whether its tracked files are as committed; null outside a repository.

    What a run of the pipeline itself changes (dvc.lock, reports/) does not count as a change.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "clean": None}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)dvc.lock", ":(top,exclude)reports")
    return {"commit": commit, "clean": None if changed is None else not changed}


def lock_sha256(path: Path) -> str | None:
    """Hash of what dvc.lock says of the stages before training; null where there is none. Training's own entry and those of the reports
    are left out: they are written after it."""
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    before = {name: stage for name, stage in stages.items() if name not in ("report", "train", "evaluate")}
    return text_sha256(orjson.dumps(before, option=orjson.OPT_SORT_KEYS))


def knows_commit(folder: Path, commit: str) -> bool:
    """Whether the repository around `folder` holds this commit."""
    return _git(folder, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine, or no answer: the same as no repository
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def collect(
    data: dict[str, Any], origin: dict[str, Any], adapter: Path, sections: dict[str, Any], seeds: dict[str, int], hardware: dict[str, Any]
) -> dict[str, Any]:
    """The record that goes with an adapter. `data` and `origin` as `dataset` and `base` gave them before training."""
    return {
        "format": 1,
        "dataset": data,
        "base": origin,
        "weights": weights(adapter),
        "dvc_lock_sha256": lock_sha256(Path("dvc.lock")),
        "code": code(Path.cwd()),
        "params": _without_secrets(sections),
        "seeds": seeds,
        "versions": versions(),
        "hardware": hardware | {"platform": platform.platform(), "cpus": os.cpu_count()},
    }


def _without_secrets(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {str(name): _without_secrets(each, str(name)) for name, each in value.items()}
    if isinstance(value, str) and key.lower().endswith(SECRET_ENDINGS):
        return "(not recorded)"
    return value
