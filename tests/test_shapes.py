"""Raw rows of every shape become the record that a reader would expect; broken ones say why, and never quote themselves."""

import re
from dataclasses import replace
from typing import Any

import orjson
import pytest

from curate.params import check_section
from curate.record import ParamsError
from curate.shapes import Columns, Example, Naming, example
from curate.turns import Malformed
from tests.helpers import ROOT

NAMING = Naming(("label", "category", "intent", "class"), ("group", "customer"), None)
USER, ANSWER = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}


def made(row: Any, mapped: Columns | None = None, naming: Naming = NAMING) -> Example:
    return example(row, naming, mapped)


def said(row: Any, mapped: Columns | None = None, naming: Naming = NAMING) -> list[tuple[str | None, str | None]]:
    return [(turn["role"], turn["content"]) for turn in made(row, mapped, naming).messages]


def problem(row: Any, mapped: Columns | None = None) -> Malformed:
    with pytest.raises(Malformed) as raised:
        made(row, mapped)
    return raised.value


def examples() -> list[tuple[str, str, str]]:
    """(heading, row, outcome) of every example in docs/formats.md: a JSON block and the line after it."""
    text = (ROOT / "docs" / "formats.md").read_text()
    return re.findall(r"### (.+?)\n.*?```json\n(.+?)\n```\n+→ (.+?)\n", text, re.DOTALL)


@pytest.mark.parametrize(("heading", "row", "outcome"), examples(), ids=[heading for heading, _, _ in examples()])
def test_the_page_on_formats_is_true(heading: str, row: str, outcome: str) -> None:
    found = made(orjson.loads(row), naming=Naming(("label", "category", "intent"), ("group", "customer"), None))
    roles = " ".join(turn["role"] or "" for turn in found.messages)
    wanted = f"{found.kind}: {roles}"
    if found.rejected:
        wanted += " | rejected: " + " ".join(turn["role"] or "" for turn in found.rejected)
    for name in ("label", "group"):
        wanted += f", {name} `{getattr(found, name)}`" if getattr(found, name) else ""
    wanted += f", meta `{orjson.dumps(found.meta).decode()}`" if found.meta else ""
    assert outcome == wanted


def test_the_page_has_every_shape() -> None:
    assert len(examples()) >= 12


def test_messages_keep_calls_names_and_tools() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "developer", "content": "Be kind"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "content": "1", "tool_call_id": "c1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "model": "m",
    }
    found = made(row)
    assert said(row) == [("system", "Be kind"), ("user", "ab"), ("assistant", ""), ("tool", "1")]
    extra = [orjson.loads(turn["extra"]) if turn["extra"] else None for turn in found.messages]
    assert extra == [{"tools": row["tools"]}, {"name": "ann"}, {"tool_calls": [call]}, {"tool_call_id": "c1"}]
    assert found.meta == {"model": "m"}


def test_tools_written_as_text_and_nulls_make_no_difference() -> None:
    """Parquet fills what a message lacks with nulls, and tools are often stored as JSON text."""
    plain = made({"messages": [USER, ANSWER], "tools": [{"name": "f"}]})
    filled = made({"messages": [USER | {"tool_calls": None, "name": None}, ANSWER | {"tool_calls": []}], "tools": '[{"name": "f"}]'})
    assert plain == filled
    assert made({"messages": [USER, ANSWER], "tools": "[]"}).messages[0]["extra"] is None


def test_sharegpt_roles_with_a_system_column() -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "observation", "value": "3"}]
    assert said({"conversations": turns, "system": "Be brief"}) == [
        ("system", "Be brief"),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("tool", "3"),
    ]


def test_a_system_column_does_not_double_a_system_message() -> None:
    found = made({"messages": [{"role": "system", "content": "A"}, USER, ANSWER], "system": "B"})
    assert [turn["content"] for turn in found.messages][:2] == ["A", "Hello"]
    assert found.meta == {"system": "B"}


def test_alpaca_input_follows_the_instruction() -> None:
    assert said({"instruction": "Add", "input": "1, 2", "output": "3"}) == [("user", "Add\n\n1, 2"), ("assistant", "3")]
    assert said({"instruction": "Sing", "input": "", "output": "La"}) == [("user", "Sing"), ("assistant", "La")]
    assert said({"instruction": "Who?", "context": "Ann came.", "response": "Ann"})[0] == ("user", "Who?\n\nAnn came.")
    assert problem({"instruction": "Add", "input": [1, 2], "output": "3"}).reason == "wrong_type"


def test_prompt_and_completion_as_messages() -> None:
    assert said({"prompt": [USER], "completion": [ANSWER]}) == [("user", "Hello"), ("assistant", "Good day")]


def test_column_names_are_found_in_any_case() -> None:
    found = made({"Question ": "a?", "ANSWER": "b", "Category": "c"})
    assert (found.kind, found.label, found.meta) == ("chat", "c", {})


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (3.0, "3"), (0, "0"), (" billing ", "billing"), (True, "True"), (2.5, "2.5")])
def test_labels_become_text(value: Any, text: str) -> None:
    found = made({"text": "Where is my card?", "label": value})
    assert (found.label, found.messages[-1]["content"]) == (text, text)


def test_label_examples_get_the_instruction() -> None:
    naming = Naming(("label",), (), "Name the topic.")
    assert said({"text": "Hi", "label": "greeting"}, naming=naming)[0] == ("system", "Name the topic.")
    assert said({"prompt": "Hi", "completion": "Ho", "label": "x"}, naming=naming)[0] == ("user", "Hi")


def test_label_and_group_are_taken_for_every_shape_and_once() -> None:
    for row in ({"messages": [USER, ANSWER]}, {"prompt": "a", "chosen": "b", "rejected": "c"}, {"question": "a", "answer": "b"}):
        found = made(row | {"intent": "x", "category": "y", "customer": 17, "lang": "en"})
        assert (found.label, found.group, found.meta) == ("y", "17", {"intent": "x", "lang": "en"})


def test_a_label_that_is_no_plain_value_stays_in_meta() -> None:
    assert made({"prompt": "a", "completion": "b", "label": ["x", "y"]}).meta == {"label": ["x", "y"]}


def test_text_with_an_unfilled_label_column_is_not_taken_for_a_document() -> None:
    assert problem({"text": "Where is my card?", "label": None}).reason == "missing_field"
    assert problem({"text": "Where is my card?", "label": " "}).reason == "missing_field"
    assert problem({"text": "Where is my card?", "label": ["x"]}).reason == "wrong_type"
    assert made({"text": "Where is my card?", "label": None, "category": "cards"}).label == "cards"


def test_preference_shapes() -> None:
    worse = {"role": "assistant", "content": "Go away"}
    want = ([("user", "Hello"), ("assistant", "Good day")], [("user", "Hello"), ("assistant", "Go away")])
    rows: list[dict[str, Any]] = [
        {"prompt": "Hello", "chosen": "Good day", "rejected": "Go away"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [worse]},
        {"prompt": "Hello", "chosen": [USER, ANSWER], "rejected": [USER, worse]},
        {"chosen": [USER, ANSWER], "rejected": [USER, worse]},
        {"conversations": [{"from": "human", "value": "Hello"}], "chosen": {"from": "gpt", "value": "Good day"}, "rejected": worse},
    ]
    for row in rows:
        found = made(row)
        sides = tuple([(turn["role"], turn["content"]) for turn in side or ()] for side in (found.messages, found.rejected))
        assert (found.kind, sides, found.meta) == ("preference", want, {}), row


def test_preference_problems() -> None:
    other = {"role": "user", "content": "Something else"}
    assert problem({"chosen": "a", "rejected": "b"}).reason == "missing_field"
    assert problem({"prompt": "p", "chosen": [USER, ANSWER], "rejected": "b"}).reason == "wrong_type"
    assert problem({"chosen": [USER, ANSWER], "rejected": [other, ANSWER]}).reason == "wrong_type"
    assert problem({"prompt": "p", "chosen": "a", "rejected": 3}).reason == "wrong_type"


def test_nested_instances() -> None:
    row = {"instruction": "Add", "instances": [{"input": "1, 2", "output": "3"}], "name": "n"}
    assert said(row) == [("user", "Add\n\n1, 2"), ("assistant", "3")]
    assert made(row).meta == {"name": "n"}
    assert problem(row | {"instances": [{"output": "3"}] * 2}).reason == "missing_field"
    assert made(row | {"instances": [{"output": "3", "why": "x"}]}).meta["instances"] == [{"output": "3", "why": "x"}]


SECRET = "jane@mail.example wrote 555-0100"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (SECRET, "wrong_type"),
        ([SECRET], "wrong_type"),
        (None, "wrong_type"),
        ({"messages": SECRET}, "wrong_type"),
        ({"messages": {"role": "user", "content": SECRET}}, "wrong_type"),
        ({"messages": [SECRET]}, "wrong_type"),
        ({"messages": [{"role": SECRET, "content": "x"}]}, "wrong_type"),
        ({"messages": [{"role": 1, "content": "x"}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": SECRET}]}]}, "wrong_type"),
        ({"messages": [{"role": "user", "content": {"text": SECRET}}]}, "wrong_type"),
        ({"messages": [USER, ANSWER], "tools": SECRET}, "wrong_type"),
        ({"messages": [USER, ANSWER], "tools": "[" + SECRET}, "wrong_type"),
        ({"question": SECRET, "answer": 4}, "wrong_type"),
        ({"text": 5}, "wrong_type"),
        ({"messages": [{"content": SECRET}]}, "missing_field"),
        ({"messages": [{"role": "user"}]}, "missing_field"),
        ({"messages": [{"role": "assistant", "content": None}]}, "missing_field"),
        ({"prompt": SECRET}, "missing_field"),
        ({"prompt": SECRET, "completion": None}, "missing_field"),
        ({"role": "user", "content": SECRET}, "missing_field"),
        ({SECRET: "x"}, "missing_field"),
        ({}, "missing_field"),
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": " \n"}]}, "empty"),
        ({"prompt": "", "completion": " "}, "empty"),
        ({"text": " \n"}, "empty"),
        ({"text": "", "label": "x"}, "empty"),
    ],
)
def test_broken_rows_say_why_without_quoting(row: Any, reason: str) -> None:
    found = problem(row)
    assert found.reason == reason
    assert len(found.detail) > 10
    assert "jane" not in found.detail
    assert "555" not in found.detail


def test_missing_field_lists_the_columns() -> None:
    detail = problem({"prompt": "x", "completion": None, "full name of Jane Doe": 1}).detail
    assert "prompt, completion (null), 1 more" in detail


def test_mapped_columns() -> None:
    row = {"body": "Help", "reply": "Sure", "topic": 4, "client": "C-1", "policy": "Be kind", "text": "noise", "label": "other"}
    mapped = Columns(prompt="body", answer="reply", label="topic", group="client", system="policy")
    found = made(row, mapped)
    assert said(row, mapped) == [("system", "Be kind"), ("user", "Help"), ("assistant", "Sure")]
    assert (found.label, found.group, found.meta) == ("4", "C-1", {"text": "noise", "label": "other"})


def test_mapping_only_the_label_leaves_the_shape_to_detection() -> None:
    found = made({"text": "Help", "topic": "cards", "label": "z"}, Columns(label="topic"))
    assert (found.kind, found.label, found.meta) == ("chat", "cards", {"label": "z"})


def test_mapped_text_and_pair_and_conversation() -> None:
    assert made({"prompt": "a", "completion": "b", "body": "A page"}, Columns(text="body")).kind == "text"
    assert made({"p": "a", "good": "b", "bad": "c"}, Columns(prompt="p", chosen="good", rejected="bad")).kind == "preference"
    assert made({"log": [USER, ANSWER]}, Columns(messages="log")).kind == "chat"


@pytest.mark.parametrize("part", ["prompt", "label", "group", "system"])
def test_a_mapped_column_that_is_not_there_is_named(part: str) -> None:
    mapped = replace(Columns(prompt="a", answer="b"), **{part: "nowhere"})  # type: ignore[arg-type]
    found = problem({"a": "x", "b": "y"}, mapped)
    assert (found.reason, "'nowhere'" in found.detail) == ("missing_field", True)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"prompt": "a"}, ["prompt", "answer"]),
        ({"answer": "a"}, ["answer", "prompt"]),
        ({"prompt": "a", "answer": "b", "text": "c"}, ["answer", "text"]),
        ({"prompt": "a", "chosen": "b"}, ["chosen", "rejected"]),
        ({"skip": True, "text": "c"}, ["skip"]),
        ({"promt": "a", "answer": "b"}, ["promt"]),
        ({"prompt": 3, "answer": "b"}, ["prompt", "3"]),
    ],
)
def test_impossible_mappings_are_refused(entry: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ParamsError) as raised:
        check_section({"it": entry}, "it", Columns, ROOT / "params.yaml")
    assert all(word in str(raised.value) for word in words)
