"""curate/clean.py: repairs that leave code and maths alone, filters that drop what teaches nothing and little else."""

import csv
import random
from pathlib import Path
from typing import Any

import ftfy.badness
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import clean, language, record, repairs
from curate.record import ParamsError
from tests.helpers import ROOT, SHARED, chat, document, dropped, frame, preference, row, run_stage, section, write_input

PARAMS = section("clean", clean.Params)
GOOD = "Restart the hub and wait ten minutes, then the light turns blue."


def cleaned(rows: list[dict[str, Any]], *overrides: str) -> tuple[pl.DataFrame, dict[int, str], dict[str, int]]:
    """(kept rows, reason by line, counts)."""
    outcome = clean.rows(frame(rows), section("clean", clean.Params, *overrides), None)
    return outcome.kept, dict(outcome.dropped.select("line", "reason").iter_rows()), dict(outcome.counts)


def mended(text: str, *around: str) -> str:
    """What becomes of a document, or of the first turn of a chat with `around` as the others."""
    rows = [chat(text, *around) if around else document(text)]
    return str(clean.repair(frame(rows), PARAMS)[0]["messages"][0][0]["content"])


def reason(*turns: str, overrides: tuple[str, ...] = ()) -> str | None:
    return cleaned([chat(*turns)], *overrides)[1].get(1)


# --- repairs


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The cafÃ© â€œopensâ€\x9d at noon â€“ for Â£5", "The café “opens” at noon – for £5"),
        ("Ã€ la carte", "À la carte"),
        ("a\u200bb\ufeffc\u2060d\u00ade", "abcde"),
        ("invoice\u202efdp.exe\u2066x\u2069", "invoicefdp.exex"),
        ("hid\U000e0068\U000e0069den", "hidden"),
        ("bell\x07 and \x1b[31mred\x1b[0m\x00", "bell and red"),
        ("page one\x0cpage two", "page one\npage two"),
        ("Cafe\u0301", "Café"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("one  \ntwo\t\n\n", "one\ntwo"),
        ("<p>Two bills,<br>both for Fibre&nbsp;80 &amp; a pod.</p>", "Two bills,\nboth for Fibre 80 & a pod."),
        ("<ul><li>One</li><li>Two</li></ul>", "- One\n- Two"),
        ('See <a href="https://x.example/?a=1&amp;b=2" target=_blank>this page</a>.', "See this page."),
        ("It&#39;s &quot;fine&quot; &hellip; &pound;5 &lt; &pound;6", 'It\'s "fine" … £5 < £6'),
        ("Twice escaped&amp;nbsp;text", "Twice escaped text"),
        ("| a<br>b | c |", "| a b | c |"),
        ("Very <b>bold</b> and <EM>loud</EM><!-- note -->", "Very bold and loud"),
        ("`<br>` stays, this<br>goes", "`<br>` stays, this\ngoes"),
        ("```\na<br>b&amp;c  \n```\nout<br/>side", "```\na<br>b&amp;c  \n```\nout\nside"),
    ],
)
def test_repairs(text: str, wanted: str) -> None:
    assert mended(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "List<int> a; Map<String, List<b>> m",
        "if a < b && c > d then x <= y << 2",
        "Write to <jane@example.com> or see <https://example.com/?a=1&b=2>.",
        "AT&T and R&D; fish & chips",
        "x<b and b>y, or p <q> r",
        "Read the <context> and the <answer>, then <think>.",
        "What does <br> do in HTML?",
        'var s = "<b>" + name + "</b>";\nif (s) {\n  show(s);\n}',
        "Make a page.\n<html><body><p>Hello &amp; welcome</p></body></html>",
        "The tag &lt;br&gt; breaks a line",
        "My page shows `<script>alert(1)</script>`, is that bad?",
        "Naïve café, “quoted” – £5, 5 €, Ångström, Ça va",
        "日本語のテキスト、中文文本 and русский",
        "می‌خواهم",  # ZWNJ that Persian needs
        "क्‍ष",  # ZWJ that Devanagari needs
        "👩‍👩‍👧 and 🏳️‍🌈 and 1️⃣ and 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "    indented\n\tcode  with   spaces\n\n\n\nand gaps",
        "&parameter; &notanentity; &x",
        r"\frac{a}{b} < \alpha & \beta \\ $x_i>0$",
    ],
)
def test_repairs_leave_code_maths_and_scripts_alone(text: str) -> None:
    assert mended(text) == text


def test_a_row_that_speaks_of_markup_keeps_its_tags() -> None:
    page = "<h1>Title</h1>\n<p>Hello</p>"
    assert mended("Write a short HTML page.", page) == "Write a short HTML page."
    kept, _, counts = cleaned([chat("Write a short HTML page with a title.", page), chat("What does it say?", "<p>Hello there.</p>")])
    assert [messages[1]["content"] for messages in kept["messages"]] == [page, "Hello there."]
    assert counts["repaired_html"] == 1


def test_repairs_reach_every_message_and_count_rows_once() -> None:
    pair = preference("Is it on\u200b?", "Yes, it is on.\u200b", "No, it\u200b is not.")
    kept, _, counts = cleaned([pair, chat("Is it off?", GOOD)])
    assert "\u200b" not in str(kept.to_dicts()) and kept["rejected"][0][1]["content"] == "No, it is not."
    assert counts["repaired_invisible"] == 1
    assert kept["id"][0] == pair["id"]  # of the content as ingested


def test_repairs_can_be_left_out() -> None:
    kept, _, counts = cleaned([chat("Is it on\u200b?  ", GOOD)], "repairs=[trailing_space]")
    assert kept["messages"][0][0]["content"] == "Is it on\u200b?" and set(counts) == {"repaired_trailing_space"}


HOSTILE = st.text(st.sampled_from(list("ab<>&;/!#xpbr`~\n\r \t\"='-|Ãâ€©é\u0301\u200b\u200d\u202e\x07\xa0👩0")), max_size=40)


@settings(max_examples=100, deadline=None)
@given(st.lists(HOSTILE | st.text(max_size=30), min_size=1, max_size=8))
def test_a_second_run_changes_nothing(texts: list[str]) -> None:
    rows = frame([document(text, line=at) for at, text in enumerate(texts, 1)])
    once = clean.repair(rows, PARAMS)[0]
    assert clean.repair(once, PARAMS)[0].equals(once)


def test_missing_contents_stay_missing() -> None:
    call = {"role": "assistant", "content": None, "extra": '{"tool_calls":[{"name":"speed_test"}]}'}
    turns = [{"role": "user", "content": "Test my line&nbsp;now", "extra": None}, call]
    kept, reasons, _ = cleaned([row("chat", turns)])
    assert reasons == {} and kept["messages"][0][1]["content"] is None and kept["messages"][0][0]["content"] == "Test my line now"


# --- filters: shape


def _turns(*roles: str) -> dict[str, Any]:
    said = ("Is it on or off?", "It is on, the light is blue.", "And what does the amber light mean?", "That the login is missing.")
    return row("chat", [{"role": role, "content": f"{said[at % 4]} ({at})", "extra": None} for at, role in enumerate(roles)])


@pytest.mark.parametrize(
    ("roles", "fits"),
    [
        ("system user assistant", True),
        ("user assistant user assistant", True),
        ("user assistant tool assistant", True),
        ("user assistant tool tool assistant tool assistant user assistant", True),
        ("assistant user assistant", False),
        ("user user assistant", False),
        ("user assistant assistant", False),
        ("user assistant user", False),
        ("user assistant system user assistant", False),
        ("user wizard assistant", False),
        ("user tool assistant", False),
        ("system", False),
    ],
)
def test_role_order(roles: str, fits: bool) -> None:
    _, reasons, _ = cleaned([_turns(*roles.split())])
    assert reasons == ({} if fits else {1: "role_order"})
    assert cleaned([_turns("assistant", "user", "assistant")], "role_order=false")[1] == {}


def test_empty_and_length() -> None:
    rows = [
        chat("Is it on, or is it off?", " \u200b\n"),
        chat("...", GOOD),
        document("\ufeff \n"),
        chat("Rate this from A to C, please.", "B"),
        chat("What is 3 + 4?", "7"),
        chat("How do you feel about it?", "👍"),
        preference("How long does it take?", "Ten days.", " "),
        chat("Which one is it?", "<|endoftext|>"),
    ]
    assert cleaned(rows)[1] == {1: "empty", 2: "empty", 3: "empty", 7: "empty", 8: "empty"}
    assert reason("Hi", "Yo", overrides=("too_short.whole=5",)) == "too_short"
    assert reason("How long?", "Days", overrides=("too_short.answer=5",)) == "too_short"
    assert reason("How long?", GOOD, overrides=("too_long.answer=20",)) == "too_long"
    assert reason("Hi", "Yo", overrides=("too_short=null",)) is None


def test_preferences_need_a_preference() -> None:
    refused = "I'm sorry, but I can't help with that."
    rows = [
        preference("Which light is it?", "Blue means all well.", "blue  means ALL WELL."),
        preference("Which light is it?", "Blue means all well.", refused),
        preference("Which light is it?", refused, "Blue means all well."),
    ]
    assert cleaned(rows)[1] == {1: "no_preference", 3: "refusal"}


# --- filters: what the answer says

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I can’t assist with that request.",
    "As an AI language model, I cannot provide personal opinions.",
    "As a large language model, I don't have access to your account.",
    "I'm just an AI assistant and I can't comply with requests that involve monitoring other people.",
    "I cannot fulfill this request. It violates my guidelines.",
    "Sorry, I am unable to answer that question.",
    "I apologize, but I cannot generate that content.",
    "I must respectfully decline to answer.",
    "Unfortunately, I am not able to assist with this. Is there anything else you would like to talk about?",
    "I cannot provide medical advice. Please consult a qualified professional.",
    "It would not be appropriate for me to provide such instructions.",
    "I won't be able to help you with that, but I am happy to help with something else.",
    "Thank you for asking. I'm afraid I cannot help with that.",
]
HONEST = [
    "I'm sorry to hear your line is down. Please restart the hub, and I will book an engineer if the light stays amber.",
    "I can't see the payment yet, but a direct debit takes three working days to reach us.",
    "I can't help with that by chat, but our engineers can: ring the number on your bill before four.",
    "I'm sorry, but we cannot refund the activation fee after the cooling-off period of 14 days.",
    "I am unable to log in to the hub from here, so please read me the light on its front.",
    "Unfortunately the pod cannot reach the loft through that wall. Move it half-way up the stairs.",
    "I won't charge you for the missed visit, and a credit of £29 is on your next bill.",
    "AI features such as noise reduction are in the app under Settings.",
    "As an aid to memory, I have written the steps down for you.",
    "No, you cannot get a static IP on Fibre 80. You need Fibre 300 or 900.",
    "Sorry about that! I have sent the parcel again, and you can follow it in the app.",
    "I cannot share account details with your neighbour, but if you are named on the contract I can read them to you.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals_go(answer: str) -> None:
    assert reason("Could you do something for me, please?", answer) == "refusal"
    assert cleaned([document(answer)])[1] == {}


@pytest.mark.parametrize("answer", HONEST)
def test_honest_answers_stay(answer: str) -> None:
    assert reason("Could you do something for me, please?", answer) is None


CUT = [
    "Flashing amber means that the hub cannot see a signal on the line, so the",
    "Your plan has a guaranteed minimum speed of 240 Mbit/s. Test by cable first, and if the result is lower then we will open a fault and",
    "Take the hub out of the box and plug the grey lead into the wall socket that",
    "We have looked at your bill and found two charges.\n\nThe first is for the pod, the second for a late payment that was collected on",
    "Run this:\n\n```bash\nping 192.168.1.254\n",
]
WHOLE = [
    "card_arrival",
    "Lemonade and a very long walk in the park on Sunday",  # eleven words
    "She sold 48 / 2 = <<48/2=24>>24 clips in May and then 48 + 24 clips altogether in both of the months.\n#### 72",
    "You can read all about the guaranteed minimum speeds on our help pages at https://help.pellmoor.example/speeds",
    "Here is what you need before the engineer comes to see you:\n- the grey lead\n- the hub and its power supply with the plug",
    "Dear customer,\n\nyour parcel was sent today and will be with you in two working days from now on.\n\nKind regards,\nMaya",
    "Run this on the machine and tell us what it says about the packets:\n\n```bash\nping -c 10 192.168.1.254\n```",
    "Thank you for telling us about the missed visit, we have put the credit on your next bill for you 🙂",
    "He said to the engineer on the phone: “The light has been amber for two days and nothing helps at all”",
    "Main dish: fish fingers with lemon and peas, Side dish: a bowl of potatoes, Dessert: two scoops of vanilla ice cream",
    "passenger, train, sit, window, ticket, conductor, station, platform, luggage, clock, coffee, bench, bag",
    "the film follows a young man who leaves his village for the city and finds out who he is<|endoftext|>",
    "Your bill is made up of the plan, the pod, and one late fee, which together come to £42.50",
    "| plan | price | speed |\n|---|---|---|\n| Fibre 80 is the one that most people with a small flat take | 27 | 80 |",
]


@pytest.mark.parametrize("answer", CUT)
def test_cut_off_answers_go(answer: str) -> None:
    assert reason("What do I do now, please?", answer) == "cut_off"


@pytest.mark.parametrize("answer", WHOLE)
def test_whole_answers_stay(answer: str) -> None:
    assert reason("What do I do now, please?", answer) is None


def test_repetition() -> None:
    question = "The hub hangs once a week, what now?"
    assert reason(question, "Please restart the hub. " * 30) == "repetition"
    assert reason(question, "ha" * 800) == "repetition"
    assert cleaned([document("The same line again and again.\n" * 40)])[1] == {1: "repetition"}
    table = "| plan | price | speed |\n|---|---|---|\n" + "\n".join(f"| Fibre {n} | {n} | {n} |" for n in range(40))
    code = "```python\n" + "\n".join(f"assert add({n}, {n}) == {2 * n}" for n in range(40)) + "\n```"
    assert reason(question, table) is None and reason(question, code) is None
    assert reason(question, "Please restart the hub. " * 30, overrides=("repetition=null",)) is None


def test_answer_copies_prompt() -> None:
    question = "The light on my hub went from blue to amber during the storm, what now?"
    assert reason(question, question) == "answer_copies_prompt"
    assert reason(question, question.upper().rstrip("?") + "!") == "answer_copies_prompt"
    assert reason("Hello there, friend.", "Yes?", question, f" {question} ") == "answer_copies_prompt"
    assert reason(question, f"{question} Restart it and wait for ten minutes.") is None
    assert reason("Say yes", "Say yes") is None  # a short answer may repeat by right
    assert cleaned([chat("my card has not arrived", "my card has not arrived", label="my card has not arrived")])[1] == {}


FOREIGN = [
    ("Mein Anschluss ist seit gestern gestört, was soll ich tun?", "Bitte starten Sie den Router neu und warten Sie zehn Minuten."),
    ("Ma connexion est en panne depuis hier, que dois-je faire ?", "Redémarrez la box et attendez dix minutes, s'il vous plaît."),
    ("Mi conexión no funciona desde ayer, ¿qué debo hacer ahora?", "Reinicie el aparato y espere unos diez minutos, por favor."),
    ("Moje łącze nie działa od wczoraj, co mam teraz zrobić?", "Proszę ponownie uruchomić router i poczekać dziesięć minut."),
    (
        "昨日からインターネットに接続できません。ルーターのランプが赤く点滅しています。どうすればよいですか。",
        "ルーターを再起動して、十分ほどお待ちください。",
    ),
]


@pytest.mark.parametrize(("question", "answer"), FOREIGN)
def test_other_languages_go(question: str, answer: str) -> None:
    assert reason(question, answer) == "wrong_language"
    assert reason(question, "fault") == "wrong_language"  # a label says nothing about the language
    assert reason(question, answer, overrides=("languages=null",)) is None
    assert reason(question, answer, overrides=("languages=[en,de,fr,es,pl,ja]",)) is None


def test_translations_are_mixed_rows() -> None:
    turns = ("Translate this into German for me: please restart the router and wait.", FOREIGN[0][1])
    assert reason(*turns) is None
    assert reason(*turns, overrides=("language.mixed=drop",)) == "wrong_language"


def test_params_name_what_is_wrong() -> None:
    for override, said in (
        ("languages=[xx]", "unknown language 'xx'"),
        ("languages=[]", "empty list"),
        ("repairs=[html, hmtl]", "hmtl"),
        ("too_short={answer: 9, whole: 9, line: 1}", "line"),
        ("answer_copies_prompt=0.2", "answer_copies_prompt"),
        ("too_short={answer: 200000, whole: 1}", "too_short.answer = 200000"),
    ):
        with pytest.raises(ParamsError) as error:
            clean.prepare(section("clean", clean.Params, override))
        assert said in str(error.value)


def test_evidence_holds_no_text(tmp_path: Path) -> None:
    rows = [
        chat("Zebra question?", REFUSALS[0]),
        chat(FOREIGN[0][0], FOREIGN[0][1]),
        chat("Zebra?", CUT[0]),
        _turns("assistant"),
        chat("Zebra", ""),
    ]
    metrics = run_stage(clean.STAGE, write_input(frame(rows), tmp_path / "in"), tmp_path / "out")
    found = dropped(tmp_path / "out")
    assert metrics["dropped"] == len(found) == 5
    assert [each["line"] for each in found] == [1, 2, 3, 4, 5]
    assert all(each["evidence"]["rule"] == each["reason"] for each in found)
    assert not any(word in str(found) for word in ("Zebra", "Anschluss", "Flashing", "help with that."))


def test_a_row_is_judged_alike_whatever_is_beside_it() -> None:
    rows = [chat("Q: is it on?", each) for each in REFUSALS + HONEST + CUT + WHOLE] + [chat(*pair) for pair in FOREIGN]
    together = cleaned(rows)[1]
    alone = {at: found for at, each in enumerate(rows, 1) if (found := cleaned([each])[1].get(1))}
    assert together == alone


# --- real data


def _gsm8k(name: str) -> list[dict[str, Any]]:
    path = SHARED / f"gsm8k_{name}.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path}")
    return [chat(each["question"], each["answer"]) for each in map(orjson.loads, path.read_bytes().splitlines())]


@pytest.mark.parametrize("name", ["train", "test"])
def test_gsm8k_passes_byte_for_byte(name: str) -> None:
    """All rows; unchanged but for one zero-width space in each file."""
    before = frame(_gsm8k(name))
    outcome = clean.rows(before, PARAMS, None)
    assert outcome.dropped.height == 0 and outcome.counts["repaired_invisible"] == 1
    old, new = (record.texts(rows)["content"].to_list() for rows in (before, outcome.kept))
    assert [text.replace("\u200b", "") for text in old] == new


@pytest.mark.parametrize("name", ["train", "test"])
def test_banking77_loses_nothing(name: str) -> None:
    path = SHARED / f"banking77_{name}.csv"
    if not path.exists():
        pytest.skip(f"needs {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [chat(each["text"], each["category"], label=each["category"]) for each in csv.DictReader(file)]
    assert clean.rows(frame(rows), PARAMS, None).dropped.height == 0


def test_t0_loses_what_is_empty_or_foreign() -> None:
    """Every ninth row. Dropped: answers of nothing but an end token, and nine copies of one Spanish film review in the whole file."""
    path = SHARED / "t0_55k.parquet"
    if not path.exists():
        pytest.skip(f"needs {path}")
    sample = pl.read_parquet(path)[::9]
    rows = [chat(prompt, answer) for prompt, answer in sample.select("prompt", "completion").iter_rows()]
    bare = (sample["completion"].str.replace("<|endoftext|>", "", literal=True).str.strip_chars() == "").sum()
    counts = dict(clean.rows(frame(rows), PARAMS, None).dropped["reason"].value_counts().iter_rows())
    assert counts.pop("empty") == bare
    assert sum(counts.values()) <= 3 and set(counts) <= {"wrong_language"}


def test_shipped_articles_pass() -> None:
    paths = sorted((ROOT / "data" / "raw" / "articles").glob("*.md"))
    assert paths
    rows = [document(path.read_text(encoding="utf-8"), line=at) for at, path in enumerate(paths, 1)]
    kept, reasons, _ = cleaned(rows)
    assert reasons == {} and [each[0]["content"] for each in kept["messages"]] == [each["messages"][0]["content"].rstrip() for each in rows]


def test_every_repair_is_a_param() -> None:
    assert tuple(each.name for each in repairs.REPAIRS) == PARAMS.repairs


def test_chances_of_many_texts_at_once_are_those_of_the_model_one_by_one() -> None:
    texts = [
        "Bitte starten Sie den Router neu und warten Sie zehn Minuten.",
        "THE KETTLE IS ON THE DESK",
        "",
        "日本語の文章です",
        "x",
        "a " * 140,
    ]
    for allowed in (["en"], ["de", "ja"], ["sr"]):
        exact = [language._ranked(text, allowed)[1] for text in texts]
        assert language.chances(texts, allowed) == pytest.approx(exact, rel=1e-3, abs=1e-9)


def test_badness_is_looked_for_only_around_characters_beyond_ascii_and_found_all_the_same() -> None:
    draw = random.Random(4)
    for _ in range(3000):
        line = "".join(draw.choice("aZ ,.ÃÂâ€œ™é√±вЂГўВ.×²à²Ø­Ù…œ°A\x85│") * draw.choice([1, 1, 1, 2]) for _ in range(draw.randint(1, 14)))
        line = draw.choice(["", "plain words before it "]) + line + draw.choice(["", " and plain words after it"])
        assert repairs.is_bad(line) == bool(ftfy.badness.is_bad(line)), line
