"""The difference to an earlier version: what was added, taken out, rewritten, and what ends elsewhere, known by content and not by line."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate import record
from curate.record import InputError
from curate.reporting import difference, gather
from tests.helpers import chat, frame, write_input


def version(root: Path, rows: list[dict[str, Any]], dropped: dict[str, str]) -> Path:
    """Stages ingest, clean and split over `rows`; `dropped` names the stage that drops a row, by its question."""
    left = frame(rows)
    for name in ("ingest", "clean", "split"):
        asked = left["messages"].list.first().struct.field("content")
        goes = asked.replace_strict(dropped, default="", return_dtype=pl.String) == name
        gone = left.filter(goes).with_columns(reason=pl.lit("r"), detail=pl.lit(""), evidence=pl.lit("{}"))
        left = left.filter(~goes)
        train, test = left[: left.height // 2], left[left.height // 2 :]
        write_input(left, root / name, {"train": train, "test": test} if name == "split" else None)
        record.as_dropped(gone).write_parquet(root / name / "dropped.parquet")
        (root / name / "metrics.json").write_text("{}")
    return root


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    old = [chat(f"question {at}", "yes", label="a" if at < 4 else "b", line=at + 1) for at in range(6)]
    new = [
        chat("a new first line", "yes", label="c", line=1),
        *(row | {"line": row["line"] + 1} for row in old[:4]),  # moved by a line: the same rows
        chat("question 4, rewritten", "yes", label="b", line=5, source="u.jsonl"),
    ]
    old[4] |= {"line": 5, "source": "u.jsonl"}
    return version(tmp_path / "old", old, {"question 0": "clean"}), version(tmp_path / "new", new, {"question 1": "clean"})


def test_rows_are_known_by_their_content(two: tuple[Path, Path]) -> None:
    told = difference.numbers(gather.stages(two[1]), str(two[0]))
    assert told is not None
    assert (told["added"]["rows"], told["added"]["places"]) == (1, ["t.jsonl:1"])
    assert (told["removed"]["rows"], told["removed"]["places"]) == (1, ["t.jsonl:6"])
    assert (told["changed"]["rows"], told["changed"]["places"]) == (1, ["u.jsonl:5"])
    ways = {(move["from"], move["to"]): move["rows"] for move in told["moved"]}
    assert ways["dropped by clean", "train"] == 1 and ways["train", "dropped by clean"] == 1
    assert {each["label"]: (each["before"], each["after"]) for each in told["labels"]} == {"b": (2, 1), "c": (0, 1)}
    assert told["dataset"] == {"before": 5, "after": 5}


def test_the_same_version_has_no_difference(two: tuple[Path, Path]) -> None:
    told = difference.numbers(gather.stages(two[0]), str(two[0]))
    assert told is not None and told["moved"] == [] and told["labels"] == []
    assert [told[name]["rows"] for name in ("added", "removed", "changed")] == [0, 0, 0]
    assert difference.numbers(gather.stages(two[0]), None) is None


def test_what_is_neither_folder_nor_revision_is_a_clear_error(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"report\.previous = v0\.1"):
        difference.numbers(gather.stages(two[0]), "v0.1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="ingest"):
        difference.numbers(gather.stages(two[0]), "empty")


def test_a_git_revision_is_fetched_through_dvc(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")

    def do(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    do("git", "init", "-q")
    do("git", "config", "user.email", "a@b.example")
    do("git", "config", "user.name", "A")
    do("dvc", "init", "-q")
    shutil.copytree(two[0], project / "data")
    (project / "data" / "split").rename(project / "data" / "leakage")  # the stage whose rows are fetched
    for name in ("ingest", "clean", "leakage"):
        do("dvc", "add", "-q", f"data/{name}")
    do("git", "add", ".")
    do("git", "commit", "-qm", "one")
    told, folder = difference.numbers(gather.stages(two[1]), "HEAD"), difference.numbers(gather.stages(two[1]), str(two[0]))
    assert told is not None and folder is not None
    assert told["added"] == folder["added"] and told["moved"] == folder["moved"]
