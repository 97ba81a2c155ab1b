"""A reviewer's session in a real browser: what is decided stands in the file, the stage applies exactly that, hostile rows stay inert."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate import decisions, review, store
from flows.reviewing.server import Server
from tests.helpers import run_stage
from tests.reviewing import HOSTILE, ROWS, fresh, serving

SIZES = {"desktop": (1280, 860), "phone": (390, 844)}


@pytest.fixture
def data(reviewable: Path, tmp_path: Path) -> Path:
    return fresh(reviewable, tmp_path / "data")


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with serving(data) as found:
        yield found


def opened(browser: Any, server: Server, size: str = "desktop", reviewer: str = "anna") -> tuple[Any, list[str]]:
    """The page as `reviewer` sees it first, and a list that gets every error, window and foreign request."""
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(60_000)  # a megabyte in a text field takes its time on a busy machine
    wrong: list[str] = []

    def closed(window: Any) -> None:
        wrong.append(f"window: {window.message}")
        window.dismiss()

    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("dialog", closed)
    page.on("request", lambda each: None if each.url.startswith(f"http://127.0.0.1:{server.port}/") else wrong.append(each.url))
    page.goto(server.url)
    page.get_by_role("dialog").get_by_label("Your name").fill(reviewer)
    page.keyboard.press("Enter")
    page.locator("#row .text").first.wait_for()
    return page, wrong


def to(page: Any, row: dict[str, Any]) -> None:
    """Look for a row among all by its id."""
    if page.locator("#menu").is_visible():
        page.locator("#menu").click()
    page.locator("#queues button", has_text="All rows").click()
    page.locator("#place", has_text=f"of {len(ROWS) - 1},").wait_for()
    page.keyboard.press("/")
    page.keyboard.type(row["id"])
    page.keyboard.press("Enter")
    page.locator("#place", has_text="1 of 1,").wait_for()
    page.locator("#row .text", has_text=row["messages"][0]["content"]).first.wait_for()


def settled(page: Any, said: str) -> None:
    page.locator("#said", has_text=said).wait_for()


def test_a_session_changes_the_file_and_the_stage_exactly_those_rows(browser: Any, server: Server, data: Path, tmp_path: Path) -> None:
    page, wrong = opened(browser, server)
    keep, drop, relabel, edit, undone = ROWS[:5]
    to(page, keep)
    page.keyboard.press("k")
    settled(page, "Kept")
    to(page, drop)
    page.keyboard.press("d")
    settled(page, "Dropped")
    to(page, relabel)
    page.keyboard.press("r")
    page.keyboard.type("cost")
    page.locator("#choices li", has_text="a new label").wait_for()
    page.keyboard.press("Enter")
    settled(page, "Relabelled")
    to(page, edit)
    page.keyboard.press("e")
    page.get_by_role("dialog").get_by_label("assistant").fill("The black plan is 99 pounds.")
    page.keyboard.press("Control+Enter")
    settled(page, "Edited")
    to(page, undone)
    page.keyboard.press("d")
    settled(page, "Dropped")
    page.keyboard.press("u")
    settled(page, "Undone")
    assert not wrong
    lines = decisions.read(data / "decisions.jsonl")
    assert [each.action for each in lines] == ["keep", "drop", "relabel", "edit", "drop", "undo"]
    assert {each.reviewer for each in lines} == {"anna"}

    gone = lines[1].id
    path = data / "decisions.jsonl"
    with path.open("ab") as file:  # about a row that is not there
        file.write(path.read_bytes().splitlines()[0].replace(keep["id"].encode(), b"0" * 32) + b"\n")
    metrics = run_stage(review.STAGE, data / "dedup_near", data / "review", f"decisions={path}")
    before, after = (store.read_rows(data / stage).drop("meta") for stage in ("dedup_near", "review"))
    changed = before.join(after, on=before.columns, how="anti", nulls_equal=True)["id"].to_list()
    assert sorted(changed) == sorted([gone, relabel["id"], edit["id"]])
    new = {each["id"]: each for each in after.to_dicts()}
    assert gone not in new and after.height == before.height - 1
    assert new[relabel["id"]]["label"] == "cost"
    assert new[edit["id"]]["messages"][1]["content"] == "The black plan is 99 pounds."
    assert metrics["counts"]["decisions_vanished"] == 1
    told = pl.read_parquet(data / "review/decisions.parquet").filter(pl.col("state") == "vanished")
    assert told["id"].to_list() == ["0" * 32] and "No row has this id" in told["detail"][0]


def test_an_answer_from_before_a_decision_does_not_change_what_is_undone(browser: Any, server: Server, data: Path) -> None:
    page, wrong = opened(browser, server)
    first, second = ROWS[:2]
    to(page, first)
    page.keyboard.press("k")
    settled(page, "Kept")
    late: list[tuple[Any, Any]] = []
    page.route("**/api/state*", lambda route: late.append((route, route.fetch())), times=1)
    to(page, second)
    page.wait_for_timeout(600)
    assert late, "the page asks what is new a moment after a decision, and after a queue is opened"
    page.keyboard.press("d")
    settled(page, "Dropped")
    page.wait_for_timeout(600)
    [(route, answer)] = late
    route.fulfill(response=answer)
    page.wait_for_timeout(200)
    page.keyboard.press("u")
    settled(page, "Undone")
    lines = decisions.read(data / "decisions.jsonl")
    assert [(each.action, each.id) for each in lines[1:]] == [("drop", second["id"]), ("undo", second["id"])]
    assert not wrong


def test_two_reviewers_see_their_agreement(browser: Any, server: Server) -> None:
    for reviewer, keys in (("anna", "kkd"), ("ben", "kdd")):
        page, wrong = opened(browser, server, reviewer=reviewer)
        for row, key in zip(ROWS[:3], keys, strict=True):
            to(page, row)
            page.keyboard.press(key)
            settled(page, {"k": "Kept", "d": "Dropped"}[key])
        assert not wrong
    page.locator("#people .kappa", has_text="the same on 2 of 3").wait_for()
    assert "0.40" in page.locator("#people .kappa").inner_text()


def test_a_decision_that_somebody_else_made_meanwhile_is_shown_and_not_overwritten(browser: Any, server: Server, data: Path) -> None:
    anna, _ = opened(browser, server)
    ben, _ = opened(browser, server, reviewer="ben")
    for page in (anna, ben):
        to(page, ROWS[0])
    anna.keyboard.press("d")
    settled(anna, "Dropped")
    ben.keyboard.press("k")
    ben.locator("#notice", has_text="anna decided about this row meanwhile").wait_for()
    assert [each.reviewer for each in decisions.read(data / "decisions.jsonl")] == ["anna"]
    ben.keyboard.press("k")
    settled(ben, "Kept")
    assert [each.reviewer for each in decisions.read(data / "decisions.jsonl")] == ["anna", "ben"]


def test_what_was_typed_stays_where_it_was_refused(browser: Any, server: Server, data: Path) -> None:
    page, _ = opened(browser, server)
    to(page, ROWS[0])
    page.keyboard.press("n")
    area = page.get_by_role("dialog").get_by_label("Note")
    area.fill("Ask anna.kowalska@mail.example.com first.")
    page.keyboard.press("Control+Enter")
    page.locator("dialog .problem", has_text="EMAIL_ADDRESS").wait_for()
    assert "kowalska" in area.input_value() and (data / "decisions.jsonl").read_bytes() == b""
    area.fill("Ask first.")
    page.keyboard.press("Control+Enter")
    settled(page, "Noted")
    assert [each.note for each in decisions.read(data / "decisions.jsonl")] == ["Ask first."]


def test_a_server_that_has_gone_is_told(browser: Any, server: Server, data: Path) -> None:
    page, _ = opened(browser, server)
    to(page, ROWS[0])
    page.route("**/api/decide", lambda route: route.abort())
    page.keyboard.press("d")
    page.locator("#notice", has_text="does not answer").wait_for()
    assert (data / "decisions.jsonl").read_bytes() == b""


@pytest.mark.parametrize("size", list(SIZES))
def test_hostile_rows_stay_inert_and_in_their_place(browser: Any, server: Server, size: str) -> None:
    page, wrong = opened(browser, server, size)
    width = page.evaluate("innerWidth")
    hostile = [row for row in ROWS if any(text in turn["content"] for turn in row["messages"] for text in HOSTILE)]
    assert len(hostile) == 2
    for row in hostile:
        to(page, row)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#row script, #row img, #row svg, #row a, #row style, #row link").count() == 0
        bar = page.locator("#actions").bounding_box()
        assert bar["y"] + bar["height"] <= SIZES[size][1] + 1 and bar["x"] >= 0
        page.keyboard.press("e")
        page.get_by_role("dialog").get_by_label("user").first.wait_for()
        assert page.get_by_role("dialog").get_by_label("assistant").first.input_value() == row["messages"][1]["content"]
        page.keyboard.press("Escape")
    shown = page.locator("#row").inner_text()
    assert "x" * 1000 in shown
    to_hidden = next(row for row in hostile if row["label"] == HOSTILE[0])
    to(page, to_hidden)
    text = page.locator("#row").inner_text()
    assert "<script>alert(1)</script>" in text and "{{ 7 * 7 }}" in text and "U+202E" in text and "\u202e" not in text
    page.wait_for_timeout(300)
    assert not wrong


@pytest.mark.parametrize("size", list(SIZES))
def test_nothing_overflows_and_every_control_has_a_name(browser: Any, server: Server, size: str) -> None:
    page, wrong = opened(browser, server, size)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    name = "(each.innerText || each.getAttribute('aria-label') || '').trim()"
    found = page.evaluate(f"[...document.querySelectorAll('button, input')].filter((each) => !{name}).map((each) => each.outerHTML)")
    assert found == []
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("take the suggested label").wait_for()
    page.keyboard.press("Escape")
    assert not wrong
