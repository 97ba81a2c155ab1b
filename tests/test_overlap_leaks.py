"""Leaks planted in real rows are found where they stand; rows that only share a form with an item, or a phrase, are not dropped.

FINERY_WHOLE_T0=1 plants into the whole of t0 instead of some thousand rows.
"""

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate import decontaminate, ngrams
from tests.helpers import SHARED, chat, frame, section

pytestmark = pytest.mark.skipif(not (SHARED / "t0_55k.parquet").exists(), reason=f"{SHARED / 't0_55k.parquet'} is not here")
WAYS = ("verbatim", "cased", "punctuation", "embedded", "truncated")
PLAIN = 60_000 if os.environ.get("FINERY_WHOLE_T0") == "1" else 600
NAMES = ["Oluwaseun", "Petra", "Ignatius", "Marisol", "Dragan", "Fumiko", "Leopold", "Anneke", "Rashid", "Svetlana", "Tobias", "Yewande"]


def run(folder: Path, items: pl.DataFrame, rows: list[dict[str, Any]]) -> tuple[dict[int, Any], dict[int, Any]]:
    """{position: evidence} of the rows dropped, and of those flagged."""
    folder.mkdir(exist_ok=True)
    items.write_parquet(folder / "items.parquet")
    params = section("decontaminate", decontaminate.Params, f"benchmarks={folder}")
    context = decontaminate.prepare(params)
    batch = frame(rows).with_row_index("row").with_columns(pl.lit("").alias("split"))
    done = [decontaminate.rows(batch[at : at + 4096], params, context) for at in range(0, batch.height, 4096)]
    both = (pl.concat([each.dropped for each in done]), pl.concat([each.tables["flagged"] for each in done]))
    dropped, flagged = ({line - 1: json.loads(proof) for line, proof in each.select("line", "evidence").rows()} for each in both)
    return dropped, flagged


def planted(way: str, item: str, host: str, rng: random.Random) -> tuple[str, int, int]:
    """A prompt that holds the item, and where."""
    if way == "cased":
        item = "".join(rng.choice((str.upper, str.lower))(word) for word in re.split(r"(\s+)", item))
    if way == "punctuation":
        item = re.sub(r"(?<!\d)[.,;:!?'\"()–—-](?!\d)", lambda _: rng.choice(["", " ; ", "…", " ", ", ", "! "]), item)
    if way == "truncated":
        words = list(re.finditer(r"\S+", item))
        item = item[: words[round(0.6 * len(words)) - 1].end()]
    if way != "embedded":
        return item, 0, len(item)
    middle = host.find(" ", rng.randrange(len(host))) % len(host) + 1
    return f"{host[:middle]}\n{item}\n{host[middle:]}", middle + 1, middle + 1 + len(item)


@pytest.fixture(scope="module")
def leaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """500 items of t0, planted in five ways into rows that held none before, among plain rows."""
    rng = random.Random(11)
    folder = tmp_path_factory.mktemp("t0")
    t0 = pl.read_parquet(SHARED / "t0_55k.parquet").with_columns(pl.col("completion").str.replace("<|endoftext|>", "", literal=True))
    t0 = t0.unique("prompt", keep="first", maintain_order=True)
    chosen = t0[rng.sample(range(t0.height), min(t0.height, 500 + 800 + PLAIN))]
    items, hosts, plain = chosen[:500].select(question="prompt", answer="completion"), chosen[500:1300], chosen[1300:]
    rows = [chat(prompt, answer or "-") for prompt, answer in hosts.select("prompt", "completion").rows()]
    held = {at for found in run(folder / "a", items, rows) for at in found}
    clean = [at for at in range(hosts.height) if at not in held][:500]
    plants = [
        planted(WAYS[at % 5], question, hosts["prompt"][host], rng)
        for at, (question, host) in enumerate(zip(items["question"], clean, strict=True))
    ]
    rows = [chat(text, hosts["completion"][host] or "-") for (text, _, _), host in zip(plants, clean, strict=True)]
    rows += [chat(prompt, answer or "-") for prompt, answer in plain.select("prompt", "completion").rows()]
    dropped, flagged = run(folder / "b", items, rows)
    return {"items": items, "plants": plants, "dropped": dropped, "flagged": flagged, "rows": rows}


def test_planted_leaks_are_found_where_they_stand(leaks: dict[str, Any]) -> None:
    right = dict.fromkeys(WAYS, 0)
    for at, (_, start, end) in enumerate(leaks["plants"]):
        proof = leaks["dropped"].get(at)
        span: dict[str, Any] = proof["span"] if proof else {"field": "", "turn": 0, "start": 0, "end": 0}
        common = min(end, span["end"]) - max(start, span["start"])
        inside = start <= span["start"] and span["end"] <= end
        right[WAYS[at % 5]] += (
            span["field"] == "messages" and (inside or proof["tier"] == "near") and 2 * common >= span["end"] - span["start"]
        )
    assert sum(right.values()) >= 495
    assert all(right[way] == 100 for way in ("verbatim", "cased"))
    assert all(at in leaks["dropped"] or at in leaks["flagged"] for at in range(500)), "what is too short to be sure of is flagged"


def test_spans_cover_the_plant_and_hold_the_same_words_on_both_sides(leaks: dict[str, Any]) -> None:
    covered = []
    for at, proof in leaks["dropped"].items():
        item = leaks["items"].row(proof["item"] - 1, named=True)
        span, item_span = proof["span"], proof["item_span"]
        text = leaks["rows"][at]["messages"][span["turn"]]["content"][span["start"] : span["end"]]
        theirs = item[item_span["field"]][item_span["start"] : item_span["end"]]
        if proof["tier"] in ("ngram", "contained"):
            ours, both = (ngrams.folded(each) for each in ngrams.tokens(pl.Series([text, theirs])))
            assert ours.to_list() == both.to_list()
            assert abs(len(ours) - proof["words"]) <= 1  # a sign at the edge may be one only beside what follows
        if proof["tier"] == "exact":
            assert "".join(filter(str.isalnum, text.casefold())) == "".join(filter(str.isalnum, theirs.casefold()))
        if at < 500:
            _, start, end = leaks["plants"][at]
            covered.append((min(end, span["end"]) - max(start, span["start"])) / (end - start))
    assert sum(share >= 0.9 for share in covered) >= 0.85 * len(covered)


def numbers(text: str, rng: random.Random) -> str:
    """Other numbers, each different from what stood there."""
    return re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randrange(1, 30 * 10 ** len(found[0]))), text)


def names(text: str, rng: random.Random, people: set[str]) -> str:
    """Other names for all people of a text."""
    found = sorted(people & set(re.findall(r"[A-Z][a-z]+", text)))
    others = rng.sample([name for name in NAMES if name not in found], len(found))
    other = dict(zip(found, others, strict=True))
    return re.sub(r"\b[A-Z][a-z]+\b", lambda word: other.get(word[0], word[0]), text)


@pytest.mark.skipif(not (SHARED / "gsm8k_test.jsonl").exists(), reason=f"{SHARED / 'gsm8k_test.jsonl'} is not here")
@pytest.mark.parametrize("way", ["numbers", "names", "both"])
def test_problems_with_other_numbers_or_names_are_flagged_and_not_dropped(tmp_path: Path, way: str) -> None:
    """500 decoys each: all numbers of an item exchanged, all its people (words that are capitalised inside a sentence and act), or both."""
    rng = random.Random(5)
    items = pl.read_ndjson(SHARED / "gsm8k_test.jsonl")
    whole = " ".join(items["question"])
    small = set(re.findall(r"\b[a-z]+\b", whole))
    verbs = "has|had|is|was|wants|buys|bought|gets|got|can|makes|made|needs|have|goes|went|gave|gives|did|does|sells|sold|spends|and"
    people = {name for name in re.findall(rf"\b([A-Z][a-z]+)(?:'s| (?:{verbs}))\b", whole) if name.lower() not in small}
    texts = [each for each in items["question"] if len(re.findall(r"\d+", each)) > 1]
    if way != "numbers":
        texts = [each for each in texts if 0 < len(people & set(re.findall(r"\b[A-Z][a-z]+\b", each))) <= len(NAMES) // 2]
    decoys = rng.sample(texts, 500)
    decoys = decoys if way == "numbers" else [names(each, rng, people) for each in decoys]
    decoys = decoys if way == "names" else [numbers(each, rng) for each in decoys]
    dropped, flagged = run(tmp_path / "sets", items, [chat(each, "It is 7.") for each in decoys])
    assert dropped == {}
    assert len(flagged) >= 495
    assert {proof["tier"] for proof in flagged.values()} <= {"masked", "partial"}


def test_forms_and_phrases_are_not_dropped(tmp_path: Path, leaks: dict[str, Any]) -> None:
    """Rows that share a form with an item of a mixed set, sums, and phrases that stand in many texts."""
    rng = random.Random(9)
    forms = {
        "Which category best describes the following question: {} ? \n\nChoose from the following list: \nDescription, Entity, "
        "Abbreviation, Person, Quantity, Location": [
            "what does a spermologer collect",
            "how far is the moon from here",
            "who built the first bicycle",
        ],
        "How much does it cost to {} by card?": ["top up my phone", "send a parcel abroad", "book a place at the table"],
        "You are considering whether to buy a product. You look at the reviews. Would the following review decrease or increase the "
        "chances of you buying the product?\nReview title: {}": [
            "broke on the first day and was never mended",
            "a gift that everybody loved",
        ],
        "What do I need to do to {}?": ["get a refund for it", "close my old account", "learn the violin in a year"],
        "What is {} when every step is done from left to right?": ["12+35-7", "999*3/41", "8 * 8 - 60"],
    }
    questions, rows = [], list[str]()
    for form, fills in forms.items():
        questions.append(form.format(fills[0]))
        rows += [form.format(fill) for fill in fills[1:]]
    questions += ["Compute 12+35-7 and then round the result down to tens.", *leaks["items"]["question"]]
    phrases = [
        "at the end of the day",
        "as far as I know",
        "please let me know if you have any questions",
        "thank you very much for your help",
    ]
    phrases += ["What is the value of", "what do you think about the following text", "give the answer in one word", "12+35-7", "999*3/41"]
    rows += [" ".join(rng.sample(phrases, rng.randrange(1, 4))) for _ in range(230)]
    rows += [f"Compute {rng.randrange(99)}*{rng.randrange(99)}/{rng.randrange(9)}, then round." for _ in range(10)]
    items = pl.DataFrame({"question": questions, "answer": ["-"] * len(questions)})
    assert run(tmp_path / "sets", items, [chat(each, "Yes.") for each in rows])[0] == {}
