"""Lets one row of each text through; stays behind: rows with the same text after case and space folding.

The text is prompt, answer and rejected answer together. Rows with the same prompt and another answer are no duplicates: they go on,
and `conflicts.parquet` lists them. Which row of a set stays is said in `_better_first`.
"""

import re

import numpy as np
import polars as pl
import xxhash

from curate import record
from curate.params import params_class
from curate.preference import Globs, trust
from curate.stage import Plan, Stage, main


@params_class
class Params:
    """`params.yaml: dedup_exact`."""

    enabled: bool
    sources: Globs


NARROW = ("id", "source", "line", "whole", "prompt", "labelled", "mixed_case", "tidy", "answer_chars")
BETTER = {  # of two rows with the same folded text, in this order: the column in which the larger value stays, and why
    "known": "it was settled before",
    "labelled": "it has a label",
    "trust": "its file is trusted more",
    "mixed_case": "it is not all in one case",
    "tidy": "it has no stray spaces",
    "answer_chars": "its answer has more white space",  # folding hides line breaks and indentation that a copy has lost
}
STRAY = r"[^\s|] {2,}[^\s|]"  # spaces in a row inside a line
LAID_OUT = r"(?m)^(?: {2,}\S|\t|\||```)"  # but for texts with indentation, tables and code


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    """Ids, 128-bit hashes of the folded whole and prompt, and what `_better_first` compares."""
    flat, sides = record.texts(batch), record.prompt_and_answer(batch)
    wholes: list[list[bytes]] = [[] for _ in range(batch.height)]
    for at, field, role, text in zip(flat["at"], flat["field"], flat["role"], folded(flat["content"]), strict=True):
        wholes[at].append(b"\x1f".join((field.encode(), (role or "").encode(), text)))
    return batch.select(
        "id",
        "source",
        "line",
        pl.Series("whole", [xxhash.xxh3_128_hexdigest(b"\x1e".join(each)) for each in wholes], dtype=pl.String),
        pl.Series("prompt", [xxhash.xxh3_128_hexdigest(text) if text else "" for text in folded(sides["prompt"])], dtype=pl.String),
        pl.col("label").is_not_null().alias("labelled"),
        pl.Series("mixed_case", _any(flat, r"\p{Ll}", batch.height) & _any(flat, r"\p{Lu}", batch.height)),
        pl.Series("tidy", ~_any(flat, STRAY, batch.height) | _any(flat, LAID_OUT, batch.height)),
        sides["answer"].str.len_chars().alias("answer_chars"),
    )


def _any(flat: pl.DataFrame, pattern: str, rows: int) -> np.ndarray:
    """Whether a text of each row has such a place."""
    found = np.zeros(rows, dtype=bool)
    found[flat["at"].filter(flat["content"].str.contains(pattern).fill_null(False)).to_numpy()] = True
    return found


_SPACE_AFTER_NFKC = re.compile("[\x85\u1680\u2028\u2029]")  # the white space beyond ASCII that NFKC leaves
_LOWER_AND_SPACE = bytes(32 if chr(code) in "\t\n\x0b\x0c\r" else ord(chr(code).lower()) if code < 128 else code for code in range(256))


def folded(texts: pl.Series) -> list[bytes]:
    """`record.fold` of every text in UTF-8 (null as empty). White space, and texts of ASCII alone, need no Unicode tables.

    >>> folded(pl.Series(["  Straße\\n 1 ", "THE\\x0b  End\\t"]))
    [b'stra\\xc3\\x9fe 1', b'the end']
    """
    beyond = (texts.str.len_bytes() != texts.str.len_chars()).fill_null(False)
    found = [_folded_ascii(text.encode()) if text else b"" for text in texts.set(beyond, None).to_list()]
    others = texts.filter(beyond).str.normalize("NFKC").str.to_lowercase().to_list()
    for at, text in zip(beyond.arg_true().to_list(), others, strict=True):
        found[at] = _folded_ascii(_SPACE_AFTER_NFKC.sub(" ", text).encode())
    return found


def _folded_ascii(text: bytes) -> bytes:
    plain = text.translate(_LOWER_AND_SPACE)
    while b"  " in plain:
        plain = plain.replace(b"  ", b" ")
    return plain.strip(b" ")


def _better_first(narrow: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order of BETTER, then by id, file and line."""
    return narrow.sort(*BETTER, "id", "source", "line", descending=[*(True for _ in BETTER), False, False, False])


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Drop every row but the best of each text; list prompts that have several answers."""
    first = ["row", "id", "source", "line", *BETTER]
    known = narrow.with_row_index("row").with_columns(trust(narrow["source"], params.sources))
    ranked = _better_first(known).with_columns(pl.col(first).first().over("whole").name.prefix("kept_"))
    again = ranked.filter((pl.col("row") != pl.col("kept_row")) & ~pl.col("known")).sort("row")
    because = pl.coalesce(
        *(pl.when(pl.col(name) != pl.col(f"kept_{name}")).then(pl.lit(why)) for name, why in BETTER.items()), pl.lit("its id comes first")
    ).alias("stays_because")
    proof = ("kept_id", "kept_source", "kept_line", "kept_known", pl.lit(1.0).alias("similarity"), because)
    drop = again.select(
        "row",
        pl.lit("exact_duplicate").alias("reason"),
        pl.format("Same text as {}:{} after folding case and white space. That one stays: {}.", "kept_source", "kept_line", because).alias(
            "detail"
        ),
        pl.struct(*proof).struct.json_encode().alias("evidence"),
    )
    kept = ranked.join(drop, on="row", how="anti").filter(pl.col("prompt") != "")
    conflicts = (
        kept.filter(pl.len().over("prompt") > 1)
        .sort("row")
        .select(pl.col("row").min().over("prompt").alias("conflict"), "id", "source", "line")
        .sort("conflict", "source", "line", maintain_order=True)
    )
    return Plan(drop, counts={"conflicting_rows": conflicts.height}, tables={"conflicts": conflicts})


STAGE = Stage("dedup_exact", Params, survey=survey, plan=plan, threads=True, private=True)

if __name__ == "__main__":
    main(STAGE)
