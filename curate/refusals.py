"""Tells boilerplate refusals of an assistant from an agent's honest "I can't see the payment yet, but …".

Patterns are anchored to the beginning of one of the first two sentences. Sure signs (an AI speaking of itself, its guidelines) count
alone; general phrases ("can't help with that") count only where no help follows.
"""

import re

# A text without any of these words is not looked at further. Polars regular expression.
SUSPECT = (
    r"(?i)\b(can['’]?t|can ?not|unable|not able|won['’]t|will not|declin\w+|apolog\w+|sorry|afraid|unfortunately|language model|a\.?i"
    r"|artificial intelligence|don['’]t have|do not have|against my|violat\w+|not comfortable|inappropriate|unethical"
    r"|not (be )?(appropriate|ethical|allowed|permitted|programmed|designed)|refuse)\b"
)
HEAD_CHARS = 600
GENERAL_MAX_WORDS = 40  # with a general phrase, longer answers go on to help

_CONTRACTIONS = (
    ("’", "'"),
    ("i'm ", "i am "),
    ("can't", "cannot"),
    ("can not", "cannot"),
    ("won't", "will not"),
    ("don't", "do not"),
    ("it's ", "it is "),
    ("isn't", "is not"),
    ("wouldn't", "would not"),
    ("couldn't", "could not"),
    ("i'd ", "i would "),
)
_OPENER = (
    r"(?:(?:hi|hello|well|ok|okay|thanks?(?: you)?(?: for [^.!?,]{1,60})?)[,.!]? )?"
    r"(?:(?:i am (?:\w+ ){0,2}(?:sorry|afraid)|(?:(?:very|so|really) )?sorry|i apologi[sz]e|(?:my |please accept my )?(?:\w+ )?apologies"
    r"|i regret(?: to (?:say|tell you|inform you))?|unfortunately|regrettably)(?: for (?:the|any) \w+)?[ ,.;:!–—-]*)?"
    r"(?:(?:that|but|however|and|so|unfortunately|at this time|currently)[, ]+)*"
)
_CANNOT = (
    r"i (?:(?:really|simply|just|also|currently|still|do|am) )*"
    r"(?:cannot|could not|unable to|not able to|not (?:allowed|permitted|programmed|designed) to|will not(?: be able to)?"
    r"|would not be able to|not comfortable|(?:do not|not) have the (?:ability|capability|capacity)(?: to)?) "
)
_AI = r"(?:\w+ ){0,2}(?:a\.?i\.?|artificial intelligence|language model|chat ?bot|virtual assistant)(?!\w)"
_HELP = (
    r"(?:help|assist|answer|respond|fulfill?|complete|provide|generate|create|write|produce|discuss|engage|participate|continue|support"
    r"|do|share|give|offer)"
)
_THAT = (  # "that", "with this kind of request", "to your question", with nothing more said about it
    r"(?:(?:you|with|to|on|in|about|any|further|for) )*(?:that|this|these|those|such|your|it)\b(?: (?:one|type|kind|sort)(?: of)?)?"
    r"(?: (?:requests?|questions?|quer(?:y|ies)|tasks?|topics?|content|matters?|inquir(?:y|ies)|material|subjects?|conversation"
    r"|activit(?:y|ies)|thing|time|information))?"
    r"(?= ?(?:[.,;:!?–—-]|$|as\b|because\b|since\b|so\b|but\b|at this\b|or\b|here\b|right now\b))"
)
_SURE = {
    "speaks_as_ai": (
        rf"(?:as an? {_AI}|i am (?:just |only |merely )?an? {_AI})[^.!?]*?"
        r"\b(?:i (?:do not|cannot|am unable|am not|have no|lack|must|will not|was not)\b|it is not|my )"
    ),
    "must_decline": (
        r"i (?:must|have to|will have to|need to|am going to have to|would have to) "
        r"(?:respectfully |politely |regretfully )?(?:decline|refuse)\b"
    ),
    "cannot_fulfil": rf"{_CANNOT}(?:fulfill?|comply|honou?r)\b",
    "own_rules": (
        r"[^.!?]*\b(?:against|violat\w+) (?:my|openai's|the content|content|usage|community) "
        r"(?:\w+ )?(?:programming|guidelines|polic(?:y|ies)|principles|rules|training)"
    ),
    "own_limits": (
        r"i (?:(?:do not|cannot) (?:have personal (?:opinions|feelings|beliefs|experiences|preferences)|browse the (?:internet|web)"
        r"|have access to (?:the internet|real-?time))|was (?:only )?trained on data)"
    ),
    "advice": (
        rf"{_CANNOT}(?:provide|offer|give)(?: you)?(?: with)?(?: any)? (?:\w+ ){{0,2}}advice\b"
        r"(?=.{0,200}\b(?:consult|professional|qualified|licensed|expert))"
    ),
    "not_proper": (
        r"(?:it (?:is|would be) (?:not appropriate|inappropriate|unethical|not ethical)|it would not be (?:appropriate|ethical)) "
        r"(?:for me )?to (?:provide|generate|create|write|give|assist|help|answer|engage|discuss)"
    ),
}
_GENERAL = {
    "cannot_help_with_that": rf"{_CANNOT}{_HELP} {_THAT}",
    "cannot_help": rf"{_CANNOT}(?:help|assist)(?: you)?(?= ?(?:[.!?]|$))",
    "cannot_generate": rf"{_CANNOT}(?:generate|create|write|produce|engage in|participate in|discuss|assist with|help with)\b",
}
_SURE_PATTERNS = tuple((name, re.compile(_OPENER + pattern)) for name, pattern in _SURE.items())
_GENERAL_PATTERNS = tuple((name, re.compile(_OPENER + pattern)) for name, pattern in _GENERAL.items())
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_AFTER_ALL = re.compile(
    r"\b(?:but|however|instead|though|although|what i can do)\b[^.!?]{0,40}?"
    r"\b(?:you|we|our|the|here|try|ask|call|they|it|once|if|i (?:can|have|could|will))\b"
)
_SOMETHING_ELSE = re.compile(
    r"\b(?:something|anything|someone) else|\bother (?:questions?|topics?|requests?|matters?|ways?|things?)"
    r"|\bdifferent (?:question|topic|request)|\bgoes against|\bagainst my"
)


def refusal(answer: str, max_words: int) -> tuple[str, int] | None:
    """(name of the pattern, words of the answer) if `answer` is a boilerplate refusal of at most `max_words` words.

    >>> refusal("I'm sorry, but I can't help with that.", 100)
    ('cannot_help_with_that', 8)
    >>> refusal("I can't see the payment yet, but it can take two days.", 100)
    """
    words = len(answer.split())
    if words > max_words:
        return None
    text = " ".join(answer[:HEAD_CHARS].lower().split())
    for short, full in _CONTRACTIONS:
        text = text.replace(short, full)
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))][:2]
    for name, pattern in _SURE_PATTERNS:
        if any(pattern.match(text[start:]) for start in starts):
            return name, words
    if words > min(GENERAL_MAX_WORDS, max_words):
        return None
    for name, pattern in _GENERAL_PATTERNS:
        for start in starts:
            found = pattern.match(text[start:])
            if found and not _helps_after_all(text[start + found.end() :]):
                return name, words
    return None


def _helps_after_all(rest: str) -> bool:
    return any(_AFTER_ALL.search(sentence) and not _SOMETHING_ELSE.search(sentence) for sentence in _SENTENCE_END.split(rest))
