"""One parsed raw row -> kind, messages, label, group and meta; or `Malformed`, which says what is wrong without quoting the row.

Shapes are told apart by the columns that hold a value, in this order: chosen + rejected; a conversation; a prompt with an answer;
text. docs/formats.md shows each with an example. Column names are compared without case.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import orjson

from curate.params import params_class
from curate.turns import Malformed, Messages, as_json, message, turns, type_name

Body = tuple[str, Messages, Messages | None]  # kind, messages, rejected

CONVERSATIONS = ("messages", "conversations", "conversation")
PROMPTS = ("instruction", "prompt", "question", "query", "input")
ANSWERS = ("completion", "response", "answer", "output", "reply")
TEXTS = ("text", "content", "document")
SYSTEMS = ("system", "system_prompt")
TOOLS = ("tools", "functions")
# What stands beside a prompt and belongs to it: Alpaca's input, Dolly's and reading comprehension's context.
BESIDE = {"instruction": ("input", "context"), "question": ("context",)}
MAPPED = {  # the name that a mapped column goes by here: its key in ingest.sources
    "messages": "messages",
    "prompt": "prompt",
    "completion": "answer",
    "chosen": "chosen",
    "rejected": "rejected",
    "text": "text",
    "system": "system",
    "label": "label",
    "group": "group",
}
CONTENT = {*CONVERSATIONS, *PROMPTS, *ANSWERS, *TEXTS, "chosen", "rejected", "instances", "context"}
SAFE_NAME = re.compile(r"[A-Za-z_][\w.-]{0,39}")  # a column name that can be shown: no spaces, no @, so hardly a person's data


@params_class
class Columns:
    """What an entry of `ingest.sources` may say: which column plays which part. All but `skip` are names of columns."""

    messages: str | None = None
    prompt: str | None = None
    answer: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    text: str | None = None
    system: str | None = None
    label: str | None = None
    group: str | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        pairs = (("answer", "prompt"), ("chosen", "rejected"), ("rejected", "chosen"))
        for name, partner in pairs:
            if getattr(self, name) is not None and getattr(self, partner) is None:
                raise ValueError(f"'{name}' needs '{partner}' beside it")
        if self.prompt is not None and self.answer is None and self.chosen is None:
            raise ValueError("'prompt' needs 'answer', or 'chosen' and 'rejected', beside it")
        bodies = [name for name in ("messages", "answer", "chosen", "text") if getattr(self, name) is not None]
        if len(bodies) > 1:
            raise ValueError(f"{' and '.join(repr(name) for name in bodies)} exclude each other")
        if self.skip and any(getattr(self, name) is not None for name in MAPPED.values()):
            raise ValueError("'skip' stands alone")


@dataclass(frozen=True)
class Naming:
    """Where label and group stand (names in lower case), and the system message of label examples."""

    label_columns: tuple[str, ...]
    group_columns: tuple[str, ...]
    label_instruction: str | None


@dataclass(frozen=True)
class Example:
    """The record's content, before it has an id and a place."""

    kind: str
    messages: Messages
    rejected: Messages | None
    label: str | None
    group: str | None
    meta: dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """The columns of many rows alike, by name without case; what was looked for once is remembered, as rows come in millions."""

    by_name: Mapping[str, str]
    known: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The columns that go by `names`, in the order of `names`."""
        columns = self.known.get(names)
        if columns is None:
            columns = self.known[names] = tuple(self.by_name[name] for name in names if name in self.by_name)
        return columns


@lru_cache(maxsize=256)
def _layout(columns: tuple[str, ...]) -> _Layout:
    """
    >>> _layout(("Prompt ", "prompt", "TEXT")).by_name
    {'prompt': 'prompt', 'text': 'TEXT'}
    """
    folded: dict[str, str] = {}
    for column in columns:
        folded.setdefault(column.strip().lower(), column)
    return _Layout({name: name if name in columns else column for name, column in folded.items()})


@dataclass
class _Cells:
    """A raw row, and which of its columns were taken."""

    row: dict[str, Any]
    layout: _Layout
    taken: set[str] = field(default_factory=set)

    def find(self, names: tuple[str, ...]) -> str | None:
        """The column of the first of `names` that holds a value."""
        columns = self.layout.known.get(names)
        for column in self.layout.of(names) if columns is None else columns:
            if self.row[column] is not None and column not in self.taken:
                return column
        return None

    def stands(self, names: tuple[str, ...]) -> str | None:
        """The column of the first of `names` that is there, with a value or without."""
        columns = self.layout.of(names)
        return columns[0] if columns else None

    def take(self, column: str) -> Any:
        """The value of a column, which then is no part of meta."""
        self.taken.add(column)
        return self.row[column]


def example(row: Any, naming: Naming, mapped: Columns | None = None) -> Example:
    """The example in one parsed row.

    Raises Malformed with reason wrong_type, missing_field or empty.

    >>> naming = Naming(("label",), ("group",), None)
    >>> made = example({"question": "2 + 2?", "answer": "4", "level": 1}, naming)
    >>> made.kind, [message["content"] for message in made.messages], made.meta
    ('chat', ['2 + 2?', '4'], {'level': 1})
    >>> example({"text": "Where is my card?", "label": 7}, naming).messages[-1]["content"]
    '7'
    """
    if not isinstance(row, dict):
        raise Malformed("wrong_type", f"The row is {type_name(row)}; expected an object with columns.")
    if mapped is None:
        cells = _Cells(row, _layout(tuple(row)))
    else:
        cells, naming = _aliased(row, mapped, naming)
    kind, messages, rejected = _detected(cells, naming)
    label, group = _pick(cells, naming.label_columns), _pick(cells, naming.group_columns)
    _check_content(messages, rejected)
    _add_tools(cells, messages)
    meta = {column: value for column, value in row.items() if column not in cells.taken}
    return Example(kind, messages, rejected, label, group, meta)


def _detected(cells: _Cells, naming: Naming) -> Body:
    chosen, rejected = cells.find(("chosen",)), cells.find(("rejected",))
    if chosen and rejected:
        return _preference(cells, chosen, rejected)
    conversation = cells.find(CONVERSATIONS)
    if conversation:
        return _conversation(cells, conversation)
    prompt = cells.find(PROMPTS)
    if prompt:
        answer = cells.find(ANSWERS)
        if answer:
            return _pair(cells, prompt, answer)
        instances = cells.find(("instances",))
        if instances and prompt.strip().lower() == "instruction":
            return _instances(cells, prompt, instances)
    text = cells.find(TEXTS)
    if text and not (text.strip().lower() == "content" and cells.stands(("role",))):  # a message on its own is no document
        return _text(cells, text, cells.find(naming.label_columns) or cells.stands(naming.label_columns), naming.label_instruction)
    raise Malformed("missing_field", f"No known shape. Columns found: {_shown(cells.row)}. Map them with ingest.sources, or mend the row.")


def _aliased(row: dict[str, Any], mapped: Columns, naming: Naming) -> tuple[_Cells, Naming]:
    """The row under the names that `_detected` looks for, as `ingest.sources` maps them; other columns cannot be taken for content."""
    parts = {part: getattr(mapped, name) for part, name in MAPPED.items() if getattr(mapped, name) is not None}
    by_name = _layout(tuple(row)).by_name
    found = {part: column if column in row else by_name.get(column.strip().lower(), "") for part, column in parts.items()}
    for part, column in found.items():
        if column not in row:
            raise Malformed("missing_field", f"ingest.sources names column '{parts[part]}', which the row lacks. Found: {_shown(row)}.")
    if set(parts) - {"label", "group", "system"}:
        by_name = {name: column for name, column in by_name.items() if name not in CONTENT}
    if "label" in parts:
        naming = replace(naming, label_columns=("label",))
    if "group" in parts:
        naming = replace(naming, group_columns=("group",))
    return _Cells(row, _Layout({**by_name, **found})), naming


def _preference(cells: _Cells, chosen: str, rejected: str) -> Body:
    """Two answers to one prompt, or two whole conversations that begin alike."""
    better, worse = (turns(cells.take(each), each, "assistant") for each in (chosen, rejected))
    answers = [each[0]["role"] == "assistant" for each in (better, worse)]
    if answers[0] != answers[1]:
        raise Malformed("wrong_type", f"One of '{chosen}' and '{rejected}' is an answer, the other a whole conversation.")
    prompt = cells.find(PROMPTS)
    if answers[0]:
        asked = _asked(cells, prompt or cells.find(CONVERSATIONS))
        better, worse = asked + better, [dict(turn) for turn in asked] + worse
    elif better[0] != worse[0]:
        raise Malformed("wrong_type", f"'{chosen}' and '{rejected}' do not begin with the same message.")
    elif prompt and cells.row[prompt] == next((turn["content"] for turn in better if turn["role"] == "user"), None):
        cells.take(prompt)  # it stands in both conversations already
    _add_system(cells, better, worse)
    return "preference", better, worse


def _conversation(cells: _Cells, column: str) -> Body:
    value = cells.take(column)
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"'{column}' is {type_name(value)}; expected a list of messages.")
    messages = turns(value, column, "user")
    _add_system(cells, messages)
    return "chat", messages, None


def _pair(cells: _Cells, prompt: str, answer: str) -> Body:
    messages = _asked(cells, prompt) + turns(cells.take(answer), answer, "assistant")
    _add_system(cells, messages)
    return "chat", messages, None


def _asked(cells: _Cells, prompt: str | None) -> Messages:
    """The prompt's messages; what stands beside an instruction or a question follows it after a blank line."""
    if prompt is None:
        raise Malformed("missing_field", f"There are answers without a prompt. Columns found: {_shown(cells.row)}.")
    asked = turns(cells.take(prompt), prompt, "user")
    beside = cells.find(BESIDE.get(prompt.strip().lower(), ()))
    if beside is None or asked[-1]["role"] != "user":
        return asked
    more = cells.take(beside)
    if not isinstance(more, str):
        raise Malformed("wrong_type", f"'{beside}' is {type_name(more)}; expected text.")
    if more.strip():
        said = asked[-1]["content"] or ""
        asked[-1]["content"] = f"{said}\n\n{more}" if said.strip() else more
    return asked


def _instances(cells: _Cells, prompt: str, column: str) -> Body:
    """Self-Instruct's nested form. A row with several instances holds several examples, which one record cannot."""
    instances = cells.row[column]
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        raise Malformed("wrong_type", f"'{column}' is {type_name(instances)}; expected a list of objects.")
    if len(instances) != 1 or instances[0].get("output") is None:
        raise Malformed(
            "missing_field", f"'{column}' holds {len(instances)} objects; expected one with an 'output'. Write one row for each."
        )
    if set(instances[0]) <= {"input", "output"}:
        cells.take(column)  # else it stays in meta, whole, for what else it says
    columns = {name: instances[0].get(name) for name in ("input", "output")} | {"instruction": cells.take(prompt)}
    _, messages, _ = _pair(_Cells(columns, _layout(tuple(columns))), "instruction", "output")
    _add_system(cells, messages)
    return "chat", messages, None


def _text(cells: _Cells, text: str, label: str | None, instruction: str | None) -> Body:
    value = cells.take(text)
    if not isinstance(value, str):
        raise Malformed("wrong_type", f"'{text}' is {type_name(value)}; expected text.")
    if not value.strip():
        raise Malformed("empty", f"'{text}' is blank.")
    if label is None or label == text:
        return "text", [message("text", value)], None
    answer = cells.row[label]
    if isinstance(answer, list | dict):
        raise Malformed("wrong_type", f"Label column '{label}' holds {type_name(answer)}; expected text or a number.")
    named = _scalar(answer)
    if named is None:
        raise Malformed("missing_field", f"Label column '{label}' has no value.")
    messages = [message("user", value), message("assistant", named)]
    if instruction is not None:
        messages.insert(0, message("system", instruction))
    else:
        _add_system(cells, messages)
    return "chat", messages, None


def _add_system(cells: _Cells, *conversations: Messages) -> None:
    """The system column as first message of conversations that have none; otherwise it stays in meta."""
    column = cells.find(SYSTEMS)
    if column is None or not isinstance(cells.row[column], str) or conversations[0][0]["role"] == "system":
        return
    text = cells.take(column)
    if text.strip():
        for messages in conversations:
            messages.insert(0, message("system", text))


def _add_tools(cells: _Cells, messages: Messages) -> None:
    """The conversation's tools into `extra` of its first message, so that they are part of its content."""
    column = cells.find(TOOLS)
    if column is None or messages[0]["role"] == "text":
        return
    tools = cells.take(column)
    if isinstance(tools, str) and tools.strip()[:1] in ("[", "{"):
        try:
            tools = orjson.loads(tools)
        except orjson.JSONDecodeError:
            raise Malformed("wrong_type", f"'{column}' is text that is no JSON; expected a list of tools.") from None
    if tools in ([], {}, ""):
        return
    if not isinstance(tools, list | dict):
        raise Malformed("wrong_type", f"'{column}' is {type_name(tools)}; expected a list of tools.")
    first = messages[0]
    first["extra"] = as_json({**(orjson.loads(first["extra"]) if first["extra"] else {}), "tools": tools})


def _check_content(*conversations: Messages | None) -> None:
    for messages in conversations:
        for turn in messages or ():
            calls = turn["extra"] is not None and "_call" in turn["extra"]  # tool_calls or function_call
            if turn["role"] != "system" and ((turn["content"] or "").strip() or calls):
                return
    raise Malformed("empty", "No message has any content.")


def _pick(cells: _Cells, names: tuple[str, ...]) -> str | None:
    """The value of the first of the columns that holds a plain value, as text; the column is then taken."""
    for column in cells.layout.of(names):
        value = None if column in cells.taken else _scalar(cells.row[column])
        if value is not None:
            cells.take(column)
            return value
    return None


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, list | dict):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas writes whole numbers as 3.0 where the column has gaps
    return str(value).strip() or None


def _shown(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, those that could be data left out: a table without header has its first row for names."""
    shown = [f"{name} (null)" if row[name] is None else name for name in row if SAFE_NAME.fullmatch(name)][:12]
    hidden = len(row) - len(shown)
    return ", ".join([*shown, *([f"{hidden} more"] if hidden else [])]) or "none"
