"""The filters of the clean stage: each looks at the facts of all rows and names those that it drops, with what it measured.

Evidence holds numbers and names of rules, never text of a row.
"""

import re
import zlib
from dataclasses import dataclass, field
from typing import Any

import orjson
import polars as pl

from curate import language, record, refusals


@dataclass(frozen=True)
class Hit:
    """One row to drop: its position in the batch, a sentence for people, and what was measured."""

    at: int
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)


def as_json(evidence: dict[str, Any]) -> str:
    """Evidence as it is stored: keys in a fixed order."""
    return orjson.dumps(evidence, option=orjson.OPT_SORT_KEYS).decode()


_END_TOKEN = r"(\s*(<\|[^|<>\s]{1,40}\|>|</s>))+\s*\z"  # written by the source of the data: no content, but a sure end
ROLE_LETTERS = {"system": "s", "user": "u", "assistant": "a", "tool": "t", "text": "x"}


def facts(rows: pl.DataFrame) -> pl.DataFrame:
    """What the filters look at, one row per row of `rows`, in order.

    Columns: at (u32), kind, label, prompt, answer (record.prompt_and_answer), asked (the last user message), rejected (the last message
    of the worse answer, or null), roles and rejected_roles (a letter a message, `?` unknown), calls (the answer calls a tool), ended
    (the answer bore an end token such as `<|endoftext|>`, left out of `answer` here).
    """
    flat = record.texts(rows).with_columns(
        pl.col("role").replace_strict(ROLE_LETTERS, default="?", return_dtype=pl.String).alias("letter"), pl.col("content").fill_null("")
    )
    sides = record.prompt_and_answer(rows)
    better, worse = flat.filter(pl.col("field") == "messages"), flat.filter(pl.col("field") == "rejected")
    asked = better.group_by("at").agg(
        pl.col("content").filter(pl.col("letter") == "u").last().fill_null("").alias("asked"),
        pl.col("letter").str.join("").alias("roles"),
        pl.col("extra").last().is_not_null().alias("calls"),
    )
    refused = worse.group_by("at").agg(pl.col("content").last().alias("rejected"), pl.col("letter").str.join("").alias("rejected_roles"))
    return (
        rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at"), "kind", "label")
        .with_columns(sides)
        .join(asked, on="at", how="left", maintain_order="left")
        .join(refused, on="at", how="left", maintain_order="left")
        .with_columns(
            pl.col("answer").str.contains(_END_TOKEN).alias("ended"),
            pl.col("answer").str.replace(_END_TOKEN, ""),
            pl.col("roles").fill_null(""),
            pl.col("asked").fill_null(""),
            pl.col("calls").fill_null(False),
        )
    )


def _talk(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("kind") != "text")


# --- shape

_CHAT_ORDER = r"^s*(u(a(t+a)*))+$"  # a tool's results stand between two turns of the assistant


def role_order(rows: pl.DataFrame) -> list[Hit]:
    """Chats and preferences: system first, then user and assistant in turn, assistant last. Documents: one text."""
    wanted = (pl.col("kind") == "text") & (pl.col("roles") == "x") | pl.col("kind").is_in(["chat", "preference"]) & (
        pl.col("roles").str.contains(_CHAT_ORDER) & pl.col("rejected_roles").fill_null("ua").str.contains(r"^(s*(u(a(t+a)*))+|a)$")
    )
    odd = rows.filter(~wanted & (pl.col("kind") != "ranked"))
    return [Hit(at, _role_problem(roles), {"rule": "role_order", "roles": roles}) for at, roles in odd.select("at", "roles").iter_rows()]


def _role_problem(roles: str) -> str:
    turns = roles.lstrip("s")
    problems = (
        ("?" in roles, "A message has an unknown role."),
        ("x" in roles, "Document text and conversation are mixed."),
        ("s" in turns, "A system message stands inside the conversation."),
        (not turns, "There is no user and no assistant message."),
        (turns[:1] != "u", "The first message is not the user's."),
        ("uu" in turns, "The user speaks twice in a row."),
        ("aa" in turns, "The assistant speaks twice in a row."),
        (turns[-1:] != "a", "There is no answer of the assistant at the end."),
    )
    return next((text for bad, text in problems if bad), "The roles are out of order.")


_CONTENT = r"[\p{L}\p{N}\p{S}]"  # a letter, a digit or a symbol: punctuation alone says nothing


def empty(rows: pl.DataFrame) -> list[Hit]:
    """No content in the prompt or in the answer (an answer that calls a tool has none to show)."""
    no_prompt = (pl.col("kind") != "text") & ~pl.col("prompt").str.contains(_CONTENT)
    no_answer = ~pl.col("answer").str.contains(_CONTENT) & ~pl.col("calls")
    no_rejected = (pl.col("kind") == "preference") & ~pl.col("rejected").fill_null("").str.contains(_CONTENT)
    marked = rows.with_columns(
        pl.when(no_prompt)
        .then(pl.lit("prompt"))
        .when(no_answer)
        .then(pl.lit("answer"))
        .when(no_rejected)
        .then(pl.lit("rejected"))
        .alias("field")
    ).filter(pl.col("field").is_not_null())
    return [
        Hit(at, f"No content in the {name}.", {"rule": "empty", "field": name}) for at, name in marked.select("at", "field").iter_rows()
    ]


def too_short(rows: pl.DataFrame, answer: int | None, whole: int | None) -> list[Hit]:
    """Answer or whole example (prompt and answer) below a number of characters."""
    return _length(rows, "too_short", answer, whole)


def too_long(rows: pl.DataFrame, answer: int | None, whole: int | None) -> list[Hit]:
    """Answer or whole example (prompt and answer) above a number of characters."""
    return _length(rows, "too_long", answer, whole)


def _length(rows: pl.DataFrame, rule: str, answer: int | None, whole: int | None) -> list[Hit]:
    hits: dict[int, Hit] = {}
    sizes = rows.with_columns(answer_chars=pl.col("answer").str.len_chars(), prompt_chars=pl.col("prompt").str.len_chars())
    talk_only = (pl.col("kind") != "text") & ~pl.col("calls")
    for name, limit, size, where in (
        ("whole", whole, pl.col("answer_chars") + pl.col("prompt_chars"), ~pl.col("calls")),
        ("answer", answer, pl.col("answer_chars"), talk_only),
    ):
        if limit is None:
            continue
        beyond = size < limit if rule == "too_short" else size > limit
        for at, measured in sizes.filter(beyond & where).select("at", size.alias("size")).iter_rows():
            word = "below" if rule == "too_short" else "above"
            hits[at] = Hit(
                at,
                f"The {name} has {measured:,} characters, {word} the limit of {limit:,}.",
                {"rule": rule, "field": name, "measured": measured, "threshold": limit},
            )
    return list(hits.values())


def no_preference(rows: pl.DataFrame) -> list[Hit]:
    """Preference rows whose two answers are the same after folding."""
    pairs = rows.filter(pl.col("kind") == "preference")
    found = pairs.filter(record.fold(pl.col("answer")) == record.fold(pl.col("rejected")))
    return [Hit(at, "The chosen and the rejected answer are the same.", {"rule": "no_preference"}) for at in found["at"]]


# --- what the answer says


def refusal(rows: pl.DataFrame, max_words: int) -> list[Hit]:
    """The answer is boilerplate refusal; of a preference the chosen one is judged, a rejected refusal is as it should be."""
    suspects = _talk(rows).filter(pl.col("answer").str.head(refusals.HEAD_CHARS).str.contains(refusals.SUSPECT))
    hits = []
    for at, answer in suspects.select("at", "answer").iter_rows():
        found = refusals.refusal(answer, max_words)
        if found:
            name, words = found
            evidence = {"rule": "refusal", "field": "answer", "pattern": name, "measured": words, "threshold": max_words}
            hits.append(Hit(at, f"The answer is a boilerplate refusal ({name.replace('_', ' ')}).", evidence))
    return hits


_NOT_WORD = re.compile(r"[\W_]+")
COPY_MIN_WORDS = 4  # shorter answers repeat the prompt by right: labels, names, numbers
_COPY_SHINGLE = 5


def answer_copies_prompt(rows: pl.DataFrame, similarity: float) -> list[Hit]:
    """The answer is the prompt (or its last user message) again, or almost: Jaccard similarity of character 5-grams."""
    long_enough = pl.col("answer").str.count_matches(r"\s\S").fill_null(0) >= COPY_MIN_WORDS - 1
    suspects = _talk(rows).filter(long_enough & (pl.col("answer") != pl.col("label").fill_null("")))
    hits = []
    for side in ("asked", "prompt"):
        ratio = pl.col("answer").str.len_chars() / pl.col(side).str.len_chars()
        close = suspects.filter(ratio.is_between(similarity * 0.9, 1.1 / similarity))
        for at, answer, asked in close.select("at", "answer", side).iter_rows():
            measured = _alike(_NOT_WORD.sub(" ", answer).casefold().strip(), _NOT_WORD.sub(" ", asked).casefold().strip())
            if measured >= similarity:
                evidence = {"rule": "answer_copies_prompt", "field": "answer", "measured": round(measured, 4), "threshold": similarity}
                hits.append(Hit(at, "The answer repeats the prompt.", evidence))
    return list({hit.at: hit for hit in hits}.values())


def _alike(one: str, other: str) -> float:
    if one == other:
        return 1.0
    a, b = ({text[at : at + _COPY_SHINGLE] for at in range(len(text) - _COPY_SHINGLE + 1)} for text in (one, other))
    return len(a & b) / len(a | b) if a and b else 0.0


# --- repetition

_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"^.*(?:\|.*\||\t.*\t|,.*,.*,.*,.*,).*$", re.MULTILINE)
_NGRAM = 4


def repetition(rows: pl.DataFrame, min_words: int, repeated_share: float | None, compressed_share: float | None) -> list[Hit]:
    """Answers and documents that say the same again and again.

    Two measures: the share of word 4-grams (outside code fences and tables) that stood in the text before, and the size after
    compression with zlib as a share of the size before.
    """
    hits = []
    for at, text in rows.filter(pl.col("answer").str.len_chars() >= 2 * min_words).select("at", "answer").iter_rows():
        found = _repetition(text, min_words, repeated_share, compressed_share)
        if found:
            what, measured, limit = found
            detail = {"repeated_share": "of the word 4-grams are repeats", "compressed_share": "of the size is left after compression"}[
                what
            ]
            evidence = {"rule": "repetition", "measure": what, "measured": round(measured, 4), "threshold": limit}
            hits.append(Hit(at, f"The text repeats itself: {measured:.0%} {detail}.", evidence))
    return hits


COMPRESSED_MIN_BYTES = 500  # zlib says little about shorter texts


def _repetition(text: str, min_words: int, repeated: float | None, compressed: float | None) -> tuple[str, float, float] | None:
    size = len(raw := text.encode()) if len(text) >= COMPRESSED_MIN_BYTES else 0
    if compressed is not None and size:
        share = len(zlib.compress(raw, 1)) / size
        if share < compressed:
            return "compressed_share", share, compressed
    if repeated is not None:
        prose = text
        if "```" in text or "~~~" in text:
            prose = _FENCE.sub(" ", prose)
        words = _TABLE.sub(" ", prose).lower().split()
        grams = len(words) - _NGRAM + 1
        if len(words) >= min_words and grams > 0:
            share = 1 - len(set(zip(*(words[at:] for at in range(_NGRAM)), strict=False))) / grams
            if share > repeated:
                return "repeated_share", share, repeated
    return None


# --- cut-off answers

_FENCE_LINE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
_ENDED = re.compile(r"[.!?…。！？؟।॥:;)\]}>\"'”’»」』`|*_~=\d%€£$°\\/]$|[^\w\s,&(\[{<+–—-]$")
_LINK_END = re.compile(r"(?:https?://|www\.)\S+$|\S+@\S+\.\w+$|(?:^|\s)\S*[/\\_.]\S*\w$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•–·+#>|]|\d{1,3}[.):]|[A-Za-z][.)]\s)")
_HANGING = re.compile(
    r"(?:\b(?:the|an?|and|or|but|nor|your|my|our|their|its|if|because|although|while|whereas|than|whose|every|from|into|between|which|of|to|with)"
    r"|[,(\[{&+–—-])$",
    re.I,
)
_SIGNED = re.compile(r"(?:regards|wishes|sincerely|faithfully|thanks|love|cheers|yours|best)[,!]?\s*\n", re.I)


def cut_off(rows: pl.DataFrame, min_words: int) -> list[Hit]:
    """Answers that stop in mid-sentence: prose of at least `min_words` words without an end, or a code fence left open."""
    fence = pl.col("answer").str.contains("```|~~~")
    prose = pl.col("answer").str.contains(r"[\p{L},&(\[{+–—-][\s]*\z") & (pl.col("answer").str.count_matches(r"\s\S") >= min_words - 1)
    hits = []
    for at, answer in _talk(rows).filter((fence | prose) & ~pl.col("ended")).select("at", "answer").iter_rows():
        found = _cut_off(answer, min_words)
        if found:
            how, measured = found
            evidence = {"rule": "cut_off", "field": "answer", "sign": how, "measured": measured, "threshold": min_words}
            hits.append(Hit(at, f"The answer stops before its end ({how.replace('_', ' ')}).", evidence))
    return hits


def _cut_off(answer: str, min_words: int) -> tuple[str, int] | None:
    text = answer.rstrip()
    words = len(text.split())
    if len(_FENCE_LINE.findall(text)) % 2:
        return "open_code_fence", words
    if words < min_words or _ENDED.search(text):
        return None
    last = text[text.rfind("\n") + 1 :]
    if _HANGING.search(last):
        return "hanging_word", words
    tail = len(last.split())
    listed = _LIST_ITEM.match(last) or 4 * last.count(",") >= tail or last.count(": ") >= 2  # also fields of a form
    signed = _LINK_END.search(last) or _SIGNED.search(text[-200:])
    caption = not text.lstrip("\"'“‘(*_ ")[:1].isupper()
    return None if tail < min_words or listed or signed or caption else ("no_end_mark", tail)


# --- language


def wrong_language(rows: pl.DataFrame, allowed: tuple[str, ...], min_letters: int, max_probability: float, mixed: str) -> list[Hit]:
    """Rows that are surely in none of the `allowed` languages.

    A side (prompt or answer) too short to judge goes with the other. A row with one side in an allowed language is `mixed`: a
    translation task, or an answer in the wrong language.
    """
    plain = {side: pl.lit(False) if "en" not in allowed else language.plainly_english(pl.col(side)) for side in ("prompt", "answer")}
    known = (pl.any_horizontal if mixed == "keep" else pl.all_horizontal)(plain.values())
    suspects = rows.filter((pl.col("answer").str.len_bytes() + pl.col("prompt").str.len_bytes() >= min_letters) & ~known)
    found = []
    for side in ("answer", "prompt"):
        sure, texts = suspects.select("at", plain[side].alias("sure"))["sure"].to_list(), suspects[side].to_list()
        verdicts = iter(
            language.judged([text for text, done in zip(texts, sure, strict=True) if not done], allowed, min_letters, max_probability)
        )
        found.append([("en", 1.0) if done else next(verdicts) for done in sure])
    hits = []
    for at, *verdict in zip(suspects["at"], *found, strict=True):
        judged = [(side, *said) for side, said in zip(("answer", "prompt"), verdict, strict=True) if said is not None]
        foreign = [each for each in judged if each[2] <= max_probability]
        if foreign and (mixed == "drop" or len(foreign) == len(judged)):
            side, name, probability = foreign[0]
            measured = float(f"{probability:.2g}")
            evidence = {"rule": "wrong_language", "field": side, "language": name, "measured": measured, "threshold": max_probability}
            hits.append(Hit(at, f"The {side} is in another language ({name}).", evidence))
    return hits
