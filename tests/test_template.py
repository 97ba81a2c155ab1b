"""Rendering and the loss mask, against what transformers itself computes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from curate import masking, template
from curate.masking import NOT_TRAINED, Example, Refusal
from curate.record import InputError, Message, ParamsError
from train.tiny import make_tokenizer

CORPUS = ["How do I restart my hub? Hold the pin for 15 seconds.", "naïve café – 日本語 🙂", "def f(x):\n    return x + 12\n"] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    made = make_tokenizer(CORPUS, 400, 512)
    made.chat_template = template.load_template("chatml", path)
    made.save_pretrained(path)
    return path


def coded(folder: Path, name: str) -> template.Codec:
    return template.codec(folder, template.load_template(name, folder))


def talk(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    return messages + [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]


def plain(made: Example | Refusal) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(made).items()}


SHAPES = {
    "single": talk("How do I restart my hub?", "Hold the pin for 15 seconds."),
    "system": talk("Hi", "Hello.", system="Be brief."),
    "empty system": talk("Hi", "Hello.", system=""),
    "several turns": talk("Hi", "Hello.", "Restart?", "Hold the pin.", "Thanks", "Any time."),
    "unicode": talk("日本語? 🙂", "naïve café – ja 🙂"),
    "white space around": talk("\n\nHi \n", "\n\n  Hello.\n\n", "x\n", " y"),
    "code": talk("Write f", "```python\ndef f(x):\n    return x + 12\n```"),
    "ends with a question": talk("Hi", "Hello.", "And now?"),
    "headings in the text": talk("### Response:\nno", "### Instruction:\nyes", "### Response:\n", "ok"),
}


@pytest.mark.parametrize("name", ["chatml", "alpaca", "model"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ids_are_those_of_training_and_of_serving(folder: Path, name: str, shape: str) -> None:
    messages = SHAPES[shape]
    codec = coded(folder, name)
    (made,) = masking.conversations([messages], codec)
    assert isinstance(made, Example)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    whole = tokenizer.apply_chat_template(messages, chat_template=codec.template, tokenize=False)
    assert made.input_ids.tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]
    trained = [at for at, label in enumerate(made.labels) if label != NOT_TRAINED]
    assert [made.labels[at] for at in trained] == [made.input_ids[at] for at in trained]
    expected: list[int] = []
    for at, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.apply_chat_template(messages[:at], chat_template=codec.template, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert whole.startswith(prompt)
        assert made.input_ids[: len(ids)].tolist() == ids  # what serving sends is what training saw
        answer = tokenizer(message["content"].strip(), add_special_tokens=False)["input_ids"]
        assert made.input_ids[len(ids) : len(ids) + len(answer) + 1].tolist() == [*answer, tokenizer.eos_token_id]
        expected += range(len(ids), len(ids) + len(answer) + 1)
    assert trained == expected  # the answers and their end tokens, nothing else


def test_prompt_and_answer_are_those_of_the_last_answer(folder: Path) -> None:
    (made,) = masking.conversations([SHAPES["several turns"]], coded(folder, "chatml"))
    assert isinstance(made, Example)
    assert made.answer == "Any time."
    assert made.prompt.endswith("Thanks<|im_end|>\n<|im_start|>assistant\n")


def test_batches_do_not_change_a_row(folder: Path) -> None:
    rows = list(SHAPES.values())
    codec = coded(folder, "chatml")
    assert list(map(plain, masking.conversations(rows, codec))) == [plain(masking.conversations([row], codec)[0]) for row in rows]


def test_a_template_that_rewrites_earlier_turns_is_refused_with_the_turn(folder: Path) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ '(old)' if not loop.last and m.role == 'assistant' else '' }}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    codec = template.codec(folder, source)
    single, several = masking.conversations([SHAPES["single"], SHAPES["several turns"]], codec)
    assert isinstance(single, Example)
    assert isinstance(several, Refusal)
    assert (several.reason, several.evidence) == ("template_prefix", {"turn": 2})


def test_an_answer_that_joins_its_prompt_is_refused(folder: Path) -> None:
    source = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
    assert isinstance(masking.conversations([talk("Hi. ", "Hold")], template.codec(folder, source))[0], Refusal)
    (joined,) = masking.conversations([talk("the se", "conds")], template.codec(folder, source))
    assert isinstance(joined, Refusal)
    assert joined.reason == "template_prefix"


def test_a_refusing_template_says_only_what_its_author_wrote(folder: Path) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role here') }}{% endif %}{{ messages[0].nope.nope }}"
    refused, broken = masking.conversations([talk("Hi", "Yo", system="secret"), talk("secret", "Yo")], template.codec(folder, source))
    assert isinstance(refused, Refusal)
    assert isinstance(broken, Refusal)
    assert refused.reason == broken.reason == "template_error"
    assert "No system role here" in refused.detail
    assert "secret" not in refused.detail + broken.detail


def test_a_template_without_end_token_is_noticed(folder: Path) -> None:
    endless = masking.end_token(template.codec(folder, "{% for m in messages %}{{ m.content }}\n{% endfor %}"))
    assert isinstance(endless, Refusal)
    assert endless.reason == "no_end_token"
    assert masking.end_token(coded(folder, "chatml")) == masking.end_token(coded(folder, "alpaca")) == 2


def test_tool_calls_are_rendered_and_trained(folder: Path) -> None:
    extra = '{"tool_calls": [{"function": {"name": "line_check", "arguments": {"line": "7"}}}]}'
    record: list[Message] = [
        {"role": "user", "content": "Check", "extra": None},
        {"role": "assistant", "content": None, "extra": extra},
        {"role": "tool", "content": "ok", "extra": '{"name": "line_check"}'},
        {"role": "assistant", "content": "All well.", "extra": None},
    ]
    for name in ("chatml", "alpaca"):
        (made,) = masking.conversations([template.turns(record)], coded(folder, name))
        assert isinstance(made, Example)
        trained = coded(folder, name).backend.decode([label for label in made.labels if label != NOT_TRAINED], skip_special_tokens=False)
        assert "line_check" in trained
        assert "All well." in trained
        assert "ok" not in trained.replace("<tool_call>", "")


def test_documents_are_trained_whole_and_ended(folder: Path) -> None:
    (made,) = masking.documents(["Hold the pin. 🙂"], coded(folder, "chatml"))
    assert isinstance(made, Example)
    assert made.labels.tolist() == made.input_ids.tolist()
    assert made.input_ids[-1] == 2
    assert (made.prompt, made.answer) == ("", "Hold the pin. 🙂")


def test_alpaca_reads_well(folder: Path) -> None:
    source = template.load_template("alpaca", folder)
    assert template.render(talk("Hi", "Yo", "More", system="Be brief."), source, True, {"eos_token": "</s>"}) == (
        "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYo</s>\n\n### Instruction:\nMore\n\n### Response:\n"
    )


def test_templates_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jinja"):
        template.load_template(str(tmp_path / "gone.jinja"), folder)
    dated = tmp_path / "dated.jinja"
    dated.write_text("{{ strftime_now('%d') }}")
    with pytest.raises(ParamsError, match="today's date"):
        template.load_template(str(dated), folder)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        template.codec(tmp_path, "")
    make_tokenizer(CORPUS, 320, 64).save_pretrained(tmp_path / "bare")
    with pytest.raises(ParamsError, match="no chat template"):
        template.load_template("model", tmp_path / "bare")
