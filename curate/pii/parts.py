"""Parts of a value that give it away when they stand alone: four digits of a card, the password of a URL, the name of a person."""

from functools import lru_cache

import regex

from curate.pii.identity import tokens
from curate.pii.settings import SECRET

PART = 4  # characters of the shortest part
LONG = 12  # characters from which a word of a secret is itself one
_WHOLE = frozenset(  # no part of these tells anything by itself, or it is looked for in another way
    (
        "EMAIL_ADDRESS",
        "PERSON",
        "LOCATION",
        "ORGANIZATION",
        "NRP",
        "STREET_ADDRESS",
        "DATE_OF_BIRTH",
        "IP_ADDRESS",
        "MAC_ADDRESS",
        "URL",
        "CRYPTO",
    )
)
_YEAR = regex.compile(r"(?:19|20)\d\d")
_PASSWORD = regex.compile(r"://[^/\s:@]*:([^@\s]+)@")


@lru_cache(maxsize=1 << 14)
def number_parts(entity: str, value: str) -> tuple[str, ...]:
    """Groups of at least four characters with digits, and the last four digits, of a number; in lower case. A year is none.

    >>> number_parts("CREDIT_CARD", "4242 4242 4242 1881")
    ('4242', '1881')
    >>> number_parts("PHONE_NUMBER", "+44 20 7946 0958"), number_parts("US_BANK_NUMBER", "12345678")
    (('7946', '0958'), ('5678',))
    """
    if entity in _WHOLE or entity.startswith(SECRET) or "COORDINATE" in entity:
        return ()
    groups = tokens(value)
    digits = "".join(each for each in value if each.isdigit())
    found = [each for each in groups if len(each) >= PART and any(letter.isdigit() for letter in each)] if len(groups) > 1 else []
    if len(digits) >= 2 * PART:
        found.append(digits[-PART:])
    return tuple(dict.fromkeys(each for each in found if not _YEAR.fullmatch(each)))


@lru_cache(maxsize=1 << 14)
def mail_parts(value: str) -> tuple[str, ...]:
    """What stands before the @, and its words with digits of four characters and more, in lower case.

    >>> mail_parts("Anna.4711@acme.example")
    ('anna.4711', '4711')
    """
    handle = value.lower().rpartition("@")[0]
    words = regex.findall(r"[^\W_]*\d[^\W_]*", handle) + regex.findall(r"\d+", handle)
    groups = [each for each in words if len(each) >= PART and not _YEAR.fullmatch(each)]
    return tuple(dict.fromkeys([handle, *groups]))


@lru_cache(maxsize=1 << 14)
def secret_parts(entity: str, value: str) -> tuple[str, ...]:
    """The password in a URL, and long words with digits of a secret, as they are written.

    >>> secret_parts("URL", "https://camera:Kx81mQ@cam.example.net/live")
    ('Kx81mQ',)
    """
    if not entity.startswith(SECRET) and entity != "URL":
        return ()
    found = [match[1] for match in _PASSWORD.finditer(value) if len(match[1]) >= PART]
    found += [each for each in regex.findall(r"[^\W_]+", value) if len(each) >= LONG and any(letter.isdigit() for letter in each)]
    return tuple(dict.fromkeys(each for each in found if each != value))
