"""What stands in the place of a finding: a numbered placeholder, or a surrogate that is the same in the whole dataset."""

import hashlib
import hmac
import ipaddress
import os
import string
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import phonenumbers
import regex

from curate.pii.checks import luhn
from curate.pii.settings import ENTITIES, SECRET, ScrubParams
from curate.record import ParamsError

_PLACEHOLDER = regex.compile(r"<(" + "|".join(ENTITIES) + r")_(\d+)>")
_DOCUMENTATION = ("192.0.2.", "198.51.100.", "203.0.113.")  # RFC 5737


def key(params: ScrubParams) -> bytes:
    """The secret for surrogates. Raises ParamsError if surrogates are asked for and the environment has no key."""
    found = os.environ.get(params.key_env, "")
    if params.replace == "surrogate" and not found.strip():
        raise ParamsError(
            f"scrub.replace = 'surrogate' needs a secret in the environment variable {params.key_env} (scrub.key_env), which is not set. "
            f"Make one (`export {params.key_env}=$(openssl rand -hex 32)`), keep it, and use it again for the same surrogates; "
            "or set scrub.replace to placeholder."
        )
    return found.encode()


@lru_cache(maxsize=1 << 16)
def identity(entity: str, value: str, regions: tuple[str, ...]) -> str:
    """The value without its spelling: two spellings of one phone number, e-mail address or card are the same.

    >>> identity("PHONE_NUMBER", "+44 20 7946 0958", ("GB",)) == identity("PHONE_NUMBER", "(020) 7946-0958", ("GB",))
    True
    >>> identity("CREDIT_CARD", "4242-4242-4242-4242", ())
    '4242424242424242'
    """
    if entity == "PHONE_NUMBER":
        return _e164(value, regions)
    if entity == "IP_ADDRESS":
        try:
            return str(ipaddress.ip_interface(value))
        except ValueError:  # `scrub.allow` may hold anything
            return value.casefold()
    if entity.startswith(SECRET) or entity in ("URL", "CRYPTO"):
        return value
    if entity in ("EMAIL_ADDRESS", "PERSON", "LOCATION", "ORGANIZATION", "NRP"):
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


class Replacer:
    """Replacements for one conversation. Placeholders are numbered in the order they come up, after any that the texts hold already."""

    def __init__(self, params: ScrubParams, texts: Sequence[str]) -> None:
        self.params, self.secret = params, key(params)
        self.numbers: dict[tuple[str, str], int] = {}
        self.last: dict[str, int] = {}
        for text in texts if params.replace == "placeholder" else ():
            for match in _PLACEHOLDER.finditer(text) if "<" in text else ():
                self.last[match[1]] = max(self.last.get(match[1], 0), int(match[2]))

    def __call__(self, entity: str, value: str) -> str:
        """What stands for `value`."""
        same = identity(entity, value, self.params.phone_regions)
        if self.params.replace == "surrogate":
            return surrogate(entity, value, same, self.secret)
        if (entity, same) not in self.numbers:
            self.last[entity] = self.last.get(entity, 0) + 1
            self.numbers[entity, same] = self.last[entity]
        return f"<{entity}_{self.numbers[entity, same]}>"


def surrogate(entity: str, value: str, same: str, secret: bytes) -> str:
    """A stand-in drawn from HMAC-SHA256(secret, entity and `same`): the same everywhere, and not to be looked up without the secret.

    It has the shape of `value` and cannot be a real one: reserved names, ranges and prefixes, and checksums that fail.
    """
    draws = 0
    while True:  # a drawn value may happen to be the original: then the next one
        seed = hmac.new(secret, f"{entity}\x1f{same}\x1f{draws}".encode(), hashlib.sha256).digest()
        made = _made(entity, value, same, seed)
        if identity(entity, made, ()) != identity(entity, value, ()):
            return made
        draws += 1


def _made(entity: str, value: str, same: str, seed: bytes) -> str:
    if entity in _START:
        return _shaped(value, seed, _START[entity])
    if entity in _MAKERS:
        return _MAKERS[entity](value, same, seed)
    return f"<{entity}_{seed.hex()[:8]}>"  # a secret or a wallet that looked real would only be found again


_START = {  # prefixes that were never issued
    "US_SSN": "000",
    "US_ITIN": "000",
    "UK_NINO": "QQ",
    "UK_POSTCODE": "ZZ",
    "US_PASSPORT": "",
    "US_DRIVER_LICENSE": "",
    "US_BANK_NUMBER": "",
    "UK_NHS": "",
    "UK_PASSPORT": "",
    "UK_DRIVING_LICENCE": "",
}


@lru_cache(maxsize=1)
def _names() -> Any:
    from faker import Faker

    return Faker("en_GB")


def _faker(seed: bytes) -> Any:
    names = _names()
    names.seed_instance(int.from_bytes(seed[:8], "big"))
    return names


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
        else:
            made.append(each)
    return "".join(made)


def _over(value: str, digits: str) -> str:
    """`digits` laid over the digits of `value`, which has as many."""
    left = iter(digits)
    return "".join(next(left) if each.isdigit() else each for each in value)


def _card(value: str, same: str, seed: bytes) -> str:
    digits = [int(each) for each in _shaped(value, seed, "") if each.isdigit()]
    digits[0] = next(int(each) for each in value if each.isdigit())
    if luhn(digits):
        digits[-1] = (digits[-1] + 1) % 10
    return _over(value, "".join(map(str, digits)))


def _phone(value: str, same: str, seed: bytes) -> str:
    """A number kept for fiction: Ofcom's 07700 900xxx, 020 7946 0xxx and 01632 960xxx, 555-01xx in North America, else country code 999."""
    number = int.from_bytes(seed[:4], "big")
    digits = "".join(each for each in value if each.isdigit())
    if same.startswith("+44"):
        national = f"7700900{number % 1000:03d}" if same.startswith("+447") else f"2079460{number % 1000:03d}"
        if len(same) == 12:  # a national number of nine digits
            national = f"163296{number % 1000:03d}"
    elif same.startswith("+1") and len(same) == 12:
        area = 200 + number // 100 % 800
        national = f"{area + (area % 100 == 11)}55501{number % 100:02d}"
    else:
        national = "999" + "".join(str(each % 10) for each in seed)[: max(len(digits) - 3, 1)]
    if len(digits) >= len(national):
        head = digits[: len(digits) - len(national)] if same.startswith(("+44", "+1")) else ""
        return _over(value, (head + national)[: len(digits)].ljust(len(digits), "0"))
    return national


def _ip(value: str, same: str, seed: bytes) -> str:
    number = int.from_bytes(seed[:16], "big")
    if ":" in value:
        return str(ipaddress.IPv6Address((0x20010DB8 << 96) | (number & ((1 << 96) - 1))))  # RFC 3849
    return f"{_DOCUMENTATION[number % 3]}{number // 3 % 254 + 1}"


def _mac(value: str, same: str, seed: bytes) -> str:
    digits = iter("02" + seed.hex())  # 02: locally administered, no maker's
    return "".join(next(digits) if each.isalnum() else each for each in value)


def _email(value: str, same: str, seed: bytes) -> str:
    return f"{_faker(seed).first_name().lower()}.{seed.hex()[:8]}@example.com"


def _url(value: str, same: str, seed: bytes) -> str:
    return f"https://example.com/{seed.hex()[:12]}"


def _iban(value: str, same: str, seed: bytes) -> str:
    return _shaped(value, seed, same[:2] + "00")  # check digits run from 02 to 98


def _person(value: str, same: str, seed: bytes) -> str:
    return str(_faker(seed).name() if " " in value.strip() else _faker(seed).first_name())


def _place(value: str, same: str, seed: bytes) -> str:
    return str(_faker(seed).city())


def _company(value: str, same: str, seed: bytes) -> str:
    return str(_faker(seed).company())


_MAKERS: dict[str, Callable[[str, str, bytes], str]] = {
    "EMAIL_ADDRESS": _email,
    "URL": _url,
    "IP_ADDRESS": _ip,
    "PHONE_NUMBER": _phone,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "MAC_ADDRESS": _mac,
    "PERSON": _person,
    "LOCATION": _place,
    "ORGANIZATION": _company,
}


@lru_cache(maxsize=1 << 16)
def group_token(group: str, params: ScrubParams) -> str:
    """A stand-in for a group that holds personal data: equal groups stay equal, in every run.

    With surrogates it is keyed. With placeholders there is no key, so it comes from scrypt, which makes looking it up slow (about 3 ms
    a guess) and not impossible: a pseudonym, as docs/scrub.md says.
    """
    if params.replace == "surrogate":
        digest = hmac.new(key(params), f"group\x1f{group}".encode(), hashlib.sha256).digest()
    else:
        digest = hashlib.scrypt(group.encode(), salt=b"finery scrub group", n=1 << 10, r=8, p=1, dklen=16)
    return f"group-{digest.hex()[:16]}"
