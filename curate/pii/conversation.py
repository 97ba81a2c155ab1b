"""Findings of one conversation: carried to every place where a found value stands, then replaced."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import regex

from curate.pii.engine import Finding, find, resolve
from curate.pii.faker_names import STARTERS, WORDS
from curate.pii.identity import plain
from curate.pii.name_words import listed
from curate.pii.parts import mail_parts, number_parts, secret_parts
from curate.pii.persons import People, local_words, parsed
from curate.pii.replace import Mention, Replacer
from curate.pii.settings import ScrubParams

CARRIED = 4  # characters: a shorter value is not looked for in the rest of its conversation
CARRY = "Carried"  # recognizer of a value that was recognised elsewhere in the conversation
FEW = 24  # words: for more, reading the text once is faster than looking for each
LONGEST = 60  # characters of an identifier that are read on either side of a word
NAME = 3  # characters of the shortest name that is looked for alone
_RUN = regex.compile(r"[^\W_]+")
_BEFORE = regex.compile(r"(?<![\p{L}\p{N}_.])(?:[\p{L}\p{N}]*[_.])*$|$")  # of the identifier that a word stands in
_AFTER = regex.compile(r"(?:_+[\p{L}\p{N}]*|\.[\p{L}\p{N}]+)*")
_LETTERS = regex.compile(r"\p{L}+")
_POINT, _DECIMALS = regex.compile(r"\d\.$"), regex.compile(r"\.\d")
_STARTS = regex.compile(r"(?:^|[.!?:\n]|[\"“(*-])\s*$")


class _Needle(NamedTuple):
    """A text to look for, in lower case. `rule`: any (whatever the case), exact (as `text`), name (`_is_name`), number (`_is_number`)."""

    lower: str
    text: str
    rule: str
    entity: str
    score: float


def mentions(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]]) -> list[Mention]:
    """(entity, value) of all findings, in order."""
    return [(each.entity, text[each.start : each.end]) for text, found in zip(texts, findings, strict=True) for each in found]


def carried(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]]) -> list[tuple[Finding, ...]]:
    """`findings` of the texts of one conversation, with every other place in them where a found value, or a telling part of it, stands.

    A bank number is recognised beside `account number:`; three turns later it stands alone. Whole words, in any case; of a name each part,
    see `_is_name`; of a number its groups of four digits and more, and its last four, where they are no part of a decimal. Takes time in
    proportion to the texts.
    """
    heads: dict[str, list[tuple[int, _Needle]]] = {}
    for needle in _needles(texts, findings):
        first = _head(needle.lower)
        if first is not None:
            heads.setdefault(first[1], []).append((first[0], needle))
    if not heads:
        return list(findings)
    for several in heads.values():
        several.sort(key=lambda each: (-len(each[1].lower), each[1].lower))
    names = frozenset(needle.lower for several in heads.values() for _, needle in several if needle.rule == "name")
    more = []
    for text, found in zip(texts, findings, strict=True):
        again = [each for each in _places(text, heads, names) if not any(own.start <= each.start and each.end <= own.end for own in found)]
        more.append(resolve([*found, *again]) if again else found)
    return more


@lru_cache(maxsize=1 << 16)
def _head(lower: str) -> tuple[int, str] | None:
    """Start and text of the first run of letters and digits."""
    first = _RUN.search(lower)
    return (first.start(), first[0]) if first else None


def _needles(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]]) -> list[_Needle]:
    made: dict[tuple[str, str], _Needle] = {}

    def add(text: str, rule: str, entity: str, score: float) -> None:
        lower = _lower(text)
        made.setdefault((lower, rule), _Needle(lower, text, rule, entity, score))

    people: People | None = None
    for text, found in zip(texts, findings, strict=True):
        for each in found:
            value = text[each.start : each.end]
            for lower, part, rule in _telling(each.entity, value):
                if (lower, rule) not in made:
                    made[lower, rule] = _Needle(lower, part, rule, each.entity, each.score)
            if each.entity == "EMAIL_ADDRESS":
                people = people or People(mentions(texts, findings))
                _add_mail(value, people, each.score, add)
    return list(made.values())


@lru_cache(maxsize=1 << 16)
def _telling(entity: str, value: str) -> tuple[tuple[str, str, str], ...]:
    """The value and the parts of it that give it away, each in lower case, as it is, and with the rule by which it is looked for."""
    found = []
    if len(value) >= CARRIED and not (entity == "PERSON" and " " not in value):
        found.append((value, "any"))
    found += [(part, "number") for part in number_parts(entity, value)]
    found += [(part, "exact") for part in secret_parts(entity, value)]
    for word in parsed(value) if entity == "PERSON" else ():
        if word.role in ("first", "middle", "last") and word.end - word.start >= NAME:
            found.append((value[word.start : word.end], "name"))
    return tuple((_lower(part), part, rule) for part, rule in found)


def _add_mail(value: str, people: People, score: float, add: Callable[[str, str, str, float], None]) -> None:
    handle = value.rpartition("@")[0]
    person = people.of_mail(value)
    if (
        len(handle) > CARRIED
        and (person is not None or not handle.isalpha())
        and handle.lower() not in WORDS
        and len(local_words(handle)) > 0
    ):
        add(handle, "any", "EMAIL_ADDRESS", score)
    for part in mail_parts(value)[1:]:
        add(part, "any", "EMAIL_ADDRESS", score)
    for word in local_words(value):
        if person is not None and word in (person.first, person.last) and len(word) >= NAME:
            add(word, "name", "PERSON", score)


def _places(text: str, heads: dict[str, list[tuple[int, _Needle]]], names: Collection[str]) -> Iterator[Finding]:
    lower, reach = _lower(text), 0
    for at, head in _words(lower, heads):
        for offset, needle in heads[head]:
            start = at - offset
            end = start + len(needle.lower)
            if (
                start < reach
                or lower[start:end] != needle.lower
                or (end < len(lower) and lower[end - 1].isalnum() and lower[end].isalnum())
            ):
                continue
            if needle.rule == "exact" and text[start:end] != needle.text:
                continue
            if needle.rule == "name" and not _is_name(text, start, end, names):
                continue
            if needle.rule == "number" and not _is_number(text, start, end):
                continue
            yield Finding(start, end, needle.entity, CARRY, needle.score)
            reach = end
            break


def _words(lower: str, heads: Collection[str]) -> Iterator[tuple[int, str]]:
    """Start and word of every one of these that stands in the text as a whole run of letters and digits, in order."""
    if len(heads) > FEW:
        yield from ((run.start(), run[0]) for run in _RUN.finditer(lower) if run[0] in heads)
        return
    found = []
    for head in heads:
        at = lower.find(head)
        while at >= 0:
            end = at + len(head)
            if not (at and _runs_on(lower[at - 1])) and not (end < len(lower) and _runs_on(lower[end])):
                found.append((at, head))
            at = lower.find(head, at + 1)
    yield from sorted(found)


def _runs_on(letter: str) -> bool:
    """Whether a character belongs to a run."""
    return letter.isalnum() if letter.isascii() else _RUN.match(letter) is not None


def _is_name(text: str, start: int, end: int, names: Collection[str]) -> bool:
    """Whether a part of a name, found again, is the name: not the word `will` in lower case, nor `Will` where a sentence begins."""
    word = plain(text[start:end])
    if text[start].isupper():
        return word not in STARTERS or not _STARTS.search(text[max(start - 4, 0) : start])
    return len(word) >= CARRIED and word not in WORDS and not _in_code(text, start, end, names)


def _in_code(text: str, start: int, end: int, names: Collection[str]) -> bool:
    """Whether a word in small letters is a part of an identifier: of `post_process_depth` and `plot(`, not of `anna_kowalska` or `anna.pdf`."""
    word = text[start:end]
    if word in listed()[0] or word in listed()[1]:
        return False
    rest = _BEFORE.search(text, max(start - LONGEST, 0), start)[0] + _AFTER.match(text, end, end + LONGEST)[0]
    return text[end : end + 1] in ("(", "[", "=") or any(len(each) > 1 and each not in names for each in _LETTERS.findall(rest))


def _is_number(text: str, start: int, end: int) -> bool:
    """Whether a group of digits, found again, stands for itself: it is not the 5708 of 1.5708."""
    return not (_POINT.search(text, max(start - 2, 0), start) or _DECIMALS.match(text, end))


def _lower(text: str) -> str:
    """Lower case with as many characters."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(each.lower() if len(each.lower()) == 1 else each for each in text)


def replaced(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]], params: ScrubParams) -> list[str]:
    """The texts of one conversation with their findings replaced; the same value gets the same replacement in all of them."""
    replacer = Replacer(params, texts, mentions(texts, findings))
    return [replace_in(text, found, replacer) for text, found in zip(texts, findings, strict=True)]


def replace_in(text: str, found: tuple[Finding, ...], replacer: Replacer) -> str:
    """`text` with each finding replaced."""
    pieces, at = [], 0
    for each in found:
        pieces += [text[at : each.start], replacer(each.entity, text[each.start : each.end])]
        at = each.end
    return "".join([*pieces, text[at:]])


def scrubbed(texts: Sequence[str], params: ScrubParams) -> list[str]:
    """`texts` (each a conversation of its own) as scrub would leave them, whether or not the stage is switched on."""
    return [replaced([text], carried([text], [find(text, params)]), params)[0] for text in texts]
