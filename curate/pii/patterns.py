"""Presidio's validated recognizers, as Finery uses them: what was changed in each, and why, is said beside it."""

import ipaddress
from functools import lru_cache
from typing import Any

import regex
import tldextract
from phonenumbers import Leniency, PhoneNumberMatcher

from curate.pii.checks import luhn
from curate.pii.context import words
from curate.pii.presidio import Pattern, PatternRecognizer, RecognizerResult
from curate.pii.presidio import predefined_recognizers as stock
from curate.pii.screen import Finder, Screen, both, has, matches

# Seven digits with nothing but phone punctuation between them: fewer are no subscriber's number in most plans, and everywhere in sums.
DIALLED = r"\d(?:(?:[^\w,;:$£%=*<>\"'!?&@#^|{}\n]|[xX\u30fc]){0,4}\d){6}"
# Private, loopback, link-local, unspecified, multicast, broadcast and netmasks: they name nobody. `ipaddress.is_private` is not used:
# it also holds the documentation ranges, which stand for public addresses.
UNPERSONAL = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8"),
        *("224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "fe80::/10", "fc00::/7", "ff00::/8"),
    )
)
# Special-use top-level names (RFC 2606, 6761, 6762, 8375) and those of office networks: no public suffixes, but in addresses all the same.
LOCAL_NAMES = frozenset({"example", "test", "invalid", "localhost", "local", "internal", "intranet", "lan", "corp", "home", "arpa"})


@lru_cache
def _suffixes() -> Any:
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list inside the package: no network, no cache files


class Email(stock.EmailRecognizer):  # type: ignore[misc]
    """Knows `.example`, `.internal` and the like; never asks the network for suffixes; leaves the `n` of a literal `\\n` alone."""

    def validate_result(self, pattern_text: str) -> bool:
        """The domain ends in a public suffix or a special-use name."""
        domain = pattern_text.rpartition("@")[2]
        return domain.rpartition(".")[2].casefold() in LOCAL_NAMES or bool(_suffixes()(domain).suffix)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: Any = None) -> list[RecognizerResult]:
        """Stock findings, cut by one character where it belongs to an escape (`\\nmaria@…` in a JSON string)."""
        results: list[RecognizerResult] = super().analyze(text, entities, nlp_artifacts, regex_flags)
        for result in results:
            if text[max(result.start - 1, 0) : result.start] == "\\" and text[result.start] in "nrt" and text[result.start + 1] != "@":
                result.start += 1
        return results


class Phone(stock.PhoneRecognizer):  # type: ignore[misc]
    """One pass a region over valid numbers, without a limit of tries.

    Digits without a plus, a leading zero or customary groups could be any number: they get a score that needs a context word.
    """

    STRONG, WEAK = 0.4, 0.2
    seven = regex.compile(DIALLED)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Valid numbers in any of the regions."""
        found: dict[tuple[int, int], RecognizerResult] = {}
        for region in self.supported_regions:
            for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1):
                if not self.seven.search(match.raw_string):
                    continue
                result = self._get_recognizer_result(match, text, region, nlp_artifacts)
                result.score = self.STRONG if _looks_dialled(match.raw_string, region) else self.WEAK
                if match.raw_string.startswith("(") and ")" not in match.raw_string:
                    result.start += 1  # the bracket belongs to the sentence
                known = found.get((result.start, result.end))
                if known is None or known.score < result.score:
                    found[result.start, result.end] = result
        return list(found.values())


def _looks_dialled(text: str, region: str) -> bool:
    if text.startswith(("+", "00")) or (text.startswith(("0", "(0")) and len(text) >= 10):
        return True
    if text.isdigit():
        return False
    return any(True for _ in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING, max_tries=len(text) + 1))


_UK = r"(?:\+44|\b0044)[\s.\-]?(?:\(0\)[\s.\-]?)?"
UK_SHAPES = (
    # customary groups of a British number, assigned or not: phonenumbers refuses 01632 960xxx and 07700 900xxx, kept for fiction
    rf"(?<![\w+])(?:{_UK}|\(?0)(?:7\d{{3}}|1\d{{3}}|1\d1|11\d|2\d|3\d{{2}}|8\d{{2}}|9\d{{2}})\)?[\s.\-]?\d{{3,4}}[\s.\-]?\d{{3,4}}(?!\w)",
)


class UkPhone(PatternRecognizer):  # type: ignore[misc]
    """British numbers by their shape, in ranges that are not assigned too."""

    def invalidate_result(self, pattern_text: str) -> bool:
        """A British number has ten digits, a few have nine, after the zero or the country code."""
        digits = "".join(each for each in pattern_text if each.isdigit())
        national = regex.sub(r"^(?:0044|44)?0?", "", digits)
        return len(national) not in (9, 10)


class Card(stock.CreditCardRecognizer):  # type: ignore[misc]
    """Also Mastercard's numbers from 2221 on, and dots or no-break spaces between the groups."""

    def __init__(self) -> None:
        shape = (
            r"\b(?!1\d{12}(?!\d))(?:2[2-7]\d{2}|4\d{3}|5[0-5]\d{2}|6\d{3}|1\d{3}|3\d{3})"
            r"[-. \u00a0\u202f]?(\d{3,4})[-. \u00a0\u202f]?(\d{3,4})[-. \u00a0\u202f]?(\d{3,5})\b"
        )
        super().__init__(patterns=[Pattern("Credit card", shape, 0.3)])

    def validate_result(self, pattern_text: str) -> bool:
        """Luhn's checksum over the digits."""
        digits = [int(each) for each in pattern_text if each.isdigit()]
        if len(set(digits)) == 1:
            return False
        return luhn(digits)


class Ssn(stock.UsSsnRecognizer):  # type: ignore[misc]
    """Also the numbers that are published as examples: one that stands in a conversation may be somebody's slip as well."""

    EXAMPLES = frozenset({"123456789", "987654320", "078051120"})

    def __init__(self) -> None:
        super().__init__(context=["social security", "ssn", "ssns"])

    def invalidate_result(self, pattern_text: str) -> bool:
        """Groups that cannot be, or digits all alike."""
        digits = "".join(each for each in pattern_text if each.isdigit())
        return digits not in self.EXAMPLES and bool(super().invalidate_result(pattern_text))


class Nino(stock.UkNinoRecognizer):  # type: ignore[misc]
    """Also QQ, the prefix that stands in examples and is given to nobody."""

    def __init__(self) -> None:
        example = Pattern("NINO example", r"\bQQ ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b", 0.5)
        super().__init__(patterns=[*self.PATTERNS, example])


class Iban(stock.IbanRecognizer):  # type: ignore[misc]
    """Tries every length: the stock pattern loses an IBAN that a word of four letters follows. Any case."""

    START = regex.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?=[ \-]?[A-Za-z0-9])")
    REST = regex.compile(r"(?:[ \-]?[A-Za-z0-9]){11,30}")

    def __init__(self) -> None:
        super().__init__(exact_match=True)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: Any = None) -> list[RecognizerResult]:
        """The longest stretch after each country code whose checksum and national format hold."""
        results = []
        for match in self.START.finditer(text):
            rest = self.REST.match(text, match.end())
            for end in range(rest.end(), match.end() + 10, -1) if rest else ():
                if text[end - 1].isalnum() and not text[end : end + 1].isalnum():
                    value = text[match.start() : end].replace(" ", "").replace("-", "").upper()
                    if self.validate_result(value):
                        results.append(_result(self, match.start(), end, 1.0))
                        break
        return results


def _result(recognizer: Any, start: int, end: int, score: float) -> RecognizerResult:
    return RecognizerResult(
        recognizer.supported_entities[0],
        start,
        end,
        score,
        recognition_metadata={
            RecognizerResult.RECOGNIZER_NAME_KEY: recognizer.name,
            RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recognizer.id,
        },
    )


class Ip(stock.IpRecognizer):  # type: ignore[misc]
    """Without addresses that name nobody (see `UNPERSONAL`), a bare `::` and hex words in C++ scopes (`dead::beef`)."""

    def __init__(self, keep_private: bool) -> None:
        super().__init__(patterns=[pattern for pattern in self.PATTERNS if pattern.name != "IPv6_unspecified"])
        self.keep_private = keep_private

    def invalidate_result(self, pattern_text: str) -> bool:
        """No address, or one to keep."""
        if super().invalidate_result(pattern_text) or not any(each.isdigit() for each in pattern_text):
            return True
        address = ipaddress.ip_interface(pattern_text).ip
        mapped = getattr(address, "ipv4_mapped", None) or address
        return self.keep_private and any(mapped in network for network in UNPERSONAL if network.version == mapped.version)


class CredentialUrl(PatternRecognizer):  # type: ignore[misc]
    """A URL that carries a password or a token. Other URLs are no personal data."""

    NAMES = (
        r"(?:access_?token|auth_?token|id_?token|token|api_?key|key|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token"
        r"|passw(?:or)?d|pwd|secret|client_?secret|session_?id|sessionid|sid|jwt|auth)"
    )

    def __init__(self) -> None:
        end = r"[^\s\"'`<>)\]]*[^\s\"'`<>)\].,;:!?]"
        shapes = (
            rf"\b(?:https?|wss?|git|svn)(?:\+\w+)?://[^\s/@:\"'<>]{{0,100}}:[^\s/@\"'<>]{{1,200}}@{end}",
            rf"\b(?:https?|wss?)://[^\s\"'`<>?#]{{3,500}}[?#](?:[^\s\"'`<>]*&)?{self.NAMES}=[^\s\"'`<>&]{{7}}{end}",
        )
        super().__init__("URL", patterns=[Pattern(f"Credential URL {at}", shape, 0.9) for at, shape in enumerate(shapes, 1)])


def _pattern(recognizer: Any, screen: Screen, context: tuple[str, ...] | None = None) -> Finder:
    """A stock recognizer whose patterns count only with one of these context phrases."""
    if context is not None:
        recognizer.context = list(context)
        screen = both(screen, matches(words(context).pattern, regex.IGNORECASE))
    return Finder(recognizer, screen)


def finders(phone_regions: tuple[str, ...], keep_private_ips: bool) -> tuple[Finder, ...]:
    """New recognizers with their screens, in no special order."""
    dialled = matches(DIALLED)
    phones = [Finder(Phone(supported_regions=phone_regions), dialled)]
    if "GB" in phone_regions:
        uk = UkPhone("PHONE_NUMBER", name="UkPhoneRecognizer", patterns=[Pattern("UK number", UK_SHAPES[0], 0.5)])
        phones.append(Finder(uk, dialled))
    return (  # screens begin with a digit or a sign wherever they can: those are rare in prose, letters are not
        *phones,
        Finder(Email(), has("@")),
        Finder(Card(), matches(r"\d(?:[-.\s]?\d){11}")),
        Finder(Iban(), matches(r"(?<=[A-Za-z]{2})[0-9]{2}[ \-]?[A-Za-z0-9]")),
        Finder(Ip(keep_private_ips), matches(r"\d\.\d{1,3}\.\d{1,3}\.\d|:[0-9a-f]{0,4}:", regex.IGNORECASE)),
        Finder(
            stock.MacAddressRecognizer(),
            matches(r"([:-])[0-9a-f]{2}\1[0-9a-f]{2}\1|\.[0-9a-f]{4}\.[0-9a-f]{4}", regex.IGNORECASE),
        ),
        Finder(stock.CryptoRecognizer(), matches(r"(?:bc1|[13])[a-z0-9]{25}", regex.IGNORECASE)),
        Finder(CredentialUrl(), has("://")),
        Finder(Ssn(), matches(r"[0-9](?:[- .]?[0-9]){8}")),
        Finder(stock.UsItinRecognizer(context=["itin", "taxpayer", "tax id", "tin"]), matches(r"9\d{2}[- ]?\d{2}[- ]?\d{4}")),
        _pattern(stock.UsPassportRecognizer(), matches(r"[0-9]{8}"), ("passport",)),
        _pattern(
            stock.UsLicenseRecognizer(),
            matches(r"\d"),
            (
                "driver license",
                "driver's license",
                "drivers license",
                "driving license",
                "license number",
                "license no",
                "licence no",
                "dl no",
            ),
        ),
        _pattern(
            stock.UsBankRecognizer(),
            matches(r"[0-9]{8}"),
            ("bank account", "account number", "account no", "account num", "acct", "sort code", "routing number", "current account"),
        ),
        Finder(Nino(), matches(r"[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[a-d]", regex.IGNORECASE)),
        _pattern(stock.NhsRecognizer(), matches(r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}"), ("nhs", "health service", "health number")),
        _pattern(stock.UkPassportRecognizer(), matches(r"\d{7}"), ("passport", "travel document", "hmpo")),
        Finder(stock.UkDrivingLicenceRecognizer(), matches(r"[0-9]{6}[a-z9]{2}", regex.IGNORECASE)),
        _pattern(
            stock.UkPostcodeRecognizer(),
            matches(r"(?<=[0-9a-z]\s?)[0-9][a-z]{2}(?![0-9a-z])", regex.IGNORECASE),
            ("postcode", "post code", "postal code", "address", "zip code"),
        ),
    )
