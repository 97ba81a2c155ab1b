"""The formatted dataset: pairs, what is cut and how, and what is mixed in."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from curate import dataset_card, lengths, masking, mixing, store, template
from curate.format import STAGE
from curate.masking import NOT_TRAINED, Example
from curate.record import InputError, ParamsError
from tests.helpers import chat, document, dropped, frame, preference, row, run_stage, section, write_input
from train.tiny import make_tokenizer

END = 2  # <|im_end|>


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(["How do I restart my hub? Hold the pin.", "plan router bill line speed"] * 5, 400, 512).save_pretrained(path)
    return path


def formatted(tokenizer: Path, out: Path, rows: list[dict[str, Any]], *overrides: str, **splits: list[dict[str, Any]]) -> dict[str, Any]:
    frames = {name: frame(each) for name, each in {"train": rows, **splits}.items()}
    source = write_input(frame([]), out / "in", frames)
    return run_stage(STAGE, source, out / "out", f"tokenizer={tokenizer}", "max_length=64", *overrides)


def kept(out: Path) -> pl.DataFrame:
    return store.read_rows(out / "out", "train")


LONG = "Hold the pin and wait. " * 40


def test_pairs_have_their_own_columns_and_chats_have_none(tokenizer: Path, tmp_path: Path) -> None:
    metrics = formatted(tokenizer, tmp_path, [preference("Best plan?", "Fibre.", "None."), chat("Hi", "Yo"), document("A page.")])
    pair, *others = kept(tmp_path).to_dicts()
    assert pair["prompt_ids"] + pair["chosen_ids"] == pair["input_ids"][: len(pair["prompt_ids"] + pair["chosen_ids"])]
    assert [label for label in pair["labels"] if label != NOT_TRAINED] == pair["chosen_ids"]
    assert pair["chosen_ids"][-1] == pair["rejected_ids"][-1] == END
    assert (pair["answer"], pair["rejected"]) == ("Fibre.", "None.")
    assert all(other[name] is None for other in others for name in ("rejected", "prompt_ids", "chosen_ids", "rejected_ids"))
    assert metrics["counts"]["train_pairs"] == 1


def test_a_cut_answer_still_ends_with_a_trained_end_token(tokenizer: Path, tmp_path: Path) -> None:
    rows = [chat("Hi", LONG), document(LONG), preference("Hi", "Yo", LONG), preference(LONG, "Yo", "No"), chat("Hi", "Yo", LONG, "Yo")]
    metrics = formatted(tokenizer, tmp_path, rows, "over_length=truncate")
    cut, text, pair, several = kept(tmp_path).to_dicts()
    for each in (cut, text):
        assert len(each["input_ids"]) == 64 and each["input_ids"][-1] == each["labels"][-1] == END
    assert len(pair["prompt_ids"]) + len(pair["rejected_ids"]) == 64 and pair["rejected_ids"][-1] == END
    assert [label for label in several["labels"] if label != NOT_TRAINED][-1] == END
    assert metrics["reasons"] == {"zero_loss": 1}
    assert metrics["counts"]["train_truncated"] == 4


def test_only_one_token_of_an_answer_is_no_answer() -> None:
    ids = np.array([5, 6, 7, 8, END], np.int32)
    made = Example("p", "a", ids, np.where(ids > 6, ids, -100), 2, 5)
    four = lengths.truncate(made, 4)
    assert four is not None and (four.input_ids.tolist(), four.labels.tolist()) == ([5, 6, 7, END], [-100, -100, 7, END])
    assert ids.tolist() == [5, 6, 7, 8, END]
    cut = lengths.truncate(made, 3)
    assert cut is not None and (cut.input_ids.tolist(), masking.trained(cut)) == ([5, 6], 0)
    assert lengths.truncate(made, 5) is made


def test_a_chat_is_split_between_turns_and_every_answer_is_trained_once(tokenizer: Path, tmp_path: Path) -> None:
    turns = [text for at in range(8) for text in (f"Question {at}?", f"Answer number {at}.")]
    metrics = formatted(tokenizer, tmp_path, [chat(*turns, system="Brief."), chat("Hi", LONG), chat("Hi", "Yo")], "over_length=split")
    coded = template.codec(tokenizer, template.load_template("chatml", tokenizer))
    pieces = kept(tmp_path).filter(pl.col("line") == 1)
    texts = [coded.backend.decode(ids.to_list(), skip_special_tokens=False) for ids in pieces["input_ids"]]
    assert len(texts) > 2 and all("Brief." in text for text in texts)
    assert pieces["input_ids"].list.len().max() <= 64  # type: ignore[operator]
    trained = "".join(coded.backend.decode([x for x in labels if x != NOT_TRAINED]) for labels in pieces["labels"])
    assert trained == "".join(turns[1::2])
    assert pieces["id"].n_unique() == len(texts)
    assert metrics["reasons"] == {"over_length": 1} and metrics["counts"]["train_split"] == 1
    whole = template.render([{"role": "system", "content": "Brief."}, {"role": "user", "content": turns[0]}], coded.template, False)
    assert texts[0].startswith(whole)


def test_tools_go_into_every_piece_of_a_chat(tokenizer: Path) -> None:
    coded = template.codec(tokenizer, template.load_template("chatml", tokenizer))
    messages = [{"role": ("user", "assistant")[at % 2], "content": f"turn {at}"} for at in range(6)]
    messages[0] = {**messages[0], "tools": [{"type": "function", "function": {"name": "look"}}]}  # type: ignore[dict-item]
    (whole,) = masking.conversations([messages], coded)
    assert isinstance(whole, Example)
    pieces = lengths.split_chat(messages, len(whole.input_ids) - 1, coded, "all")
    assert pieces is not None and len(pieces) == 2
    assert all(coded.backend.decode(piece.input_ids.tolist()).count('"look"') == 1 for piece in pieces)


def pool(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    lines = [orjson.dumps({"prompt": f"General question {at}", "completion": "Fine."}) for at in range(count)]
    (folder / "general.jsonl").write_bytes(b"\n".join(lines))
    return folder / "general.jsonl"


def test_a_pool_is_mixed_in_at_its_share_and_never_what_is_held_out(tokenizer: Path, tmp_path: Path) -> None:
    path = pool(tmp_path / "pool", 60)
    rows = [chat(f"Own {at}", "Yo") for at in range(80)]
    metrics = formatted(
        tokenizer,
        tmp_path,
        rows,
        f"mix.pools=[{{path: {path}, share: 0.2}}]",
        test=[chat(f"GENERAL  question {at}", "x") for at in range(40)],
    )
    mixed = kept(tmp_path).filter(pl.col("mixed").is_not_null())
    assert mixed.height == 20 and set(mixed["mixed"]) == {str(path)}
    assert all(int(prompt.split()[-1].split("<")[0]) >= 40 for prompt in mixed["prompt"].str.extract(r"question (\d+)"))
    assert metrics["counts"][f"mixed_wanted: {path}"] == metrics["counts"][f"mixed_rows: {path}"] == 20
    refused = dropped(tmp_path / "out")
    assert refused and {each["reason"] for each in refused} == {"held_out_prompt"}
    assert metrics["rows_in"] + metrics["added"] == metrics["kept"] + metrics["dropped"]
    assert f"| {path} | 20 | 20 | 20.0% |" in (tmp_path / "out" / "README.md").read_text()
    assert store.read_rows(tmp_path / "out", "test")["mixed"].null_count() == 40
    (each,) = dataset_card.mixed(metrics["counts"])
    assert each["share"] == 0.2


def test_the_mixture_does_not_depend_on_how_the_input_is_cut(tokenizer: Path, tmp_path: Path) -> None:
    path = pool(tmp_path / "pool", 500)
    rows = frame([chat(f"Own {at}", "Yo", label="ab"[at % 2]) for at in range(5000)])
    settings = (f"tokenizer={tokenizer}", f"mix.pools=[{{path: {path}, share: 0.05}}]", "mix.weights=[{label: a, weight: 1.5}]")
    found = []
    for name, workers, cut in (("a", 1, 250_000), ("b", 2, 700)):
        writer = store.PartWriter(tmp_path / name / "kept" / "train", store.arrow_schema(dict(rows.schema)), cut)
        writer.write(rows)
        writer.close()
        run_stage(STAGE, tmp_path / name, tmp_path / f"{name}-out", *settings, workers=workers)
        found.append(store.read_rows(tmp_path / f"{name}-out", "train"))
    assert found[0].equals(found[1])
    assert 200 < found[0]["mixed"].count() < 400


def test_weights_repeat_and_leave_out_training_rows_only(tokenizer: Path, tmp_path: Path) -> None:
    rows = [chat(f"Own {at}", "Yo", label="a" if at < 100 else "b", source="x/f.jsonl" if at % 2 else "y.jsonl") for at in range(200)]
    weights = "mix.weights=[{label: a, source: x/*, weight: 2.5}, {label: b, weight: 0}]"
    metrics = formatted(tokenizer, tmp_path, rows, weights, validation=[chat("Held", "Yo", label="b")])
    out = kept(tmp_path)
    assert out.filter(pl.col("source") == "y.jsonl").height == 50
    assert 110 < out.filter(pl.col("source") == "x/f.jsonl").height < 140
    assert out["id"].n_unique() == out.height
    assert metrics["reasons"] == {"mix_weight": 100}
    assert metrics["counts"]["validation_rows"] == 1


def test_a_pool_of_records_and_one_that_is_too_small(tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_input(frame([chat("General", "Yo"), row("chat", chat("Other", "Yo")["messages"])]), tmp_path / "records")
    metrics = formatted(
        tokenizer, tmp_path, [chat(f"Own {at}", "Yo") for at in range(20)], f"mix.pools=[{{path: {tmp_path / 'records'}, share: 0.5}}]"
    )
    assert metrics["counts"][f"mixed_rows: {tmp_path / 'records'}"] == 2
    assert "has 2 rows to give, its share asks for 20" in capsys.readouterr().err


def test_mistakes_in_the_mix_are_named(tokenizer: Path, tmp_path: Path) -> None:
    for wrong, says in (
        ("mix.pools=[{path: a, share: 0.6}, {path: b, share: 0.5}]", "add up to 1.1"),
        ("mix.weights=[{weight: 2.0}]", "label, source and kind"),
        ("mix.pools=[{path: a, part: 0.6}]", "part"),
    ):
        with pytest.raises(ParamsError, match=says):
            section("format", STAGE.params, wrong)
    with pytest.raises(InputError, match=r"gone.*no such file"):
        formatted(tokenizer, tmp_path, [chat("Hi", "Yo")], "mix.pools=[{path: gone, share: 0.5}]")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"x": 1}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl:2"):
        formatted(tokenizer, tmp_path / "b", [chat("Hi", "Yo")], f"mix.pools=[{{path: {tmp_path / 'bad.jsonl'}, share: 0.5}}]")


def test_the_saved_tokenizer_renders_what_was_trained(tokenizer: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    formatted(tokenizer, tmp_path, [chat("Hi", "Yo", system="Brief.")], "template=zephyr")
    saved = AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    messages = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    assert kept(tmp_path)["input_ids"][0].to_list() == saved.apply_chat_template(messages, return_dict=False)
    about = orjson.loads((tmp_path / "out" / "format.json").read_bytes())
    config = orjson.loads((tmp_path / "out" / "tokenizer" / "tokenizer_config.json").read_bytes())
    assert about["template"] == "zephyr" and config["finery_template_xxh3"] == about["template_xxh3"]
    assert about["context"] == 512


def test_lengths_are_told_against_what_the_model_sees() -> None:
    assert [dataset_card.bound(each) for each in (1, 128, 129, 200_000)] == ["000128", "000128", "000256", "more"]
    table = dataset_card.lengths({"train_length_000128": 3, "test_length_001024": 1}, 512)
    assert table == [
        {"up_to": 128, "rows": 3, "share_up_to": 0.75, "fits": True},
        {"up_to": 1024, "rows": 1, "share_up_to": 1.0, "fits": False},
    ]
    assert mixing.copies(frame([chat("Hi", "Yo")]), ()) == [1]
