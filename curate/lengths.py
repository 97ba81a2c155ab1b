"""What becomes of a row that is longer than the model may see: helper of `format`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from curate.masking import NOT_TRAINED, Example, Loss, Refusal, conversations
from curate.template import Codec, Turn


def truncate(made: Example, limit: int) -> Example | None:
    """The first `limit` tokens. An answer that is cut ends with the end token, which takes the place of the last; None if nothing of an
    answer would be left (for a pair: of either)."""
    if made.pair is not None:
        room = limit - len(made.pair.prompt_ids)
        chosen, rejected = (_ended(ids, room) for ids in (made.pair.chosen_ids, made.pair.rejected_ids))
        if chosen is None or rejected is None:
            return None
        made = replace(made, pair=replace(made.pair, chosen_ids=chosen, rejected_ids=rejected))
    if len(made.input_ids) <= limit:
        return made
    ids, labels = made.input_ids[:limit].copy(), made.labels[:limit].copy()
    end = made.input_ids[made.stop - 1]
    if labels[-1] != NOT_TRAINED and ids[-1] != end:
        if limit > 1 and labels[-2] != NOT_TRAINED:
            ids[-1] = labels[-1] = end
        else:  # only the first token of an answer is left: an end token in its place would teach to say nothing
            ids, labels = ids[:-1], labels[:-1]
    return replace(made, input_ids=ids, labels=labels)


def _ended(answer: np.ndarray, room: int) -> np.ndarray | None:
    if len(answer) <= room:
        return answer
    return np.append(answer[: room - 1], answer[-1:]) if room > 1 else None


def windows(made: Example, limit: int, coded: Codec) -> list[Example]:
    """A document in pieces that are nearly equal, so that none is too short to train on. Only the last one ends with the end token."""
    length = len(made.input_ids)
    count = math.ceil(length / limit)
    cuts = [length * at // count for at in range(count + 1)]
    return [_window(made, start, stop, coded) for start, stop in pairwise(cuts)]


def _window(made: Example, start: int, stop: int, coded: Codec) -> Example:
    ids = made.input_ids[start:stop]
    return Example("", coded.backend.decode(ids.tolist(), skip_special_tokens=True), ids, made.labels[start:stop], 0, len(ids))


def split_chat(messages: Sequence[Turn], limit: int, coded: Codec, loss: Loss) -> list[Example] | None:
    """A conversation as several, cut before a question, each with the system message and tools; None if one exchange is too long alone.

    Each piece is as long as fits, and rendered on its own: it is what a server would render of these turns. A last question that has
    no answer is left out.
    """
    head, exchanges = _exchanges(messages)
    pieces: list[Example] = []
    held: list[Turn] = []
    last: Example | None = None
    for exchange in exchanges:
        longer = _fitting([*head, *held, *exchange], limit, coded, loss)
        if longer is None and last is not None:
            pieces.append(last)
            held = []
            longer = _fitting([*head, *exchange], limit, coded, loss)
        if longer is None:
            return None
        held, last = [*held, *exchange], longer
    return [*pieces, last] if last is not None else None


def _fitting(messages: list[Turn], limit: int, coded: Codec, loss: Loss) -> Example | None:
    (made,) = conversations([messages], coded, loss)
    return None if isinstance(made, Refusal) or len(made.input_ids) > limit else made


def _exchanges(messages: Sequence[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    """The system messages at the start, and the rest in pieces that begin with a question and hold an answer."""
    at = next((at for at, turn in enumerate(messages) if turn["role"] != "system"), len(messages))
    head, exchanges = list(messages[:at]), [[]]  # type: tuple[list[Turn], list[list[Turn]]]
    for turn in messages[at:]:
        answered = any(each["role"] == "assistant" for each in exchanges[-1])
        if turn["role"] in ("user", "system") and answered:
            exchanges.append([])
        exchanges[-1].append(turn)
    if not head and messages and "tools" in messages[0]:  # an empty system message carries the tools into every piece
        exchanges[0][0] = {key: value for key, value in messages[0].items() if key != "tools"}
        head = [{"role": "system", "content": "", "tools": messages[0]["tools"]}]
    return head, [each for each in exchanges if any(turn["role"] == "assistant" for turn in each)]
