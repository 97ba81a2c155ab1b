"""Names by what stands before them: `my name is`, `Ms`, `Dear`, a signature, `Name:`."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import regex

from curate.pii.name_lists import AMBIGUOUS, MAKES_A_PLACE, NOT_NAMES
from curate.pii.name_words import NEXT, OTHER, PARTS, WORD, key, listed, stands_free

CUED = 0.85  # score
LONG_SURNAME = 5  # letters: shorter ones are too often a word or an abbreviation
_NAME = rf"{WORD}(?:{NEXT}){{0,3}}"
SMALL = r"[\p{Ll}][\p{L}\-]{2,}"


class Cue(NamedTuple):
    """What stands before a name and after it. The cue's own words are in any case, the name has its capital."""

    before: str
    after: str
    listed: bool  # whether the name must be a listed one
    literals: tuple[str, ...]  # one of them must stand in the lower-case text
    name: str = _NAME

    @property
    def screen(self) -> str:
        """A pattern of Rust's regex that every text with the cue and a name after it holds."""
        return self.before.replace(r"\b", "") + (r"\p{Ll}" if self.name == SMALL else r"\p{Lu}")


# Closings of a message that are words as well, alone on their line.
_CLOSING = (
    r"(?m:^|\\n)[ \t]*(?i:best|thanks|thanks again|thanks in advance|thank you|ta|yours|love|warmly|take care|talk soon|speak soon"
    r"|lg|vg|mfg|liebe grüße|viele grüße|danke|merci|bises|gracias|un saludo|grazie|obrigad[oa]|mvg|dziękuję|tack|mvh)"
)
_CLOSING_WORDS = (
    "best", "thank", "ta", "yours", "love", "warmly", "take care", "soon", "lg", "vg", "mfg", "grüße", "danke", "merci", "bises",
    "gracias", "saludo", "grazie", "obrigad", "mvg", "dziękuję", "mvh",
)  # fmt: skip

CUES = (
    Cue(
        r"\b(?i:my (?:full )?name(?:'s|’s| is)|(?:maiden|last|family|first) name is|je m'appelle|me llamo|mi chiamo|ich heiße"
        r"|nazywam się|jmenuji se|jag heter|meu nome é)[ ]",
        r"",
        False,
        ("name", "appelle", "llamo", "chiamo", "heiße", "nazywam", "jmenuji", "heter", "meu nome"),
    ),
    Cue(
        r"\b(?i:(?:his|her|their) name is|name is|named|call me|signed by|this is|(?:wife|husband|partner|mother|father|sister"
        r"|brother|son|daughter|boss|friend)(?:['’]s name)?)[ ]",
        r"",
        True,
        (
            "name", "call me", "signed by", "this is", "wife", "husband", "partner", "other ", "father", "sister", "son ",
            "daughter", "boss", "friend",
        ),
    ),
    Cue(
        r"\b(?:says|said|asked|replied|shouted|whispered|starring|directed by|written by|composed by|sung by)[ ]",
        r"",
        True,
        ("says", "said", "asked", "replied", "shouted", "whispered", "starring", "directed by", "written by", "composed by", "sung by"),
    ),
    Cue(
        r"\b(?:I am|I'm|I’m|i am|i'm)[ ]",
        r"",
        True,
        ("i am ", "i'm ", "i’m "),
    ),
    Cue(
        r"\b(?:Mr|Mrs|Ms|Mx|Dr|Prof|Sir|Dame|Lady|Rev|Herr|Frau|Señora?|señora?|Signora?|Sig|Senhora?|heer|Mevrouw|mevrouw"
        r"|Pani?|pani|pana|Mme|Mlle|Monsieur|Madame|MR|MRS|MS|DR|mr|mrs|ms|dr|Professor|Doctor|Miss)\.?[ ]",
        r"",
        False,
        (
            "mr", "ms", "mx", "dr", "prof", "sir ", "dame ", "lady ", "rev", "herr ", "frau ", "señor", "sig", "senhor", "heer ",
            "mevrouw ", "pan ", "pani ", "pana ", "mme", "mlle", "monsieur", "madame", "doctor ", "miss ",
        ),
    ),
    Cue(
        r"(?m:^|[\"'>]|\\n)[ \t]*(?i:dear)[ ]",
        r"(?=[ ]?(?:[,:!]|\n|$|\\n))",
        True,
        ("dear ",),
    ),
    Cue(
        r"\b(?i:hi|hello|hey|thanks|thank you|good morning|good afternoon|good evening)[, ] ?",
        r"(?=[ ]?[,!.\n])",
        True,
        ("hi", "hello", "hey", "thank", "good "),
    ),
    Cue(
        r"(?i:\b(?:regards|sincerely|yours truly|yours faithfully|best wishes|cheers|all the best|many thanks|respectfully"
        r"|cordially|grüßen|gruß|cordialement|salutations|atentamente|saludos|saluti|groeten|groetjes|hälsningar|hälsning"
        r"|pozdrawiam|poważaniem|pozdravem|abraços|atenciosamente))[,.!]?[ ]{0,2}(?:\n|\\n)\s{0,4}",
        r'(?=[ ]?[,.]?[ ]?(?:\n|$|\\n|"))',
        False,
        (
            "regards", "sincerely", "yours", "best wishes", "cheers", "all the best", "many thanks", "respectfully", "cordially",
            "grüßen", "gruß", "cordialement", "salutations", "atentamente", "saludos", "saluti", "groet", "hälsning", "pozdrawiam",
            "poważaniem", "pozdravem", "abraços", "atenciosamente",
        ),
    ),
    Cue(  # closings that are words as well: alone on their line, with a comma, and the name after them ends the message
        _CLOSING + r"[,.!–-][ ]{0,2}(?:\n|\\n)\s{0,4}",
        r"(?=[ ]?[,.]?\s*(?:\Z|\"))",
        False,
        _CLOSING_WORDS,
    ),
    Cue(  # the same without a comma, and with lines after it: a listed name
        _CLOSING + r"[,.!–-]?[ ]{0,2}(?:\n|\\n)\s{0,4}",
        r'(?=[ ]?[,.]?[ ]?(?:\n|\Z|\\n|"))',
        True,
        _CLOSING_WORDS,
    ),
    Cue(
        r"\b(?i:(?:full|first|last|given|family|maiden|middle|customer|patient|client|contact|employee|account ?holder"
        r"|cardholder|guest|passenger|applicant|tenant|sender|recipient)[ _\-]?name|surname|forename|firstname|lastname"
        r"|fullname|nachname|vorname|nom|prénom|apellidos?|nombre|cognome|nazwisko|imię|jméno|příjmení|achternaam|voornaam"
        r"|efternamn|förnamn|sobrenome)[\"']?\s{0,2}[:=]\s{0,2}[\"']?",
        r"(?![(\[_.=])",
        False,
        ("name", "vorname", "nom", "apellido", "cognome", "nazwisko", "imię", "jméno", "příjmení", "naam", "namn"),
    ),
    Cue(
        r"\b(?i:name|attn|attention|author|from|signed|patient|customer|client|contact|cardholder|holder|owner|witness|present"
        r"|attendees|reporter|assignee)[\"']?:\s{0,2}[\"']?",
        r"(?![(\[_.=])",
        True,
        (
            "name", "attn", "attention", "author", "from", "signed", "patient", "customer", "client", "contact", "holder", "owner",
            "witness", "present", "attendees", "reporter", "assignee",
        ),
    ),
    Cue(
        r"\b(?i:my name is|my name's|my name’s)[ ]",
        r"",
        True,
        ("my name",),
        SMALL,
    ),
)  # fmt: skip
_PATTERNS: tuple[Any, ...] = tuple(regex.compile(f"{each.before}(?P<name>{each.name}){each.after}") for each in CUES)  # `re` is slower here
_ANY = "|".join(each.screen for each in CUES)
EVERY = tuple(range(len(CUES)))


def cued(texts: pl.Series) -> dict[int, list[int]]:
    """By position of a text the cues that it may hold, ascending; texts that hold none are left out."""
    found: dict[int, list[int]] = {}
    some = np.flatnonzero(texts.str.contains(_ANY).to_numpy())
    held = texts.gather(some)
    for at, cue in enumerate(CUES) if len(some) else ():
        for text in some[held.str.contains(cue.screen).to_numpy()].tolist():
            found.setdefault(text, []).append(at)
    return found


def by_cue(text: str, cues: Sequence[int] = EVERY) -> Iterator[tuple[int, int, float]]:
    """Start, end and score of the names that stand after these cues."""
    first, last = listed()
    folded = text.lower()
    for cue in cues:
        asked = CUES[cue].listed
        for match in _PATTERNS[cue].finditer(text) if any(map(folded.__contains__, CUES[cue].literals)) else ():
            words = [each.span() for each in PARTS[OTHER].finditer(text, *match.span("name"))] or [match.span("name")]
            keys = [key(text[start:end]) for start, end in words]
            size = next((at for at, each in enumerate(keys) if each in NOT_NAMES or each in MAKES_A_PLACE), len(keys))
            if not size or (asked and not (keys[0] in first or (keys[size - 1] in last and (size > 1 or keys[0] not in AMBIGUOUS)))):
                continue
            if text[words[0][0] : words[size - 1][1]].isupper() and size == 1 and words[0][1] - words[0][0] < LONG_SURNAME:
                continue  # an abbreviation: "this is SHA"
            if stands_free(text, words[0][0], words[size - 1][1]):
                yield words[0][0], words[size - 1][1], CUED
