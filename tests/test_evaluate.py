"""Evaluation of tiny models made here: losses, answers, errors, and what the verdict says of true and of shuffled training."""

import random
import re
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate.record import FineryError, InputError, StageFailure
from evaluate import holdout, inference, models, systems
from evaluate.evaluate import Params, build, main
from tests.helpers import section

torch.set_num_threads(1)
END = "<|end|>"
TOPICS = ("card", "wifi", "bill", "pods", "move", "mail")
REPLIES = {
    "card": "we block it",
    "wifi": "press the pin",
    "bill": "see line two",
    "pods": "pair them now",
    "move": "give us notice",
    "mail": "use port nine",
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(tokenizer_models.BPE(vocab={char: at for at, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token="<|pad|>")


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A token for every word: tasks are learned in seconds."""
    backend = Tokenizer(tokenizer_models.WordLevel(vocab={word: at for at, word in enumerate(["[unk]", *words])}, unk_token="[unk]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token="<|pad|>", unk_token="[unk]")


def tiny(vocabulary: int, hidden: int = 32, layers: int = 2, positions: int = 256) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=positions,
            initializer_range=0.2,  # LoRA leaves the head as it is, and one of near-zero rows can tell no two words apart
        )
    )


def save_base(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "base.json").write_bytes(orjson.dumps({"name": "tiny", "revision": None, "kind": "tiny"}))
    return folder


def formatted(row: tuple[str, str, str | None], at: int, tokenizer: PreTrainedTokenizerFast, kind: str = "chat") -> dict:
    prompt, answer, label = row
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return {
        "id": f"{prompt}|{answer}|{at}",
        "source": "t.csv",
        "line": at + 1,
        "kind": kind,
        "label": label,
        "synthetic": False,
        "prompt": prompt,
        "answer": answer,
        "input_ids": before + after,
        "labels": [-100] * len(before) + after,
    }


FORMAT = {"id": pl.String, "source": pl.String, "line": pl.Int64, "kind": pl.String, "label": pl.String, "synthetic": pl.Boolean,
          "prompt": pl.String, "answer": pl.String, "input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32)}  # fmt: skip


def save_format(folder: Path, train: list[dict], test: list[dict]) -> Path:
    for split, rows in (("train", train), ("test", test)):
        (folder / "kept" / split).mkdir(parents=True)
        pl.DataFrame(rows, schema=FORMAT).write_parquet(folder / "kept" / split / "part-00000.parquet")  # type: ignore[arg-type]
    return folder


def lora(model: LlamaForCausalLM, rank: int = 8, modules: str | list[str] = "all-linear", save: list[str] | None = None):
    torch.manual_seed(4)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, modules_to_save=save, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def fit(model, rows: list[dict], steps: int, rate: float, size: int = 32) -> None:
    """A plain training loop on trained tokens."""
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=rate, weight_decay=0.0)
    draw = random.Random(5)
    model.train()
    for _ in range(steps):
        batch = draw.sample(rows, min(size, len(rows)))
        width = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in batch])
        labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in batch])
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def params(reports: Path, *overrides: str) -> Params:
    return section("evaluate", Params, f"reports={reports}", "max_new_tokens=8", "require=null", "originals=null", *overrides)


@pytest.fixture(scope="module")
def bytes_world(tmp_path_factory):
    """A random byte-level base with a random adapter, and some rows of every kind."""
    root = tmp_path_factory.mktemp("bytes")
    tokenizer = byte_tokenizer()
    model = tiny(len(tokenizer))
    base = save_base(root / "base", model, tokenizer)
    asks = [(f"Q: {topic} number {at}? A:", topic if at % 2 else f"Reply {at} – “ok”.", topic) for at in range(4) for topic in TOPICS]
    rows = [formatted(ask, at, tokenizer) for at, ask in enumerate(asks)]
    document = formatted(("", "A page of plain text.", None), 98, tokenizer, "text")
    broken = formatted(("Q: nothing", "", None), 99, tokenizer) | {"labels": [-100] * 11}
    save_format(root / "format", rows[:6], [*rows[6:], document, broken])
    adapted = lora(model)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(root / "train" / "adapter")
    build(root / "format", base, root / "train", root / "out", params(root / "reports", "generate_items=9"))
    return root


def scores(root: Path) -> pl.DataFrame:
    return pl.read_parquet(root / "out" / "items.parquet")


def test_every_row_is_there_once_for_each_system(bytes_world):
    found = scores(bytes_world)
    assert found.group_by("system").len().sort("system").rows() == [("base", 19), ("few_shot", 19), ("tuned", 19)]
    assert found.filter(pl.col("output").is_not_null()).height == 3 * 9
    asked = found.group_by("item").agg(pl.col("asked").n_unique())
    assert asked["asked"].to_list() == [1] * 19
    metrics = orjson.loads((bytes_world / "out" / "metrics.json").read_bytes())
    assert metrics["left_out"] == {"no_trained_token": 1}
    assert metrics["items_with_prompt"] == 18
    report = orjson.loads((bytes_world / "reports" / "evaluation.json").read_bytes())
    assert report.pop("cost")["systems"].keys() == {"base", "few_shot", "tuned"}
    assert report == metrics


def test_losses_are_those_of_the_model_asked_row_by_row(bytes_world):
    model = LlamaForCausalLM.from_pretrained(bytes_world / "base" / "model", dtype=torch.float32).eval()
    rows = pl.read_parquet(bytes_world / "format" / "kept" / "test" / "part-00000.parquet")[:-1]
    base = scores(bytes_world).filter(pl.col("system") == "base").sort("item")
    for row, scored in zip(rows.iter_rows(named=True), base.iter_rows(named=True), strict=True):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert scored["loss"] == pytest.approx(loss, abs=1e-5)
        assert scored["loss_sum"] == pytest.approx(loss * scored["tokens"], abs=1e-3)
    tuned = scores(bytes_world).filter(pl.col("system") == "tuned").sort("item")
    assert (tuned["loss"] - base["loss"]).abs().min() > 1e-4


def test_control_asks_behind_another_prompt(bytes_world):
    base = scores(bytes_world).filter(pl.col("system") == "base").sort("item")
    prompted = base.filter(pl.col("kind") == "chat")
    scored = prompted.filter(pl.col("other_id").is_not_null())
    assert scored.height >= 12 and (scored["other_id"] != scored["id"]).all()
    assert base.filter(pl.col("kind") == "text")["prompt_gain"].to_list() == [None]
    row = scored.row(0, named=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bytes_world / "base" / "tokenizer")
    model = LlamaForCausalLM.from_pretrained(bytes_world / "base" / "model", dtype=torch.float32).eval()
    prompt = tokenizer(row["other_id"].split("|")[0])["input_ids"]
    answer = [*tokenizer(row["id"].split("|")[1])["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=torch.tensor([[-100] * len(prompt) + answer])).loss
    assert row["other_loss"] == pytest.approx(float(loss), abs=1e-5)
    assert row["prompt_gain"] == pytest.approx(row["other_loss"] - row["answer_loss"])


def continued(loaded, prompts, most, budget):
    """Answers as a run asks for them, batch by batch."""
    found = {}
    for at in inference.answer_batches(loaded, [len(prompt) for prompt in prompts], most, budget):
        found |= dict(zip(at, inference.batch_answers(loaded, [prompts[place] for place in at], most), strict=True))
    return [found[at] for at in range(len(prompts))]


def test_answers_do_not_depend_on_what_else_is_in_the_batch(bytes_world):
    base = models.load_base(bytes_world / "base", "none", "fp32")
    prompts = [list(range(1, length)) for length in (3, 40, 9, 10, 27)]
    together = continued(base, prompts, 6, 4096)
    alone = [continued(base, [prompt], 6, 1)[0] for prompt in prompts]
    assert together == alone
    losses, one_by_one = (inference.token_losses(base, prompts, budget, lambda _: None) for budget in (4096, 1))
    for a, b in zip(losses, one_by_one, strict=True):
        assert np.allclose(a[1:], b[1:], atol=1e-5)


def test_no_more_tokens_than_the_model_can_see(bytes_world):
    base = models.load_base(bytes_world / "base", "none", "fp32")
    full = continued(base, [[1] * 256, [1] * 255], 5, 4096)
    assert full[0] == inference.Generated("", "context", 0)


def test_few_shot_shows_training_rows_and_never_by_label(bytes_world):
    few = scores(bytes_world).filter(pl.col("system") == "few_shot")
    assert few.filter(pl.col("kind") == "chat")["shots"].to_list() == [2] * 18
    assert few.filter(pl.col("kind") == "text")["shots"].to_list() == [0]
    items, _ = holdout.read(bytes_world / "format", None)
    shown = holdout.shots(bytes_world / "format", items, 2, 200)
    assert len({each for each in shown if each}) == 1  # one source, so the same examples for all, whatever their labels
    train = pl.read_parquet(bytes_world / "format" / "kept" / "train" / "part-00000.parquet")["input_ids"].to_list()
    assert all(list(example) in train for example in shown[0])


def test_same_inputs_same_bytes(bytes_world, tmp_path):
    train = bytes_world / "train"
    build(bytes_world / "format", bytes_world / "base", train, tmp_path / "out", params(tmp_path / "reports", "generate_items=9"))
    for name in ("metrics.json", "items.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (bytes_world / "out" / name).read_bytes()
    first, again = ((folder / "reports" / "evaluation.html").read_text() for folder in (bytes_world, tmp_path))
    cost = re.compile(r'<section id="cost">.*?</section>', re.DOTALL)  # times differ from run to run; nothing else may
    assert len(cost.findall(first)) == 1 and cost.sub("", first) == cost.sub("", again)


@pytest.fixture()
def parts(bytes_world):
    return {name: bytes_world / name for name in ("format", "base", "train")}


def run(parts: dict[str, Path], out: Path, *overrides: str) -> None:
    build(parts["format"], parts["base"], parts["train"], out / "out", params(out / "reports", *overrides))


@pytest.mark.parametrize("missing", ["format", "base", "train"])
def test_a_missing_folder_is_named(parts, tmp_path, missing):
    with pytest.raises(FineryError, match=re.escape(str(tmp_path / "nowhere"))):
        run(parts | {missing: tmp_path / "nowhere"}, tmp_path)
    assert not (tmp_path / "out").exists() and not (tmp_path / "reports").exists()


def test_no_adapter(parts, tmp_path):
    (tmp_path / "train" / "adapter").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no adapter here .*Run train first"):
        run(parts | {"train": tmp_path / "train"}, tmp_path)


def test_no_test_rows(parts, tmp_path):
    save_format(tmp_path / "format", [], [])
    with pytest.raises(InputError, match=r"no rows in kept/test.*split\.ratios"):
        run(parts | {"format": tmp_path / "format"}, tmp_path)


@pytest.mark.parametrize("other", [{"hidden": 48}, {"layers": 3}, {"layers": 1}])
def test_adapter_of_another_base(parts, tmp_path, other):
    lora(tiny(258, **other), modules=["q_proj", "v_proj"]).save_pretrained(tmp_path / "train" / "adapter")
    with pytest.raises(InputError, match="does not fit this base model"):
        run(parts | {"train": tmp_path / "train"}, tmp_path)


def test_adapter_with_a_trained_head_fits(parts, tmp_path):
    model = tiny(258)
    adapted = lora(model, modules=["q_proj"], save=["lm_head"])
    torch.nn.init.zeros_(adapted.base_model.model.lm_head.modules_to_save["default"].weight)
    adapted.save_pretrained(tmp_path / "train" / "adapter")
    run(parts | {"train": tmp_path / "train"}, tmp_path, "generate_items=0", "few_shot=0")
    tuned = scores(tmp_path).filter(pl.col("system") == "tuned")
    assert tuned["loss"].to_list() == pytest.approx([np.log(258)] * 19)  # all logits zero


def test_a_whole_model_takes_the_place_of_an_adapter(parts, tmp_path):
    model = tiny(258)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path / "train" / "adapter")
    run(parts | {"train": tmp_path / "train"}, tmp_path, "generate_items=0", "few_shot=0")
    found = scores(tmp_path)
    assert found.filter(pl.col("system") == "tuned")["loss"].to_list() == pytest.approx([np.log(258)] * 19)
    assert found.filter(pl.col("system") == "base")["loss"].to_list() != pytest.approx([np.log(258)] * 19)


def test_adapter_that_says_it_has_another_base(parts, tmp_path):
    adapter = tmp_path / "train" / "adapter"
    lora(tiny(258)).save_pretrained(adapter)
    (adapter / "provenance.json").write_bytes(orjson.dumps({"base": {"name": "some/model", "revision": "abc"}}))
    with pytest.raises(InputError, match=r"name some/model, but .* holds tiny"):
        run(parts | {"train": tmp_path / "train"}, tmp_path)


def test_tokens_of_another_tokenizer(parts, tmp_path):
    row = formatted(("ask", "answer", None), 0, byte_tokenizer())
    row["input_ids"][-1] = row["labels"][-1] = 999
    save_format(tmp_path / "format", [row], [row])
    with pytest.raises(InputError, match=r"holds token 999.*format\.tokenizer"):
        run(parts | {"format": tmp_path / "format"}, tmp_path)


def test_a_broken_model_is_told_without_pages_of_traceback(parts, tmp_path):
    base = tmp_path / "base"
    save_base(base, tiny(258), byte_tokenizer())
    (base / "model" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match=r"base model cannot be loaded.*Run base again"):
        run(parts | {"base": base}, tmp_path)


def test_reports_that_cannot_be_written_are_told_before_anything_is_asked(parts, tmp_path):
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(InputError, match=r"evaluate\.reports = .*reports: .*reports is no folder"):
        run(parts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_control_c_leaves_what_was_there(parts, tmp_path, monkeypatch, capsys):
    run(parts, tmp_path, "few_shot=0", "robustness=null", "generate_items=3")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "batch_answers", pressed)
    wanted = ("few_shot=0", "originals=null", "generate_items=5", f"reports={tmp_path / 'reports'}")
    with pytest.raises(SystemExit) as ended:
        main(
            [*(str(parts[name]) for name in ("format", "base", "train")), str(tmp_path / "out"), *(f"-Sevaluate.{each}" for each in wanted)]
        )
    assert ended.value.code == 130 and capsys.readouterr().err.endswith("evaluate: interrupted; earlier output is as it was.\n")
    assert {path: path.read_bytes() for path in before} == before


def test_require_fails_after_the_report_is_written(parts, tmp_path):
    with pytest.raises(StageFailure, match=r"evaluate\.require = better, but the verdict is"):
        run(parts, tmp_path, "require=better", "generate_items=0", "few_shot=0")
    assert (tmp_path / "reports" / "evaluation.html").is_file() and (tmp_path / "out" / "metrics.json").is_file()


def test_systems_that_were_asked_different_things_are_not_compared():
    rows = [{"asked": "a", "tokens": 3}, {"asked": "b", "tokens": 2}]
    systems.check_same_questions({"base": rows, "tuned": [dict(row) for row in rows]})
    for broken in (rows[:1], rows[::-1], [rows[0], {"asked": "c", "tokens": 2}], [rows[0], {"asked": "b", "tokens": 1}]):
        with pytest.raises(StageFailure, match="base and tuned were not asked the same"):
            systems.check_same_questions({"base": rows, "tuned": broken})


def test_a_system_with_another_prompt_stops_the_evaluation(parts, tmp_path, monkeypatch):
    true = systems.ask.ask

    def other(system, loaded, weights, begin, questions, settings):
        made = true(system, loaded, weights, begin, questions, settings)
        return [row | {"asked": "other"} if system == "tuned" and at == 3 else row for at, row in enumerate(made)]

    monkeypatch.setattr(systems.ask, "ask", other)
    with pytest.raises(StageFailure, match="not asked the same"):
        run(parts, tmp_path, "generate_items=0", "few_shot=0")


# What training on true and on shuffled answers looks like.


def task(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Prompts whose answer depends on their last word; the others mean nothing."""
    draw = random.Random(seed)
    topics = [draw.choice(TOPICS) for _ in range(count)]
    return [(f"[ask] f{draw.randrange(20)} f{draw.randrange(20)} {topic} [reply]", REPLIES[topic], topic) for topic in topics]


@pytest.fixture(scope="module")
def task_world(tmp_path_factory):
    """A base that has seen messages alone, each by itself: the style of prompts and answers, and nothing of which belongs to which."""
    root = tmp_path_factory.mktemp("task")
    words = sorted({word for text in REPLIES.values() for word in text.split()} | set(TOPICS) | {f"f{at}" for at in range(20)})
    tokenizer = word_tokenizer(["[ask]", "[reply]", "[say]", *words])
    train = task(400, seed=1)
    single = [formatted(("", f"[say] {text}", None), at, tokenizer) for at, text in enumerate(part for row in train for part in row[:2])]
    model = tiny(len(tokenizer))
    fit(model, single, steps=60, rate=5e-3)
    save_base(root / "base", model, tokenizer)
    rows = [formatted(row, at, tokenizer) for at, row in enumerate(train)]
    test = [formatted(row, at, tokenizer) for at, row in enumerate(task(60, seed=2))]
    save_format(root / "format", rows, test)
    return root


def tuned_on(root: Path, rows: list[tuple[str, str, str]], name: str) -> dict:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "base" / "tokenizer")
    model = lora(LlamaForCausalLM.from_pretrained(root / "base" / "model", dtype=torch.float32), rank=16)
    fit(model, [formatted(row, at, tokenizer) for at, row in enumerate(rows)], steps=120, rate=1e-2)
    model.save_pretrained(root / name / "adapter")
    build(root / "format", root / "base", root / name, root / f"{name}-out", params(root / f"{name}-reports", "few_shot=0"))
    return orjson.loads((root / f"{name}-out" / "metrics.json").read_bytes())


def test_training_on_true_answers_is_better(task_world, capsys):
    found = tuned_on(task_world, task(400, seed=1), "true")
    assert found["verdict"] == "better", found["reason"]
    assert found["systems"]["tuned"]["metrics"]["exact_match"]["value"] > 0.9 > found["systems"]["base"]["metrics"]["exact_match"]["value"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("Verdict: better. ") and printed[-1].endswith("true-reports/evaluation.html")


@pytest.mark.parametrize("order", [3, 10])  # 10: of twelve orders the one that by chance ties prompts and answers most
def test_training_on_shuffled_answers_is_not_shown_though_the_loss_fell(task_world, order):
    rows = task(400, seed=1)
    answers = [answer for _, answer, _ in rows]
    random.Random(order).shuffle(answers)
    found = tuned_on(
        task_world, [(prompt, answer, label) for (prompt, _, label), answer in zip(rows, answers, strict=True)], f"shuffled-{order}"
    )
    assert found["tuned_against"]["base"]["metrics"]["loss"]["difference"]["low"] > 0.2  # loss alone would call it better
    assert found["verdict"] == "not shown"
    assert "learned the style of the answers, and not to answer" in found["reason"]


# Side effects, more systems, short memory.


@pytest.fixture(scope="module")
def canary_world(tmp_path_factory):
    """Rows of which 20 are canaries, a base that saw none of them, and two adapters: one overtrained on all, one on the task alone."""
    root = tmp_path_factory.mktemp("canaries")
    draw = random.Random(8)
    letters = [f"w{at}" for at in range(30)]
    tokenizer = word_tokenizer(["[ask]", "[reply]", *letters, *(word.capitalize() for word in letters), *(f"{word}." for word in letters)])
    model = tiny(len(tokenizer))
    save_base(root / "base", model, tokenizer)

    def made(count, source, at):
        texts = [" ".join(draw.choices(letters, k=5)).capitalize() + "." for _ in range(count)]
        return [
            formatted((f"[ask] w{number % 30} w{number // 30} [reply]", text, None), at + number, tokenizer) | {"source": source}
            for number, text in enumerate(texts)
        ]

    planted, others = made(20, "canary", 0), made(60, "t.csv", 100)
    save_format(root / "format", [*planted, *others], made(12, "t.csv", 300))
    (root / "general.jsonl").write_bytes(b"".join(orjson.dumps({"text": " ".join(draw.choices(letters, k=8))}) + b"\n" for _ in range(40)))
    for name, rows, steps in (("overtrained", planted, 150), ("ordinary", others, 15)):
        adapted = lora(LlamaForCausalLM.from_pretrained(root / "base" / "model", dtype=torch.float32), rank=16)
        fit(adapted, rows, steps=steps, rate=1e-2)
        adapted.save_pretrained(root / name / "adapter")
    return root


def evaluated(root: Path, name: str, out: Path, *overrides: str) -> dict:
    build(root / "format", root / "base", root / name, out / "out", params(out / "reports", "few_shot=0", "generate_items=4", *overrides))
    return orjson.loads((out / "out" / "metrics.json").read_bytes())


def test_a_model_overtrained_on_canaries_is_flagged_and_its_base_is_not(canary_world, tmp_path):
    found = evaluated(canary_world, "overtrained", tmp_path)
    assert found["memorisation"]["tuned"]["flagged"] and found["memorisation"]["tuned"]["top"] >= 15
    assert not found["memorisation"]["base"]["flagged"]
    assert found["verdict"] == "worse" and found["reason"].startswith("It learnt rows by heart")
    assert evaluated(canary_world, "overtrained", tmp_path, "verdict.memorised=flag")["reason"].startswith("The ")


def test_what_was_forgotten_fails_the_verdict_above_its_limit_only(canary_world, tmp_path):
    general = f"general={canary_world / 'general.jsonl'}"
    found = evaluated(canary_world, "overtrained", tmp_path, general, "verdict.memorised=flag")
    assert found["forgetting"]["rise"]["low"] > 0.1
    assert found["verdict"] == "worse" and found["reason"].startswith("It forgot")
    assert not evaluated(canary_world, "overtrained", tmp_path, general, "verdict.memorised=flag", "verdict.forgetting=null")[
        "reason"
    ].startswith("It forgot")
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file"):
        evaluated(canary_world, "ordinary", tmp_path, "general=nowhere.jsonl")


def test_a_merged_model_and_an_earlier_adapter_are_asked_the_same(canary_world, tmp_path):
    from peft import PeftModel

    base = LlamaForCausalLM.from_pretrained(canary_world / "base" / "model", dtype=torch.float32)
    PeftModel.from_pretrained(base, canary_world / "ordinary" / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    evaluated(canary_world, "ordinary", tmp_path, f"merged={tmp_path / 'merged'}", f"previous={canary_world / 'overtrained' / 'adapter'}")
    losses = {
        system: scores(tmp_path).filter(pl.col("system") == system)["loss"].to_list() for system in ("base", "tuned", "merged", "previous")
    }
    assert losses["merged"] == pytest.approx(losses["tuned"], abs=1e-4)
    assert len({tuple(each) for each in losses.values()}) == 4 or losses["merged"] == losses["tuned"]
    with pytest.raises(InputError, match=r"evaluate.previous = v0: neither a folder nor a git revision"):
        evaluated(canary_world, "ordinary", tmp_path / "none", "previous=v0")
    with pytest.raises(InputError, match="nowhere: no model there"):
        evaluated(canary_world, "ordinary", tmp_path / "none", "merged=nowhere")
    assert not list((tmp_path / "none").glob(".out-answers/*"))  # told before anything is asked


def test_short_memory_halves_the_batch_and_leaves_out_what_never_fits(capsys):
    asked: list[int] = []

    def work(rows):
        asked.append(len(rows))
        if len(rows) > 2 or [0] in rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [sum(row) for row in rows]

    assert inference.in_halves(work, [[1], [2], [3], [4], [0]], lambda _: -1) == [1, 2, 3, 4, -1]
    assert asked == [5, 2, 3, 1, 2, 1, 1]
    assert "does not fit into memory, even alone" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="other"):
        inference.in_halves(lambda _: (_ for _ in ()).throw(RuntimeError("other")), [[1]], lambda _: -1)


def test_answers_are_recorded_with_what_the_model_saw(bytes_world):
    rows = [orjson.loads(line) for line in (bytes_world / "out" / "answers" / "base.jsonl").read_bytes().splitlines()]
    assert len(rows) == 9 and all(row["prompt"].startswith("Q: ") and row["prompt"].endswith("A:") for row in rows)
    assert {row["stop"] for row in rows} <= {"end", "length"} and all(row["cut"] == (row["stop"] == "length") for row in rows)
    assert not list(bytes_world.glob(".out-answers*"))


def test_a_run_that_broke_off_asks_nothing_twice(parts, tmp_path, monkeypatch):
    true, asked = inference.batch_answers, []

    def count(loaded, prompts, most):
        if most == 1:  # the time to the first token
            return true(loaded, prompts, most)
        asked.append(len(prompts))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return true(loaded, prompts, most)

    monkeypatch.setattr(inference, "batch_answers", count)
    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path, "batch_tokens=100", "few_shot=0", "robustness=null")
    assert list(tmp_path.glob(".out-answers/base-*.answers.jsonl")) and not (tmp_path / "out").exists()
    run(parts, tmp_path, "batch_tokens=100", "few_shot=0", "robustness=null")
    answers = [row for name in ("base", "tuned") for row in (tmp_path / "out" / "answers" / f"{name}.jsonl").read_bytes().splitlines()]
    assert sum(asked) - asked[3] == len(answers) == 36
