"""curate/trace.py: a row's life is told whole, without its text before scrub, and unknown rows get help."""

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from curate import clean, dedup_exact, record, store, trace
from curate.record import InputError
from tests.helpers import chat, frame, run_stage, write_input

ASKED = "My cafÃ© line is down, can jane@example.com be told when it is back?"
SCRUBBED = "My café line is down, can <EMAIL> be told when it is back?"
ANSWER = "We will write to that address as soon as the line is up again."


def _put(
    data: Path, stage: str, rows: pl.DataFrame, splits: dict[str, pl.DataFrame] | None = None, gone: pl.DataFrame | None = None
) -> None:
    write_input(rows, data / stage, splits)
    store.write_parquet(record.empty(record.DROPPED) if gone is None else gone, data / stage / "dropped.parquet")


def _gone(row: dict[str, Any], reason: str, **evidence: Any) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "id": row["id"],
                "source": row["source"],
                "line": row["line"],
                "reason": reason,
                "detail": "Why.",
                "evidence": orjson.dumps(evidence).decode(),
            }
        ],
        schema=record.DROPPED,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six raw rows through clean and dedup_exact as they are, and through hand-made scrub, dedup_near, split and augment."""
    data = tmp_path_factory.mktemp("work") / "data"
    raw = [
        chat(ASKED, ANSWER, label="outage", source="mail:box/a.jsonl", line=1),
        chat(ASKED, ANSWER.upper(), source="mail:box/a.jsonl", line=2),
        chat("Can you fix my bill?", "I'm sorry, but I can't help with that.", source="mail:box/a.jsonl", line=3),
        chat("Is the hub on? It blinks.", "It is starting, wait a minute.", source="tickets.csv", line=4),
        chat("What is a pod?", "A small second transmitter.", source="tickets.csv", line=5),
        chat("What is a pod?", "A small second transmitter.", source="tickets.csv", line=6),
    ]
    broken = _gone({"id": "0" * 32, "source": "tickets.csv", "line": 9}, "malformed")
    _put(data, "ingest", frame(raw), gone=broken)
    run_stage(clean.STAGE, data / "ingest", data / "clean")
    run_stage(dedup_exact.STAGE, data / "clean", data / "dedup_exact")
    rows = store.read_rows(data / "dedup_exact").to_dicts()
    rows[0]["messages"][0]["content"] = SCRUBBED
    _put(data, "scrub", frame(rows))
    finding = {"id": rows[0]["id"], "source": rows[0]["source"], "line": 1, "field": "messages", "turn": 0, "entity": "EMAIL_ADDRESS"}
    pl.DataFrame([finding], schema_overrides={"turn": pl.UInt32}).write_parquet(data / "scrub" / "findings.parquet")
    proof = {"kept_id": rows[0]["id"], "kept_source": rows[0]["source"], "kept_line": 1, "similarity": 0.91}
    _put(data, "dedup_near", frame([rows[0], rows[2]]), gone=_gone(rows[1], "near_duplicate", **proof))
    _put(data, "split", frame([]), splits={"train": frame([rows[0]]), "validation": frame([rows[2]])})
    meta = orjson.dumps({"synthetic": {"method": "typos", "parent": rows[0]["id"]}}).decode()
    child = rows[0] | {"id": "c" * 32, "meta": meta}
    _put(data, "augment", frame([]), splits={"train": frame([rows[0], child]), "validation": frame([rows[2]])})
    return data


def told(data: Path, wanted: str) -> str:
    return "\n".join(trace.trace(data, wanted))


def test_whole_life_of_a_kept_row(data: Path) -> None:
    text = told(data, "mail:box/a.jsonl:1")
    lines = [line.strip() for line in text.splitlines()]
    assert "changed: messages 1 (user), 2 characters" in lines  # Ã© -> é
    assert "replaced in messages 1: 1 EMAIL_ADDRESS" in lines
    assert f"user: {SCRUBBED}" in lines
    assert "dropped in its favour: mail:box/a.jsonl:2 (exact_duplicate)" in lines
    assert "dropped in its favour: tickets.csv:4 (near_duplicate)" in lines
    assert f"made from it: {'c' * 32} (typos)" in lines
    assert "decontaminate  not run yet" in lines
    assert any(line.startswith("split") and "in train" in line for line in lines)
    assert lines[-1] == "Ended: kept by augment, in the train split."


def test_nothing_from_before_scrub_is_shown(data: Path) -> None:
    text = told(data, "mail:box/a.jsonl:1") + told(data, "mail:box/a.jsonl:2") + told(data, "mail:box/a.jsonl:3")
    assert "jane" not in text and "Ã" not in text and "fix my bill" not in text


def test_dropped_rows_end_with_reason_and_evidence(data: Path) -> None:
    assert told(data, "mail:box/a.jsonl:2").endswith("Ended: dropped by dedup_exact (exact_duplicate), in favour of mail:box/a.jsonl:1.")
    refused = told(data, "mail:box/a.jsonl:3")
    assert "pattern: cannot_help_with_that" in refused and refused.endswith("Ended: dropped by clean (refusal).")
    assert "similarity: 0.91" in told(data, "tickets.csv:4")
    assert told(data, "tickets.csv:9").endswith("Ended: dropped by ingest (malformed).")


def test_same_content_twice_is_one_id_and_two_lives(data: Path) -> None:
    row = store.read_rows(data / "ingest").filter(pl.col("line") == 5)
    text = told(data, row["id"][0][:10])
    assert "stands for 2 rows: tickets.csv:5, tickets.csv:6" in text
    assert text.count("Ended: ") == 2 and "in favour of tickets.csv:5." in text
    assert "dropped in its favour: tickets.csv:6 (exact_duplicate)" in text


def test_a_synthetic_row_names_its_parent(data: Path) -> None:
    parent = store.read_rows(data / "ingest")["id"][0]
    assert f"synthetic: made by typos from {parent}" in told(data, "cccc")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("ticket.csv:4", "Did you mean tickets.csv? tickets.csv has lines 4 to 9."),
        ("a.jsnl:1", "mail:box/a.jsonl"),
        ("tickets.csv:77", "no such line. tickets.csv has lines 4 to 9."),
        ("tickets.csv", "which line? tickets.csv has lines 4 to 9."),
        ("ffff0000", "no row has an id that begins so"),
        ("?", "Known sources: mail:box/a.jsonl, tickets.csv."),
    ],
)
def test_unknown_rows_get_help(data: Path, wanted: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        trace.trace(data, wanted)
    assert says in str(error.value)


@pytest.mark.parametrize("written", ["data/raw/tickets.csv:4", "./tickets.csv:4", "data\\raw\\tickets.csv:4"])
def test_other_ways_to_write_a_source(data: Path, written: str) -> None:
    assert told(data, written).startswith("tickets.csv:4  id ")


def test_command_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace.main(["tickets.csv:5", "--data", str(data)])
    assert capsys.readouterr().out.startswith("tickets.csv:5")
    with pytest.raises(SystemExit) as stop:
        trace.main(["tickets.csv:5", "--data", str(data / "nowhere")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "dvc repro" in said and "Traceback" not in said


def test_an_unreadable_part_is_named_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ingest" / "kept").mkdir(parents=True)
    (tmp_path / "ingest" / "kept" / "part-00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(SystemExit) as stop:
        trace.main(["a.jsonl:1", "--data", str(tmp_path)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "part-00000.parquet" in said and "Traceback" not in said


def test_a_row_that_a_stale_stage_does_not_know(data: Path, tmp_path: Path) -> None:
    for stage in ("ingest", "clean"):
        _put(tmp_path, stage, frame([chat("Old question here?", "Old answer.", line=1)]))
    _put(tmp_path, "ingest", frame([chat("New question here?", "New answer.", line=1)]))
    assert "Run `dvc repro`" in told(tmp_path, "t.jsonl:1").splitlines()[-1]


def test_text_cannot_steer_the_terminal(tmp_path: Path) -> None:
    _put(tmp_path, "ingest", frame([chat("\x1b[2J red\u202e\nline", "x" * 999, line=1)]))
    _put(tmp_path, "scrub", frame([chat("\x1b[2J red\u202e\nline", "x" * 999, line=1)]))
    text = told(tmp_path, "t.jsonl:1")
    assert "\x1b" not in text and "\u202e" not in text and "user: ·[2J red· ⏎ line" in text
    assert "x" * 241 not in text and "(999 characters)" in text
