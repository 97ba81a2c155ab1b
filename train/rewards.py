"""Rewards that can be checked: 1.0 if an answer is right, 0.0 if not. The row's own answer is the reference.

| train.reward | the row's answer holds | right if |
|---|---|---|
| exact | the answer | equal but for case and white space |
| number | a text that ends with a number | the last number of both is the same |
| regex | a regular expression | it matches the whole answer, white space around it aside |
| json_schema | a JSON schema | the answer, or its first code block, is JSON that fits |
| python | tests (asserts) | the answer's code followed by the tests ends without an error (see train/sandbox.py) |
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import orjson

from curate.record import InputError
from train import sandbox

REWARDS = ("exact", "number", "regex", "json_schema", "python")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
FENCE = re.compile(r"```[\w-]*\n(.*?)```", re.DOTALL)
REGEX_SECONDS = 1.0  # a pattern that backtracks for longer gives no reward


def check_reference(kind: str, reference: str) -> None:
    """Raises InputError if no answer could ever be held against this reference."""
    if kind == "number" and number(reference) is None:
        raise InputError(f"train.reward = number: a row's answer ends with no number: {reference[:60]!r}. Use exact, or mend the row.")
    if kind == "regex":
        import regex

        try:
            regex.compile(reference)
        except regex.error as error:
            raise InputError(f"train.reward = regex: a row's answer is no pattern ({error}): {reference[:60]!r}.") from None
    if kind == "json_schema":
        import jsonschema

        try:
            schema = orjson.loads(reference)
            jsonschema.validators.validator_for(schema).check_schema(schema)
        except (orjson.JSONDecodeError, jsonschema.SchemaError) as error:
            said = str(error).splitlines()[0]
            raise InputError(f"train.reward = json_schema: a row's answer is no JSON schema ({said}): {reference[:60]!r}.") from None


def score(kind: str, answers: Sequence[str], references: Sequence[str]) -> list[float]:
    """A reward for each answer.

    >>> score("number", ["It costs 1,200.50 pounds."], ["#### 1200.5"])
    [1.0]
    >>> score("exact", ["  Yes "], ["yes"])
    [1.0]
    """
    if kind == "python":
        return [float(ok) for ok in sandbox.passes([f"{code(each)}\n\n{test}\n" for each, test in zip(answers, references, strict=True)])]
    return [float(_right(kind, answer, reference)) for answer, reference in zip(answers, references, strict=True)]


def _right(kind: str, answer: str, reference: str) -> bool:
    if kind == "exact":
        return " ".join(answer.casefold().split()) == " ".join(reference.casefold().split())
    if kind == "number":
        found = number(answer)
        return found is not None and found == number(reference)
    if kind == "regex":
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


def _fits_schema(answer: str, reference: str) -> bool:
    import jsonschema

    try:
        jsonschema.validate(orjson.loads(code(answer)), orjson.loads(reference))
    except (orjson.JSONDecodeError, jsonschema.ValidationError, RecursionError):
        return False
    return True
