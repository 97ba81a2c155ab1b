"""Reviewing in another tool: what goes out can be answered there, what comes back is a decision, and coming back twice changes nothing."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import orjson
import pytest

from curate import decisions, review
from flows import exchange
from tests.helpers import run_stage
from tests.reviewing import HOSTILE, ROWS, fresh

USER = "5a1e2f3c-0000-4000-8000-000000000001"
KEEP, DROP, RELABEL, EDIT, SKIPPED = ROWS[:5]
SAID: dict[str, dict[str, str]] = {
    KEEP["id"]: {"decision": "keep", "note": "Fine."},
    DROP["id"]: {"decision": "drop"},
    RELABEL["id"]: {"decision": "relabel", "label": "cost"},
    EDIT["id"]: {"decision": "edit", "answer": "The black plan is 99 pounds."},
}


@pytest.fixture
def data(reviewable: Path, tmp_path: Path) -> Path:
    return fresh(reviewable, tmp_path / "data")


def run(data: Path, way: str, file: Path, tool: str, *more: str) -> None:
    exchange.main([way, str(file), "--tool", tool, "--data", str(data), *more])


def out(data: Path, tool: str, *more: str) -> Any:
    file = data.parent / "tasks.json"
    run(data, "out", file, tool, "--queue", "all", *more)
    return orjson.loads(file.read_bytes())


def answered(found: Any, tool: str, said: dict[str, dict[str, str]], **more: Any) -> Any:
    """What the tool exports once somebody has said this; `more`: fields of Label Studio's annotations."""
    for each in found:
        answers = said.get(each["id"] if tool == "argilla" else each["data"]["finery_id"])
        if answers is not None and tool == "argilla":
            each["responses"] = {name: [{"value": value, "user_id": USER}] for name, value in answers.items()}
        elif answers is not None:
            result = [
                {
                    "from_name": name,
                    "to_name": "row",
                    "type": kind,
                    "value": {"choices": [value]} if kind == "choices" else {"text": [value]},
                }
                for name, value in answers.items()
                for kind in ["choices" if name in ("decision", "label") else "textarea"]
            ]
            about = {"completed_by": {"id": 10, "email": USER}, "created_at": "2026-11-26T09:30:00.5Z", "was_cancelled": False}
            each["annotations"] = [about | {"result": result} | more]
    return found


def back(data: Path, tool: str, found: Any, *more: str) -> list[decisions.Decision]:
    file = data.parent / "answers.json"
    file.write_bytes(orjson.dumps(found))
    run(data, "in", file, tool, *more)
    return decisions.read(data / "decisions.jsonl")


@pytest.mark.parametrize("tool", exchange.TOOLS)
def test_what_people_say_there_is_applied_here_and_once(data: Path, tool: str) -> None:
    export = answered(out(data, tool), tool, SAID)
    made = back(data, tool, export, "--person", f"{USER}=anna")
    assert {each.id: each.action for each in made} == {row: said["decision"] for row, said in SAID.items()}
    assert {each.reviewer for each in made} == {"anna"} and {each.reason for each in made} == {tool}
    if tool == "label-studio":
        assert {each.time for each in made} == {"2026-11-26T09:30:00.500000Z"}
    assert next(each.note for each in made if each.action == "keep") == "Fine."
    assert back(data, tool, export, "--person", f"{USER}=anna") == made
    metrics = run_stage(review.STAGE, data / "dedup_near", data / "review", f"decisions={data / 'decisions.jsonl'}")
    assert metrics["counts"]["decisions_applied"] == 4 and metrics["dropped"] == 1


@pytest.mark.parametrize("tool", exchange.TOOLS)
def test_tasks_hold_the_row_and_what_speaks_against_it(data: Path, tool: str) -> None:
    found = out(data, tool)
    assert len(found) == len(ROWS) - 1
    assert len(out(data, tool, "--most", "3")) == 3
    file = data.parent / "near.json"
    run(data, "out", file, tool, "--queue", "near/near-duplicate")
    (task,) = orjson.loads(file.read_bytes())
    about = task["data"] if tool == "label-studio" else task["fields"]
    assert "% alike" in about["why"] and about["messages"][0] == {"role": "user", "content": "How do I plug it in?"}


def test_the_interface_offers_every_label_whatever_it_holds(data: Path) -> None:
    out(data, "label-studio")
    root = ET.fromstring((data.parent / "tasks.xml").read_text())
    choices = {each.get("name"): [choice.get("value") for choice in each] for each in root.iter("Choices")}
    assert choices["decision"] == ["keep", "drop", "relabel", "edit"]
    assert {"price", "setup", HOSTILE[0]} <= set(choices["label"])
    assert {each.get("value") for each in root.iter("Paragraphs")} == {"$messages", "$rejected"}


@pytest.mark.parametrize("tool", exchange.TOOLS)
def test_what_cannot_be_taken_is_named_and_keeps_nothing_else_back(data: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = SAID | {
        SKIPPED["id"]: {"decision": "destroy"},
        ROWS[5]["id"]: {"decision": "edit", "answer": ROWS[5]["messages"][-1]["content"]},
        ROWS[6]["id"]: {"decision": "keep", "note": "Ask anna.kowalska@mail.example.com."},
    }
    export = answered(out(data, tool), tool, said)
    changed = next(each for each in export if (each["id"] if tool == "argilla" else each["data"]["finery_id"]) == KEEP["id"])
    (changed["metadata"] if tool == "argilla" else changed["data"])["seen" if tool == "argilla" else "finery_seen"] = "0" * 32
    with pytest.raises(SystemExit) as error:
        back(data, tool, export)
    told = f"{error.value} {capsys.readouterr().err}"
    assert "4 answers could not be taken" in told
    for part in ("'destroy' is none of", "the answer is the one that the row has", "EMAIL_ADDRESS", "another content", SKIPPED["id"]):
        assert part in told
    assert [each.action for each in decisions.read(data / "decisions.jsonl")] == ["drop", "relabel", "edit"]


def test_cancelled_annotations_and_those_without_an_answer_decide_nothing(data: Path) -> None:
    export = out(data, "label-studio")
    assert back(data, "label-studio", answered(export, "label-studio", SAID, was_cancelled=True)) == []
    assert back(data, "label-studio", answered(export, "label-studio", {KEEP["id"]: {"label": "price"}})) == []


def test_an_answer_alone_says_what_it_means(data: Path) -> None:
    said = {
        KEEP["id"]: {"label": "cost"},
        DROP["id"]: {"answer": "New."},
        RELABEL["id"]: {"note": "Hm."},
        EDIT["id"]: {"label": "a", "answer": "b"},
    }
    made = {each.id: each for each in back(data, "argilla", answered(out(data, "argilla"), "argilla", said))}
    assert [made[row].action for row in said] == ["relabel", "edit", "note", "edit"]
    assert made[EDIT["id"]].label == "a"


BROKEN = [
    (b"{", "not JSON"), (b"{}", "expected a JSON list"), (b'[{"data": {"text": "x"}}]', "task 1 has no finery_id"), (None, "no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "word"), BROKEN)
def test_a_file_of_something_else_is_refused(data: Path, content: bytes | None, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = data.parent / "answers.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as error:
        run(data, "in", file, "label-studio")
    assert word in f"{error.value} {capsys.readouterr().err}"
    assert (data / "decisions.jsonl").read_bytes() == b""


def test_an_empty_queue_writes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(data, "out", data.parent / "tasks.json", "argilla", "--queue", "suspicious")
    assert "is empty" in f"{error.value} {capsys.readouterr().err}"
    with pytest.raises(SystemExit) as error:
        run(data, "out", data.parent / "tasks.json", "argilla", "--queue", "nowhere")
    assert "no queue 'nowhere'" in f"{error.value} {capsys.readouterr().err}"
    assert not (data.parent / "tasks.json").exists()
