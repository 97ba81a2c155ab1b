"""The review stage: decisions change exactly the rows that they name, and those that no longer match a row are told."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from curate import decisions, decontaminate, dedup_semantic, embed, review, store
from curate.decisions import Decision
from curate.record import InputError
from tests.helpers import chat, document, dropped, frame, preference, row, run_stage, write_input

ROWS = [
    *(chat(f"What does plan {at} cost?", f"It is {at} pounds a month.", label="price") for at in range(6)),
    chat("First?", "One.", "Second?", "Two.", label="talk", system="Be brief."),
    preference("Which is better?", "The good one.", "The bad one."),
    document("A page about nothing at all."),
]


def made(of: dict[str, Any], action: str, at: int = 0, **more: Any) -> Decision:
    base = {"id": of["id"], "source": of["source"], "line": 7, "seen": decisions.seen(of), "action": action, "reviewer": "anna"}
    return decisions.parse(base | {"time": f"2026-11-26T09:00:{at:02}Z"} | more)


def turns(*texts: str, roles: tuple[str, ...] = ("user", "assistant")) -> list[dict[str, Any]]:
    return [{"role": roles[at % len(roles)], "content": text, "extra": None} for at, text in enumerate(texts)]


def reviewed(tmp_path: Path, *some: Decision, rows: list[dict[str, Any]] = ROWS, **options: Any) -> tuple[Path, dict[str, Any]]:
    """The stage's folder and metrics for these decisions on `rows`."""
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(b"")
    for each in some:
        decisions.append(path, each, lambda texts: [])
    if not (tmp_path / "in").exists():
        write_input(frame(rows), tmp_path / "in")
    metrics = run_stage(review.STAGE, tmp_path / "in", tmp_path / "out", f"decisions={path}", **options)
    return tmp_path / "out", metrics


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in store.read_rows(folder).to_dicts()}


def states(folder: Path) -> dict[str, str]:
    return dict(pl.read_parquet(folder / "decisions.parquet").select("id", "state").iter_rows())


def test_no_decisions_change_no_byte(tmp_path: Path) -> None:
    out, metrics = reviewed(tmp_path)
    assert (out / "kept/part-00000.parquet").read_bytes() == (tmp_path / "in/kept/part-00000.parquet").read_bytes()
    assert (metrics["kept"], metrics["dropped"], states(out)) == (len(ROWS), 0, {})


def test_exactly_the_decided_rows_change(tmp_path: Path) -> None:
    keep, drop, relabel, edit, undone, noted = ROWS[:6]
    gone = chat("A row that nobody has any more?", "No.")
    dropped_for_now = made(undone, "drop", 1)
    out, metrics = reviewed(
        tmp_path,
        made(keep, "keep"),
        made(drop, "drop", reason="suspicious", note="Says nothing."),
        made(relabel, "relabel", label="cost"),
        made(edit, "edit", messages=turns("What does plan 3 cost?", "It is 30 pounds."), label="cost"),
        dropped_for_now,
        made(undone, "undo", 2, undoes=dropped_for_now.key),
        made(noted, "note", note="Look again."),
        made(gone, "drop"),
    )
    before, after = kept(tmp_path / "in"), kept(out)
    assert set(before) - set(after) == {drop["id"]}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {keep["id"], relabel["id"], edit["id"]}
    mark = {"meta": '{"finery_review":"keep"}'}
    assert after[keep["id"]] == before[keep["id"]] | mark
    assert after[relabel["id"]] == before[relabel["id"]] | {"label": "cost", "meta": '{"finery_review":"relabel"}'}
    new = {"label": "cost", "messages": turns("What does plan 3 cost?", "It is 30 pounds."), "meta": '{"finery_review":"edit"}'}
    assert after[edit["id"]] == before[edit["id"]] | new
    [row] = dropped(out)
    assert (row["id"], row["reason"], row["line"]) == (drop["id"], "reviewed", 2)
    assert row["evidence"] == {
        "reviewer": "anna", "time": "2026-11-26T09:00:00.000000Z", "reason": "suspicious", "note": "Says nothing.",
    }  # fmt: skip
    assert "Says" not in row["detail"]
    assert states(out) == {each["id"]: "applied" for each in (keep, drop, relabel, edit)} | {gone["id"]: "vanished"}
    assert {name: count for name, count in metrics["counts"].items() if count} == {
        "decisions_applied": 4, "decisions_vanished": 1, "applied_keep": 1, "applied_drop": 1, "applied_relabel": 1, "applied_edit": 1,
    }  # fmt: skip


def test_meta_and_order_of_rows_stay(tmp_path: Path) -> None:
    rows = [row("chat", turns(f"Question {at}?", "Yes."), meta={"ticket": at, "date": "2026-01-02"}) for at in range(5)]
    out, _ = reviewed(tmp_path, made(rows[2], "keep"), made(rows[4], "drop"), rows=rows)
    after = store.read_rows(out)
    assert after["id"].to_list() == [each["id"] for each in rows[:4]]
    assert orjson.loads(after["meta"][2]) == {"ticket": 2, "date": "2026-01-02", "finery_review": "keep"}


def test_a_decision_about_another_content_is_told_and_not_applied(tmp_path: Path) -> None:
    was = dict(ROWS[0], messages=turns("What does plan 0 cost?", "It was free."))
    labelled = dict(ROWS[1], label="old")
    out, metrics = reviewed(tmp_path, made(was, "drop"), made(labelled, "relabel", label="new"))
    assert kept(out) == kept(tmp_path / "in")
    assert states(out) == {ROWS[0]["id"]: "changed", ROWS[1]["id"]: "changed"}
    assert metrics["counts"]["decisions_changed"] == 2
    assert "Look at it again" in pl.read_parquet(out / "decisions.parquet")["detail"][0]


@pytest.mark.parametrize(
    ("number", "messages", "fits"),
    [
        (6, turns("Be kind.", "First?", "One.", roles=("system", "user", "assistant")), True),  # later turns taken out
        (6, turns("First?", "One.", "Second?", "Two."), False),  # without its system message
        (6, turns("Be kind.", "First?", roles=("system", "user")), False),  # ends with the user
        (0, turns("A?", "B.", "C?", "D."), False),  # longer than the row
        (0, turns("All one text.", roles=("text",)), False),
        (8, turns("Another page.", roles=("text",)), True),
    ],
)
def test_an_edit_keeps_the_shape_of_its_row(tmp_path: Path, number: int, messages: list[dict[str, Any]], fits: bool) -> None:
    out, _ = reviewed(tmp_path, made(ROWS[number], "edit", messages=messages))
    assert states(out) == {ROWS[number]["id"]: "applied" if fits else "unfit"}
    assert (kept(out)[ROWS[number]["id"]]["messages"] == messages) == fits


def test_both_answers_of_a_pair_can_be_edited_and_a_chat_has_no_second(tmp_path: Path) -> None:
    pair, better, worse = ROWS[7], turns("Which?", "This."), turns("Which?", "That.")
    out, _ = reviewed(tmp_path, made(pair, "edit", messages=better, rejected=worse), made(ROWS[0], "edit", messages=better, rejected=worse))
    assert states(out) == {pair["id"]: "applied", ROWS[0]["id"]: "unfit"}
    after = kept(out)[pair["id"]]
    assert (after["messages"], after["rejected"]) == (better, worse)


def test_reviewers_who_differ_are_named(tmp_path: Path) -> None:
    out, metrics = reviewed(tmp_path, made(ROWS[0], "drop", 1, reviewer="ben"), made(ROWS[0], "keep", 2))
    assert ROWS[0]["id"] in kept(out)
    table = pl.read_parquet(out / "decisions.parquet")
    assert (table["reviewer"].to_list(), table["differ"].to_list(), metrics["counts"]["decisions_differ"]) == (["anna"], ["ben"], 1)


def test_workers_and_parts_change_nothing(tmp_path: Path) -> None:
    rows = [chat(f"Question number {at}?", f"Answer {at}.") for at in range(9000)]
    some = [made(rows[at], "drop") for at in range(0, 9000, 500)] + [made(rows[at], "relabel", label="x") for at in range(1, 9000, 500)]
    out, one = reviewed(tmp_path, *some, rows=rows)
    first = {path.name: path.read_bytes() for path in out.rglob("*.parquet")}
    out, two = reviewed(tmp_path, *some, rows=rows, workers=2)
    assert one == two and first == {path.name: path.read_bytes() for path in out.rglob("*.parquet")}
    assert one["dropped"] == 18 and one["counts"]["applied_relabel"] == 18


def test_a_broken_line_stops_the_stage_and_leaves_the_output(tmp_path: Path) -> None:
    out, _ = reviewed(tmp_path, made(ROWS[0], "drop"))
    before = (out / "dropped.parquet").read_bytes()
    (tmp_path / "decisions.jsonl").write_text('{"id": 3}\n')
    with pytest.raises(InputError, match=r"decisions\.jsonl, line 1: .*Mend the line"):
        run_stage(review.STAGE, tmp_path / "in", out, f"decisions={tmp_path / 'decisions.jsonl'}")
    assert (out / "dropped.parquet").read_bytes() == before


# --- what a keep protects from, and what not ------------------------------------------------------------------------------------------


def test_rows_that_reviewers_keep_are_no_duplicates_in_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "embed", lambda texts, model, batch_size: np.tile([1.0, 0.0], (len(texts), 1)).astype(np.float32))
    monkeypatch.setattr(embed, "fingerprint", lambda model: "same for all")
    monkeypatch.setattr(embed, "dimensions", lambda model: 2)
    out, _ = reviewed(tmp_path)
    run_stage(dedup_semantic.STAGE, out, tmp_path / "plain", "enabled=true")
    assert len(kept(tmp_path / "plain")) == 1, "all mean the same to this model"
    out, _ = reviewed(tmp_path, made(ROWS[2], "keep"), made(ROWS[4], "relabel", label="x"))
    run_stage(dedup_semantic.STAGE, out, tmp_path / "semantic", "enabled=true")
    assert set(kept(tmp_path / "semantic")) == {ROWS[2]["id"], ROWS[4]["id"]}
    evidence = {each["evidence"]["kept_id"] for each in dropped(tmp_path / "semantic")}
    assert evidence <= {ROWS[2]["id"], ROWS[4]["id"]} and evidence


def test_a_keep_does_not_excuse_a_leak(tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    leak = {"question": "How many spare fuses lie in the drawer of the green cabinet?", "answer": "Four of them."}
    (tmp_path / "exam/exam.jsonl").write_bytes(orjson.dumps(leak))
    rows = [*ROWS, chat(leak["question"], leak["answer"])]
    out, _ = reviewed(tmp_path, made(rows[-1], "keep"), rows=rows)
    run_stage(decontaminate.STAGE, out, tmp_path / "clean", f"benchmarks={tmp_path / 'exam'}")
    assert [each["id"] for each in dropped(tmp_path / "clean")] == [rows[-1]["id"]]
