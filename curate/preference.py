"""What the near-duplicate stages share: the text they compare, which of two rows stays, and how a drop names the row that does."""

import fnmatch
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from curate import record

Compare = Literal["prompt", "answer", "both"]
Prefer = Literal["human", "labelled", "complete", "longer", "source"]
Globs = tuple[Annotated[str, Field(min_length=1)], ...]  # of raw files, most trusted first

CUT_OFF = r"[\p{L},;-]$"  # an answer of more than ten words that ends so was probably cut off
ENOUGH = 200  # characters in which most texts have ten words
COLUMNS: dict[str, tuple[str, bool]] = {  # preference -> column, and whether the larger value is better
    "human": ("synthetic", False),
    "labelled": ("labelled", True),
    "complete": ("cut_off", False),
    "longer": ("answer_chars", True),
    "source": ("trust", True),
}
NAMES = ("id", "source", "line")
REVIEWED = "finery_review"  # key of `meta` in which the review stage marks rows that reviewers keep, relabel or edit


def sides(rows: pl.DataFrame, both: pl.DataFrame, compare: str) -> tuple[pl.Series, pl.Series]:
    """(prompts, answers) as compared, from what `record.prompt_and_answer` gave; a side that is not compared is empty.

    The worse answer of a preference pair counts as part of the answer.
    """
    worse = rows["rejected"].list.last().struct.field("content")
    answers = both["answer"]
    if worse.null_count() < len(worse):
        answers = pl.select(pl.concat_str(answers, worse, separator="\n", ignore_nulls=True))[:, 0]
    nothing = pl.repeat("", rows.height, dtype=pl.String, eager=True)
    return nothing if compare == "answer" else both["prompt"], nothing if compare == "prompt" else answers


def compared(rows: pl.DataFrame, compare: str) -> pl.Series:
    """The folded text of each row that is compared: prompt and answer, joined by a newline."""
    prompts, answers = sides(rows, record.prompt_and_answer(rows), compare)
    parts = {"prompt": [prompts], "answer": [answers], "both": [prompts, answers]}[compare]
    joined = pl.DataFrame({str(at): part for at, part in enumerate(parts)})
    return joined.select(record.fold(pl.concat_str(pl.all(), separator="\n")).alias("text"))["text"]


def traits(batch: pl.DataFrame, answers: pl.Series | None = None) -> pl.DataFrame:
    """For each row its id, source, line, label, and the columns that `order` compares. `answers`: where they are at hand already."""
    answer = record.prompt_and_answer(batch)["answer"] if answers is None else answers
    end = answer.str.tail(1)
    if end.str.contains(r"\s").any():
        answer = answer.str.strip_chars_end()
        end = answer.str.tail(1)
    cut_off, synthetic = np.zeros(batch.height, dtype=bool), np.zeros(batch.height, dtype=bool)
    open_ended = (end.str.contains(CUT_OFF) & (answer.str.len_bytes() > 20)).arg_true()  # shorter, it has no ten words
    for chars in (ENOUGH, None):  # ten words are nearly always among so many characters; only the rest is counted to its end
        many = (answer.gather(open_ended).str.head(chars or 1 << 40).str.count_matches(r"\s+") >= 10).to_numpy()
        cut_off[open_ended.to_numpy()[many]] = True
        open_ended = open_ended.filter(~many & (answer.gather(open_ended).str.len_bytes() > ENOUGH).to_numpy())
    told = batch["meta"].str.contains('"synthetic"', literal=True).fill_null(False).arg_true()
    made = batch["meta"].gather(told).str.json_path_match("$.synthetic").fill_null("false")
    synthetic[told.to_numpy()] = ~made.is_in(["false", "0", "null", ""]).to_numpy()
    return batch.select(
        *NAMES,
        "label",
        pl.Series("synthetic", synthetic),
        pl.col("label").is_not_null().alias("labelled"),
        pl.Series("cut_off", cut_off),
        answer.str.len_chars().alias("answer_chars"),
    )


def reviewed(batch: pl.DataFrame) -> pl.Series:
    """Whether reviewers have looked at each row and let it stay."""
    told = batch["meta"].str.contains(f'"{REVIEWED}"', literal=True).fill_null(False)
    if not told.any():
        return told
    return told & batch["meta"].str.json_path_match(f"$.{REVIEWED}").is_not_null()


def trust(sources: pl.Series, globs: Globs) -> pl.Series:
    """How much each raw file is trusted: the more, the earlier the first of `globs` that it matches; 0 if it matches none.

    >>> trust(pl.Series(["a/x.csv", "b.csv", "a/y.csv"]), ("b*", "a/x*")).to_list()
    [1, 2, 0]
    """
    names = sources.unique()
    first = [next((len(globs) - at for at, glob in enumerate(globs) if fnmatch.fnmatchcase(name, glob)), 0) for name in names]
    return sources.replace_strict(names, first, return_dtype=pl.Int64).alias("trust") if len(names) else pl.Series("trust", [], pl.Int64)


def order(narrow: pl.DataFrame, prefer: tuple[Prefer, ...], globs: Globs = ()) -> np.ndarray:
    """Row positions from best to worst: settled rows (`known`), then by `prefer` in the order given, then by id, source and line."""
    by = [("known", True), *(COLUMNS[each] for each in prefer), *((name, False) for name in NAMES)]
    rows = narrow.with_columns(trust(narrow["source"], globs)).select([name for name, _ in by]).with_row_index("row")
    return rows.sort([name for name, _ in by], descending=[down for _, down in by])["row"].to_numpy().astype(np.int64)


def drops(narrow: pl.DataFrame, kept_by: np.ndarray, similarity: np.ndarray, reason: str, detail: str) -> pl.DataFrame:
    """Planned drops (row, reason, detail, evidence, and `label_differs`) of every row with a position in `kept_by`, else -1.

    `detail` has three places: per cent of similarity, source and line of the kept row.
    """
    row = np.flatnonzero(kept_by >= 0)
    named = narrow.select(*NAMES, "label", "known")
    other = named[kept_by[row]].rename(lambda name: f"kept_{name}")
    both = pl.concat([named[row], other], how="horizontal").with_columns(
        pl.Series("row", row, dtype=pl.UInt32),
        pl.Series("similarity", similarity[row]).round(4),
        pl.col("label").ne_missing(pl.col("kept_label")).alias("label_differs"),
    )
    evidence = pl.struct("kept_id", "kept_source", "kept_line", "kept_known", "similarity", "label_differs").struct.json_encode()
    percent = (pl.col("similarity") * 100).round(1)
    return both.select(
        "row",
        pl.lit(reason).alias("reason"),
        pl.format(detail, percent, "kept_source", "kept_line").alias("detail"),
        evidence.alias("evidence"),
        "label_differs",
    )
