"""Presidio's validated recognizers, as Finery uses them: what was changed in each, and why, is said beside it."""

import ipaddress
from functools import lru_cache
from typing import Any

import regex
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, Leniency, PhoneNumberMatcher

from curate.pii.checks import luhn
from curate.pii.context import context_screen
from curate.pii.links import is_domain
from curate.pii.presidio import Pattern, PatternRecognizer, RecognizerResult
from curate.pii.presidio import predefined_recognizers as stock
from curate.pii.screen import Finder, by_pattern

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


class Email(stock.EmailRecognizer):  # type: ignore[misc]
    """Knows `.example`, `.internal` and the like; never asks the network for suffixes; leaves the `n` of a literal `\\n` alone.

    Lengths are bounded (RFC 5321: 64 before the @): the stock pattern takes time that grows with the square of a text of `a@a@`.
    """

    def __init__(self) -> None:
        sign = r"[!#$%&'*+\-/=?^_`{|}~\w]"
        super().__init__(
            patterns=[
                Pattern(
                    "Email",
                    rf"\b{sign}(?:[!#$%&'*+\-/=?^_`{{|}}~.\w]{{0,62}}{sign})?@\w{{1,63}}(?:-+\w{{1,63}}){{0,8}}(?:\.\w{{1,63}}(?:-+\w{{1,63}}){{0,8}}){{1,10}}\b",
                    0.5,
                )
            ]
        )

    def validate_result(self, pattern_text: str) -> bool:
        """The domain ends in a public suffix or a special-use name."""
        return is_domain(pattern_text.rpartition("@")[2])

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: Any = None) -> list[RecognizerResult]:
        """Stock findings, cut by one character where it belongs to an escape (`\\nmaria@…` in a JSON string)."""
        results: list[RecognizerResult] = super().analyze(text, entities, nlp_artifacts, regex_flags)
        for result in results:
            if text[max(result.start - 1, 0) : result.start] == "\\" and text[result.start] in "nrt" and text[result.start + 1] != "@":
                result.start += 1
        return results


class _Matcher(PhoneNumberMatcher):  # type: ignore[misc]
    """Looks up what was refused before: groups of digits repeat in tables and lists, and refusing one means parsing it in several ways."""

    def _parse_and_verify(self, candidate: str, offset: int) -> Any:
        return super()._parse_and_verify(candidate, offset) if _is_number(candidate, self.preferred_region) else None


@lru_cache(maxsize=1 << 16)
def _is_number(candidate: str, region: str) -> bool:
    """Whether the candidate is a valid number where nothing stands around it: what does can only refuse it."""
    return PhoneNumberMatcher(candidate, region, leniency=Leniency.VALID)._parse_and_verify(candidate, 0) is not None


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
            for match in _Matcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1):
                if not self.seven.search(match.raw_string) or "  " in match.raw_string or regex.search(r"\d\.\d(?!\d)", match.raw_string):
                    continue  # columns of figures, decimals
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


class GroupedPhone(PatternRecognizer):  # type: ignore[misc]
    """Numbers in customary groups, whether or not they are assigned; looser groups only beside a word such as `phone` or `call`."""

    def __init__(self) -> None:
        free = r"(?<![\w/=+*\-])(?<![\d\]][.,:])"
        end = r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?(?![\w/=*+]|[-.,]\d)"
        shapes = (
            (rf"{free}(?:(?:\+|00)?1[\-. ])?(?:\(\d{{3}}\)[ ]?|\d{{3}}[\-.])\d{{3}}[\-.]\d{{4}}{end}", 0.4),  # North America
            (rf"{free}00\d{{1,3}}[\-. ]\d{{2,4}}[\-. ]\d{{2,4}}[\-. ]\d{{2,4}}(?:[\-. ]\d{{2,4}})?{end}", 0.4),
            (rf"{free}\+\d{{1,3}}[ \-.]?(?:\(0?\d{{0,4}}\)[ \-]?)?\d{{1,5}}(?:[ \-./]?\d){{5,10}}{end}", 0.4),  # a country code
            (rf"{free}0\d{{1,4}}[\-/ .]\d{{2,8}}(?:[\- .]\d{{2,4}}){{0,3}}{end}", 0.4),  # a trunk zero
            (rf"{free}\(0\d{{1,5}}\)[ \-]{{0,2}}\d(?:[ \-]?\d){{4,8}}{end}", 0.4),  # the same in brackets
            (rf"{free}\(0?\d{{1,4}}\)[ ]?\d{{3,4}}[\- ]?\d{{3,4}}{end}", 0.4),  # an area code in brackets
            (r"(?:^|[|·•;][ ]?)(?:[TMFPH]|Tel|Mob|Ph)[:.]?[ ]{1,2}\K\+?\(?\d(?:[ ().\-/]{0,2}\d){6,14}(?!\w)", 0.4),  # in a signature
            (
                rf"{free}\+?\(?\d{{2,5}}\)?(?:[ \-.]\d{{2,7}}){{1,5}}(?=[ \-/]{{1,3}}(?:office|fax|cell|mobile|direct|landline)\b)",
                0.4,
            ),  # on a card
        )
        super().__init__(
            "PHONE_NUMBER",
            name="GroupedPhone",
            patterns=[Pattern(f"Groups {at}", shape, score) for at, (shape, score) in enumerate(shapes, 1)],
            context=list(DIALLING),
            global_regex_flags=regex.IGNORECASE | regex.MULTILINE,
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """Too few digits or too many for a number, an unknown country code, or a date."""
        digits = "".join(each for each in regex.split(r"[xe]", pattern_text, flags=regex.IGNORECASE)[0] if each.isdigit())
        if pattern_text.startswith("+") and not any(int(digits[:size]) in COUNTRY_CODE_TO_REGION_CODE for size in (1, 2, 3)):
            return True
        low = 9 if pattern_text.startswith(("0", "(0", "+")) else 6
        return not low <= len(digits) <= 15 or bool(_DATE.fullmatch(pattern_text))


GROUPED_SCREENS = (  # one for each shape, in their order
    r"(?:\([0-9]{3}\)[ ]?|[0-9]{3}[\-.])[0-9]{3}[\-.][0-9]{4}",
    r"00[0-9]{1,3}[\-. ][0-9]{2,4}[\-. ][0-9]{2,4}[\-. ][0-9]{2}",
    r"\+[0-9]",
    r"0[0-9]{1,4}[\-/ .][0-9]{2}",
    r"\(0[0-9]{1,5}\)[ \-]{0,2}[0-9]",
    r"\([0-9]{1,5}\)[ ]?[0-9]{3}",
    r"(?m:^|[|·•;][ ]?)(?i:[TMFPH]|Tel|Mob|Ph)[:.]?[ ]{1,2}\+?\(?[0-9]",
    r"[0-9][ \-/]{1,3}(?i:office|fax|cell|mobile|direct|landline)",
)


class LoosePhone(PatternRecognizer):  # type: ignore[misc]
    """Digits that could be anything, in groups or not: a number only beside a word that says so, in the languages of `DIALLING`."""

    def __init__(self) -> None:
        free = r"(?<![\w/=+*\-])(?<![\d\]][.,:])"
        end = r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?(?![\w/=*+]|[-.,]\d)"
        shapes = (
            rf"{free}\+?\(?\d{{1,5}}\)?(?:[ \-./]{{1,2}}\d{{2,7}}){{1,5}}{end}",
            rf"{free}\+?\d{{7,13}}{end}",
            rf"{free}\d\d([ \-])\d\d\1\d\d{end}",
        )
        super().__init__(
            "PHONE_NUMBER",
            name="LoosePhone",
            patterns=[Pattern(f"Loose {at}", shape, 0.1) for at, shape in enumerate(shapes, 1)],
            context=list(DIALLING),
            global_regex_flags=regex.IGNORECASE | regex.MULTILINE,
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """Too few digits or too many for a number, or a date."""
        digits = sum(each.isdigit() for each in regex.split(r"[xe]", pattern_text, flags=regex.IGNORECASE)[0])
        return not 6 <= digits <= 15 or bool(_DATE.fullmatch(pattern_text))


_DATE = regex.compile(r"(?:19|20)\d\d[-/. ]\d\d?[-/. ]\d\d?|\d\d?[-/. ]\d\d?[-/. ](?:19|20)\d\d")
# Words that announce a number to dial.
DIALLING = (
    *("phone", "telephone", "tel", "mobile", "cell", "fax", "call", "call me", "dial", "ring", "whatsapp", "sms", "text me", "reach me"),
    *("phone number", "reached", "reachable", "callback", "my number", "new number", "direct number", "contact", "answering", "hotline"),
    *("telefon", "handy", "mobil", "rückruf", "rufnummer", "anrufen", "angerufen", "erreichen sie", "ruf an", "meine nummer", "nummer von"),
    *("téléphone", "portable", "numéro de", "rappeler", "appelez", "joindre"),
    *("teléfono", "móvil", "celular", "llama", "llámame", "telefone", "telemóvel", "ligar", "liga", "telefono", "cellulare", "chiamami", "chiami", "chiamare", "al numero"),
    *("telefoon", "mobiel", "nieuwe nummer", "mijn nummer", "bel me", "bellen", "ring mig", "komórka", "pod numerem", "zadzwoń", "zavolej", "puhelin"),
)  # fmt: skip


class Card(stock.CreditCardRecognizer):  # type: ignore[misc]
    """Also Mastercard's numbers from 2221 on, and dots or no-break spaces between the groups."""

    def __init__(self) -> None:
        shape = (
            r"\b(?<!\d\.)(?!1\d{12}(?!\d))(?:2[2-7]\d{2}|4\d{3}|5[0-5]\d{2}|6\d{3}|1\d{3}|3\d{3})"
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
        port = Pattern("IPv6 and port", r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?=:\d{2,5}(?![\w:]))", 0.6)
        super().__init__(patterns=[*(pattern for pattern in self.PATTERNS if pattern.name != "IPv6_unspecified"), port])
        self.keep_private = keep_private

    def invalidate_result(self, pattern_text: str) -> bool:
        """No address, or one to keep."""
        if super().invalidate_result(pattern_text) or not any(each.isdigit() for each in pattern_text):
            return True
        if "::" in pattern_text and "." not in pattern_text and sum(each.isalnum() for each in pattern_text) < 4:
            return True  # a slice: x[1::2]
        address = ipaddress.ip_interface(pattern_text).ip
        mapped = getattr(address, "ipv4_mapped", None) or address
        return self.keep_private and any(mapped in network for network in UNPERSONAL if network.version == mapped.version)


def _named(recognizer: Any, shape: str, context: tuple[str, ...]) -> Finder:
    """A stock recognizer whose patterns count only with one of these context phrases."""
    recognizer.context = list(context)
    return Finder(recognizer, (SOME_DIGIT, shape, context_screen(context)))


SOME_DIGIT = "[0-9]"
_GAP = r"(?:[^A-Za-z0-9_,;:$£%=*<>\"'!?&@#^|{}\n]|[xX]){0,4}"  # DIALLED's


class Wallet(PatternRecognizer):  # type: ignore[misc]
    """Wallets that Presidio's recognizer leaves out: Ethereum, Litecoin, Monero, Cardano. Transaction hashes (64 digits) are none."""

    def __init__(self) -> None:
        shapes = (
            r"(?<![\w])0x[0-9a-fA-F]{40}(?!\w)",
            r"(?<!\w)[48][1-9A-HJ-NP-Za-km-z]{94}(?!\w)",
            r"(?<!\w)(?:ltc1[a-z0-9]{39,59}|addr1[a-z0-9]{50,98})(?!\w)",
        )
        super().__init__(
            "CRYPTO",
            name="WalletRecognizer",
            patterns=[Pattern(f"Wallet {at}", each, 0.5) for at, each in enumerate(shapes)],
            global_regex_flags=regex.MULTILINE,
        )


def finders(phone_regions: tuple[str, ...], keep_private_ips: bool) -> tuple[Finder, ...]:
    """New recognizers with their screens, in no special order."""
    dialled = (SOME_DIGIT, rf"[0-9](?:{_GAP}[0-9]){{6}}")
    phones = [Finder(Phone(supported_regions=phone_regions), dialled)]
    if "GB" in phone_regions:
        uk = UkPhone("PHONE_NUMBER", name="UkPhoneRecognizer", patterns=[Pattern("UK number", UK_SHAPES[0], 0.5)])
        phones.append(Finder(uk, dialled))
    grouped = r"[0-9](?:[^0-9A-Za-z\n]{0,3}[0-9]){5}"
    phones += [
        by_pattern(GroupedPhone(), (SOME_DIGIT, grouped), GROUPED_SCREENS),
        Finder(LoosePhone(), (SOME_DIGIT, grouped, context_screen(DIALLING))),
    ]
    return (
        *phones,
        Finder(Email(), ("@",)),
        Finder(Card(), (SOME_DIGIT, r"[0-9](?:[-.\s]?[0-9]){11}")),
        Finder(Iban(), (SOME_DIGIT, r"[A-Za-z][0-9]{2}[ \-]?[A-Za-z0-9]", r"[A-Za-z]{2}[0-9]{2}(?:[ \-]?[A-Za-z0-9]){11}")),
        Finder(Ip(keep_private_ips), (r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:",)),
        Finder(
            stock.MacAddressRecognizer(),
            (
                r":[0-9A-Fa-f]{2}:|-[0-9A-Fa-f]{2}-|\.[0-9A-Fa-f]{4}\.",  # begins with a sign: Rust finds that in a tenth of the time
                r"[0-9A-Fa-f](?::[0-9A-Fa-f]{2}){2}:|[0-9A-Fa-f](?:-[0-9A-Fa-f]{2}){2}-|\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
            ),
        ),
        Finder(stock.CryptoRecognizer(), (SOME_DIGIT, r"(?i:(?:bc1|[13])[a-z0-9]{25})")),
        Finder(Wallet(), (SOME_DIGIT, r"0x[0-9a-fA-F]{40}|[48][1-9A-HJ-NP-Za-km-z]{94}|(?:ltc1|addr1)[a-z0-9]{30}")),
        Finder(Ssn(), (SOME_DIGIT, r"[0-9](?:[- .]?[0-9]){8}")),
        Finder(stock.UsItinRecognizer(context=["itin", "taxpayer", "tax id", "tin"]), (SOME_DIGIT, r"9[0-9]{2}[- ]?[0-9]{2}[- ]?[0-9]{4}")),
        _named(stock.UsPassportRecognizer(), "[0-9]{8}", ("passport",)),
        _named(
            stock.UsLicenseRecognizer(),
            r"(?i:licen[cs]e|dl[\s_\-]{0,3}no)",
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
        _named(
            stock.UsBankRecognizer(),
            "[0-9]{8}",
            ("bank account", "account number", "account no", "account num", "acct", "sort code", "routing number", "current account"),
        ),
        Finder(Nino(), (SOME_DIGIT, r"[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]", r"[A-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]")),
        _named(stock.NhsRecognizer(), r"[0-9]{3}[- ]?[0-9]{3}[- ]?[0-9]{4}", ("nhs", "health service", "health number")),
        _named(stock.UkPassportRecognizer(), "[0-9]{7}", ("passport", "travel document", "hmpo")),
        Finder(stock.UkDrivingLicenceRecognizer(), (SOME_DIGIT, r"[0-9]{6}[A-Za-z9]{2}")),
        _named(stock.UkPostcodeRecognizer(), "[0-9][A-Za-z]{2}", ("postcode", "post code", "postal code", "address", "zip code")),
    )
