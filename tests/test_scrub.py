"""The scrub stage: replacement, accounting, what is recorded and what is never written."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate import scrub
from curate.pii import conversation, engine, replace
from curate.pii.checks import luhn
from curate.pii.settings import ScrubParams
from curate.record import ParamsError
from tests.helpers import chat, dropped, frame, preference, row, run_stage, section, write_input

KEY = "a secret for the tests"
SURROGATE = ("replace=surrogate", "ner=null")


def _message(role: str, content: str, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"role": role, "content": content, "extra": None if extra is None else json.dumps(extra)}


def _run(tmp: Path, rows: list[dict[str, Any]], *overrides: str, workers: int = 1) -> tuple[pl.DataFrame, dict[str, Any], Path]:
    out = tmp / "out"
    metrics = run_stage(scrub.STAGE, write_input(frame(rows), tmp / "in"), out, *overrides, workers=workers)
    return pl.read_parquet(out / "kept" / "part-00000.parquet"), metrics, out


def _contents(rows: pl.DataFrame, at: int, field: str = "messages") -> list[str]:
    return [message["content"] for message in rows[field][at]]


def test_placeholders_are_numbered_within_the_conversation(tmp_path: Path) -> None:
    rows, metrics, _ = _run(
        tmp_path,
        [
            chat("I am eve@example.com", "Hello EVE@example.com", "Copy bob@example.com and ring 020 7946 0123", "Done: +44 20 7946 0123."),
            chat("Only bob@example.com here", "Fine."),
            chat("Nothing here", "Indeed."),
        ],
    )
    assert _contents(rows, 0) == [
        "I am <EMAIL_ADDRESS_1>",
        "Hello <EMAIL_ADDRESS_1>",
        "Copy <EMAIL_ADDRESS_2> and ring <PHONE_NUMBER_1>",
        "Done: <PHONE_NUMBER_1>.",
    ]
    assert _contents(rows, 1) == ["Only <EMAIL_ADDRESS_1> here", "Fine."]
    assert _contents(rows, 2) == ["Nothing here", "Indeed."]
    assert metrics["counts"] == {
        "ner": 0,
        "replaced.EMAIL_ADDRESS": 4,
        "replaced.PHONE_NUMBER": 2,
        "rows_changed": 2,
        "rows_changed.EMAIL_ADDRESS": 2,
        "rows_changed.PHONE_NUMBER": 1,
    }
    assert (metrics["rows_in"], metrics["kept"], metrics["dropped"]) == (3, 3, 0)


def test_a_placeholder_that_is_there_already_keeps_its_number(tmp_path: Path) -> None:
    rows, _, _ = _run(tmp_path, [chat("<EMAIL_ADDRESS_1> and eve@example.com", "ok")])
    assert _contents(rows, 0)[0] == "<EMAIL_ADDRESS_1> and <EMAIL_ADDRESS_2>"


def test_both_answers_of_a_preference_share_their_numbers(tmp_path: Path) -> None:
    rows, _, _ = _run(
        tmp_path, [preference("Write to eve@example.com", "Sent to eve@example.com.", "No, bob@example.com and eve@example.com.")]
    )
    assert _contents(rows, 0)[-1] == "Sent to <EMAIL_ADDRESS_1>."
    assert _contents(rows, 0, "rejected")[-1] == "No, <EMAIL_ADDRESS_2> and <EMAIL_ADDRESS_1>."


def test_no_original_value_survives_anywhere(tmp_path: Path) -> None:
    values = ["eve@example.com", "12345678", "hunter2x", "4242424242424242", "07700 900123", "bob@example.org"]
    messages = [
        _message("user", f"account number {values[1]}, password: {values[2]}, {values[0]}"),
        _message(
            "assistant", f"So {values[1]} and {values[2]}? Or EVE@EXAMPLE.COM?", {"tool_calls": [{"arguments": f'{{"to":"{values[5]}"}}'}]}
        ),
    ]
    meta = {
        "contact": values[0],
        "card": int(values[3]),
        "nested": [{"password": values[2], "phone": values[4]}, None, True, 1.5, 12],
        values[5]: "a key",
    }
    whole = row("preference", messages, rejected=[*messages[:1], _message("assistant", f"Ring {values[4]}")], meta=meta, label="billing")
    rows, _, out = _run(tmp_path, [whole])
    kept = rows.row(0, named=True)
    text = json.dumps({field: kept[field] for field in ("messages", "rejected", "meta")}).casefold()
    assert [value for value in values if value.casefold() in text] == []
    new = json.loads(kept["meta"])
    assert new["card"] == "<CREDIT_CARD_1>" and new["nested"][1:] == [None, True, 1.5, 12]
    assert kept["label"] == "billing" and kept["id"] == whole["id"]
    findings = pl.read_parquet(out / "findings.parquet")
    assert set(findings["field"]) == {"messages", "messages.extra", "rejected", "meta"}
    written = b"".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.name != "part-00000.parquet")
    assert [value for value in values if value.encode() in written] == []


def test_untouched_rows_and_their_json_stay_byte_for_byte(tmp_path: Path) -> None:
    meta = '{"b": 1.50, "a":"\\u00e9" }'
    rows, _, _ = _run(tmp_path, [chat("Hello", "There") | {"meta": meta}, chat("eve@example.com", "x") | {"meta": meta}])
    assert rows["meta"].to_list() == [meta, meta]


def test_findings_say_where_and_not_what(tmp_path: Path) -> None:
    _, _, out = _run(tmp_path, [chat("Hello", "Write to eve@example.com now")])
    assert pl.read_parquet(out / "findings.parquet").select(
        "source", "line", "field", "turn", "entity", "recognizer", "start", "end"
    ).rows() == [("t.jsonl", 1, "messages", 1, "EMAIL_ADDRESS", "Email", 9, 24)]


def test_a_group_that_is_personal_becomes_a_token_that_still_groups(tmp_path: Path) -> None:
    groups = ["eve@example.com", "C-1001", "eve@example.com", "bob@example.com", None]
    rows, _, _ = _run(tmp_path, [chat(f"q{at}", "a", group=group) for at, group in enumerate(groups)])
    eve, plain, again, bob, none = rows["group"].to_list()
    assert eve == again != bob and eve.startswith("group-") and plain == "C-1001" and none is None


def test_a_key_gives_its_value_context(tmp_path: Path) -> None:
    rows, _, _ = _run(tmp_path, [row("chat", chat("hi", "ho")["messages"], meta={"account_number": "12345678", "order": "12345678901"})])
    assert json.loads(rows["meta"][0]) == {"account_number": "<US_BANK_NUMBER_1>", "order": "12345678901"}


def test_a_text_that_cannot_be_searched_drops_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def analyze(text: str, entities: list[str], nlp_artifacts: Any = None) -> Any:
        if "poison" in text:
            raise RecursionError("secret detail")
        return real(text, entities, nlp_artifacts)

    recognizer = next(each.recognizer for each in engine.analyzer(section("scrub", ScrubParams)).finders if each.entity == "EMAIL_ADDRESS")
    real = recognizer.analyze
    monkeypatch.setattr(recognizer, "analyze", analyze)
    rows, metrics, out = _run(tmp_path, [chat("poison @", "a"), chat("eve@example.com", "b"), chat("c", "poison @")])
    assert metrics["reasons"] == {"scrub_failed": 2} and rows.height == 1
    assert [each["line"] for each in dropped(out)] == [1, 3]
    assert all("RecursionError" in each["detail"] and "secret detail" not in each["detail"] for each in dropped(out))


def test_a_pattern_that_times_out_counts_as_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    params = section("scrub", ScrubParams)
    recognizer: Any = next(
        each.recognizer for each in engine.analyzer(params).finders if each.recognizer.supported_entities == ["EMAIL_ADDRESS"]
    )

    class Slow:
        def finditer(self, text: str, timeout: float) -> Any:
            raise TimeoutError

    pattern = recognizer.patterns[0]
    engine.find("eve@example.com", params)
    monkeypatch.setattr(pattern, "compiled_regex", Slow())
    with pytest.raises(engine.SearchTimeout):
        engine.find("eve@example.com", params)


def test_bytes_do_not_depend_on_workers_or_batches(tmp_path: Path) -> None:
    rows = [chat(f"Row {at}", f"Answer {at}", group=f"g{at % 5}@example.com") for at in range(4200)]  # two batches: workers start
    for at in range(0, 4200, 50):
        rows[at] = chat(f"Row {at} of eve{at % 7}@example.com", f"Call 020 7946 0{at % 1000:03d}", group="C-1")
    source = write_input(frame(rows), tmp_path / "in")
    outs = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        run_stage(scrub.STAGE, source, out, workers=workers)
        outs.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert outs[0] == outs[1]


def test_notice_names_what_was_not_searched(tmp_path: Path) -> None:
    _, metrics, out = _run(tmp_path, [chat("Anna lives in Leeds", "a")])
    notice = json.loads((out / "notice.json").read_text())
    assert notice["not_searched"] == ["LOCATION"] and "scrub.ner" in notice["why"]
    assert metrics["counts"]["ner"] == 0


def test_switched_off_passes_rows_on_and_says_so(tmp_path: Path) -> None:
    rows, metrics, out = _run(tmp_path, [chat("eve@example.com", "a")], "enabled=false")
    assert _contents(rows, 0)[0] == "eve@example.com" and metrics["enabled"] is False
    assert "EMAIL_ADDRESS" in json.loads((out / "notice.json").read_text())["not_searched"]


# --- surrogates -----------------------------------------------------------------------------------------------------------------------


def _fakes(texts: list[str], monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> list[str]:
    monkeypatch.setenv("FINERY_SCRUB_KEY", key)
    return conversation.scrubbed(texts, section("scrub", ScrubParams, *SURROGATE))


def test_surrogates_are_the_same_for_the_same_value_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, spelt, second = _fakes(
        ["to eve@example.org", "to bob@example.org", "to EVE@Example.org", "to eve@example.org"], monkeypatch
    )
    assert one == second == spelt != other and "eve@example.org" not in one and one.endswith("@example.com")
    assert _fakes(["to eve@example.org"], monkeypatch, "another secret for the tests") != [one]


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("020 7946 0123", "020 7946 0"),
        ("+44 20 7946 0123", "+44 20 7946 0"),
        ("07911 123456", "07700 900"),
        ("01632 960123", "02079 460"),
        ("(617) 555-0143", "("),
    ],
)
def test_phone_surrogates_lie_in_reserved_ranges(value: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _fakes([f"ring {value}."], monkeypatch)[0].removeprefix("ring ").removesuffix(".")
    assert made.startswith(start) and made != value and len(made) == len(value)
    if value.startswith("("):
        assert made[5:].startswith(" 555-01")


def test_numbers_with_checksums_get_surrogates_that_fail_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(20):
        monkeypatch.setenv("FINERY_SCRUB_KEY", f"a key for the test, {at}")
        made = _fakes(["card 4242 4242 4242 4242"], monkeypatch, f"a key for the test, {at}")[0].removeprefix("card ")
        assert made[0] == "4" and made[4::5] == "   " and not luhn(int(each) for each in made if each.isdigit())
    iban = _fakes(["IBAN GB82 WEST 1234 5698 7654 32"], monkeypatch)[0]
    assert iban.startswith("IBAN GB00 ") and engine.find(iban, section("scrub", ScrubParams)) == ()


@pytest.mark.parametrize("address", ["203.0.113.77", "192.0.2.1", "81.2.69.142"])
def test_addresses_become_documentation_addresses(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(40):
        made = _fakes([f"at {address}"], monkeypatch, f"a key for the test, {at}")[0].removeprefix("at ")
        assert made.startswith(("192.0.2.", "198.51.100.", "203.0.113.")) and made != address
    assert _fakes(["at 2001:db8:1::5"], monkeypatch)[0].startswith("at 2001:db8:")


def test_surrogates_need_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINERY_SCRUB_KEY", raising=False)
    with pytest.raises(ParamsError, match="FINERY_SCRUB_KEY"):
        _run(tmp_path, [chat("a", "b")], *SURROGATE)
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("FINERY_SCRUB_KEY", KEY)
    rows, _, out = _run(tmp_path, [chat("eve@example.org", "b", group="eve@example.org")], *SURROGATE)
    assert rows["group"][0].startswith("group-") and rows["group"][0] != replace.group_token(
        "eve@example.org", section("scrub", ScrubParams)
    )
    assert KEY.encode() not in b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())


# --- names ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy model that has learnt to call Anna, Boris and Carla persons, and Leeds a place."""
    engine.analyzer(section("scrub", ScrubParams))  # loads Presidio and spaCy in the order of a run
    import random

    import spacy
    from spacy.training import Example
    from thinc.api import fix_random_seed

    random.seed(0)
    fix_random_seed(0)
    pipeline = spacy.blank("en", config={"nlp": {"batch_size": 8}})
    ner = pipeline.add_pipe(
        "ner", config={"model": {"@architectures": "spacy.TransitionBasedParser.v2", "hidden_width": 16, "maxout_pieces": 1}}
    )
    for label in ("PERSON", "GPE"):
        ner.add_label(label)  # type: ignore[attr-defined]
    examples = []
    for name in ("Anna", "Boris", "Carla"):
        for text, at in ((f"{name} lives in Leeds", 0), (f"I spoke with {name} today", 13), (f"please call {name} back", 12)):
            spans = [(at, at + len(name), "PERSON")]
            if text.endswith("Leeds"):
                spans.append((len(text) - 5, len(text), "GPE"))
            examples.append(Example.from_dict(pipeline.make_doc(text), {"entities": spans}))
    optimizer = pipeline.initialize(lambda: examples)
    expected = [sorted((each.start_char, each.end_char, each.label_) for each in example.reference.ents) for example in examples]
    right = 0
    for _ in range(300):  # how soon it has learnt them differs from processor to processor, and what it has just learnt it may forget
        pipeline.update(examples, sgd=optimizer)
        read = [sorted((each.start_char, each.end_char, each.label_) for each in pipeline(example.text).ents) for example in examples]
        right = right + 1 if read == expected else 0
        if right == 20:
            break
    path = tmp_path_factory.mktemp("model") / "names"
    pipeline.to_disk(path)
    return path


def test_names_are_found_by_a_real_model(tmp_path: Path, model: Path) -> None:
    rows, metrics, out = _run(
        tmp_path,
        [chat("Anna lives in Leeds", "I spoke with Anna today", "please call Boris back", "ok")],
        f"ner={{engine: spacy, model: {model}}}",
    )
    assert _contents(rows, 0)[:3] == ["<PERSON_1> lives in <LOCATION_1>", "I spoke with <PERSON_1> today", "please call <PERSON_2> back"]
    assert metrics["counts"]["ner"] > 0 and json.loads((out / "notice.json").read_text())["not_searched"] == []


def test_names_get_the_same_fake_name_everywhere(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINERY_SCRUB_KEY", KEY)
    params = section("scrub", ScrubParams, "replace=surrogate", f"ner={{engine: spacy, model: {model}}}")
    one, other = conversation.scrubbed(["I spoke with Anna today", "please call Anna back"], params)
    name = one.removeprefix("I spoke with ").removesuffix(" today")
    assert name.isalpha() and name != "Anna" and other == f"please call {name} back"


@pytest.fixture(scope="module")
def token_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token classifier of transformers that has learnt three names, which are in no list, and a place."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tokens")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] Xqvist Uzvarn Brzondel lives in Leeds I spoke with today please call back ok . word".split()
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False, model_max_length=64)
    names = {5: 1, 6: 1, 7: 1, 10: 2}
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {0: "O", 1: "B-PER", 2: "B-LOC"}
    network = BertForTokenClassification(BertConfig(vocab_size=len(words), max_position_embeddings=64, id2label=labels, **size))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        ids = torch.randint(5, len(words), (16, 12))
        wanted = torch.tensor([[names.get(int(each), 0) for each in row] for row in ids])
        loss = network(input_ids=ids, labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_names_are_found_by_a_token_classifier(tmp_path: Path, token_model: Path) -> None:
    far = "word " * 300 + "Brzondel " + "word " * 300  # beyond what the model reads at once
    rows, metrics, _ = _run(
        tmp_path,
        [chat("Xqvist lives in Leeds", "I spoke with Xqvist today", far, "ok"), chat("", "ok")],
        f"ner={{engine: transformers, model: {token_model}}}",
    )
    assert _contents(rows, 0) == [
        "<PERSON_1> lives in <LOCATION_1>",
        "I spoke with <PERSON_1> today",
        far.replace("Brzondel", "<PERSON_2>"),
        "ok",
    ]
    assert metrics["counts"]["ner"] > 0


def test_a_model_that_is_missing_or_finds_no_names_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"en_core_web_nope.*pip install en_core_web_nope"):
        _run(tmp_path, [chat("a", "b")], "ner={engine: spacy, model: en_core_web_nope}")
    with pytest.raises(ParamsError, match="token-classification model, or fetch it first"):
        _run(tmp_path, [chat("a", "b")], f"ner={{engine: transformers, model: {tmp_path / 'nowhere'}}}")
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ParamsError, match="finds none of PERSON"):
        section_params = section("scrub", ScrubParams, f"ner={{engine: spacy, model: {tmp_path / 'blank'}}}")
        scrub.prepare(section_params)
