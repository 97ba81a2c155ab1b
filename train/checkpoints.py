"""Where the checkpoints of a run lie, and whether a run may go on from them: only with the same data, base, settings and libraries.

They lie beside the output, in `.<name>-checkpoints/<fingerprint>/`: DVC deletes a stage's outputs before it runs.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from curate.stage import say, write_whole
from train import provenance

if TYPE_CHECKING:
    from train.train import Params

COMPLETE = "complete"  # written into a checkpoint after everything else: one without it was cut off by a kill
VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")  # another version need not continue exactly


def identity(dataset: dict[str, Any], origin: dict[str, Any], params: "Params", processes: int) -> dict[str, Any]:
    """What must be the same for a run to go on where another stopped."""
    versions = provenance.versions()
    settings = asdict(params)
    for name in ("resume", "trackers"):
        settings.pop(name)
    return {
        "dataset": dataset["sha256"],
        "template": dataset["template_sha256"],
        "base": origin["sha256"],
        "train": settings,
        "processes": processes,
        "versions": {name: versions[name] for name in VERSIONS},
    }


def folder(shelf: Path, now: dict[str, Any]) -> Path:
    """Where the checkpoints of a run with this identity lie."""
    return shelf / provenance.text_sha256(orjson.dumps(now, option=orjson.OPT_SORT_KEYS))[:16]


def open_folder(shelf: Path, now: dict[str, Any], resume: str) -> Path:
    """The folder for the checkpoints of this run; says whether it goes on, or why not.

    Checkpoints of other settings stay until a run has ended well: whoever sets a value back can still go on from them.
    """
    now = orjson.loads(orjson.dumps(now))
    mine = folder(shelf, now)
    if resume == "never":
        shutil.rmtree(shelf, ignore_errors=True)
    if not mine.exists():
        for other in sorted(shelf.glob("*/identity.json")):
            changed = ", ".join(differences(orjson.loads(other.read_bytes()), now))
            say(f"train: a stopped run lies in {other.parent}, but these differ: {changed}. Starting afresh.")
        mine.mkdir(parents=True)
        write_whole(mine / "identity.json", orjson.dumps(now, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    return mine


def differences(old: dict[str, Any], new: dict[str, Any], above: str = "") -> list[str]:
    """Keys whose values differ, with both values where they are short.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c (2 -> 3)']
    """
    found: list[str] = []
    for key in sorted({*old, *new}):
        name = f"{above}{key}"
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name} ({a} -> {b})" if len(f"{a}{b}") < 60 else name)
    return found


def last_whole(checkpoints: Path) -> Path | None:
    """The latest checkpoint that was written to its end."""
    found = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
