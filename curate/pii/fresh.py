"""Personal data that a text brings into a row: what scrub's detectors find in it and the row, as it was shown, does not hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from curate.pii.engine import find_many
from curate.pii.settings import ScrubParams
from curate.pii.slots import language_of, slots
from curate.record import InputError


def finder(row: Mapping[str, Any], params: ScrubParams) -> Callable[[Sequence[str]], list[str]]:
    """A function from texts to the kinds of personal data (sorted) that are new in them, seen beside `row` (record columns, after scrub).

    What stands in the row already, such as the fake values that scrub put in, is not new. It finds nothing where `scrub.enabled` is false.
    It raises InputError for a text that cannot be searched.
    """

    def found(texts: Sequence[str]) -> list[str]:
        if not params.enabled:
            return []
        before = "\n".join([*(slot.text for slot in slots(dict(row))), row["label"] or "", row["group"] or ""])
        kinds = set()
        for text, findings in zip(texts, find_many(list(texts), params, language_of(row)), strict=True):
            if isinstance(findings, Exception):
                raise InputError(f"a text of {len(text):,} characters could not be searched for personal data ({type(findings).__name__}).")
            kinds |= {each.entity for each in findings if text[each.start : each.end] not in before}
        return sorted(kinds)

    return found
