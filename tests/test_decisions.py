"""Decisions: read strictly, appended whole whoever else writes, settled by time, and never a way for personal data into git."""

import multiprocessing
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from curate import decisions, ledger
from curate.decisions import Decision
from curate.pii.fresh import finder
from curate.pii.settings import ScrubParams
from curate.record import InputError
from tests.helpers import chat, section

ROW = chat("Where is my parcel?", "It left us on Monday, <PERSON_1>.", label="delivery")
SEEN = decisions.seen(ROW)


def nothing(texts: Any) -> list[str]:
    return []


def made(action: str = "keep", reviewer: str = "anna", at: int = 0, **more: Any) -> Decision:
    base: dict[str, Any] = {"id": ROW["id"], "source": "t.jsonl", "line": 1, "seen": SEEN, "action": action, "reviewer": reviewer}
    return decisions.parse(base | {"time": f"2026-11-26T09:00:{at:02}Z"} | more)


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in lines))
    return path


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "decisions.jsonl"
    turns = [{"role": "user", "content": "Where?", "extra": None}, {"role": "assistant", "content": "Here.", "extra": '{"a":1}'}]
    sent = [
        made("keep"), made("drop", at=1, reason="suspicious"), made("relabel", at=2, label="refund"),
        made("edit", at=3, messages=turns, label="refund"), made("note", at=4, note="Ask again."),
    ]  # fmt: skip
    sent.append(made("undo", at=5, undoes=sent[1].key))
    assert [decisions.append(path, each, nothing) for each in sent] == sent
    assert decisions.read(path) == sent
    first = orjson.loads(path.read_bytes().splitlines()[0])
    assert first == {
        "id": ROW["id"], "source": "t.jsonl", "line": 1, "action": "keep", "reviewer": "anna", "time": "2026-11-26T09:00:00.000000Z",
        "seen": SEEN,
    }  # fmt: skip


def test_append_puts_the_time_in(tmp_path: Path) -> None:
    before = ledger.now()
    written = decisions.append(tmp_path / "d.jsonl", replace(made(), time=""), nothing)
    assert before <= written.time <= ledger.now()
    assert decisions.read(tmp_path / "d.jsonl") == [written]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"action": "delete"}, "action"),
    ({"id": "7"}, "32 hex digits"),
    ({"reviewer": " "}, "reviewer"),
    ({"reviewer": "a\nb"}, "reviewer"),
    ({"action": "relabel"}, "needs 'label'"),
    ({"action": "edit"}, "needs 'messages'"),
    ({"action": "edit", "messages": []}, "needs 'messages'"),
    ({"action": "edit", "messages": [{"role": "user", "content": " "}]}, "empty"),
    ({"action": "edit", "messages": [{"role": "robot", "content": "x"}]}, "role"),
    ({"action": "edit", "messages": [{"role": "user", "content": "x", "extra": "{"}]}, "extra"),
    ({"action": "keep", "label": "x"}, "does not go with"),
    ({"action": "undo"}, "needs 'undoes'"),
    ({"seen": None}, "seen"),
    ({"time": "yesterday"}, "ISO 8601"),
    ({"time": "2026-11-26T09:00:00"}, "no offset"),
    ({"colour": "red"}, "colour"),
    ({"line": "1"}, "line"),
]


@pytest.mark.parametrize(("change", "word"), WRONG)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    path = write(tmp_path / "d.jsonl", ledger.as_json(made()), ledger.as_json(made(at=1)) | change)
    with pytest.raises(InputError, match=f"line 2: .*{word}"):
        decisions.read(path)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"{broken\n{}\n", "not JSON"),
        (b"[1]\n", "expected an object"),
        (b"<<<<<<< HEAD\n{}\n", "conflict"),
        (b'{"a":"\xff"}\n', "not JSON"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes, word: str) -> None:
    with pytest.raises(InputError, match=f"line 3: .*{word}"):
        decisions.read(write(tmp_path / "d.jsonl", ledger.as_json(made()), b"\n", line))


def test_a_missing_file_says_what_to_do_and_an_empty_one_is_fine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="touch"):
        decisions.read(tmp_path / "d.jsonl")
    assert decisions.read(write(tmp_path / "d.jsonl")) == []


def test_a_torn_last_line_is_passed_over_and_set_aside_by_the_next_writer(tmp_path: Path) -> None:
    torn = orjson.dumps(ledger.as_json(made("drop", at=1)))[:-9]
    path = write(tmp_path / "d.jsonl", ledger.as_json(made()), torn)
    assert decisions.read(path) == [made()]
    decisions.append(path, made("drop", at=2), nothing)
    assert decisions.read(path) == [made(), made("drop", at=2)]
    assert (tmp_path / "d.jsonl.torn").read_bytes() == torn + b"\n"


def test_a_last_line_without_an_end_is_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", orjson.dumps(ledger.as_json(made())))
    decisions.append(path, made("drop", at=1), nothing)
    assert decisions.read(path) == [made(), made("drop", at=1)]


def _reviewer(path: Path, name: str, count: int) -> None:
    for at in range(count):
        decisions.append(path, made("note", name, at, note="x" * random.Random(f"{name}{at}").randrange(20_000)), nothing)


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "d.jsonl", 25
    names = ["anna", "ben", "cleo", "dan"]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_reviewer, args=(path, name, count)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = decisions.read(path)
    assert {name: [each.time for each in found if each.reviewer == name] for name in names} == {
        name: [made(at=at).time for at in range(count)] for name in names
    }


def test_a_file_that_was_replaced_meanwhile_is_written_in_its_new_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.jsonl", ledger.as_json(made()))
    real = ledger._is_still
    replaced: list[bool] = []

    def once(handle: int, where: Path) -> bool:
        if not replaced:  # git checks another version out between opening and locking
            replaced.append(True)
            write(tmp_path / "other", ledger.as_json(made("drop", at=1))).replace(path)
        return real(handle, where)

    monkeypatch.setattr(ledger, "_is_still", once)
    decisions.append(path, made(at=2), nothing)
    assert decisions.read(path) == [made("drop", at=1), made(at=2)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.jsonl", ledger.as_json(made()))
    before = path.read_bytes()
    real = os.write
    calls = []

    def half(handle: int, content: bytes) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, content[:20])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="space"):
        decisions.append(path, made(at=1), nothing)
    assert path.read_bytes() == before


def test_a_line_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl")
    with pytest.raises(InputError, match="longer than 4 MiB"):
        decisions.append(path, made("note", note="x" * (5 << 20)), nothing)
    assert path.read_bytes() == b""


# --- what is in force -----------------------------------------------------------------------------------------------------------------


def shuffled(*some: Decision) -> list[Decision]:
    order = list(some)
    random.Random(5).shuffle(order)
    return order


def test_the_newest_of_a_reviewer_counts_whatever_the_order_of_lines() -> None:
    keep, drop, note = made("keep"), made("drop", at=1), made("note", at=2, note="hm")
    assert decisions.settled(shuffled(keep, drop, note)) == {ROW["id"]: decisions.Settled(drop)}


def test_reviewers_who_differ_are_listed_and_the_newest_is_in_force() -> None:
    anna, ben, cleo = made("drop", "anna", 1), made("keep", "ben", 2), made("keep", "cleo", 0)
    found = decisions.settled(shuffled(anna, ben, cleo))[ROW["id"]]
    assert (found.decision, found.others) == (ben, (anna,))
    other = made("relabel", "dan", 3, label="refund")
    assert decisions.settled([other, made("relabel", "anna", 2, label="delivery")])[ROW["id"]].others != ()


def test_an_undo_brings_back_what_stood_before_and_can_be_undone() -> None:
    keep, drop = made("keep"), made("drop", at=1)
    undo = made("undo", at=2, undoes=drop.key)
    redo = made("undo", at=3, undoes=undo.key)
    assert decisions.settled(shuffled(keep, drop, undo))[ROW["id"]].decision == keep
    assert decisions.settled(shuffled(keep, drop, undo, redo))[ROW["id"]].decision == drop
    assert decisions.settled([drop, undo]) == {}


@pytest.mark.parametrize("change", [{"reviewer": "ben"}, {"id": "0" * 32}, {"undoes": "0" * 16}, {"at": 0}])
def test_an_undo_needs_an_earlier_decision_of_the_same_reviewer_on_the_row(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl")
    drop = decisions.append(path, made("drop", at=1), nothing)
    wrong: dict[str, Any] = {"action": "undo", "at": 2, "undoes": drop.key} | change
    undo = made(**wrong)
    before = path.read_bytes()
    with pytest.raises(InputError, match="undo of"):
        decisions.append(path, undo, nothing)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="undo of"):
        decisions.read(write(path, ledger.as_json(drop), ledger.as_json(undo)))


def _judged(reviewer: str, verdicts: str) -> list[Decision]:
    words = {"k": "keep", "d": "drop"}
    return [made(words[each], reviewer, id=f"{at:032x}") for at, each in enumerate(verdicts)]


def test_kappa_is_cohens() -> None:
    # The textbook's table: 20 both keep, 15 both drop, 5 and 10 apart: observed 0.7, by chance 0.5, kappa 0.4.
    both = _judged("anna", "k" * 25 + "d" * 25) + _judged("ben", "k" * 20 + "d" * 5 + "k" * 10 + "d" * 15)
    [found] = decisions.kappa(both)
    assert (found.one, found.other, found.rows, found.agreed) == ("anna", "ben", 50, 35)
    assert found.kappa == pytest.approx(0.4)


def test_kappa_of_reviewers_who_say_one_thing_only_is_unknown_and_of_those_apart_there_is_none() -> None:
    [found] = decisions.kappa(_judged("anna", "kk") + _judged("ben", "kkk"))
    assert (found.rows, found.agreed, found.kappa) == (2, 2, None)
    assert decisions.kappa([*_judged("anna", "k"), made("keep", "ben")]) == []
    labels = [made("relabel", "anna", label="a"), made("relabel", "ben", label="b")]
    assert decisions.kappa(labels)[0].kappa == 0


# --- personal data --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def params() -> ScrubParams:
    found: ScrubParams = section("scrub", ScrubParams)
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"action": "edit", "messages": [{"role": "user", "content": "Write to jo.bloggs@freemail.org"}]},
        {"action": "edit", "messages": [{"role": "user", "content": "Hi", "extra": '{"mail":"jo.bloggs@freemail.org"}'}]},
        {"action": "note", "note": "This was jo.bloggs@freemail.org"},
        {"action": "relabel", "label": "jo.bloggs@freemail.org"},
        {"action": "drop", "reason": "of jo.bloggs@freemail.org"},
    ],
)
def test_personal_data_does_not_come_back_through_a_decision(tmp_path: Path, params: ScrubParams, change: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl")
    with pytest.raises(InputError, match="EMAIL_ADDRESS") as refused:
        decisions.append(path, made(**change), finder(ROW, params))
    assert "bloggs" not in str(refused.value)
    assert path.read_bytes() == b""


def test_what_the_row_shows_already_may_stay(tmp_path: Path, params: ScrubParams) -> None:
    shown = chat("Write to sam.fake@freemail.org", "Done.")  # a surrogate
    edit = made("edit", messages=[{"role": "user", "content": "Please write to sam.fake@freemail.org, <PERSON_1>."}])
    decisions.append(tmp_path / "d.jsonl", edit, finder(shown, params))
    assert decisions.read(tmp_path / "d.jsonl") == [edit]
    assert finder(shown, params)(["Write to other.fake@freemail.org"]) == ["EMAIL_ADDRESS"]
    assert finder(shown, section("scrub", ScrubParams, "enabled=false"))(["jo@freemail.org"]) == []
