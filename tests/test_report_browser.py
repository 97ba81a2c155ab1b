"""The report in a browser: quiet, offline, readable without script, fit for a phone, and unmoved by a dataset made to break it."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from curate import report as report_stage
from curate import stage
from tests import hostile
from tests.helpers import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the report is not tried in a browser")
SIZES = ((1280, 900), (390, 844))


@dataclass
class Heard:
    """What a page did that a report must not do."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(folder of the stages, folder of the report) of the hostile dataset."""
    return hostile.run_all(tmp_path_factory.mktemp("hostile"))


@contextlib.contextmanager
def opened(browser: Any, path: Path, size: tuple[int, int] = SIZES[0], fragment: str = "", **options: Any) -> Iterator[tuple[Any, Heard]]:
    """A page of its own that shows a file, and what was heard of it. Every request but the one for the file is written down and refused."""
    heard = Heard()
    with contextlib.closing(browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)) as context:
        page = context.new_page()
        home = path.as_uri()

        def route(request: Any) -> None:
            if request.request.url.partition("#")[0] == home:
                request.continue_()
            else:
                heard.requests.append(request.request.url)
                request.abort()

        def dialog(shown: Any) -> None:
            heard.dialogs.append(shown.message)
            shown.dismiss()

        context.route("**/*", route)
        page.on("console", lambda message: heard.console.append(message.text))
        page.on("pageerror", lambda error: heard.console.append(str(error)))
        page.on("dialog", dialog)
        page.goto(home + fragment)
        yield page, heard
        assert page.url.partition("#")[0] == home, "nothing leads away"
        assert heard == Heard()


@pytest.fixture
def report(made: tuple[Path, Path]) -> Path:
    return made[1] / "curation.html"


def widths(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(
        """() => ({
          page: document.documentElement.scrollWidth,
          sections: [...document.querySelectorAll('body > header, body > nav, main, section')].map((each) => {
            const box = each.getBoundingClientRect(); return [Math.round(box.left), Math.round(box.width)];
          }),
          out: [...document.querySelectorAll('main *')].filter((each) => {
            const box = each.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 1 && !each.closest('.wide');
          }).length,
          fixed: [...document.querySelectorAll('*')].filter((each) => getComputedStyle(each).position === 'fixed').map((each) => each.id),
          foreign: document.querySelectorAll('img, iframe, object, embed, form, base, video, audio, link, svg image, foreignObject').length,
          scripts: document.scripts.length, styles: document.styleSheets.length, backwards: getComputedStyle(document.body).direction,
        })"""
    )
    return found


@pytest.mark.parametrize("bad", ["<script>alert(1)</script>", f'<img src="{hostile.HOME}/a.png">', "<script>nothing()</script>"])
def test_an_alert_a_request_and_an_error_would_be_heard(browser: Any, tmp_path: Path, bad: str) -> None:
    (tmp_path / "bad.html").write_text(f"<!doctype html><title>bad</title>{bad}")
    with pytest.raises(AssertionError), opened(browser, tmp_path / "bad.html"):
        pass


@pytest.mark.parametrize("size", SIZES, ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_rows_stay_text(browser: Any, report: Path, size: tuple[int, int], scheme: str) -> None:
    with opened(browser, report, size, color_scheme=scheme) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        text = page.inner_text("main")
        for shown in (hostile.STRINGS[0], hostile.STRINGS[2], hostile.STRINGS[5], "{{ 7*7 }}"):
            assert shown in text, "it is shown as it stands"
        assert "⟨U+202E⟩" in text and not re.search("[\u202a-\u202e\u2066-\u2069\u200b]", page.content())
        found = widths(page)
        room = page.evaluate("document.documentElement.clientWidth")
        assert found["page"] <= room and found["out"] == 0, "nothing sticks out"
        assert len({(left, width) for left, width in found["sections"]}) == 1, "all sections stand in one column"
        assert found["fixed"] == ["tip"] and found["foreign"] == 0
        assert (found["scripts"], found["styles"], found["backwards"]) == (1, 1, "ltr")
        page.mouse.wheel(0, 4000)
        assert page.locator("a:not([href^='#'])").count() == 0


def test_the_waterfall_is_what_the_stages_counted(browser: Any, made: tuple[Path, Path]) -> None:
    data, reports = made
    with opened(browser, reports / "curation.html") as (page, _):
        rows = page.locator("table.flow tbody tr").evaluate_all(
            "rows => rows.map((row) => [row.className, ...[...row.cells].map((cell) => cell.innerText.split('\\n')[0].trim())])"
        )
    table: list[tuple[str, str, str, list[int]]] = [
        (kind, where, what, [int(cell.replace(",", "").lstrip("−+") or 0) for cell in cells])
        for kind, name, *cells in rows
        for where, what in [name.split(": ")]
    ]
    metrics = {path.parent.name: orjson.loads(path.read_bytes()) for path in data.glob("*/metrics.json")}
    for name, counted in metrics.items():
        dropped = {what: cells[0] for kind, where, what, cells in table if where == name and kind == "k-reason"}
        assert dropped == counted["reasons"], name
        assert sum(dropped.values()) == counted["dropped"]
        assert sum(cells[0] for kind, where, _, cells in table if where == name and kind == "k-added") == counted["added"]
    assert table[0][3][0] == metrics["ingest"]["rows_in"] and table[-1][3][0] == metrics["leakage"]["kept"]
    sign = {"k-read": 1, "k-added": 1, "k-reason": -1, "k-left": -1}
    for column in range(len(table[0][3])):
        assert sum(sign[kind] * cells[column] for kind, _, _, cells in table) == 0, "every column adds up"
    assert all(cells[0] == sum(cells[1:]) for _, _, _, cells in table), "every row adds up"


def test_every_number_of_the_waterfall_leads_to_a_sample(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        links = page.locator("table.flow a").evaluate_all("links => links.map((link) => link.getAttribute('href').slice(1))")
        missing = page.evaluate("ids => ids.filter((id) => document.getElementById(id) === null)", links)
        assert len(links) > 10 and missing == []
        page.locator("table.flow tr.k-reason td:nth-child(n+3) a").first.click()
        sample = page.locator(":target")
        assert sample.is_visible() and "sample" in (sample.get_attribute("class") or "")


def test_rows_are_filtered_by_every_word(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        box = page.locator("[data-filter='Find a stage, reason or number']")
        box.locator("input").fill("dedup near_dup")
        shown = box.locator("tbody tr:visible")
        assert shown.count() == 1 and "near_duplicate" in shown.inner_text()
        assert box.locator("output").inner_text() == f"1 of the {box.locator('tbody tr').count()} on this page"
        box.locator("input").fill("")
        assert box.locator("tbody tr:visible").count() == box.locator("tbody tr").count()


def test_a_column_is_sorted_as_numbers_both_ways_and_by_keyboard(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        fold = page.locator("details", has=page.get_by_text("By raw file (", exact=False)).first
        fold.locator("summary").click()
        table = fold.locator("table.sort")
        table.locator("thead button", has_text="Rows").focus()
        orders = []
        for wanted in ("descending", "ascending"):
            page.keyboard.press("Enter")
            orders.append([int(cell.replace(",", "")) for cell in table.locator("tbody td:nth-child(2)").all_inner_texts()])
            assert table.locator("th[aria-sort]").get_attribute("aria-sort") == wanted
        assert orders[0] == sorted(orders[0], reverse=True) and orders[1] == orders[0][::-1] and len(set(orders[0])) > 1


def test_all_samples_open_and_close(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        folds = page.locator("#samples details")
        page.locator("#samples").get_by_role("button", name="Open all").click()
        assert folds.count() > 3 and all(fold.get_attribute("open") is not None for fold in folds.all())
        page.locator("#samples").get_by_role("button", name="Close all").click()
        assert not any(fold.get_attribute("open") is not None for fold in folds.all())


def test_a_mark_says_its_value_beside_the_pointer(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        page.locator("#funnel svg rect.kept").nth(1).hover()
        assert re.fullmatch(r"[\d,]+ kept", page.locator("#tip").inner_text())


def test_everything_can_be_read_without_script(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as (page, _):
        assert "near_duplicate" in page.locator("table.flow").inner_text()
        fold = page.locator("#samples details", has_text="near_duplicate").first
        assert not fold.locator("pre").first.is_visible()
        fold.locator("summary").click()
        assert fold.locator("pre").first.is_visible()
        assert page.locator("input:not([name=map-by]), button").count() == 0, "nothing is shown that would need a script"


def test_pictures_and_names_fit_a_phone(browser: Any, report: Path) -> None:
    with opened(browser, report, SIZES[1]) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        found = page.evaluate(
            """() => ({
              wide: [...document.querySelectorAll('.bars li, svg, svg *')].filter((each) => {
                const box = each.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth;
              }).length,
              small: [...document.querySelectorAll('svg text, .bars span')].filter((each) =>
                parseFloat(getComputedStyle(each).fontSize) < 11).length,
              texts: document.querySelectorAll('svg text').length,
              sticky: [...document.querySelectorAll('table.flow tbody tr')].map((row) =>
                [...row.cells].filter((cell) => getComputedStyle(cell).position === 'sticky').length),
            })"""
        )
        assert (found["wide"], found["small"]) == (0, 0) and found["texts"] > 10
        assert set(found["sticky"]) == {1}, "the name of the row stays beside its numbers, and nothing else"


def test_a_caption_stands_above_its_text(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        above = page.locator(".pair > div").evaluate_all(
            "boxes => boxes.map((box) => ['p', 'pre'].map((each) => box.querySelector(each).getBoundingClientRect().top))"
        )
        assert len(above) > 4 and all(caption < text for caption, text in above)


def test_it_is_marked_up_for_screen_readers(browser: Any, report: Path) -> None:
    with opened(browser, report) as (page, _):
        bare = page.evaluate(
            """() => [
              [...document.querySelectorAll('input')].filter((each) => !document.querySelector(`label[for="${each.id}"]`)).length,
              [...document.querySelectorAll('svg')].filter((each) => !each.getAttribute('aria-label')).length,
              [...document.querySelectorAll('section')].filter((each) => !each.getAttribute('aria-labelledby')).length,
              [...document.querySelectorAll('table')].filter((each) => each.tHead === null).length,
              document.querySelectorAll('h1').length,
            ]"""
        )
        assert bare == [0, 0, 0, 0, 1]
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids))
        assert page.title().startswith("Curation report: ") and page.locator("html").get_attribute("lang") == "en"


def test_the_report_on_the_sample_is_quiet_too(browser: Any, tmp_path: Path) -> None:
    if not (ROOT / "data/format/metrics.json").exists():
        pytest.skip("the sample has not been through the pipeline here: run `dvc repro`")
    with contextlib.chdir(ROOT):
        stage.command(
            "report", "curate.report", report_stage.Params, report_stage.build, ("data",), ["data", str(tmp_path)], all_sections=True
        )
    for size in SIZES:
        with opened(browser, tmp_path / "curation.html", size) as (page, _):
            page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
            found = widths(page)
            assert found["out"] == 0 and found["page"] <= page.evaluate("document.documentElement.clientWidth")
            assert page.locator("#example mark").count() > 0, "what is trained is marked"
