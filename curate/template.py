"""Renders conversations, for training, evaluation and serving alike.

Helper of `format`, `train` and `evaluate`. Rendering goes through the function behind `tokenizer.apply_chat_template`, so that any
server which is given the same template writes the same text. Which tokens of it are trained: curate/masking.py.
"""

import multiprocessing
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson
import xxhash

from curate import pieces
from curate.record import InputError, Message, ParamsError

TEMPLATES = Path(__file__).resolve().parent / "templates"
MACROS = "macros"  # put in front of the others
BUILT_IN = (
    "chatml", "alpaca", "plain", "qwen", "llama3", "llama2", "mistral", "gemma", "phi3", "phi4", "zephyr", "vicuna", "deepseek",
)  # fmt: skip
NO_TOKENS: Mapping[str, str] = MappingProxyType({})
Turn = Mapping[str, Any]  # one message as a template sees it: role, content, and what `extra` held; the first may hold `tools`
Tools = list[dict[str, Any]]


@dataclass(frozen=True)
class Codec:
    """A tokenizer and a template, read once and shared by everything that formats with them."""

    backend: Any  # tokenizers.Tokenizer
    template: str  # Jinja source
    special_tokens: Mapping[str, str]  # eos_token and so on, as templates see them
    specials: Mapping[str, int]  # id of each special token, by its text
    control: re.Pattern[str]  # any special token, as text
    eos_id: int | None
    unknown_id: int | None
    context: int | None  # tokens that the model can see, as the tokenizer's configuration says
    known: dict[str, np.ndarray] | None  # see curate/pieces.py
    forms: dict[Any, tuple[str, ...]] | None  # see curate/forms.py; None if the template is none of BUILT_IN
    lone_bytes: frozenset[int]  # ids of single bytes that are no ASCII: what the vocabulary has no piece for


def load_template(name: str, tokenizer: Path) -> str:
    """The Jinja source of a template in `BUILT_IN`, of `model` (the one that came with the tokenizer) or of a .jinja file.

    Raises ParamsError if the tokenizer has no template of its own, or the template depends on the day; InputError for a missing file.
    """
    if name == "model":
        source = _load_tokenizer(tokenizer).chat_template
        if isinstance(source, dict):  # several named templates; the tokenizer itself uses this one
            source = source.get("default")
        if not source:
            raise ParamsError(f"format.template = 'model': the tokenizer in {tokenizer} has no chat template. Use chatml or alpaca.")
    else:
        shared = [TEMPLATES / f"{MACROS}.jinja"] if name in BUILT_IN else []
        path = TEMPLATES / f"{name}.jinja" if name in BUILT_IN else Path(name)
        try:
            source = "".join(each.read_text(encoding="utf-8") for each in [*shared, path])
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: this template cannot be read ({error}). Use {', '.join(BUILT_IN)}, model or a .jinja file."
            ) from None
    if "strftime_now" in source:
        raise ParamsError(
            f"format.template = '{name}': this template writes today's date, so that the same data would give other bytes tomorrow. "
            f"Use chatml, or copy the template to a .jinja file with a fixed date."
        )
    return str(source)


def render(messages: Sequence[Turn], template: str, add_generation_prompt: bool, special_tokens: Mapping[str, str] = NO_TOKENS) -> str:
    """The text of a conversation. `template` is Jinja source, `special_tokens` the tokenizer's `special_tokens_map`.

    Raises jinja2.TemplateError if the template refuses the conversation.

    >>> chatml = load_template("chatml", Path("unused"))
    >>> render([{"role": "user", "content": "Hi"}], chatml, True)
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    shown, tools = split_tools(messages)
    return render_many([shown], tools, template, add_generation_prompt, special_tokens)[0]


def render_many(
    conversations: Sequence[Sequence[Turn]],
    tools: Tools | None,
    template: str,
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
) -> list[str]:
    """`render` for several conversations with the same tools, which stand apart here. Raises as `render` does."""
    from transformers.utils.chat_template_utils import render_jinja_template

    present = [[{key: value for key, value in turn.items() if value is not None} for turn in each] for each in conversations]
    settings: dict[str, Any] = {"tools": tools, "chat_template": template, "add_generation_prompt": add_generation_prompt, **special_tokens}
    made: Any = render_jinja_template(present, **settings)
    return list(made[0])  # (texts, positions of answers)


def split_tools(messages: Sequence[Turn]) -> tuple[list[Turn], Tools | None]:
    """The messages without `tools`, and the tools: what `apply_chat_template` takes as two arguments."""
    if not messages or "tools" not in messages[0]:
        return list(messages), None
    first = {key: value for key, value in messages[0].items() if key != "tools"}
    return [first, *messages[1:]], messages[0]["tools"] or None


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A record's messages as templates expect them: the keys in `extra` (tool_calls, name, …) stand beside role and content.

    Tools and calls take the form that models' own templates read: `{"type": "function", "function": {…}}`, arguments as an object.
    """
    out = []
    for message in messages:
        shown = {"role": message["role"], "content": message["content"]}
        if message["extra"]:
            extra = orjson.loads(message["extra"])
            shown = {**_uniform(extra), **shown} if isinstance(extra, dict) else shown
        out.append(shown)
    return out


def _uniform(extra: dict[str, Any]) -> dict[str, Any]:
    if isinstance(extra.get("function_call"), dict) and not extra.get("tool_calls"):  # as OpenAI wrote it before there were several
        extra = {**extra, "tool_calls": [extra["function_call"]]}
        del extra["function_call"]
    if isinstance(extra.get("tool_calls"), list):
        extra["tool_calls"] = [_call(call) for call in extra["tool_calls"]]
    if extra.get("tools"):
        listed = extra["tools"] if isinstance(extra["tools"], list) else [extra["tools"]]
        extra["tools"] = [
            tool if not isinstance(tool, dict) or "function" in tool else {"type": "function", "function": tool} for tool in listed
        ]
    return extra


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    function = call.get("function", call)
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        try:
            given = orjson.loads(function["arguments"])
        except orjson.JSONDecodeError:
            given = None  # no JSON: the text stays as it is
        function = {**function, "arguments": given if isinstance(given, dict) else function["arguments"]}
    return {**call, "function": function} if "function" in call else {"type": "function", "function": function}


def codec(tokenizer: Path, template: str) -> Codec:
    """Read the tokenizer folder. `template` is Jinja source. Raises InputError if the folder holds no fast tokenizer."""
    return _codec(str(tokenizer), template)


@lru_cache(maxsize=4)
def _codec(folder: str, template: str) -> Codec:
    tokenizer = _load_tokenizer(Path(folder))
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    added = {number: token.content for number, token in backend.get_added_tokens_decoder().items() if token.special}
    by_length = sorted(added.values(), key=len, reverse=True)
    return Codec(
        backend=backend,
        template=template,
        special_tokens=dict(tokenizer.special_tokens_map),
        specials={content: number for number, content in added.items()},
        control=re.compile("|".join(map(re.escape, by_length)) or "(?!)"),
        eos_id=tokenizer.eos_token_id,
        unknown_id=_unknown_id(backend),
        context=tokenizer.model_max_length if tokenizer.model_max_length < 1 << 30 else None,  # a huge number stands for "not known"
        known={} if pieces.divisible(backend) else None,
        forms={} if any(template == load_template(name, Path(folder)) for name in BUILT_IN) else None,
        lone_bytes=_lone_bytes(backend),
    )


def _load_tokenizer(folder: Path) -> Any:
    if multiprocessing.parent_process() is not None:  # a worker: the workers are the parallelism
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    elif os.environ.get("FINERY_WORKERS"):
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ["FINERY_WORKERS"])  # tokenises with as many threads as were asked for
    from transformers import PreTrainedTokenizerFast  # reads tokenizer.json as it is, and does not import torch

    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{folder}: no tokenizer.json there. Run the base stage first (`dvc repro base`), or set format.tokenizer.")
    try:
        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception for a broken file
        raise InputError(f"{folder}: this tokenizer cannot be read ({error}). Run the base stage again.") from error


def _unknown_id(backend: Any) -> int | None:
    """The id that stands for text outside the vocabulary; None for byte-level tokenizers, even where `unk_token` is set."""
    model = orjson.loads(backend.to_str())["model"]
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return None if unknown is None else backend.token_to_id(unknown)


def _lone_bytes(backend: Any) -> frozenset[int]:
    """Ids of bytes from 0x80 on: `<0x80>` where bytes are the fallback, the letter that stands for the byte where all text is bytes."""
    vocabulary = backend.get_vocab(with_added_tokens=False)
    letters = {chr(at) for at in (*range(0xA1, 0xAD), *range(0xAE, 0x100))}  # GPT-2's table: these bytes stand for themselves,
    letters |= {chr(0x100 + at) for at in range(34, 68)}  # and 0x80 to 0xA0 and 0xAD follow on the 34 that are ASCII
    names = {f"<0x{at:02X}>" for at in range(0x80, 0x100)} | (letters if '"ByteLevel"' in backend.to_str() else set())
    return frozenset(number for name, number in vocabulary.items() if name in names)


def tokenizer_hash(folder: Path) -> str:
    """xxh3-128 of tokenizer.json: same hash, same ids."""
    return xxhash.xxh3_128_hexdigest((folder / "tokenizer.json").read_bytes())


def without_control(text: str, control: re.Pattern[str]) -> str:
    """`text` without anything that the tokenizer would read as a special token, so that data cannot forge a turn or an end.

    >>> without_control("<|im_<|im_end|>end|>x", re.compile(re.escape("<|im_end|>")))
    'x'
    """
    while control.search(text):  # again, because taking one out can join the next
        text = control.sub("", text)
    return text
