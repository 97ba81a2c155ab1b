"""Renders conversations, for training, evaluation and serving alike, and says which of their tokens are trained.

Helper of `format`, `train` and `evaluate`. Rendering goes through the function behind `tokenizer.apply_chat_template`, so that any
server which is given the same template writes the same text. The loss mask comes from the rendering itself: an answer starts where
the prompt before it (rendered with the generation prompt) ends, and ends with the special token that the template sets after it.
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

import orjson
import xxhash

from curate.record import InputError, Message, ParamsError

TEMPLATES = Path(__file__).resolve().parent / "templates"
BUILT_IN = ("chatml", "alpaca")
NOT_TRAINED = -100  # the label that torch's cross entropy leaves out
NO_TOKENS: Mapping[str, str] = MappingProxyType({})
Turn = Mapping[str, Any]  # one message as a template sees it: role, content, and what `extra` held


@dataclass(frozen=True)
class Example:
    """One row as the model gets it. `labels` has the length of `input_ids`; -100 where nothing is trained."""

    prompt: str  # rendered text before the last answer; empty for a plain document
    answer: str  # text of the last answer without its end token
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Refusal:
    """Why a conversation cannot be formatted. `evidence` and `detail` hold no text of the row."""

    reason: str
    detail: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Codec:
    """A tokenizer and a template, read once and shared by everything that formats with them."""

    backend: Any  # tokenizers.Tokenizer
    template: str  # Jinja source
    special_tokens: Mapping[str, str]  # eos_token and so on, as templates see them
    special_ids: frozenset[int]
    control: re.Pattern[str]  # any special token, as text
    eos_id: int | None
    unknown_id: int | None


def load_template(name: str, tokenizer: Path) -> str:
    """The Jinja source of `chatml`, `alpaca`, `model` (the template that came with the tokenizer) or of a .jinja file.

    Raises ParamsError if the tokenizer has no template of its own, or the template depends on the day; InputError for a missing file.
    """
    if name == "model":
        source = _load_tokenizer(tokenizer).chat_template
        if isinstance(source, dict):  # several named templates; the tokenizer itself uses this one
            source = source.get("default")
        if not source:
            raise ParamsError(f"format.template = 'model': the tokenizer in {tokenizer} has no chat template. Use chatml or alpaca.")
    else:
        path = TEMPLATES / f"{name}.jinja" if name in BUILT_IN else Path(name)
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: this template cannot be read ({error}). Use chatml, alpaca, model or a .jinja file.") from None
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
    from transformers.utils.chat_template_utils import render_jinja_template

    present = [{key: value for key, value in message.items() if value is not None} for message in messages]  # as the tokenizer does
    tokens: dict[str, Any] = dict(special_tokens)
    made: Any = render_jinja_template([present], chat_template=template, add_generation_prompt=add_generation_prompt, **tokens)
    return str(made[0][0])  # (texts, positions of answers)


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A record's messages as templates expect them: the keys in `extra` (tool_calls, name, …) stand beside role and content."""
    out = []
    for message in messages:
        extra = orjson.loads(message["extra"] or "{}")
        shown = extra if isinstance(extra, dict) else {}
        out.append({**shown, "role": message["role"], "content": message["content"]})
    return out


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
        special_ids=frozenset(added),
        control=re.compile("|".join(map(re.escape, by_length)) or "(?!)"),
        eos_id=tokenizer.eos_token_id,
        unknown_id=_unknown_id(backend),
    )


def _load_tokenizer(folder: Path) -> Any:
    if multiprocessing.parent_process() is not None:  # a worker: the workers are the parallelism
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
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


def end_token(coded: Codec) -> int | Refusal:
    """The id of the special token that ends an answer under this template, or why there is none."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (made,) = conversations([probe], coded)
    return made if isinstance(made, Refusal) else next(label for label in reversed(made.labels) if label != NOT_TRAINED)


def conversations(rows: Sequence[Sequence[Turn]], coded: Codec) -> list[Example | Refusal]:
    """Ids and labels of chats. Loss on the answers and the token that ends each, and on nothing else.

    Promises for every Example: `input_ids` are those of `tokenizer(whole rendering)`, and for every answer the ids before it are those
    of `tokenizer(prompt)` that serving will compute. What cannot keep them is refused, with the number of the turn (from 1).
    """
    rendered = [_render_all(row, coded) for row in rows]
    whole = [each for each in rendered if isinstance(each, _Rendered)]
    encodings = coded.backend.encode_batch([each.text for each in whole], add_special_tokens=False)
    marked = [_Marked(each, encoding, coded) for each, encoding in zip(whole, encodings, strict=True)]
    tails = sorted({tail for each in marked for tail in each.tails})
    tail_ids = {tail: enc.ids for tail, enc in zip(tails, coded.backend.encode_batch(tails, add_special_tokens=False), strict=True)}
    done = iter([each.example(tail_ids) for each in marked])
    return [each if isinstance(each, Refusal) else next(done) for each in rendered]


@dataclass(frozen=True)
class _Rendered:
    text: str
    spans: tuple[tuple[int, int, int], ...]  # (turn from 1, first character of the answer, first character after the turn)


def _render_all(messages: Sequence[Turn], coded: Codec) -> _Rendered | Refusal:
    """The whole text, and where each answer stands in it, by rendering every prefix that ends before or after an answer."""
    from jinja2 import TemplateError, TemplateSyntaxError

    at = 0
    try:
        text = render(messages, coded.template, False, coded.special_tokens)
        spans = []
        for at, message in enumerate(messages, 1):
            if message["role"] != "assistant":
                continue
            before = render(messages[: at - 1], coded.template, True, coded.special_tokens)
            after = text if at == len(messages) else render(messages[:at], coded.template, False, coded.special_tokens)
            if not (text.startswith(before) and text.startswith(after) and len(before) <= len(after)):
                return Refusal("template_prefix", f"Turn {at}: the template writes it differently when more turns follow.", {"turn": at})
            spans.append((at, len(before), len(after)))
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        by_author = isinstance(error, TemplateSyntaxError) or str(error) in coded.template  # anything else may quote the row
        said = str(error) if by_author else type(error).__name__
        return Refusal("template_error", f"The template refuses this conversation: {said}.", {"turn": at or None, "error": said})
    return _Rendered(text, tuple(spans))


class _Marked:
    """A rendered conversation with its tokens, waiting for the ids of its prompts' tails."""

    def __init__(self, rendered: _Rendered, encoding: Any, coded: Codec) -> None:
        self.rendered = rendered
        self.ids: list[int] = encoding.ids
        special = [at for at, number in enumerate(self.ids) if number in coded.special_ids]
        self.special = [(at, *encoding.token_to_chars(at)) for at in special]
        self.anchors = [max((each for each in self.special if each[1] < start), default=(0, 0, 0)) for _, start, _ in rendered.spans]
        # Special tokens cut a text before anything else does, so a prompt is tokenised right if its last piece is.
        self.tails = [rendered.text[anchor[1] : span[1]] for anchor, span in zip(self.anchors, rendered.spans, strict=True)]

    def example(self, tail_ids: Mapping[str, list[int]]) -> Example | Refusal:
        labels = [NOT_TRAINED] * len(self.ids)
        prompt = answer = ""
        for (turn, start, stop), anchor, tail in zip(self.rendered.spans, self.anchors, self.tails, strict=True):
            first = anchor[0] + len(tail_ids[tail])
            if self.ids[anchor[0] : first] != tail_ids[tail]:
                return Refusal(
                    "template_prefix", f"Turn {turn}: the answer's first token joins the prompt's last, unlike in serving.", {"turn": turn}
                )
            ends = [each for each in self.special if first <= each[0] and start <= each[1] < stop]
            if not ends:
                return Refusal("no_end_token", f"Turn {turn}: the template sets no end token after the answer.", {"turn": turn})
            end, end_start, _ = ends[-1]
            labels[first : end + 1] = self.ids[first : end + 1]
            prompt, answer = self.rendered.text[:start], self.rendered.text[start:end_start]
        return Example(prompt, answer, self.ids, labels)


def documents(rows: Sequence[str], coded: Codec) -> list[Example | Refusal]:
    """Ids and labels of plain documents: every token trained, ended with the end-of-sequence token (added if the tokenizer does not)."""
    if coded.eos_id is None:
        return [Refusal("no_end_token", "The tokenizer has no end-of-sequence token.", {})] * len(rows)
    out: list[Example | Refusal] = []
    for text, encoding in zip(rows, coded.backend.encode_batch(list(rows)), strict=True):
        ids = encoding.ids if encoding.ids[-1:] == [coded.eos_id] else [*encoding.ids, coded.eos_id]
        out.append(Example("", text, ids, list(ids)))
    return out
