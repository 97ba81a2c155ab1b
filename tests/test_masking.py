"""Every shipped template on twenty shapes of conversation: ids, mask and prompt against transformers and expectations written by hand."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from curate import masking, template
from curate.masking import NOT_TRAINED, Example, Refusal
from train.tiny import make_tokenizer

CORPUS = ["How do I restart my hub? Hold the pin for 15 seconds.", "naïve café – 日本語 🙂", "def f(x):\n    return x + 12\n"] * 5
SPECIAL = [
    "<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|im_sep|>", "<｜User｜>", "<｜Assistant｜>",
]  # fmt: skip
ENDS = {
    "chatml": "<|im_end|>",
    "qwen": "<|im_end|>",
    "phi4": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
}
LEADS = {"llama2": " ", "vicuna": " "}  # what stands between prompt and answer, and is part of the answer
TRAILS = {"llama2": " "}  # and between answer and end token
TOOLS = [{"type": "function", "function": {"name": "line_check", "description": "Checks a line.", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "line_check", "arguments": {"line": "7"}}}
CALL_TEXT = '{"name": "line_check", "arguments": {"line": "7"}}'
TAGGED = f"<tool_call>\n{CALL_TEXT}\n</tool_call>"
ONLY_AT_START = {"llama2", "gemma", "vicuna", "deepseek"}


def said(role: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def talk(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    messages = [] if system is None else [said("system", system)]
    return messages + [said(("user", "assistant")[at % 2], text) for at, text in enumerate(turns)]


def with_tools(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**messages[0], "tools": TOOLS}, *messages[1:]]


# The conversation, and by hand the answers that are trained, as text ("CALL" stands for one call of the tool).
SHAPES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "single": (talk("How do I restart my hub?", "Hold the pin for 15 seconds."), ["Hold the pin for 15 seconds."]),
    "system": (talk("Hi", "Hello.", system="Be brief."), ["Hello."]),
    "empty system": (talk("Hi", "Hello.", system=""), ["Hello."]),
    "three answers": (talk("Hi", "Hello.", "Restart?", "Hold the pin.", "Thanks", "Any time."), ["Hello.", "Hold the pin.", "Any time."]),
    "system and two answers": (talk("Hi", "Hello.", "And?", "Nothing.", system="Be brief."), ["Hello.", "Nothing."]),
    "unicode": (talk("日本語? 🙂", "naïve café – ja 🙂"), ["naïve café – ja 🙂"]),
    "right to left and combining": (talk("שלום", "e\u0301 עולם"), ["e\u0301 עולם"]),
    "white space around": (talk("\n\nHi \n", "\n\n  Hello.\n\n", "x\n", " y"), ["Hello.", "y"]),
    "code": (talk("Write f", "```python\ndef f(x):\n    return x + 12\n```"), ["```python\ndef f(x):\n    return x + 12\n```"]),
    "indented code in a question": (talk("    a = 1\n\tb", "Fine."), ["Fine."]),
    "ends with a question": (talk("Hi", "Hello.", "And now?"), ["Hello."]),
    "begins with an answer": ([said("assistant", "Welcome."), *talk("Hi", "Hello.")], ["Welcome.", "Hello."]),
    "headings in the text": (
        talk("### Response:\nno", "### Instruction:\nyes", "USER: a", "ASSISTANT: b"), ["### Instruction:\nyes", "ASSISTANT: b"]
    ),
    "maths": (talk("12+35-7=?", "40"), ["40"]),
    "quotes and braces": (talk('{{ "a" }} {% b %}', "'c' \\n \"d\""), ["'c' \\n \"d\""]),
    "one letter": (talk("a", "b"), ["b"]),
    "two questions in a row": ([said("user", "Hi"), *talk("Restart?", "Hold.")], ["Hold."]),
    "tools offered": (with_tools(talk("Hi", "Hello.", system="Be brief.")), ["Hello."]),
    "tool called": (
        with_tools([said("user", "Check"), said("assistant", None, tool_calls=[CALL]), said("tool", "ok"), said("assistant", "All well.")]),
        ["CALL", "All well."],
    ),
    "text before a call": (
        [said("user", "Check"), said("assistant", "One moment.", tool_calls=[CALL]), said("tool", "a"), said("tool", "b"),
         said("assistant", "Done.")],
        ["One moment.\nCALL", "Done."],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    made = make_tokenizer(CORPUS, 400, 512)
    made.add_special_tokens({"additional_special_tokens": SPECIAL, "bos_token": "<s>", "eos_token": "</s>"})
    made.save_pretrained(path)
    return path


def by_hand(name: str, answer: str) -> str:
    """An answer of SHAPES as `name` writes calls."""
    if name == "mistral":
        return answer.replace("\nCALL", "CALL").replace("CALL", f"[TOOL_CALLS][{CALL_TEXT}]")
    if name == "alpaca":
        return answer.replace("CALL", 'Call line_check: {"line": "7"}')
    return answer.replace("CALL", TAGGED)


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_ids_mask_and_prompt(folder: Path, name: str) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = template.load_template(name, folder)
    coded = template.codec(folder, tokenizer.chat_template)
    assert len(SHAPES) == 20
    made = dict(zip(SHAPES, masking.conversations([messages for messages, _ in SHAPES.values()], coded), strict=True))
    for shape, (messages, answers) in SHAPES.items():
        example = made[shape]
        assert isinstance(example, Example), (shape, example)
        shown, tools = template.split_tools(messages)
        assert example.input_ids.tolist() == tokenizer.apply_chat_template(shown, tools=tools, return_dict=False), shape
        wanted = [NOT_TRAINED] * len(example.input_ids)
        for at, answer in zip([at for at, each in enumerate(shown) if each["role"] == "assistant"], answers, strict=True):
            if at:
                served = tokenizer.apply_chat_template(shown[:at], tools=tools, add_generation_prompt=True, return_dict=False)
            else:  # the tokenizer refuses to render no message at all
                served = tokenizer(template.render([], coded.template, True, coded.special_tokens), add_special_tokens=False)["input_ids"]
            assert example.input_ids[: len(served)].tolist() == served, shape  # what a server sends is what training saw
            text = LEADS.get(name, "") + by_hand(name, answer) + TRAILS.get(name, "") + ENDS.get(name, "</s>")
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            wanted[len(served) : len(served) + len(ids)] = ids
        assert example.labels.tolist() == wanted, shape


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_a_system_message_in_the_middle_is_rendered_or_refused_but_never_lost(folder: Path, name: str) -> None:
    coded = template.codec(folder, template.load_template(name, folder))
    (made,) = masking.conversations([[*talk("Hi", "Hello."), said("system", "Now be loud."), *talk("And?", "YES.")]], coded)
    if name in ONLY_AT_START:
        assert isinstance(made, Refusal) and "only at the start" in made.detail
    else:
        assert isinstance(made, Example) and "Now be loud." in made.prompt


def test_loss_on_the_last_answer_only(folder: Path) -> None:
    coded = template.codec(folder, template.load_template("llama3", folder))
    messages = SHAPES["three answers"][0]
    (made,) = masking.conversations([messages], coded, "last")
    assert isinstance(made, Example)
    assert (
        coded.backend.decode([label for label in made.labels if label != NOT_TRAINED], skip_special_tokens=False) == "Any time.<|eot_id|>"
    )
    assert made.labels[made.start : made.stop].tolist() == made.input_ids[made.start : made.stop].tolist()
    forgets = template.codec(folder, "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '' }}</s>{% endfor %}")
    refused, kept = masking.conversations([messages], forgets)[0], masking.conversations([messages], forgets, "last")[0]
    assert isinstance(refused, Refusal) and refused.evidence == {"turn": 2}
    assert isinstance(kept, Example)


@pytest.mark.parametrize("name", ["chatml", "mistral", "llama2", "plain"])
def test_pairs_are_what_trl_makes_of_them_up_to_the_end_token(folder: Path, name: str) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    source = template.load_template(name, folder)
    prompt = talk("Hi", "Hello.", "Best plan?", system="Be brief.")
    better, worse = ([*prompt, said("assistant", text)] for text in ("Fibre.", "None of them."))
    (made,) = masking.pairs([(better, worse)], template.codec(folder, source))
    assert isinstance(made, Example) and made.pair is not None
    served, whole, other = (
        tokenizer.apply_chat_template(each, chat_template=source, add_generation_prompt=ask, return_dict=False)
        for each, ask in ((prompt, True), (better, False), (worse, False))
    )
    end = tokenizer.convert_tokens_to_ids(ENDS.get(name, "</s>"))
    assert made.pair.prompt_ids.tolist() == served
    for ids, rendered in ((made.pair.chosen_ids.tolist(), whole), (made.pair.rejected_ids.tolist(), other)):
        assert ids[-1] == end
        assert served + ids == rendered[: len(served) + len(ids)]
        assert not tokenizer.decode(rendered[len(served) + len(ids) :]).strip()
    assert (made.answer.strip(), made.pair.rejected.strip()) == ("Fibre.", "None of them.")


def test_what_is_no_pair_is_refused(folder: Path) -> None:
    coded = template.codec(folder, template.load_template("chatml", folder))
    longer = talk("Hi", "Hello.", "And?", "Nothing.")
    for better, worse in ((talk("Hi", "a"), talk("Ho", "b")), (longer, talk("Hi", "b")), (talk("Hi", "a"), talk("Hi")), (longer, longer)):
        (made,) = masking.pairs([(better, worse)], coded)
        assert isinstance(made, Refusal) and made.reason == "unpaired"
    (_, made) = masking.pairs([(talk("Hi"), talk("Hi", "b")), (talk("Hi", "a"), talk("Hi", "b"))], coded)
    assert isinstance(made, Example)


def test_tools_and_calls_of_older_shapes_take_the_form_that_templates_read() -> None:
    extra = '{"function_call": {"name": "f", "arguments": "{\\"a\\": 1}"}, "tools": [{"name": "f"}]}'
    (turn,) = template.turns([{"role": "assistant", "content": "", "extra": extra}])
    assert turn["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]
    assert turn["tools"] == [{"type": "function", "function": {"name": "f"}}]
    (kept,) = template.turns(
        [{"role": "assistant", "content": "", "extra": '{"tool_calls": [{"function": {"name": "f", "arguments": "a b"}}]}'}]
    )
    assert kept["tool_calls"][0]["function"]["arguments"] == "a b"


def test_lone_bytes_are_those_above_ascii(folder: Path) -> None:
    coded = template.codec(folder, template.load_template("chatml", folder))
    ids = coded.backend.encode("ab ж", add_special_tokens=False).ids  # the corpus has no ж: two bytes
    assert [number in coded.lone_bytes for number in ids][-2:] == [True, True]
    assert not set(coded.backend.encode("ab 12\n", add_special_tokens=False).ids) & coded.lone_bytes
    assert len(coded.lone_bytes) == 128
