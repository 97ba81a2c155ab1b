"""When an answer counts as right: one rule each, for rewards in training and for metrics in evaluation.

| rule | the reference holds | right if |
|---|---|---|
| exact | the answer | equal but for case and white space |
| number | a text that ends with a number | the last number of both is the same |
| regex | a regular expression | it matches the whole answer, white space around it aside |
| json_schema | a JSON schema | the answer, or its first code block, is JSON that fits |
"""

import re
from decimal import Decimal, InvalidOperation

import orjson

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
FENCE = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)
REGEX_SECONDS = 1.0  # a pattern that backtracks for longer does not match


def is_right(rule: str, answer: str, reference: str) -> bool:
    """Whether an answer is right by one of the rules above.

    >>> is_right("number", "It costs 1,200.50 pounds.", "#### 1200.5"), is_right("exact", "  Yes ", "yes")
    (True, True)
    """
    if rule == "exact":
        return " ".join(answer.casefold().split()) == " ".join(reference.casefold().split())
    if rule == "number":
        found = number(answer)
        return found is not None and found == number(reference)
    if rule == "regex":
        import regex

        try:
            return regex.fullmatch(reference, answer.strip(), timeout=REGEX_SECONDS) is not None
        except TimeoutError:
            return False
    return _fits_schema(answer, reference)


def number(text: str) -> Decimal | None:
    """The last number in a text; commas between digits are not read.

    >>> number("first 3, then -1,000")
    Decimal('-1000')
    """
    found = NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None


def code(answer: str) -> str:
    """The first fenced block of an answer, or all of it."""
    fenced = FENCE.search(answer)
    return fenced.group(1) if fenced else answer


def is_json(answer: str) -> bool:
    """Whether an answer, or its first code block, is JSON."""
    try:
        orjson.loads(code(answer))
    except orjson.JSONDecodeError:
        return False
    return True


def _fits_schema(answer: str, reference: str) -> bool:
    import jsonschema

    try:
        jsonschema.validate(orjson.loads(code(answer)), orjson.loads(reference))
    except (orjson.JSONDecodeError, jsonschema.ValidationError, RecursionError):
        return False
    return True
