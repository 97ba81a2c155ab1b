"""One parsed raw row -> kind, messages, label, group and meta; or `Malformed`, which says what is wrong without quoting the row.

Shapes are told apart by the columns that hold a value, in this order: chosen + rejected; a conversation; a prompt with an answer;
text. docs/formats.md shows each with an example. Column names are compared without case.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import orjson

from curate.params import params_class

Messages = list[dict[str, str | None]]
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
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
SAFE_NAME = re.compile(r"[A-Za-z_][\w.-]{0,39}")  # a column name that can be shown: no spaces, no @, so hardly a person's data


class Malformed(Exception):
    """A row that cannot become a record. `detail` is one sentence for a person and holds no text of the row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


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
        for column in self.layout.of(names):
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
        raise Malformed("wrong_type", f"The row is {_type(row)}; expected an object with columns.")
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
        return _preference(cells, cells.find(PROMPTS), chosen, rejected)
    conversation = cells.find(CONVERSATIONS)
    if conversation:
        return _conversation(cells, conversation)
    prompt = cells.find(PROMPTS)
    if prompt:
        answer = cells.find(ANSWERS)
        if answer:
            return _pair(cells, prompt, answer)
        if cells.find(("instances",)) and prompt.lower() == "instruction":
            return _instances(cells, prompt)
    text = cells.find(TEXTS)
    if text:
        return _text(cells, text, cells.stands(naming.label_columns), naming.label_instruction)
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


def _preference(cells: _Cells, prompt: str | None, chosen: str, rejected: str) -> Body:
    better, worse = (_turns(cells.take(each), each, "assistant") for each in (chosen, rejected))
    whole = all(turns[0]["role"] != "assistant" for turns in (better, worse))
    if not whole:
        if prompt is None:
            raise Malformed("missing_field", f"'{chosen}' and '{rejected}' are answers without a prompt. Found: {_shown(cells.row)}.")
        before = _turns(cells.take(prompt), prompt, "user")
        better, worse = before + better, [dict(turn) for turn in before] + worse
    elif prompt is not None and cells.row[prompt] in (
        better[0]["content"],
        next((m["content"] for m in better if m["role"] == "user"), ""),
    ):
        cells.take(prompt)  # the prompt's text stands in both conversations already
    if better[0] != worse[0]:
        raise Malformed("wrong_type", f"'{chosen}' and '{rejected}' do not begin with the same message.")
    _add_system(cells, better, worse)
    return "preference", better, worse


def _conversation(cells: _Cells, column: str) -> Body:
    value = cells.take(column)
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"'{column}' is {_type(value)}; expected a list of messages.")
    messages = _turns(value, column, "user")
    _add_system(cells, messages)
    return "chat", messages, None


def _pair(cells: _Cells, prompt: str, answer: str) -> Body:
    asked = _turns(cells.take(prompt), prompt, "user")
    answered = _turns(cells.take(answer), answer, "assistant")
    extra = cells.find(BESIDE.get(prompt.lower(), ()))
    if extra and isinstance(cells.row[extra], str) and asked[-1]["role"] == "user":
        more = cells.take(extra)
        if more.strip():
            asked[-1]["content"] = f"{asked[-1]['content']}\n\n{more}"
    messages = asked + answered
    _add_system(cells, messages)
    return "chat", messages, None


def _instances(cells: _Cells, prompt: str) -> Body:
    """Self-Instruct's nested form. A row with several instances holds several examples, which one record cannot."""
    instances = cells.take("instances")
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        raise Malformed("wrong_type", f"'instances' is {_type(instances)}; expected a list of objects.")
    if len(instances) != 1 or not isinstance(instances[0].get("output"), str):
        raise Malformed(
            "missing_field", f"'instances' holds {len(instances)} objects; expected one with an 'output'. Write one row for each."
        )
    columns = {name: instances[0].get(name) for name in ("input", "output")} | {"instruction": cells.take(prompt)}
    return _pair(_Cells(columns, _layout(tuple(columns))), "instruction", "output")


def _text(cells: _Cells, text: str, label: str | None, instruction: str | None) -> Body:
    value = cells.take(text)
    if not isinstance(value, str):
        raise Malformed("wrong_type", f"'{text}' is {_type(value)}; expected text.")
    if not value.strip():
        raise Malformed("empty", f"'{text}' is blank.")
    if label is None or label == text:
        return "text", [_message("text", value)], None
    answer = cells.row[label]
    if isinstance(answer, list | dict):
        raise Malformed("wrong_type", f"Label column '{label}' holds {_type(answer)}; expected text or a number.")
    named = _scalar(answer)
    if named is None:
        raise Malformed("missing_field", f"Label column '{label}' has no value.")
    messages = [_message("user", value), _message("assistant", named)]
    if instruction is not None:
        messages.insert(0, _message("system", instruction))
    else:
        _add_system(cells, messages)
    return "chat", messages, None


def _turns(value: Any, column: str, role: str) -> Messages:
    """A list of messages as messages, a text as one message of `role`."""
    if isinstance(value, str):
        return [_message(role, value)]
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"'{column}' is {_type(value)}; expected text or a list of messages.")
    if not value:
        raise Malformed("empty", f"'{column}' is an empty list.")
    return [_turn(each, column, at) for at, each in enumerate(value)]


def _turn(turn: Any, column: str, at: int) -> dict[str, str | None]:
    if not isinstance(turn, dict):
        raise Malformed("wrong_type", f"{column}[{at}] is {_type(turn)}; expected an object with role and content.")
    said = turn.get("role", turn.get("from"))
    if said is None:
        raise Malformed("missing_field", f"{column}[{at}] has no role.")
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise Malformed("wrong_type", f"{column}[{at}] has an unknown role; known: {', '.join(ROLES)}.")
    name = next((name for name in ("content", "value", "text") if turn.get(name) is not None), "content")
    rest = {key: each for key, each in turn.items() if key not in ("role", "from", name) and each is not None and each != []}
    if said == "function_call":
        rest["from"] = said
    value = turn.get(name)
    if value is None:
        if not rest.get("tool_calls") and not rest.get("function_call"):
            raise Malformed("missing_field", f"{column}[{at}] has no content.")
        value = ""
    content = value if isinstance(value, str) else _joined(value, f"{column}[{at}]")
    return {"role": role, "content": content, "extra": _json(rest) if rest else None}


def _joined(value: Any, where: str) -> str:
    """The text of content parts, one after the other, as chat templates print them."""
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"The content of {where} is {_type(value)}; expected text or a list of text parts.")
    texts: list[str] = []
    for at, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise Malformed("wrong_type", f"Content part {at} of {where} is not text; only text parts are supported.")
        texts.append(text)
    return "".join(texts)


def _add_system(cells: _Cells, *conversations: Messages) -> None:
    """The system column as first message of conversations that have none; otherwise it stays in meta."""
    column = cells.find(SYSTEMS)
    if column is None or not isinstance(cells.row[column], str) or conversations[0][0]["role"] == "system":
        return
    text = cells.take(column)
    if text.strip():
        for messages in conversations:
            messages.insert(0, _message("system", text))


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
        raise Malformed("wrong_type", f"'{column}' is {_type(tools)}; expected a list of tools.")
    first = messages[0]
    first["extra"] = _json({**(orjson.loads(first["extra"]) if first["extra"] else {}), "tools": tools})


def _check_content(messages: Messages, rejected: Messages | None) -> None:
    for message in _flat(messages, rejected):
        if message["role"] != "system" and ((message["content"] or "").strip() or (message["extra"] and "_call" in message["extra"])):
            return
    raise Malformed("empty", "No message has any content.")


def _flat(*conversations: Messages | None) -> Iterator[dict[str, str | None]]:
    for conversation in conversations:
        yield from conversation or ()


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


def _message(role: str, content: str) -> dict[str, str | None]:
    return {"role": role, "content": content, "extra": None}


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _type(value: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def _shown(row: Mapping[str, Any]) -> str:
    """The names of a row's columns, those that could be data left out: a table without header has its first row for names."""
    shown = [f"{name} (null)" if row[name] is None else name for name in row if SAFE_NAME.fullmatch(name)][:12]
    hidden = len(row) - len(shown)
    return ", ".join([*shown, *([f"{hidden} more"] if hidden else [])]) or "none"
