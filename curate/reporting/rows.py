"""The dataset's rows as the analyses read them: in batches, without synthetic ones, each with its text and its size."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from curate import record, store

ODD = (
    r"[\x{FFFD}\p{Co}\p{Cn}]"  # replacement characters, private use, not assigned
    r"|[\p{Cc}--[\t\n\r]]"  # control
    r"|[\p{Cf}--[\x{200C}\x{200D}]]"  # invisible and bidirectional marks; joiners belong to Persian, Hindi and emoji
    r"|\p{Latin}[\p{Cyrillic}\p{Greek}]|[\p{Cyrillic}\p{Greek}]\p{Latin}"  # scripts mixed in a word
    r"|[ÂÃ][\x{80}-\x{BF}]"  # UTF-8 read as Latin-1
)
ACTIVE = (
    r"(?im)<(?:script|iframe|object|embed|svg|img|style)\b|\bjavascript:|\bon(?:error|load|click)\s*="  # what a browser would run or fetch
    r"|\{\{.*?\}\}|\{%.*?%\}"  # a template engine
    r"|^\s*=[A-Z]+\("  # a spreadsheet
)
SYNTHETIC = '"synthetic":'  # in the meta of a row that augment made
PLACE = ["id", "source", "line"]


def places(folder: Path) -> pl.DataFrame:
    """`id, source, line, label, split` of all rows, in order, without any text."""
    found = [
        batch.filter(~pl.col("meta").str.contains(SYNTHETIC, literal=True)).select(*PLACE, "label", "split")
        for batch in store.batches(folder, [*PLACE, "label", "meta"])
    ]
    empty = pl.DataFrame(schema={name: pl.Int64() if name == "line" else pl.String() for name in (*PLACE, "label", "split")})
    return pl.concat([empty, *found], rechunk=True)


def batches(folder: Path) -> Iterator[pl.DataFrame]:
    """The same rows in the same order, with `text` (the prompt, else the whole), `chars` (of all messages), `odd` (characters) and
    `active` (places that some program would run)."""
    for batch in store.batches(folder, [*PLACE, "label", "messages", "meta"]):
        rows = batch.filter(~pl.col("meta").str.contains(SYNTHETIC, literal=True))
        if not rows.height:
            continue
        sides = record.prompt_and_answer(rows)
        contents = pl.col("messages").list.eval(pl.element().struct.field("content").fill_null(""))
        yield rows.select(
            *PLACE,
            "label",
            "split",
            pl.select(pl.when(sides["prompt"].str.contains(r"\S")).then(sides["prompt"]).otherwise(sides["answer"]))
            .to_series()
            .alias("text"),
            contents.list.eval(pl.element().str.len_chars()).list.sum().cast(pl.Int64).alias("chars"),
            contents.list.eval(pl.element().str.count_matches(ODD)).list.sum().cast(pl.Int64).alias("odd"),
            contents.list.eval(pl.element().str.count_matches(ACTIVE)).list.sum().cast(pl.Int64).alias("active"),
        )
