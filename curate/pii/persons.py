"""Who is meant: `Anna Kowalska`, `Ms Kowalska`, `Anna` and `anna.kowalska@…` in one conversation are one person.

A full name is the same person everywhere. A part of a name, or an address that only abbreviates it, belongs to the person of that
conversation whose name it fits, else it stands for itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import regex

from curate.pii.faker_names import PARTICLES, SUFFIXES, TITLES, first_names, gender_of, last_names
from curate.pii.identity import plain

_TOKEN = regex.compile(r"[^\W\d_](?:[^\W_]|[\p{Cf}])*(?:['’ʼ\-][^\W\d_](?:[^\W_]|[\p{Cf}])*)*\.?")
_POSSESSIVE = regex.compile(r"['’ʼ]s?\.?$", regex.IGNORECASE)


@dataclass(frozen=True)
class Person:
    """First and last name in plain form; one of them may be empty. `gender` is female, male or ""."""

    first: str
    last: str
    gender: str = ""

    @property
    def key(self) -> str:
        return f"{self.first} {self.last}".strip() if self.first and self.last else self.first or self.last


@dataclass(frozen=True)
class Token:
    """A word of a name: where it stands, and whether it is title, first, middle, last or suffix."""

    start: int
    end: int
    word: str  # plain, without the dot of an initial
    role: str


@lru_cache(maxsize=1 << 14)
def parsed(value: str) -> tuple[Token, ...]:
    """The words of a person's name with their roles. A single word after a title is a last name, alone it is what the lists say.

    >>> [(each.word, each.role) for each in parsed("Ms Anna M. van Dijk's")]
    [('ms', 'title'), ('anna', 'first'), ('m', 'middle'), ('van', 'particle'), ('dijk', 'last')]
    >>> [each.role for each in parsed("Kowalska, Anna")]
    ['last', 'first']
    """
    words = []
    for match in _TOKEN.finditer(value):
        word = _POSSESSIVE.sub("", match[0])
        words.append(Token(match.start(), match.start() + len(word.rstrip(".") or word), plain(word.rstrip(".")), ""))
    titled = 0
    while titled < len(words) - 1 and words[titled].word in TITLES:
        titled += 1
    end = len(words)
    while end > titled + 1 and words[end - 1].word in SUFFIXES:
        end -= 1
    roles = ["title"] * titled + _roles(words[titled:end], value, titled > 0) + ["suffix"] * (len(words) - end)
    return tuple(replace(each, role=role) for each, role in zip(words, roles, strict=True))


def _roles(names: Sequence[Token], value: str, titled: bool) -> list[str]:
    if not names:
        return []
    if len(names) == 1:
        word = names[0].word
        return ["last" if titled or (word not in first_names() and word in last_names()) else "first"]
    if "," in value[names[0].end : names[1].start]:
        return ["last", "first"] + ["middle"] * (len(names) - 2)
    middle = ["particle" if each.word in PARTICLES else "middle" for each in names[1:-1]]
    return ["first", *middle, "last"]


def _word(tokens: Sequence[Token], role: str) -> str:
    return next((each.word for each in tokens if each.role == role), "")


@lru_cache(maxsize=1 << 14)
def person_of(value: str) -> Person:
    """The person that a name means by itself."""
    tokens = parsed(value)
    title = next((TITLES[each.word] for each in tokens if each.role == "title" and TITLES[each.word]), "")
    first, last = _word(tokens, "first"), _word(tokens, "last")
    return Person(first, last, gender_of(first) or title)


@lru_cache(maxsize=1 << 14)
def local_words(address: str) -> tuple[str, ...]:
    """The words before the @ of an address, plain, without digits.

    >>> local_words("Anna.Kowalska84+news@acme.example")
    ('anna', 'kowalska', 'news')
    """
    return tuple(plain(word) for word in regex.findall(r"[^\W\d_]+", address.rpartition("@")[0] or address))


@lru_cache(maxsize=1 << 14)
def person_of_mail(address: str) -> Person | None:
    """The person whose two names are all that stands before the @; None if an address does not tell. A function of the address alone."""
    words = local_words(address)
    if len(words) != 2 or min(map(len, words)) < 2:
        return None
    if words[0] in first_names():
        return Person(words[0], words[1], gender_of(words[0]))
    if words[1] in first_names() and words[0] in last_names():
        return Person(words[1], words[0], gender_of(words[1]))
    return None


class People:
    """The persons of one conversation, found from its mentions in order: (entity, value)."""

    def __init__(self, mentions: Sequence[tuple[str, str]]) -> None:
        self.full: dict[str, Person] = {}  # by key, in the order of their first mention
        self.names: dict[str, Person] = {}
        self.mails: dict[str, Person | None] = {}
        names = [value for entity, value in mentions if entity == "PERSON"]
        mails = [value for entity, value in mentions if entity == "EMAIL_ADDRESS" and "@" in value]
        for value in names:
            self._add(person_of(value))
        for value in mails:
            if (person := self._of_pair(local_words(value)) or person_of_mail(value)) is not None:
                self._add(person)
                self.mails[value] = self.full[person.key]
        for value in names:
            self.names[value] = self._fitting(value)
        for value in mails:
            if value not in self.mails:
                self.mails[value] = self._abbreviated(local_words(value))

    def _add(self, person: Person) -> None:
        if len(person.first) < 2 or not person.last:
            return
        known = self.full.get(person.key, person)
        self.full[person.key] = known if known.gender or not person.gender else replace(known, gender=person.gender)

    def of(self, value: str) -> Person:
        """Whom a name means."""
        return self.names.get(value) or self._fitting(value)

    def of_mail(self, value: str) -> Person | None:
        """Whose address it is; None if that is not clear."""
        return self.mails.get(value)

    def _fitting(self, value: str) -> Person:
        alone = person_of(value)
        if alone.key in self.full:
            return self.full[alone.key]
        if alone.first and alone.last:  # A. Kowalska
            fits = [each for each in self.full.values() if each.last == alone.last and each.first[:1] == alone.first]
        else:
            titled = any(each.role == "title" for each in parsed(value))
            fits = [each for each in self.full.values() if alone.key == each.last or (alone.key == each.first and not titled)]
        return fits[0] if fits else alone

    def _of_pair(self, words: tuple[str, ...]) -> Person | None:
        return next((each for each in self.full.values() if each.first in words and each.last in words), None)

    def _abbreviated(self, words: tuple[str, ...]) -> Person | None:
        """The only person that fits: akowalska, annak, a.kowalska, kowalska.a, anna_k, anna or kowalska."""
        fits = [each for each in self.full.values() if words and "".join(words) in _short_forms(each)]
        return fits[0] if len(fits) == 1 else None


def _short_forms(person: Person) -> set[str]:
    first, last = person.first, "".join(each for each in person.last if each.isalpha())
    return {first, last, first + last, last + first, first[0] + last, last + first[0], first + last[0]}
