"""What rows are compared by when leaks are looked for: the narrow columns that split, augment and leakage survey."""

import polars as pl

from curate import ngrams, record, shingle

LIKENESS = ("asked", "shingles", "grams")


def likeness(rows: pl.DataFrame, n: int) -> pl.DataFrame:
    """One row for each of `rows`: `asked` (u64 hash of what was asked, 0 if nothing was), `shingles` (the sets of prompt and answer),
    `grams` (list[u64], distinct word n-grams of what was asked).

    What was asked is the folded prompt; of a plain document, which asks nothing, it is the document.
    """
    sides = record.prompt_and_answer(rows)
    asked = pl.when(pl.col("prompt") == "").then("answer").otherwise("prompt")
    folded = sides.select(record.fold(asked).alias("asked"), record.fold(pl.concat_str("prompt", "answer", separator="\n")).alias("whole"))
    return pl.DataFrame(
        {
            "asked": folded.select(text_hash(pl.col("asked")).alias("asked"))["asked"],
            "shingles": shingle.shingles(sides["prompt"], sides["answer"]),
            "grams": ngrams.grams(folded["asked"], n),
        }
    )


def text_hash(folded: pl.Expr) -> pl.Expr:
    """64-bit hash of folded text, 0 for an empty one."""
    return pl.when(folded == "").then(pl.lit(0, dtype=pl.UInt64)).otherwise(folded.hash(seed=0))


def same(values: pl.Series) -> tuple[list[int], list[int]]:
    """Pairs of positions (first of its value, another of it) that tie together all rows with the same value; null ties nothing."""
    first = pl.DataFrame({"value": values}).with_row_index("row").filter(pl.col("value").is_not_null())
    pairs = first.with_columns(pl.col("row").min().over("value").alias("first")).filter(pl.col("row") != pl.col("first"))
    return pairs["first"].to_list(), pairs["row"].to_list()
