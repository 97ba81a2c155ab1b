"""Token ids and loss mask of conversations, preference pairs and documents. Helper of `format`.

The mask comes from the rendering itself: an answer starts where the prompt before it (rendered with the generation prompt) ends, and
ends with the special token that the template sets after it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from curate import forms, pieces
from curate.template import Codec, Tools, Turn, render_many, split_tools

NOT_TRAINED = -100  # the label that torch's cross entropy leaves out
Loss = Literal["all", "last"]


@dataclass(frozen=True, eq=False)  # arrays do not compare as one
class Example:
    """One row as the model gets it (ids as i32). `labels` has the length of `input_ids`; -100 where nothing is trained."""

    prompt: str  # rendered text before the last answer; empty for a plain document
    answer: str  # text of the last answer without its end token
    input_ids: np.ndarray
    labels: np.ndarray
    start: int = 0  # the last answer is input_ids[start:stop], its end token included
    stop: int = 0
    pair: "Pair | None" = None  # only of a preference row


@dataclass(frozen=True, eq=False)
class Pair:
    """A preference row: two answers to one prompt, each with its end token last."""

    rejected: str
    prompt_ids: np.ndarray
    chosen_ids: np.ndarray
    rejected_ids: np.ndarray


@dataclass(frozen=True)
class Refusal:
    """Why a conversation cannot be formatted. `evidence` and `detail` hold no text of the row."""

    reason: str
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)


def end_token(coded: Codec) -> int | Refusal:
    """The id of the special token that ends an answer under this template, or why there is none."""
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (made,) = conversations([probe], coded)
    return made if isinstance(made, Refusal) else int(made.input_ids[made.stop - 1])


def conversations(rows: Sequence[Sequence[Turn]], coded: Codec, loss: Loss = "all") -> list[Example | Refusal]:
    """Ids and labels of chats. Loss on the answers (all, or the last) and the token that ends each, and on nothing else.

    Promises for every Example: `input_ids` are those of `tokenizer(whole rendering)`, and for every trained answer the ids before it
    are those of `tokenizer(prompt)` that serving will compute. What cannot keep them is refused, with the number of the turn (from 1).
    """
    rendered = _render(rows, coded, loss)
    whole = [each for each in rendered if isinstance(each, _Rendered)]
    ids, at = pieces.encode([each.text for each in whole], coded.backend, coded.known)
    special = np.flatnonzero(np.isin(ids, list(coded.specials.values())))
    marked = [
        _Marked(each, ids[start:stop], (special[first:last] - start).tolist(), coded)
        for each, (start, stop), (first, last) in zip(whole, pairwise(at.tolist()), pairwise(np.searchsorted(special, at)), strict=True)
    ]
    tails = sorted({tail for each in marked for tail in each.tails})
    tail_ids = {tail: enc.ids for tail, enc in zip(tails, coded.backend.encode_batch_fast(tails, add_special_tokens=False), strict=True)}
    done = iter([each.example(tail_ids) for each in marked])
    return [each if isinstance(each, Refusal) else next(done) for each in rendered]


def pairs(rows: Sequence[tuple[Sequence[Turn], Sequence[Turn]]], coded: Codec, loss: Loss = "all") -> list[Example | Refusal]:
    """Preference rows (better conversation, worse conversation): the better one as a chat, with `pair` set.

    The two may differ in their last message alone, an answer in both; anything else is refused as `unpaired`.
    """
    kept = [_pairing(*row) for row in rows]
    apart = [at for at, refusal in enumerate(kept) if refusal is None]
    better = conversations([rows[at][0] for at in apart], coded, loss)
    worse = conversations([rows[at][1] for at in apart], coded, "last")
    joined = iter([_paired(one, other) for one, other in zip(better, worse, strict=True)])
    return [next(joined) if refusal is None else refusal for refusal in kept]


def _pairing(better: Sequence[Turn], worse: Sequence[Turn]) -> Refusal | None:
    same = next((at for at, (one, other) in enumerate(zip(better, worse, strict=False)) if one != other), min(len(better), len(worse)))
    evidence = {"turn": same + 1, "chosen_turns": len(better), "rejected_turns": len(worse)}
    for name, turns in (("chosen", better), ("rejected", worse)):
        if len(turns) != same + 1 or turns[same]["role"] != "assistant":
            detail = f"The two conversations part at turn {same + 1}, and the {name} one does not end there with an answer."
            return Refusal("unpaired", detail, evidence)
    return None


def _paired(better: Example | Refusal, worse: Example | Refusal) -> Example | Refusal:
    if isinstance(better, Refusal):
        return better
    if isinstance(worse, Refusal):
        return replace(worse, detail=f"Rejected answer: {worse.detail}", evidence={**worse.evidence, "rejected": True})
    prompt = better.input_ids[: better.start]
    if not np.array_equal(prompt, worse.input_ids[: worse.start]):  # a template that writes the prompt according to the answer
        return Refusal("template_prefix", "The template writes the prompt differently before the rejected answer.", {"rejected": True})
    pair = Pair(worse.answer, prompt, better.input_ids[better.start : better.stop], worse.input_ids[worse.start : worse.stop])
    return replace(better, pair=pair)


@dataclass(frozen=True)
class _Rendered:
    text: str
    spans: tuple[tuple[int, int, int], ...]  # (turn from 1, first character of the answer, first character after the turn)


def _render(rows: Sequence[Sequence[Turn]], coded: Codec, loss: Loss) -> list[_Rendered | Refusal]:
    """The whole text, and where each answer stands in it, by rendering every prefix that ends before or after an answer.

    Conversations without tools are rendered together; if the template refuses one of them, each on its own, to know which.
    """
    out: list[_Rendered | Refusal | None] = [None] * len(rows)
    apart = [split_tools(row) for row in rows]
    plain = [at for at, (_, tools) in enumerate(apart) if tools is None]
    try:
        together = _rendered([apart[at][0] for at in plain], None, coded, loss)
    except _errors():
        together = []
    for at, made in zip(plain, together, strict=False):
        out[at] = made
    return [_alone(*apart[at], coded, loss) if made is None else made for at, made in enumerate(out)]


def _errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def _alone(messages: Sequence[Turn], tools: Tools | None, coded: Codec, loss: Loss) -> _Rendered | Refusal:
    from jinja2 import TemplateSyntaxError

    try:
        return _rendered([messages], tools, coded, loss)[0]
    except _errors() as error:
        by_author = isinstance(error, TemplateSyntaxError) or str(error) in coded.template  # anything else may quote the row
        said = str(error) if by_author else type(error).__name__
        return Refusal("template_error", f"The template refuses this conversation: {said}.", {"error": said})


def _rendered(rows: Sequence[Sequence[Turn]], tools: Tools | None, coded: Codec, loss: Loss) -> list[_Rendered | Refusal]:
    def rendered(chats: Iterable[Sequence[Turn]], prompt: bool) -> list[str]:
        if tools is None:
            return forms.render(list(chats), coded, prompt)
        return render_many(list(chats), tools, coded.template, prompt, coded.special_tokens)

    answers = [[at for at, turn in enumerate(row, 1) if turn["role"] == "assistant"] for row in rows]
    if loss == "last":
        answers = [each[-1:] for each in answers]
    texts = rendered(rows, False)
    before = iter(rendered((row[: at - 1] for row, each in zip(rows, answers, strict=True) for at in each), True))
    after = iter(rendered((row[:at] for row, each in zip(rows, answers, strict=True) for at in each if at < len(row)), False))
    return [
        _spans(text, [(at, next(before), text if at == len(row) else next(after)) for at in each])
        for row, each, text in zip(rows, answers, texts, strict=True)
    ]


def _spans(text: str, prefixes: Sequence[tuple[int, str, str]]) -> _Rendered | Refusal:
    """`prefixes`: for each answer its turn, and the renderings that end before and after it."""
    for at, before, after in prefixes:
        if not (text.startswith(before) and text.startswith(after) and len(before) <= len(after)):
            return Refusal("template_prefix", f"Turn {at}: the template writes it differently when more turns follow.", {"turn": at})
    return _Rendered(text, tuple((at, len(before), len(after)) for at, before, after in prefixes))


class _Marked:
    """A rendered conversation with its tokens, waiting for the ids of its prompts' tails."""

    def __init__(self, rendered: _Rendered, ids: np.ndarray, special: list[int], coded: Codec) -> None:
        self.rendered, self.ids = rendered, ids
        self.special = _special(rendered.text, ids, special, coded)
        self.anchors = [max((each for each in self.special if each[1] < start), default=(0, 0, 0)) for _, start, _ in rendered.spans]
        # Special tokens cut a text before anything else does, so a prompt is tokenised right if its last piece is.
        self.tails = [rendered.text[anchor[1] : span[1]] for anchor, span in zip(self.anchors, rendered.spans, strict=True)]

    def example(self, tail_ids: dict[str, list[int]]) -> Example | Refusal:
        text, labels = self.rendered.text, np.full_like(self.ids, NOT_TRAINED)
        prompt = answer = ""
        first = end = -1
        for (turn, start, stop), anchor, tail in zip(self.rendered.spans, self.anchors, self.tails, strict=True):
            first = anchor[0] + len(tail_ids[tail])
            if self.ids[anchor[0] : first].tolist() != tail_ids[tail]:
                return Refusal(
                    "template_prefix", f"Turn {turn}: the answer's first token joins the prompt's last, unlike in serving.", {"turn": turn}
                )
            ends = [each for each in self.special if first <= each[0] and start <= each[1] < stop]
            if not ends:
                return Refusal("no_end_token", f"Turn {turn}: the template sets no end token after the answer.", {"turn": turn})
            end, end_start, _ = ends[-1]
            labels[first : end + 1] = self.ids[first : end + 1]
            prompt, answer = text[:start], text[start:end_start]
        return Example(prompt, answer, self.ids, labels, max(first, 0), end + 1)


def _special(text: str, ids: np.ndarray, places: list[int], coded: Codec) -> list[tuple[int, int, int]]:
    """The special tokens in order: place among `ids` (`places` are these), first character, first character after.

    They stand in the text as they are written, so that the tokenizer need not note the place of every token, which takes it a sixth more
    time. Where its rules let some of them be text (only whole words, say), it is asked after all.
    """
    found = [(coded.specials[match.group()], *match.span()) for match in coded.control.finditer(text)]
    if [number for number, _, _ in found] != ids[places].tolist():
        encoding = coded.backend.encode(text, add_special_tokens=False)
        return [(at, *encoding.token_to_chars(at)) for at in places]
    return [(at, start, stop) for at, (_, start, stop) in zip(places, found, strict=True)]


def documents(rows: Sequence[str], coded: Codec) -> list[Example | Refusal]:
    """Ids and labels of plain documents: every token trained, ended with the end-of-sequence token (added if the tokenizer does not)."""
    if coded.eos_id is None:
        return [Refusal("no_end_token", "The tokenizer has no end-of-sequence token.")] * len(rows)
    out: list[Example | Refusal] = []
    for text, encoding in zip(rows, coded.backend.encode_batch_fast(list(rows)), strict=True):
        ids = encoding.ids if encoding.ids[-1:] == [coded.eos_id] else [*encoding.ids, coded.eos_id]
        out.append(Example("", text, np.array(ids, np.int32), np.array(ids, np.int32), 0, len(ids)))
    return out


def trained(example: Example) -> int:
    """Tokens with a loss. The first never has one: nothing comes before it."""
    return int(np.count_nonzero(example.labels[1:] != NOT_TRAINED))
