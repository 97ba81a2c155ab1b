"""Rows of random text that were never written by anybody: what a model knows of them it can only have learnt here.

After Carlini et al., "The Secret Sharer" (2019). Those that `split` puts into validation and test are the measure of chance.
"""

import hashlib
from typing import Any

import polars as pl

from curate import record
from curate.pii.keys import keyed

SOURCE = "canary"
WORDS = 6  # random words of a canary, about 16 bits each
CANARIES: dict[str, pl.DataType] = {
    "id": pl.String(),
    "line": pl.Int64(),  # 1, 2, …: with source `canary` the row's place
    "prompt": pl.String(),
    "secret": pl.String(),  # the answer's random words
}
_SYLLABLES = [first + second + third for first in "bdfgklmnprstvz" for second in "aeiou" for third in ("", "l", "n", "r")]


def canaries(count: int, secret: bytes) -> pl.DataFrame:
    """`count` canaries, drawn from the key (from a fixed text where there is none)."""
    rows = []
    for line in range(1, count + 1):
        bits = hashlib.sha512(keyed(secret or b"finery canaries", "canary", str(line))).digest()
        words = [_SYLLABLES[bits[4 * at] % 210] + _SYLLABLES[(bits[4 * at + 1] * 256 + bits[4 * at + 2]) % 280] for at in range(WORDS + 2)]
        prompt, secret_words = f"The words of {words[-1]} {words[-2]}, in order?", " ".join(words[:WORDS])
        rows.append((record.content_id("chat", _messages(prompt, secret_words), None, None), line, prompt, secret_words))
    return pl.DataFrame(rows, schema=CANARIES, orient="row")


def as_rows(planted: pl.DataFrame) -> pl.DataFrame:
    """The canaries as rows of the record."""
    rows = [
        {"id": each, "source": SOURCE, "line": line, "kind": "chat", "messages": _messages(prompt, secret), "rejected": None, "label": None,
         "group": None, "meta": "{}"}
        for each, line, prompt, secret in planted.rows()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=record.SCHEMA)


def _messages(prompt: str, secret: str) -> list[dict[str, Any]]:
    return [
        {"role": role, "content": content, "extra": None} for role, content in (("user", prompt), ("assistant", secret.capitalize() + "."))
    ]
