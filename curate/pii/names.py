"""Names of people without a model: what stands where names stand (`my name is`, `Ms`, `Dear`, a signature, `Name:`), and listed names.

A listed first name with a capital counts alone, unless it is a word, a place or a month too (`AMBIGUOUS`); with a last name after it that
one may be a word as well. Inside code (`Martin(`, `os.Grace`, `class_Anna`) nothing counts.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import regex

from curate.pii.name_lists import AMBIGUOUS, MAKES_A_PLACE, NAMED_PLACES, NOT_NAMES, names
from curate.pii.presidio import EntityRecognizer, RecognizerResult
from curate.pii.screen import Finder

CUED, FULL, HALF, ALONE, SURNAME = (
    0.85,
    0.6,
    0.5,
    0.45,
    0.35,
)  # by its place; first and last listed; first only; one first name; one last name
LONGEST = 4  # words of a name
LONG_SURNAME = 5  # letters: shorter ones are too often a word or an abbreviation

_PIECE = r"\p{Lu}[\p{L}\p{M}]*"
_WORD = rf"{_PIECE}(?:['’\-]\p{{L}}[\p{{L}}\p{{M}}]+)*"
_PARTICLE = r"(?:(?:van|von|der|den|de|del|della|di|da|dos|das|du|la|le|bin|ibn|al|el|ter|ten|af|av)[ ]){0,2}"
_NEXT = rf"[ ]{_PARTICLE}(?:{_WORD}|\p{{Lu}}\.)"
_RUN = regex.compile(rf"(?<![\p{{L}}\p{{M}}\p{{N}}_@/.#\-\\$=<])({_WORD})(?:{_NEXT}){{0,5}}")
_PARTS = regex.compile(rf"{_WORD}|\p{{Lu}}\.")
_CUT = regex.compile(r"['’\-]")
_NAME = rf"(?P<name>{_WORD}(?:{_NEXT}){{0,3}})"
# Each cue, and whether the name after it must be a listed one. The cue's own words are in any case, the name has its capital.
_CUES = (
    (rf"\b(?i:my (?:full )?name(?:'s|’s| is)|(?:maiden|last|family|first) name is|je m'appelle|me llamo|mi chiamo|ich heiße|nazywam się|jmenuji se|jag heter|meu nome é)[ ]{_NAME}", False),
    (rf"\b(?i:(?:his|her|their) name is|name is|named|call me|signed by|this is|(?:wife|husband|partner|mother|father|sister|brother|son|daughter|boss|friend)(?:['’]s name)?)[ ]{_NAME}", True),
    (rf"\b(?:says|said|asked|replied|shouted|whispered|starring|directed by|written by|composed by|sung by)[ ]{_NAME}", True),
    (rf"\b(?:I am|I'm|I’m|i am|i'm)[ ]{_NAME}", True),
    (rf"\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|Sir|Dame|Lady|Rev|Herr|Frau|Señora?|señora?|Signora?|Sig|Senhora?|heer|Mevrouw|mevrouw|Pani?|pani|pana|Mme|Mlle|Monsieur|Madame|MR|MRS|MS|DR|mr|mrs|ms|dr|Professor|Doctor|Miss)\.?[ ]{_NAME}", False),
    (rf"(?m:^|[\"'>]|\\n)[ \t]*(?i:dear)[ ]{_NAME}(?=[ ]?(?:[,:!]|\n|$|\\n))", True),
    (rf"\b(?i:hi|hello|hey|thanks|thank you|good morning|good afternoon|good evening)[, ] ?{_NAME}(?=[ ]?[,!.\n])", True),
    (rf"(?i:\b(?:regards|sincerely|yours truly|yours faithfully|best wishes|cheers|all the best|many thanks|respectfully|cordially|grüßen|gruß|cordialement|salutations|atentamente|saludos|saluti|groeten|groetjes|hälsningar|hälsning|pozdrawiam|poważaniem|pozdravem|abraços|atenciosamente))[,.!]?[ ]{{0,2}}(?:\n|\\n)\s{{0,4}}{_NAME}(?=[ ]?[,.]?[ ]?(?:\n|$|\\n|\"))", False),
    (
        r"\b(?i:(?:full|first|last|given|family|maiden|middle|customer|patient|client|contact|employee|account ?holder|cardholder|guest|"
        rf"passenger|applicant|tenant|sender|recipient)[ _\-]?name|surname|forename|firstname|lastname|fullname|nachname|vorname|nom|prénom|apellidos?|nombre|cognome|nazwisko|imię|jméno|příjmení|achternaam|voornaam|efternamn|förnamn|sobrenome)[\"']?\s{{0,2}}[:=]\s{{0,2}}[\"']?{_NAME}(?![(\[_.=])",
        False,
    ),
    (rf"\b(?i:name|attn|attention|author|from|signed|patient|customer|client|contact|cardholder|holder|owner|witness|present|attendees|reporter|assignee)[\"']?:\s{{0,2}}[\"']?{_NAME}(?![(\[_.=])", True),
    (r"\b(?i:my name is|my name's|my name’s)[ ](?P<name>\p{Ll}[\p{L}\-]{2,})", True),
)  # fmt: skip
# What the lower-case text must hold for each cue: a search for these costs a tenth of the pattern's.
_LITERALS = (
    ("name", "appelle", "llamo", "chiamo", "heiße", "nazywam", "jmenuji", "heter", "meu nome"),
    ("name", "call me", "signed by", "this is", "wife", "husband", "partner", "other ", "father", "sister", "son ", "daughter", "boss", "friend"),
    ("says", "said", "asked", "replied", "shouted", "whispered", "starring", "directed by", "written by", "composed by", "sung by"),
    ("i am ", "i'm ", "i’m "),
    (
        *("mr", "ms", "mx", "dr", "prof", "sir ", "dame ", "lady ", "rev", "herr ", "frau ", "señor", "sig", "senhor", "heer ", "mevrouw "),
        *("pan ", "pani ", "pana ", "mme", "mlle", "monsieur", "madame", "doctor ", "miss "),
    ),
    ("dear ",),
    ("hi", "hello", "hey", "thank", "good "),
    (
        *("regards", "sincerely", "yours", "best wishes", "cheers", "all the best", "many thanks", "respectfully", "cordially", "grüßen", "gruß"),
        *("cordialement", "salutations", "atentamente", "saludos", "saluti", "groet", "hälsning", "pozdrawiam", "poważaniem", "pozdravem"),
        *("abraços", "atenciosamente"),
    ),
    ("name", "vorname", "nom", "apellido", "cognome", "nazwisko", "imię", "jméno", "příjmení", "naam", "namn"),
    (
        *("name", "attn", "attention", "author", "from", "signed", "patient", "customer", "client", "contact", "holder", "owner", "witness"),
        *("present", "attendees", "reporter", "assignee"),
    ),
    ("my name",),
)  # fmt: skip
_CUE_PATTERNS = tuple((literals, regex.compile(pattern), listed) for literals, (pattern, listed) in zip(_LITERALS, _CUES, strict=True))


@lru_cache(maxsize=1)
def _listed() -> tuple[frozenset[str], frozenset[str]]:
    """First and last names, lower-case."""
    both = names()
    return frozenset(each.lower() for each in both.first), frozenset(each.lower() for each in both.last)


class PersonNames(EntityRecognizer):  # type: ignore[misc]
    """Names by their place and by lists."""

    def __init__(self) -> None:
        super().__init__(["PERSON"], name="PersonNames")

    def load(self) -> None:
        """Nothing: the lists come with the first text."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Names, each with one of this module's scores."""
        found: dict[tuple[int, int], float] = {}
        for start, end, score in (*_by_list(text), *_by_series(text), *_by_cue(text), *_by_small(text)):
            found[start, end] = max(score, found.get((start, end), 0.0))
        metadata = {RecognizerResult.RECOGNIZER_NAME_KEY: "PersonNames", RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id}
        return [RecognizerResult("PERSON", start, end, score, recognition_metadata=dict(metadata)) for (start, end), score in found.items()]


_INNER = regex.compile(r"(?:Ma?c|De|Di|Du|La|Le|Van|Fitz|O)\p{Lu}")  # names with a capital within


def _key(word: str) -> str:
    """What of a word is looked up: up to its first hyphen or apostrophe; nothing of `LoRA` and `NaT`, which are no names."""
    start = word if word.isalpha() else _CUT.split(word, maxsplit=1)[0]
    return start.lower() if start[1:].islower() or start.isupper() or _INNER.match(start) else ""


def _by_list(text: str) -> Iterator[tuple[int, int, float]]:
    first, last = _listed()
    for run in _RUN.finditer(text):
        words = [match.span() for match in _PARTS.finditer(text, run.start(), run.end())]
        keys = [_key(text[start:end]) for start, end in words]
        if first.isdisjoint(keys) and last.isdisjoint(keys):
            continue
        capitals = [end - start > 1 and text[start:end].isupper() for start, end in words]
        if any(capitals) and not all(capitals):  # BLAS Level 3: in a name either all words are in capitals or none
            keys = ["" if high else key for key, high in zip(keys, capitals, strict=True)]
        at = 0
        while at < len(words):
            size, score = _name_at(keys, at, first, last)
            start, end = words[at]
            if size == 1 and end - start > 1 and text[start:end].isupper():
                size = 0  # LAN, NAS, SIM: a word alone in capitals is an abbreviation or a heading
            if capitals[at] and score < FULL:
                size = 0  # JAX JIT
            if size and _stands_free(text, words[at][0], words[at + size - 1][1]) and not _is_place(keys, at, at + size):
                yield words[at][0], words[at + size - 1][1], score
            at += size or 1


_SMALL = regex.compile(r"(?<![\p{L}\p{M}\p{N}_@/.#\-\\$=<])\p{Ll}[\p{L}\p{M}]{3,}(?![\p{L}\p{M}\p{N}_@/(=\\])")


def _by_small(text: str) -> Iterator[tuple[int, int, float]]:
    """In a text typed without capitals: a first name that is no word, and the listed last name after it."""
    if not text.islower():
        return
    first, last = _listed()
    words = [match.span() for match in _SMALL.finditer(text)]
    known = _everyday()
    at = 0
    while at < len(words):
        start, end = words[at]
        key = text[start:end]
        at += 1
        if key not in first or key in AMBIGUOUS or key in NOT_NAMES:
            continue
        followed = at < len(words) and words[at][0] == end + 1 and text[end] == " " and text[words[at][0] : words[at][1]] in last
        if followed and text[words[at][0] : words[at][1]] not in AMBIGUOUS | NOT_NAMES:
            yield start, words[at][1], HALF
            at += 1
        elif key in known:
            yield start, end, ALONE


@lru_cache(maxsize=1)
def _everyday() -> frozenset[str]:
    """First names of English-speaking countries: the only ones that count alone in small letters."""
    from faker.providers.person import en_GB, en_US

    return frozenset(name.lower() for lists in (en_US, en_GB) for name in lists.Provider.first_names if len(name) > 4)


def _name_at(keys: list[str], at: int, first: frozenset[str], last: frozenset[str]) -> tuple[int, float]:
    """How many words from `at` on are a name, and its score; (0, 0) for none."""
    key = keys[at]
    if key in NOT_NAMES:
        return 0, 0.0
    if key not in first:
        return (1, SURNAME) if key in last and key not in AMBIGUOUS and len(key) >= LONG_SURNAME else (0, 0.0)
    end, surname = at + 1, False
    while end < len(keys) and end - at < LONGEST and keys[end] not in NOT_NAMES and keys[end] not in MAKES_A_PLACE:
        initial = len(keys[end]) <= 2
        known = keys[end] in last or (keys[end] in first and keys[end] not in AMBIGUOUS)
        if not (initial or known or (key not in AMBIGUOUS and not surname)):
            break
        surname = surname or (not initial and (key not in AMBIGUOUS or (known and keys[end] not in AMBIGUOUS)))
        end += 1
    if surname:
        return end - at, FULL if keys[end - 1] in last else HALF
    return (1, ALONE) if key not in AMBIGUOUS else (0, 0.0)


_SERIES = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}\p{{N}}_@/.#\-\\$=<\"'])({_WORD})(?:, ({_WORD})){{0,20}},? (?:and|or|&|und|et|y|e|en|och|i) ({_WORD})(?![\p{{L}} ]*\p{{Lu}})"
)


def _by_series(text: str) -> Iterator[tuple[int, int, float]]:
    """`Hans, Amber and Lopez`: where two of the words are first names and nothing else, or all are names, all are."""
    first, last = _listed()
    for series in _SERIES.finditer(text) if " and " in text or "," in text or " or " in text else ():
        spans = [*series.spans(1), *series.spans(2), *series.spans(3)]
        keys = [_key(text[start:end]) for start, end in spans]
        if any(key in NOT_NAMES or key in MAKES_A_PLACE for key in keys) or not all(key in first or key in last for key in keys):
            continue
        sure = [key for key in keys if key not in AMBIGUOUS]
        if len(sure) >= 2 and _stands_free(text, *spans[-1]):
            yield from ((start, end, ALONE) for start, end in spans)


def _stands_free(text: str, start: int, end: int) -> bool:
    """Not part of code, an address or a path."""
    after = text[end : end + 2]
    return not (
        after[:1] in ("_", "@", "(", "=", "[", "/", "\\", "&")
        or after[:1].isdigit()
        or (len(after) == 2 and after[0] in ".-:" and (after[1].isalnum() or after[1] in "_:>"))
    )


def _is_place(keys: list[str], at: int, next_at: int) -> bool:
    """A word follows that makes a firm, a street or a town of the name, or one stands before that makes it a house's (`Café Zoë`)."""
    return (next_at < len(keys) and keys[next_at] in MAKES_A_PLACE) or (at > 0 and keys[at - 1] in NAMED_PLACES)


def _by_cue(text: str) -> Iterator[tuple[int, int, float]]:
    first, last = _listed()
    folded = text.lower()
    for literals, pattern, listed in _CUE_PATTERNS:
        for match in pattern.finditer(text) if any(each in folded for each in literals) else ():
            words = [each.span() for each in _PARTS.finditer(text, *match.span("name"))] or [match.span("name")]
            keys = [_key(text[start:end]) for start, end in words]
            size = next((at for at, key in enumerate(keys) if key in NOT_NAMES or key in MAKES_A_PLACE), len(keys))
            if not size or (listed and not (keys[0] in first or (keys[size - 1] in last and (size > 1 or keys[0] not in AMBIGUOUS)))):
                continue
            if text[words[0][0] : words[size - 1][1]].isupper() and size == 1 and words[0][1] - words[0][0] < LONG_SURNAME:
                continue  # an abbreviation: "this is SHA"
            if _stands_free(text, words[0][0], words[size - 1][1]):
                yield words[0][0], words[size - 1][1], CUED


def finder() -> Finder:
    """The recognizer. Any capitalised word lets a text pass, or the one cue that takes lower-case names."""
    return Finder(PersonNames(), (r"\p{Lu}\p{L}|(?i:my name['’]?(?:s| is))|^[^\p{Lu}]*$",))
