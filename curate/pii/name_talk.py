"""Names that sign a message or are spoken to in it, and names that are words of the language around them."""

from collections.abc import Iterator

import regex

from curate.pii.name_lists import AMBIGUOUS, ELSEWHERE, GIVEN, MAKES_A_PLACE, NOT_NAMES, TELLS
from curate.pii.name_words import NEXT, OTHER, PARTS, WORD, key, listed

SIGNED = 0.85  # score of a signature
LONGEST_LINE = 60  # characters of a signature
_SEEN = 400  # characters of the line before it that are read
_WORD = 30  # characters before a name in which the word before it begins
_NEAR = 160  # characters on either side of a name that are read for whom it speaks to, or in which language
_SIGNATURE = regex.compile(rf"[ \t]*(?:[-–—~*]{{1,2}}[ ]?)?(?P<name>{WORD}(?:{NEXT}){{0,2}})[ ]?[.,!]?(?:[ ]x{{1,3}})?[ \t]*")
_PROSE = regex.compile(r"\b\p{Ll}+\P{L}+\p{Ll}+")  # two words in small letters
# `With thanks,`, `Yours in hope,`
_CLOSING = regex.compile(
    r"[ \t]*(?:With|Yours?|Many|Kind|Best|Warm|Warmest|All|Thanks|Thank|Cheers|Ever|Mit|Avec|Bien|Con|Met|Med)(?:[ ]\p{Ll}+){1,4},[ \t]*"
)
_DASHED = regex.compile(r"[ \t]*[-–—~*]")
_LETTERS = regex.compile(r"\p{L}+")
_SMALL = regex.compile(r"[ ]\p{Ll}")
_BEGINS = regex.compile(r"(?:^|[.!?:…]['\"”»)]?[ ]|[\n\"“«„¿¡(>•*–—-][ ]?)$")
_SPEAKS = regex.compile(r"(?i)\b(?:you|your|yours|sie|ihnen|ihr|ihre|vous|votre|usted|ustedes|lei|uw|você)\b")
_GOES_ON = regex.compile(r",[ ](?:and |but |so )?(?:I|we)\b")
_OPENS = regex.compile(r",[ ](?:I|[Ww]e|[Yy]ou|[Yy]our|thanks|thank you|please|sorry)\b")
# A word in small letters, or the one that begins the sentence, and a comma: not `Werburgh Street, Chester`.
_MID = regex.compile(r"(?:(?<![\p{L}\p{N}])[\p{Ll}\p{N}][\p{L}\p{N}'’\-]*|(?:^|\n|[.!?:]\s)\p{Lu}[\p{Ll}'’]*)[)\"”]?,[ ]$")
_ENDS = regex.compile(r"[.!?](?:\s|['\"”)]|$)|,[ ](?:\p{Ll}|I\b)|[ ]?(?:\n|$)")


def by_signature(text: str) -> Iterator[tuple[int, int, float]]:
    """The last line of a message where it is nothing but a name: a listed first name, which may be a word too (`GIVEN`), alone or with listed
    names after it, behind a line of prose; any name behind a line such as `With thanks,`."""
    end = len(text.rstrip(' \t\r\n"'))
    at = text.rfind("\n", 0, end) + 1
    if not at or end - at > LONGEST_LINE or (match := _SIGNATURE.fullmatch(text, at, end)) is None:
        return
    above = len(text[:at].rstrip())
    line = text[max(text.rfind("\n", 0, above) + 1, above - _SEEN) : above]
    first, last = listed()
    words = [each.span() for each in PARTS[OTHER].finditer(text, *match.span("name"))]
    keys = [key(text[start:end]) for start, end in words]
    if text[at:end].isupper() or (_DASHED.match(text, at) and _DASHED.match(line)):
        return  # a heading; an item of a list
    if not words or any(not each or each in NOT_NAMES or each in MAKES_A_PLACE for each in keys):
        return
    known = keys[0] in first and (keys[0] in GIVEN or keys[0] not in AMBIGUOUS)
    known = known and all(len(each) <= 2 or each in last or each in first for each in keys[1:]) and _PROSE.search(line) is not None
    if known or (not AMBIGUOUS.intersection(keys) and len(keys) < 3 and _CLOSING.fullmatch(line)):
        yield words[0][0], words[-1][1], SIGNED


def spoken_to(text: str, start: int, end: int) -> bool:
    """Whether a word that may be a name stands where somebody is spoken to: `it has ended, Owen.`, `Owen, I am sorry`."""
    if text[max(start - 2, 0) : start] == ", ":
        if not _ENDS.match(text, end) or not _MID.search(text, max(start - _WORD, 0), start):
            return False
        return _GOES_ON.match(text, end) is not None or _SPEAKS.search(text, max(start - _NEAR, 0), end + _NEAR) is not None
    return _BEGINS.search(text, max(start - 3, 0), start) is not None and _OPENS.match(text, end) is not None


def of_language(text: str, start: int, end: int) -> bool:
    """Whether a name's first word is one of the language around it, where a word would stand: before a small letter, or as a sentence begins."""
    word = key(text[start:end].split(" ", 1)[0])
    if word not in ELSEWHERE or not (_SMALL.match(text, end) or _BEGINS.search(text, max(start - 3, 0), start)):
        return False
    words = _LETTERS.findall(text[max(start - _NEAR, 0) : end + _NEAR].lower())
    count = {each: sum(other in TELLS[each] and other != word for other in words) for each in ("en", *ELSEWHERE[word])}
    return any(count[each] > count["en"] for each in ELSEWHERE[word])
