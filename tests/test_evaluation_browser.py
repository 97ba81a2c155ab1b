"""The evaluation page in a browser: quiet, offline, understood on the first screen, fit for a phone, and unmoved by hostile answers."""

import orjson
import pytest

from evaluate.evaluate import build
from tests.hostile import HOME, STRINGS
from tests.serving import serving
from tests.test_evaluate import byte_tokenizer, formatted, lora, params, save_base, save_format, tiny
from tests.test_report_browser import SIZES, opened

ACTIVE = "script, img, iframe, object, embed, base, form, link, svg image, [onload], [onerror], [onfocus], a:not([href^='#'])"
WIDE = "W" * 3000


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Hostile prompts, references, labels and sources; hostile answers from an endpoint; hostile reasons and criteria of a judge."""
    root = tmp_path_factory.mktemp("hostile")
    tokenizer = byte_tokenizer()
    rows = [
        formatted((f"{text} {at}", f"{text} answered", text[:60]), at, tokenizer) | {"source": f"{text[:60]}.csv"}
        for at, text in enumerate([*STRINGS[:14], *STRINGS[15:], WIDE])
    ]
    base = save_base(root / "base", model := tiny(len(tokenizer), positions=4096), tokenizer)
    (base / "base.json").write_bytes(orjson.dumps({"name": STRINGS[0], "revision": STRINGS[6], "kind": "hub"}))
    save_format(root / "format", rows[:2], rows)
    adapted = lora(model)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    adapted.save_pretrained(root / "train" / "adapter")
    (root / "train" / "adapter" / "provenance.json").write_bytes(orjson.dumps({"base": {"name": STRINGS[0], "revision": STRINGS[6]}}))

    def reply(path, request):
        if path.endswith("/chat/completions"):
            said = orjson.dumps({"reason": STRINGS[len(str(request)) % len(STRINGS)], "winner": "A"}).decode()
            return {"choices": [{"message": {"content": said}}]}
        text = WIDE if WIDE in request["prompt"] else next(each for each in STRINGS if each in request["prompt"])
        return {"choices": [{"text": text, "finish_reason": "stop"}]}

    with serving(reply) as server:
        where = f"{{url: '{server.url}', model: m}}"
        judge = f"judge={{server: {where}, criteria: {{'{STRINGS[3]}': '{STRINGS[0]}'}}}}"
        more = (f"endpoint={where}", judge, "few_shot=0", "robustness={items: 12, kinds: [case]}")
        build(root / "format", base, root / "train", root / "out", params(root / "reports", *more))
    return root / "reports" / "evaluation.html"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_hostile_acts_and_all_of_it_can_be_read(browser, report, size, scheme):
    with opened(browser, report, size, color_scheme=scheme) as (page, _):
        assert page.locator(ACTIVE).count() == 0
        text = page.locator("main").text_content()
        for each in (STRINGS[0], STRINGS[2], STRINGS[9], STRINGS[10]):
            assert text.count(each) >= 2  # a prompt or a reference, and an answer
        assert "\u202e" not in text and "\u2066" not in text
        assert page.locator("h1").text_content() == "Evaluation report"
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.locator("ins").first.evaluate("each => getComputedStyle(each).backgroundColor") != "rgba(0, 0, 0, 0)"  # styles apply


@pytest.mark.parametrize("size", [(1280, 720), SIZES[1]])
def test_verdict_and_intervals_are_on_the_first_screen(browser, report, size):
    with opened(browser, report, size) as (page, _):
        for what in (".verdict .state", ".verdict .chip >> nth=0", "#intervals svg >> nth=2"):
            box = page.locator(what).bounding_box()
            assert box is not None and box["y"] >= 0 and box["x"] >= 0, what
            assert box["y"] + box["height"] <= size[1] and box["x"] + box["width"] <= size[0], what
        assert page.locator("#intervals svg .whisker").count() >= 3
        assert page.locator(".verdict .state").text_content() in ("better", "worse", "not shown")


def test_every_section_is_reached_from_the_top(browser, report):
    with opened(browser, report) as (page, _):
        anchors = [each.get_attribute("href") for each in page.locator("nav a").all()]
        assert anchors == [f"#{each.get_attribute('id')}" for each in page.locator("main > section").all()]
        assert {"#intervals", "#judge", "#figures", "#robustness", "#cost", "#slices", "#answers", "#rule"} <= set(anchors)
        page.locator("nav a[href='#answers']").click()
        box = page.locator("#answers h2").bounding_box()
        assert 0 <= box["y"] < 200


def test_a_page_that_did_not_escape_would_be_noticed(browser, report, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(report.read_text().replace("<main>", f'<main><img src="{HOME}/a.png" onerror="alert(3)">', 1))
    with pytest.raises(AssertionError), opened(browser, broken) as (page, _):
        page.wait_for_timeout(200)
