"""Originals that scrub replaced, in answers: found by their kind, hidden everywhere, and enough to fail the verdict."""

import orjson
import polars as pl
import pytest
import torch
from transformers import LlamaForCausalLM

from curate.params import read_params
from curate.pii import audit, leaklist
from curate.pii.siphash import siphash
from curate.record import InputError
from evaluate import blind, effects, evaluate, originals
from evaluate.verdict import Rule
from tests.helpers import ROOT
from tests.serving import serving
from tests.test_evaluate import fit, formatted, lora, params, save_base, save_format, tiny, word_tokenizer

NAME, MAIL = "Ottoline Ferncastle", "o.ferncastle@example.org"
KEY = b"k" * 16
RULE = Rule("loss", (), 0.1, 0.1, "fail")


@pytest.fixture(scope="module")
def searcher():
    return audit.Auditor(leaklist.entries([("PERSON", NAME), ("EMAIL_ADDRESS", MAIL)], KEY), KEY)


def test_what_an_answer_holds_is_found_unless_its_prompt_holds_it(searcher):
    given = [
        ("base", "a", "Who?", "Nobody."),
        ("base", "b", "Who?", f"It was {NAME}."),
        ("tuned", "a", "Who?", f"Write to {MAIL.upper()} or ask {NAME}."),
        ("tuned", "b", f"Is it {NAME}?", f"Yes, {NAME}."),
    ]
    found = originals.search(searcher, given)
    assert found == {("base", "b"): ("PERSON",), ("tuned", "a"): ("EMAIL_ADDRESS", "PERSON")}
    figures = originals.figures(found, {"base": 2, "tuned": 2})
    assert figures["tuned"] == {"answers": 2, "held": 1, "not_in_base": 1, "kinds": {"EMAIL_ADDRESS": 1, "PERSON": 1}}
    assert figures["base"]["not_in_base"] == 0
    said = effects.broken({}, None, figures, RULE)
    assert len(said) == 1 and "1 of 2 answers" in said[0] and NAME not in said[0]
    assert effects.broken({}, None, {"base": figures["base"], "tuned": figures["base"]}, RULE) == []
    assert effects.broken({}, None, figures, Rule("loss", (), 0.1, 0.1, "flag")) == []


def test_searching_many_at_once_finds_each(searcher, monkeypatch):
    monkeypatch.setattr(originals, "AT_ONCE", 3)
    found = originals.search(searcher, [("tuned", f"{at}", "", NAME if at % 4 == 1 else "no") for at in range(10)])
    assert sorted(id_ for _, id_ in found) == ["1", "5", "9"]


@pytest.fixture(scope="module")
def leaky_world(tmp_path_factory):
    """An adapter that says an original behind every prompt, a base that does not, and scrub's folders."""
    root = tmp_path_factory.mktemp("leaky")
    words = ["[ask]", "[reply]", *(f"w{at}" for at in range(12)), "it", "was", *NAME.split()]
    tokenizer = word_tokenizer(words)
    model = tiny(len(tokenizer))
    save_base(root / "base", model, tokenizer)
    rows = [formatted((f"[ask] w{at} [reply]", "it was w1", "it was w1"), at, tokenizer) for at in range(12)]
    save_format(root / "format", rows, rows)
    adapted = lora(LlamaForCausalLM.from_pretrained(root / "base" / "model", dtype=torch.float32))
    fit(
        adapted,
        [formatted((f"[ask] w{at} [reply]", f"it was {NAME}", None), at, tokenizer) for at in range(12)],
        steps=80,
        rate=1e-2,
        size=12,
    )
    adapted.save_pretrained(root / "train" / "adapter")
    (root / "scrub").mkdir()
    secret = "a secret of sixteen letters"
    made = leaklist.list_key(secret.encode())
    leaklist.entries([("PERSON", NAME)], made).write_parquet(root / "scrub" / "leaklist.parquet")
    assert siphash(made, leaklist.CHECK)
    return root, secret


def test_an_original_in_answers_fails_the_verdict_and_is_shown_nowhere(leaky_world, tmp_path, monkeypatch):
    root, secret = leaky_world
    monkeypatch.setenv("EVALUATE_TEST_KEY", secret)
    sections = read_params(ROOT / "params.yaml", ["scrub.key_env=EVALUATE_TEST_KEY", "scrub.key_file=null"])
    look = f"originals={{scrub: {root / 'scrub'}, before: {root / 'nowhere'}}}"
    drawn = "samples={items: 4, answers: 2, temperature: 0.1, top_p: 1.0, check: exact, k: [1]}"
    with serving(lambda *_: {"choices": [{"message": {"content": '{"winner": "A"}'}}]}) as server:
        judge = f"judge={{server: {{url: '{server.url}', model: m}}}}"
        settings = params(tmp_path / "reports", look, drawn, judge, "few_shot=0", "robustness=null", "metrics=[label_accuracy]")
        evaluate.build(root / "format", root / "base", root / "train", tmp_path / "out", settings, sections)
    assert server.seen == []  # every answer of the tuned model holds it: none leaves the machine
    found = orjson.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert found["verdict"] == "worse" and found["reason"].startswith("It says personal data that scrub had replaced")
    assert found["originals"]["tuned"]["held"] == 12 and found["originals"]["tuned"]["answers"] == 20
    assert found["originals"]["base"]["held"] == 0
    scores = pl.read_parquet(tmp_path / "out" / "items.parquet")
    shown = scores.filter(pl.col("system") == "tuned")["output"].to_list()
    assert all("held an original that scrub had replaced (PERSON)" in each for each in shown)
    assert found["judge"]["items"] == 0 and found["systems"]["tuned"]["confusions"]
    assert blind.contests_of(tmp_path / "out", "base") == ([], 0)  # nor do people see a note in place of an answer
    for path in [*(tmp_path / "out").rglob("*"), *(tmp_path / "reports").rglob("*")]:
        assert path.is_dir() or b"ferncastle" not in path.read_bytes().lower(), path


def test_no_leak_list_is_an_error_that_says_how_to_do_without(leaky_world, tmp_path):
    root, _ = leaky_world
    sections = read_params(ROOT / "params.yaml", [])
    with pytest.raises(InputError, match=r"evaluate\.originals: .*leaklist\.parquet.*evaluate\.originals: null"):
        originals.auditor(originals.Originals(scrub=str(tmp_path), before="x"), sections, root / "base")
    assert originals.auditor(None, sections, root / "base") is None
    off = {**sections, "scrub": sections["scrub"] | {"enabled": False}}
    assert originals.auditor(originals.Originals(scrub=str(tmp_path), before="x"), off, root / "base") is None


def test_forgetting_counts_texts_without_a_loss_and_a_broken_model_fails():
    import numpy as np

    base, tuned = np.full(12, 2.0), np.full(12, 2.0)
    base[0] = tuned[0] = np.nan
    fine = effects.forgetting(base, tuned, 0, 200)
    assert fine["texts"] == 11 and fine["not_a_number"] == {"base": 1, "tuned": 1} and effects.broken({}, fine, None, RULE) == []
    tuned[1:] = np.nan
    lost = effects.forgetting(base, tuned, 0, 200)
    assert lost["texts"] == 0 and "no loss for 12 general texts (the base for 1)" in effects.broken({}, lost, None, RULE)[0]
