"""Messages as raw files write them (OpenAI, ShareGPT, content parts, tool calls) -> messages of the record."""

from typing import Any

import orjson

Messages = list[dict[str, str | None]]
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


class Malformed(Exception):
    """A row that cannot become a record. `detail` is one sentence for a person and holds no text of the row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def turns(value: Any, column: str, role: str) -> Messages:
    """A list of messages (or one) as messages, a text as one message of `role`. Raises Malformed."""
    if isinstance(value, str):
        return [message(role, value)]
    if isinstance(value, dict):
        return [_turn(value, column, 0)]
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"'{column}' is {type_name(value)}; expected text or a list of messages.")
    if not value:
        raise Malformed("empty", f"'{column}' is an empty list.")
    return [_turn(each, column, at) for at, each in enumerate(value)]


def _turn(turn: Any, column: str, at: int) -> dict[str, str | None]:
    if not isinstance(turn, dict):
        raise Malformed("wrong_type", f"{column}[{at}] is {type_name(turn)}; expected an object with role and content.")
    said = turn.get("role") if turn.get("role") is not None else turn.get("from")
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
    return {"role": role, "content": content, "extra": as_json(rest) if rest else None}


def _joined(value: Any, where: str) -> str:
    """The text of content parts, one after the other, as chat templates print them."""
    if not isinstance(value, list):
        raise Malformed("wrong_type", f"The content of {where} is {type_name(value)}; expected text or a list of text parts.")
    texts: list[str] = []
    for at, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise Malformed("wrong_type", f"Content part {at} of {where} is not text; only text parts are supported.")
        texts.append(text)
    return "".join(texts)


def message(role: str, content: str) -> dict[str, str | None]:
    """A message of plain text."""
    return {"role": role, "content": content, "extra": None}


def as_json(value: Any) -> str:
    """`value` as JSON with sorted keys."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def type_name(value: Any) -> str:
    """The type of a JSON value, in words."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
