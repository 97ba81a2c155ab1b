"""When two spellings are one value, and which words of a value tell who it belongs to."""

import ipaddress
import unicodedata
from functools import lru_cache

import phonenumbers
import regex

from curate.pii.settings import SECRET

WORDY = ("EMAIL_ADDRESS", "PERSON", "LOCATION", "ORGANIZATION", "NRP", "STREET_ADDRESS")
_UNSEEN = regex.compile(r"\p{Cf}")  # zero-width characters, soft hyphens, direction marks


@lru_cache(maxsize=1 << 16)
def identity(entity: str, value: str, regions: tuple[str, ...]) -> str:
    """The value without its spelling: two spellings of one phone number, e-mail address or card are the same.

    >>> identity("PHONE_NUMBER", "+44 20 7946 0958", ("GB",)) == identity("PHONE_NUMBER", "(020) 7946-0958", ("GB",))
    True
    >>> identity("CREDIT_CARD", "4242-4242-4242-4242", ())
    '4242424242424242'
    """
    value = _UNSEEN.sub("", value)
    if entity == "PHONE_NUMBER":
        return _e164(value, regions)
    if entity == "IP_ADDRESS":
        try:
            return str(ipaddress.ip_interface(value))
        except ValueError:  # `scrub.allow` may hold anything
            return value.casefold()
    if entity.startswith(SECRET) or entity in ("URL", "CRYPTO"):
        return value
    if entity in WORDY:
        return " ".join(value.casefold().split())
    return "".join(each for each in value if each.isalnum()).upper()


def _e164(value: str, regions: tuple[str, ...]) -> str:
    parsed = []
    for region in regions or ("GB",):
        try:
            parsed.append(phonenumbers.parse(value, region))
        except phonenumbers.NumberParseException:
            continue
    best = next((each for each in parsed if phonenumbers.is_valid_number(each)), None)
    best = best or next((each for each in parsed if phonenumbers.is_possible_number(each)), None)
    if best is not None:
        return str(phonenumbers.format_number(best, phonenumbers.PhoneNumberFormat.E164))
    return "".join(each for each in value if each.isdigit())


@lru_cache(maxsize=1 << 16)
def plain(word: str) -> str:
    """A word without case, accents and invisible characters, as names are compared.

    >>> plain("Łukasz"), plain("Zoë"), plain("O’Brien")
    ('lukasz', 'zoe', "o'brien")
    """
    if word.isascii():
        return word.lower()
    apart = unicodedata.normalize("NFKD", _UNSEEN.sub("", word).casefold()).translate(_LETTERS)
    return "".join(each for each in apart if not unicodedata.combining(each))


_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "’": "'", "ʼ": "'"})


def tokens(value: str) -> list[str]:
    """The runs of letters and digits of a value, in lower case.

    >>> tokens("anna.Kowalska+1@acme.co")
    ['anna', 'kowalska', '1', 'acme', 'co']
    """
    found: list[str] = _RUN.findall(_UNSEEN.sub("", value).lower())
    return found


_RUN = regex.compile(r"[^\W_]+")
