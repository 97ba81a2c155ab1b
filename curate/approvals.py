"""Who approved which dataset, with which gates open: data/approvals.jsonl, one JSON object a line, kept by git.

    dataset    hash of what training sees (`curate.hashing.dataset_sha256` of the formatted dataset), as in an adapter's provenance
    reviewer   who
    time       when: UTC, ISO 8601
    warnings   names of the gates that warned
    waived     names of the gates that failed, and that this person lets pass for this dataset
    note       why; needed where a gate is waived

The report says which gates failed (reports/gates.json). Training asks `check` before it loads a model.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from curate import ledger
from curate.params import params_class
from curate.record import InputError

GATES = Path("reports/gates.json")
_HASH = re.compile(r"[0-9a-f]{64}")


@params_class
class Approval:
    """One line of data/approvals.jsonl; see the module's docstring."""

    dataset: str
    reviewer: str
    time: str = ""  # empty: `append` puts the time in
    warnings: tuple[str, ...] = ()
    waived: tuple[str, ...] = ()
    note: str | None = None

    def __post_init__(self) -> None:
        if not _HASH.fullmatch(self.dataset):
            raise ValueError(f"dataset {self.dataset[:70]!r} is not 64 hex digits")
        ledger.check_name(self.reviewer)
        if self.waived and not (self.note or "").strip():
            raise ValueError("a waived gate needs a 'note' that says why")
        if self.time:
            object.__setattr__(self, "time", ledger.utc(self.time))


def append(path: Path, approval: Approval) -> Approval:
    """Write one approval at the end of the file, which is made where there is none; returns it with its time."""
    stamped = approval if approval.time else replace(approval, time=ledger.now())

    def make(before: Iterator[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        for _ in before:  # a file that cannot be read is told before it grows
            pass
        return ledger.as_json(stamped)

    ledger.append(path, make)
    return stamped


def of(dataset: str, path: Path) -> list[Approval]:
    """The approvals of a dataset, oldest first; none where there is no file. Raises InputError that names file and line."""
    if not path.exists():
        return []
    return sorted((each for each in ledger.read(Approval, path) if each.dataset == dataset), key=lambda each: each.time)


def gates_json(dataset: str | None, gates: list[dict[str, Any]]) -> bytes:
    """What the report writes for training: the dataset (null: nothing is formatted yet) and the names of the gates that failed.

    Only these: training depends on the file, and a new warning or another sentence is no reason to train again.
    """
    failed = [gate["name"] for gate in gates if gate["state"] == "fail"]
    return orjson.dumps({"dataset": dataset, "failed": failed}, option=orjson.OPT_INDENT_2) + b"\n"


def failed_gates(dataset: str, path: Path = GATES) -> list[str] | None:
    """Names of the gates that failed for a dataset; None where the report is about another one, or there is none."""
    try:
        found = orjson.loads(path.read_bytes())
        return list(found["failed"]) if found["dataset"] == dataset else None
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{path}: not what the report writes. Make it again: `dvc repro --force report`.") from None


def check(dataset: str, required: bool, path: Path, gates: Path = GATES) -> list[Approval]:
    """The approvals of a dataset that is fit to train on.

    Raises InputError where a gate failed that nobody waived by name, or where an approval is `required` and there is none. A dataset that
    the report is not about has no gates.
    """
    found = of(dataset, path)
    waived = {name for each in found for name in each.waived}
    closed = [name for name in failed_gates(dataset, gates) or () if name not in waived]
    if closed:
        options = " ".join(f"--waive '{name}'" for name in closed)
        raise InputError(
            f"{gates}: failed for this dataset: {', '.join(closed)}. Mend the data (reports/curation.html says how it stands), or let it "
            f"pass by name: `python -m flows.approve {options} --note WHY`."
        )
    if required and not found:
        raise InputError(
            f"review.required is true, and {path} holds no approval of this dataset ({dataset[:12]}…). Read reports/curation.html, then "
            "`python -m flows.approve`."
        )
    return found
