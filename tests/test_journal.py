"""A killed generation goes on: the same file as an uninterrupted one, and nothing generated twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curate.record import InputError, StageFailure
from evaluate import journal
from tests.helpers import ROOT

BATCHES = [[4, 1], [0, 2, 3], [5], [7, 6]]
# Writes what it was asked into the log; sleeps in the batch with item 5, where it is killed.
SCRIPT = """
import sys, time
from pathlib import Path
from evaluate import journal
def work(batch):
    with open(sys.argv[2], "a") as log:
        log.write(f"{batch}\\n")
    if 5 in batch and sys.argv[3] == "sleep":
        time.sleep(60)
    return [{"output": f"answer {item}"} for item in batch]
journal.run(Path(sys.argv[1]), "test", BATCHES, work)
""".replace("BATCHES", str(BATCHES))


def start(path: Path, log: Path, how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(log), how], cwd=ROOT, stderr=subprocess.DEVNULL)


def test_killed_and_resumed(tmp_path):
    whole, killed, log = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl", tmp_path / "log"
    assert start(whole, tmp_path / "other", "go").wait(30) == 0
    process = start(killed, log, "sleep")
    deadline = time.monotonic() + 30
    while "[5]" not in (log.read_text() if log.exists() else "") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert len(killed.read_bytes().splitlines()) == 5  # the two batches before
    log.write_text("")
    assert start(killed, log, "go").wait(30) == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert log.read_text().split("\n")[:-1] == ["[5]", "[7, 6]"]


def test_a_batch_written_in_part_is_asked_again_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    journal.run(path, "test", BATCHES, lambda batch: [{"output": item} for item in batch])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b'{"item":3') + 5])
    asked = []
    journal.run(path, "test", BATCHES, lambda batch: asked.append(batch) or [{"output": item} for item in batch])
    assert asked == BATCHES[1:] and path.read_bytes() == whole
    assert [row["item"] for row in journal.read(path)] == [item for batch in BATCHES for item in batch]


def test_results_for_other_items_are_refused(tmp_path):
    with pytest.raises(StageFailure, match="1 results for 2 items"):
        journal.run(tmp_path / "a.jsonl", "test", BATCHES, lambda _: [{}])
    assert (tmp_path / "a.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'{"item":0,', b'{"item":0 ', "line 3 is not valid JSON"),
        (b'"item":0,', b'"it":0,', "line 3 has no item"),
        (b'{"item":0,"output":"x"}', b"[1]", "line 3 has no item"),
    ],
)
def test_a_line_that_somebody_edited_is_named(tmp_path, old, new, says):
    path = tmp_path / "a.jsonl"
    journal.run(path, "test", BATCHES, lambda batch: [{"output": "x"} for _ in batch])
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(InputError, match=rf"a\.jsonl: {says}.*delete it and run again"):
        journal.run(path, "test", BATCHES, lambda batch: [{"output": "x"} for _ in batch])


@pytest.mark.parametrize("line", [b'{"item":0}', b'{"item":0,"output":3}', b'{"item":0,"output":"x","more":1}'])
def test_a_line_with_other_fields_or_kinds_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    journal.run(path, "test", BATCHES, lambda batch: [{"output": "x"} for _ in batch])
    path.write_bytes(path.read_bytes().replace(b'{"item":0,"output":"x"}', line, 1))
    with pytest.raises(InputError, match="line 3 has other fields, or values of another kind"):
        journal.read(path)


def test_no_value_and_whole_numbers_are_not_another_kind(tmp_path):
    path = tmp_path / "a.jsonl"
    values = iter([1.5, None, 2, 3.0, 1, 1, 1, 1])
    journal.run(path, "test", BATCHES, lambda batch: [{"loss": next(values)} for _ in batch])
    assert [row["loss"] for row in journal.read(path)][:4] == [1.5, None, 2, 3.0]
