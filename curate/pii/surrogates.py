"""Fakes: of the shape, region and language of the value they replace, and never a real one.

They lie in reserved names, ranges and prefixes or fail their checksum, and none is a value (or a word of a name) that the data hold:
`Known`, which scrub makes in a first pass, tells that without holding any value.
"""

import hashlib
import ipaddress
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import regex

from curate.pii.checks import luhn
from curate.pii.faker_names import SCRIPTS, locale_of
from curate.pii.identity import identity, plain, tokens
from curate.pii.keys import keyed, keyed64
from curate.pii.persons import Person, parsed, person_of_mail
from curate.pii.phones import phone
from curate.pii.settings import SECRET

DRAWS = 48  # fakes tried before a made-up name or a token is taken
_DOCUMENTATION = ("192.0.2.", "198.51.100.", "203.0.113.")  # RFC 5737
RESERVED = frozenset(  # words that a fake may share with the value: they tell nobody apart
    "example http https mail gmail 7946 7700 1632 2001 23125 2550 street road avenue lane drive close court square place way house flat "
    "north south east west saint apartment suite port lake view station company group limited january february march april june july "
    "august september october november december".split()
)


@dataclass(frozen=True)
class Root:
    """What a fake person is drawn from."""

    seed: int
    locale: str
    gender: str


@dataclass(frozen=True, eq=False)
class Known:
    """What the first pass learnt of all rows.

    `seen`: sorted keyed hashes (u64) of values and of words of names; `roots`: by keyed hash of a person or an e-mail address, where a
    conversation told more than the value itself; `hits`: which rows have findings."""

    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    roots: Mapping[int, Root] = field(default_factory=dict)
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def has(self, number: int) -> bool:
        at = int(np.searchsorted(self.seen, np.uint64(number)))
        return at < len(self.seen) and int(self.seen[at]) == number


NOTHING = Known()


def hashes_of(entity: str, value: str, secret: bytes, regions: tuple[str, ...]) -> list[int]:
    """The keyed hashes by which `Known` recognises a value: the value itself, and the words of a name or address."""
    found = [keyed64(secret, "seen", identity(entity, value, regions))]
    if entity == "PERSON":
        found += [_word_hash(each.word, secret) for each in parsed(value) if each.role in ("first", "middle", "last")]
    elif entity == "EMAIL_ADDRESS":
        found += [_word_hash(plain(word), secret) for word in regex.findall(r"[^\W\d_]{2,}", value.rpartition("@")[0])]
    return found


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str, secret: bytes) -> int:
    return keyed64(secret, "word", word)


def root_of(person: Person, secret: bytes, known: Known) -> Root:
    """Where this person's fake comes from: the same wherever the name stands."""
    seed = keyed64(secret, "PERSON", person.key)
    return known.roots.get(seed) or Root(seed, locale_of(person.first, person.last), person.gender)


def mail_root(address: str, person: Person | None, secret: bytes, known: Known) -> Root:
    """The same for an e-mail address, whose person may be known from another conversation."""
    seed = mail_seed(address, secret)
    if seed in known.roots:
        return known.roots[seed]
    person = person or person_of_mail(address)
    return Root(seed, "en_GB", "") if person is None else root_of(person, secret, known)


def mail_seed(address: str, secret: bytes) -> int:
    return keyed64(secret, "EMAIL_ADDRESS", identity("EMAIL_ADDRESS", address, ()))


@lru_cache(maxsize=1 << 15)
def fake_names(root: Root, secret: bytes, known: Known) -> tuple[str, str]:
    """First and last name of a fake person. Neither is a word of a name in the data; if the lists run out, they are made up."""
    first = last = ""
    for draw in range(DRAWS):
        fake = _faker(root.locale, keyed(secret, "name", str(root.seed), str(draw)))
        made = _first(fake, root.gender)
        first = first or (made if _free(made, secret, known) else "")
        made = str(getattr(fake, f"last_name_{root.gender}", fake.last_name)() if root.gender else fake.last_name())
        last = last or (made if _free(made, secret, known) else "")
        if first and last:
            return first, last
    return first or _made_up("first", root, secret, known), last or _made_up("last", root, secret, known)


def _first(fake: Any, gender: str) -> str:
    return str(getattr(fake, f"first_name_{gender}")() if gender else fake.first_name())


def _free(name: str, secret: bytes, known: Known) -> bool:
    words = [*map(plain, regex.findall(r"[^\W\d_]+", name)), plain(name), _latin(name)]  # O'Donnell is odonnell in an address
    return not any(known.has(_word_hash(word, secret)) for word in words)


def _made_up(which: str, root: Root, secret: bytes, known: Known) -> str:
    draw = 0
    while True:
        drawn = _stream(keyed(secret, "syllables", which, str(root.seed), str(draw)))
        made = "".join("bdfgklmnprstvz"[next(drawn) % 14] + "aeiou"[next(drawn) % 5] for _ in range(3 + draw // DRAWS)).capitalize() + "n"
        if _free(made, secret, known):
            return made
        draw += 1


def fake_person(value: str, person: Person, secret: bytes, known: Known) -> str:
    """`value` with another's names in it: title, suffix, order, initials and case as they were."""
    root = root_of(person, secret, known)
    first, last = fake_names(root, secret, known)
    words = parsed(value)
    named = [each for each in words if each.role in ("first", "middle", "last")]
    if not named:
        return _token("PERSON", keyed(secret, "PERSON", value))
    if len(named) == 1 and root.locale in ("zh_CN", "ja_JP", "ko_KR") and named[0].role == "first" and len(named[0].word) > 1:
        return value[: named[0].start] + last + first + value[named[0].end :]
    pieces, at = [], 0
    for each in named:
        role = each.role
        if not (person.first and person.last) or role == "middle":
            own = role
        else:
            own = "first" if each.word == person.first else "last" if each.word == person.last else role
        name = {"first": first, "last": last}.get(own) or _middle(each.word, root, secret, known)
        pieces += [value[at : each.start], _cased(name[0] if len(each.word) == 1 else name, value[each.start : each.end])]
        at = each.end
    return "".join([*pieces, value[at:]])


def _middle(word: str, root: Root, secret: bytes, known: Known) -> str:
    return fake_names(Root(keyed64(secret, "middle", word), root.locale, root.gender), secret, known)[0]


def _cased(name: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return name.upper()
    return name.lower() if like.islower() else name


def fake_mail(value: str, person: Person | None, secret: bytes, known: Known) -> str:
    """`first.last@example.com` of the fake person, with two digits unless the address is that of two plain names."""
    root = mail_root(value, person, secret, known)
    pair = [_latin(each) for each in fake_names(root, secret, known)]
    if not all(pair):  # another script
        pair = [_latin(each) for each in fake_names(Root(root.seed, "en_GB", root.gender), secret, known)]
    bare = person_of_mail(value) is not None and not any(each.isdigit() for each in value.rpartition("@")[0])
    for draw in range(DRAWS):
        digits = (
            ""
            if bare and not draw
            else f"{keyed64(secret, 'digits', identity('EMAIL_ADDRESS', value, ()), str(draw)) % (90 * 10 ** (draw // 8)) + 10}"
        )
        made = f"{'.'.join(pair)}{digits}@example.com"
        if made != value.casefold() and not known.has(keyed64(secret, "seen", made)):
            return made
    return _token("EMAIL_ADDRESS", keyed(secret, "EMAIL_ADDRESS", value))


def _latin(name: str) -> str:
    return "".join(each for each in plain(name) if each in string.ascii_lowercase)


@lru_cache(maxsize=1 << 15)
def surrogate(entity: str, value: str, secret: bytes, regions: tuple[str, ...], known: Known) -> str:
    """A stand-in drawn from HMAC-SHA256 of entity and identity: the same everywhere, and not to be looked up without the secret.

    Names and addresses of persons are `fake_person` and `fake_mail`.
    """
    same = identity(entity, value, regions)
    for draw in range(DRAWS):
        seed = keyed(secret, entity, same, str(draw))
        made = _made(entity, value, same, seed)
        if made.startswith("<") or (
            identity(entity, made, regions) != same
            and not _shared(value, made)
            and not known.has(keyed64(secret, "seen", identity(entity, made, regions)))
        ):
            return made
    return _token(entity, keyed(secret, entity, same))


def _shared(value: str, made: str) -> bool:
    """Whether a word of the value that could tell somebody apart stands in the fake."""
    own = {each for each in tokens(value) if len(each) >= 4} - RESERVED
    return bool(own & set(tokens(made)))


def _token(entity: str, seed: bytes) -> str:
    return f"<{entity}_{seed.hex()[:8]}>"


def _made(entity: str, value: str, same: str, seed: bytes) -> str:
    if entity in _START:
        return _shaped(value, seed, _START[entity])
    if entity in _MAKERS:
        return _MAKERS[entity](value, same, seed)
    if "COORDINATE" in entity:
        return _coordinates(value, seed)
    digits = sum(each.isdigit() for each in value)
    if entity.startswith(SECRET) or entity in _TOKENS or 2 * digits < sum(each.isalnum() for each in value):
        return _token(entity, seed)  # a secret or a wallet that looked real would only be found again
    return _shaped(value, seed, "")


_TOKENS = ("CRYPTO", "NRP", "USERNAME", "DENIED")
_START = {"US_SSN": "000", "US_ITIN": "000", "UK_NINO": "QQ", "UK_POSTCODE": "ZZ"}  # never issued


@lru_cache(maxsize=32)
def _locale(name: str) -> Any:
    from faker import Faker

    return Faker(name)


def _faker(locale: str, seed: bytes) -> Any:
    fake = _locale(locale)
    fake.seed_instance(int.from_bytes(seed[:8], "big"))
    return fake


def _stream(seed: bytes) -> Iterator[int]:
    block = 0
    while True:
        yield from hashlib.sha256(seed + block.to_bytes(4, "big")).digest()
        block += 1


def _shaped(value: str, seed: bytes, start: str) -> str:
    """Digits for digits and letters for letters, in the same case; the rest as it is. `start` overrides the first of them."""
    drawn, head, made = _stream(seed), iter(start), []
    for each in value:
        if each.isdigit():
            made.append(next(head, None) or string.digits[next(drawn) % 10])
        elif each.isalpha():
            letter = next(head, None) or string.ascii_uppercase[next(drawn) % 26]
            made.append(letter if each.isupper() else letter.lower())
        elif each.isalnum() or each.isprintable():  # invisible characters would only hide the value from later readers
            made.append(each)
    return "".join(made)


def _card(value: str, same: str, seed: bytes) -> str:
    shape = _shaped(value, seed, next((each for each in value if each.isdigit()), "0"))
    if luhn(int(each) for each in shape if each.isdigit()):
        at = max(place for place, each in enumerate(shape) if each.isdigit())
        shape = shape[:at] + str((int(shape[at]) + 1) % 10) + shape[at + 1 :]
    return shape


def _phone(value: str, same: str, seed: bytes) -> str:
    return phone(value, same, int.from_bytes(seed[:8], "big"))


def _ip(value: str, same: str, seed: bytes) -> str:
    number = int.from_bytes(seed[:16], "big")
    if ":" in value:
        return str(ipaddress.IPv6Address((0x20010DB8 << 96) | (number & ((1 << 96) - 1))))  # RFC 3849
    return f"{_DOCUMENTATION[number % 3]}{number // 3 % 254 + 1}"


def _mac(value: str, same: str, seed: bytes) -> str:
    digits = iter("02" + seed.hex())  # 02: locally administered, no maker's
    return "".join(next(digits) if each.isalnum() else each for each in value)


def _url(value: str, same: str, seed: bytes) -> str:
    return f"https://example.com/{seed.hex()[:12]}"


def _domain(value: str, same: str, seed: bytes) -> str:
    return f"{seed.hex()[:10]}.example.com"


def _iban(value: str, same: str, seed: bytes) -> str:
    return _shaped(value, seed, same[:2] + "00")  # check digits run from 02 to 98


def _place(value: str, same: str, seed: bytes) -> str:
    return _cased(str(_faker(_place_locale(value), seed).city()), value)


def _company(value: str, same: str, seed: bytes) -> str:
    return str(_faker(_place_locale(value), seed).company())


def _address(value: str, same: str, seed: bytes) -> str:
    """Street and number in their order, then town and a postcode of the same shape where the value goes on after a comma or line break."""
    fake = _faker(_place_locale(value), seed)
    street = f"{seed[0] % 90 + 1} {fake.street_name()}" if value.lstrip()[:1].isdigit() else f"{fake.street_name()} {seed[0] % 90 + 1}"
    parts = regex.split(r"([,\n]\s*)", value)
    more = [
        separator + (str(fake.city()) if not regex.search(r"\d", rest) else _shaped(rest, seed, ""))
        for separator, rest in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return street + "".join(more[:3])


_STREETS = {
    "de_DE": r"(?i)stra(?:ss|ß)e|platz\b|weg\b",
    "fr_FR": r"(?i)\brue\b|boulevard|\bplace\b",
    "es_ES": r"(?i)\bcalle\b|avenida",
    "it_IT": r"(?i)\bvia\b|piazza",
    "pl_PL": r"(?i)\bul\.|ulica",
    "nl_NL": r"(?i)straat\b",
}


def _place_locale(value: str) -> str:
    by_script = locale_of("", value)
    if by_script in SCRIPTS.values():
        return by_script
    return next((locale for locale, pattern in _STREETS.items() if regex.search(pattern, value)), "en_GB")


def _coordinates(value: str, seed: bytes) -> str:
    drawn, limits = _stream(seed), iter((89, 179))
    return str(
        regex.sub(
            r"-?\d+(\.\d+)?",
            lambda match: (
                f"{next(drawn) % next(limits, 60)}" + ("." + "".join(str(next(drawn) % 10) for _ in match[1][1:]) if match[1] else "")
            ),
            value,
        )
    )


_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")


def _date(value: str, same: str, seed: bytes) -> str:
    """Another date in the same form: a year from 1940 to 2003, a month, a day up to 28."""
    drawn = _stream(seed)

    def other(match: regex.Match[str]) -> str:
        word = match[0]
        if len(word) == 4 and word.isdigit():
            return str(1940 + next(drawn) % 64)
        if word.isdigit() and len(word) > 4:  # 19840512
            return f"{1940 + next(drawn) % 64}{next(drawn) % 12 + 1:02d}{next(drawn) % 28 + 1:02d}"[: len(word)].ljust(len(word), "0")
        if word.isdigit():
            number = next(drawn) % 12 + 1 if int(word) <= 12 else next(drawn) % 16 + 13
            return f"{number:0{len(word)}d}"
        month = next((each for each in _MONTHS if each.startswith(word.lower()) and len(word) >= 3), None)
        if month is None:
            return str(word)
        new = _MONTHS[(_MONTHS.index(month) + 1 + next(drawn) % 11) % 12]
        return _cased((new if word.lower() == month and len(word) > 3 else new[: len(word)]).capitalize(), word)

    return str(regex.sub(r"\d+|[^\W\d_]+", other, value))


_MAKERS: dict[str, Callable[[str, str, bytes], str]] = {
    "URL": _url,
    "IP_ADDRESS": _ip,
    "PHONE_NUMBER": _phone,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "MAC_ADDRESS": _mac,
    "LOCATION": _place,
    "ORGANIZATION": _company,
    "STREET_ADDRESS": _address,
    "DOMAIN_NAME": _domain,
    "DATE_OF_BIRTH": _date,
}
