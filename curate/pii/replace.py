"""What stands in the place of a finding: a numbered placeholder, or a surrogate that is the same in the whole dataset."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import regex

from curate.pii.identity import identity, tokens
from curate.pii.keys import key, keyed
from curate.pii.parts import mail_parts, number_parts
from curate.pii.persons import People, parsed
from curate.pii.settings import ENTITIES, ScrubParams
from curate.pii.surrogates import NOTHING, Known, fake_mail, fake_person, surrogate

_PLACEHOLDER = regex.compile(r"<(" + "|".join(ENTITIES) + r")_(\d+)>")
Mention = tuple[str, str]  # entity, value


class Replacer:
    """Replacements for one conversation, whose `mentions` (entity, value) stand in the order of its texts.

    Placeholders are numbered in the order they come up, after any that the texts hold already. `made` collects surrogates.
    """

    def __init__(self, params: ScrubParams, texts: Sequence[str], mentions: Sequence[Mention], known: Known = NOTHING) -> None:
        self.params, self.secret, self.known = params, key(params), known
        self.people = People(mentions)
        self.parents = {(entity, part): value for entity, value in mentions for part in number_parts(entity, value)}
        for entity, value in mentions:
            if entity == "EMAIL_ADDRESS" and "@" in value:
                self.parents |= {(entity, part): value for part in mail_parts(value)}
        self.made: set[str] = set()
        self.numbers: dict[Mention, int] = {}
        self.last: dict[str, int] = {}
        for text in texts if params.replace == "placeholder" else ():
            for match in _PLACEHOLDER.finditer(text) if "<" in text else ():
                self.last[match[1]] = max(self.last.get(match[1], 0), int(match[2]))

    def __call__(self, entity: str, value: str) -> str:
        """What stands for `value`."""
        whole = self.parents.get((entity, value.lower()))
        if self.params.replace == "placeholder":
            return self._placeholder(entity, value, whole or value)
        made = self._surrogate(entity, value) if whole is None else _part_of(self._surrogate(entity, whole), whole, value)
        self.made.add(made)
        return made

    def _placeholder(self, entity: str, value: str, whole: str) -> str:
        same = self.people.of(value).key if entity == "PERSON" else identity(entity, whole, self.params.phone_regions)
        if (entity, same) not in self.numbers:
            self.last[entity] = self.last.get(entity, 0) + 1
            self.numbers[entity, same] = self.last[entity]
        token = f"<{entity}_{self.numbers[entity, same]}>"
        named = [each for each in parsed(value) if each.role not in ("title", "suffix")] if entity == "PERSON" else []
        return value[: named[0].start] + token + value[named[-1].end :] if named else token

    def _surrogate(self, entity: str, value: str) -> str:
        if entity == "PERSON":
            return fake_person(value, self.people.of(value), self.secret, self.known)
        if entity == "EMAIL_ADDRESS" and "@" in value:
            return fake_mail(value, self.people.of_mail(value), self.secret, self.known)
        return surrogate(entity, value, self.secret, self.params.phone_regions, self.known)


def _part_of(made: str, whole: str, part: str) -> str:
    """What of the fake stands where `part` stands in the value: what is before the @, the same group of digits, or the last ones."""
    if "@" in whole:
        return made.rpartition("@")[0] or made
    groups, new = tokens(whole), tokens(made)
    if made.startswith("<") or not new:
        return made
    if part.lower() in groups and len(groups) == len(new):
        return new[groups.index(part.lower())]
    return "".join(new)[-len(part) :]


@lru_cache(maxsize=1 << 16)
def group_token(group: str, params: ScrubParams) -> str:
    """A stand-in for a group that holds personal data: equal groups stay equal, in every run.

    With surrogates it is keyed. With placeholders there may be no key, so it comes from scrypt, which makes looking it up slow (about 3 ms
    a guess) and not impossible: a pseudonym, as docs/scrub.md says.
    """
    if params.replace == "surrogate":
        digest = keyed(key(params), "group", group)
    else:
        digest = hashlib.scrypt(group.encode(), salt=b"finery scrub group", n=1 << 10, r=8, p=1, dklen=16)
    return f"group-{digest.hex()[:16]}"
