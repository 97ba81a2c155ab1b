"""Lets one row of each text through; stays behind: rows with the same text after case and space folding.

The text is prompt, answer and rejected answer together. Rows with the same prompt and another answer are no duplicates: they go on,
and `conflicts.parquet` lists them. Which row of a set stays is said in `_better_first`.
"""

import re

import polars as pl
import xxhash

from curate import record
from curate.params import params_class
from curate.stage import Plan, Stage, main


@params_class
class Params:
    """`params.yaml: dedup_exact`."""

    enabled: bool


NARROW = ("id", "source", "line", "whole", "prompt", "answer_chars", "labelled")


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
        sides["answer"].str.len_chars().alias("answer_chars"),
        pl.col("label").is_not_null().alias("labelled"),
    )


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
    """Known rows first; then labelled, then longer answers (folding hides lost white space), then by id, file and line."""
    return narrow.sort("known", "labelled", "answer_chars", "id", "source", "line", descending=[True, True, True, False, False, False])


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Drop every row but the best of each text; list prompts that have several answers."""
    first = ["row", "id", "source", "line", "known"]
    ranked = _better_first(narrow.with_row_index("row")).with_columns(pl.col(first).first().over("whole").name.prefix("kept_"))
    again = ranked.filter((pl.col("row") != pl.col("kept_row")) & ~pl.col("known")).sort("row")
    evidence = pl.struct("kept_id", "kept_source", "kept_line", "kept_known", pl.lit(1.0).alias("similarity")).struct.json_encode()
    drop = again.select(
        "row",
        pl.lit("exact_duplicate").alias("reason"),
        pl.format("Same text as {}:{} after folding case and white space.", "kept_source", "kept_line").alias("detail"),
        evidence.alias("evidence"),
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
