"""Rewards that can be checked: 1.0 if an answer is right, 0.0 if not. The row's own answer is the reference.

`train.reward` is a rule of curate/answers.py (exact, number, regex, json_schema), or python: the row's answer holds tests (asserts), and
the answer's code followed by them ends without an error (see curate/sandbox.py).
"""

from collections.abc import Sequence

import orjson

from curate import answers, sandbox
from curate.record import InputError


def check_reference(kind: str, reference: str) -> None:
    """Raises InputError if no answer could ever be held against this reference."""
    if kind == "number" and answers.number(reference) is None:
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


def score(kind: str, given: Sequence[str], references: Sequence[str]) -> list[float]:
    """A reward for each answer.

    >>> score("number", ["It costs 1,200.50 pounds."], ["#### 1200.5"])
    [1.0]
    >>> score("exact", ["  Yes "], ["yes"])
    [1.0]
    """
    if kind == "python":
        blocks = [answers.code(each) for each in given]
        return [float(ok) for ok in sandbox.passes([f"{code}\n\n{test}\n" for code, test in zip(blocks, references, strict=True)])]
    return [float(answers.is_right(kind, answer, reference)) for answer, reference in zip(given, references, strict=True)]
