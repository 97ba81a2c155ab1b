"""Rows that a person should look at before training: probable label errors, outliers, conflicts, pieces of benchmarks, near misses,
the longest, odd characters, active content. For every kind the most suspicious `rows`, in data/report/suspicious.parquet: places,
numbers and sentences, never text of a row. Made from the dataset's rows in passes over their parts: memory does not grow with the texts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import polars as pl
from pydantic import Field
from threadpoolctl import threadpool_limits

from curate import record
from curate.params import params_class
from curate.reporting import label_errors, rows, wordvectors
from curate.reporting.gather import Stage
from curate.reporting.label_errors import Beliefs, Judged
from curate.reporting.outliers import Sample, outliers, sample
from curate.reporting.rows import PLACE

KINDS = ("label_error", "outlier", "conflict", "near_leak", "near_miss", "longest", "odd_characters", "active_content")
SCHEMA = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "kind": pl.String(),
    "score": pl.Float64(),  # 0 to 1, higher is more suspicious; comparable within a kind
    "detail": pl.String(),  # a sentence without text of the row
    "suggestion": pl.String(),  # another label, or null
    "other_source": pl.String(),  # the row that it conflicts with or resembles, or null
    "other_line": pl.Int64(),  # the last column is `label`, the row's own
}
FITTED = 50_000  # rows that the classifier learns from, chosen by hash of the id; all rows are judged
LONG_SHARE = 0.01  # of the rows are called long: those longer than all others


@params_class
class Settings:
    """`params.yaml: report.suspicious`."""

    rows: Annotated[int, Field(ge=1, le=10_000)]
    sample: Annotated[int, Field(ge=0)]
    vectors: Annotated[str, Field(min_length=1)] | None


@dataclass(frozen=True)
class Found:
    """`rows`: the table of suspicious rows. `about`: what was looked at, in counts. `looked`: a sample of all rows, with vectors."""

    rows: pl.DataFrame
    about: dict[str, Any]
    looked: Sample
    weights: np.ndarray  # of the word vectors


def find(final: Path, stages: dict[str, Stage], settings: Settings) -> Found:
    """What is suspicious in the dataset in `final`. The same rows give the same bytes on any number of threads."""
    with threadpool_limits(1):
        known = rows.places(final)
        weights, sized = _survey(final, known)
        judged, about = _labels(final, known, weights, settings.rows)
        looked = sample(final, known, weights, stages, settings)
        far, sampled = outliers(looked, known.height)
    every = known.select(PLACE).hstack(sized)
    kinds = [
        judged,
        far,
        _conflicts(stages),
        _near_leaks(stages),
        _near_misses(stages),
        _longest(every),
        _marked(
            every.filter(pl.col("odd") > 0),
            "odd_characters",
            (pl.col("odd") / pl.col("chars")).clip(0, 1),
            pl.format("{} of its {} characters are damaged, invisible, or of another script than the rest of their word.", "odd", "chars"),
        ),
        _marked(
            every.filter(pl.col("active") > 0),
            "active_content",
            pl.col("active") / (pl.col("active") + 1),
            pl.format("{} place(s) that a browser, a template engine or a spreadsheet would run. They are kept as text.", "active"),
        ),
    ]
    found = [_complete(each) for each in kinds]
    still = pl.concat(found).join(known.select(*PLACE, "label"), on=PLACE, how="inner").with_columns(pl.col("score").clip(0, 1).round(4))
    once = still.sort("kind", "score", *PLACE, descending=[False, True, False, False, False]).unique(
        ["kind", *PLACE], keep="first", maintain_order=True
    )
    counts = dict(once.group_by("kind").len().rows()) | {"label_error": about["labels"]["better"]}
    shown = once.group_by("kind", maintain_order=True).head(settings.rows)
    listed = dict(shown.group_by("kind").len().rows())
    order = shown.with_columns(pl.col("kind").replace_strict(list(KINDS), range(len(KINDS)), return_dtype=pl.Int64).alias("at"))
    about |= {
        "rows": known.height,
        "kinds": {kind: {"found": counts.get(kind, 0), "listed": listed.get(kind, 0)} | _beside(once, kind) for kind in KINDS},
        "outliers": sampled,
    }
    return Found(order.sort("at", maintain_order=True).select([*SCHEMA, "label"]), about, looked, weights)


def _beside(found: pl.DataFrame, kind: str) -> dict[str, Any]:
    """The two files (or the one) whose rows of a kind most often stand beside each other, and in how many rows; empty for other kinds."""
    files = pl.concat_list("source", "other_source").list.unique().list.sort()
    pairs = found.filter((pl.col("kind") == kind) & pl.col("other_source").is_not_null()).group_by(files.alias("files")).len("rows")
    most = pairs.sort(["rows", "files"], descending=[True, False]).head(1).to_dicts()
    return {"beside": most[0]} if most else {}


def _complete(table: pl.DataFrame) -> pl.DataFrame:
    """With the columns of SCHEMA, null where it has none."""
    return table.select((pl.col(name) if name in table.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in SCHEMA.items())


def _survey(final: Path, known: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """(weights of word vectors, by a sample of the rows; `chars`, `odd` and `active` of all rows, in the order of `known`)."""
    member, at, counted, sized = _smallest(known["id"], np.ones(known.height, dtype=bool), FITTED), 0, wordvectors.Frequencies(), []
    for batch in rows.batches(final):
        counted.add(batch["text"].filter(pl.Series(member[at : at + batch.height])))
        at += batch.height
        sized.append(batch.select("chars", "odd", "active"))
    return counted.weights(), pl.concat([pl.DataFrame(schema=dict.fromkeys(("chars", "odd", "active"), pl.Int64)), *sized], rechunk=True)


def _smallest(ids: pl.Series, allowed: np.ndarray, most: int) -> np.ndarray:
    """Which `most` of the allowed rows have the smallest hashes: a sample that belongs to the rows, not to their order."""
    chosen, at = np.zeros(len(ids), dtype=bool), np.flatnonzero(allowed)
    chosen[at[np.argsort(record.draws(ids)[at], kind="stable")[:most]]] = True
    return chosen


def _labels(final: Path, known: pl.DataFrame, weights: np.ndarray, most: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Probable label errors among all rows, and how many rows and labels were judged."""
    counts = known["label"].drop_nulls().value_counts().sort(["count", "label"], descending=[True, False])
    names = counts.filter(pl.col("count") >= label_errors.LEAST)["label"].head(label_errors.MOST_LABELS)
    numbers = (
        known.select(pl.col("label").replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64)).to_series().to_numpy()
    )
    judged_rows = int((numbers >= 0).sum())
    about = {"judged": len(names), "not_judged": counts.height - len(names), "rows": judged_rows, "better": 0, "sure": 0, "agree": 0.0}
    about["guessed"] = round(counts["count"][0] / judged_rows, 4) if judged_rows else 0.0  # right by always naming the most frequent
    if len(names) < 2:
        return known.head(0).with_columns(*_nothing()), {"labels": about}
    member = _smallest(known["id"], numbers >= 0, FITTED)
    sums = label_errors.Sums(wordvectors.DIMENSIONS, len(names))
    _each(final, member, lambda at, texts: sums.add(wordvectors.vectors(texts, weights), numbers[at]))
    classifier = sums.solve()

    def scores(at: np.ndarray, texts: pl.Series) -> np.ndarray:
        return classifier.scores(wordvectors.vectors(texts, weights), numbers[at], member[at])

    first = _smallest(known["id"], member, label_errors.CALIBRATED)
    tried: list[np.ndarray] = []
    _each(final, first, lambda at, texts: tried.append(scores(at, texts)))
    heat = label_errors.temperature(np.concatenate(tried), numbers[first])
    believed: list[Beliefs] = []
    _each(final, numbers >= 0, lambda at, texts: believed.append(Beliefs.of(label_errors.softmax(scores(at, texts), heat), numbers[at])))
    beliefs, labels = Beliefs.joined(believed), numbers[numbers >= 0]
    judged = label_errors.judge(beliefs, labels, len(names))
    agree = float((beliefs.own > beliefs.probable[:, 0]).mean())
    about |= {"better": int((judged.better >= 0).sum()), "sure": int(judged.sure.sum()), "agree": round(agree, 4)}
    return _label_rows(known.filter(pl.Series(numbers >= 0)), judged, beliefs, names, most), {"labels": about}


def _each(final: Path, wanted: np.ndarray, work: Callable[[np.ndarray, pl.Series], None]) -> None:
    """Call `work` with the positions and texts of the wanted rows, batch by batch."""
    first = 0
    for batch in rows.batches(final):
        at = np.flatnonzero(wanted[first : first + batch.height])
        if len(at):
            work(at + first, batch["text"].gather(at))
        first += batch.height


def _nothing() -> tuple[pl.Expr, ...]:
    return tuple(pl.lit(None, dtype=SCHEMA[name]).alias(name) for name in ("kind", "score", "detail", "suggestion"))


def _label_rows(known: pl.DataFrame, judged: Judged, beliefs: Beliefs, names: pl.Series, most: int) -> pl.DataFrame:
    """Rows for which another label is more probable than their own: the `most` with the highest scores, and ties."""
    at, score = np.flatnonzero(judged.better >= 0), judged.score.round(4)
    if len(at) > most:
        at = at[score[at] >= np.partition(score[at], -most)[-most]]
    better = beliefs.probable[np.arange(len(beliefs.own)), (beliefs.others == judged.better[:, None]).argmax(axis=1)]
    return known[at].select(*PLACE, "label").with_columns(
        pl.lit("label_error").alias("kind"),
        pl.Series("score", judged.score[at]),
        pl.Series("own", (100 * beliefs.own[at]).round().astype(np.int64)),
        pl.Series("better", (100 * better[at]).round().astype(np.int64)),
        pl.Series("sure", judged.sure[at]),
        names.gather(judged.better[at]).alias("suggestion"),
    ).with_columns(
        pl.format(
            "By its words '{}' is more probable ({} %) than its own label '{}' ({} %), and {}.",
            pl.col("suggestion").str.slice(0, 60), "better", pl.col("label").str.slice(0, 60), "own",
            pl.when("sure").then(pl.lit("as probable as for rows that have it: sure"))
            .otherwise(pl.lit("less probable than for rows that have it: not sure")),
        ).alias("detail"),
        pl.when("sure").then("suggestion").alias("suggestion"),
    )  # fmt: skip


def _marked(table: pl.DataFrame, kind: str, score: pl.Expr, detail: pl.Expr, other: str = "") -> pl.DataFrame:
    """`other`: the prefix of the columns `source` and `line` of the row beside it."""
    beside = [pl.col(f"{other}{name}").alias(f"other_{name}") for name in ("source", "line")] if other else []
    return table.select(*PLACE, pl.lit(kind).alias("kind"), score.alias("score"), detail.alias("detail"), *beside)


def _table(stages: dict[str, Stage], stage: str, name: str) -> pl.DataFrame | None:
    table = stages[stage].table(name) if stage in stages else None
    return table if table is not None and table.height else None


def _conflicts(stages: dict[str, Stage]) -> pl.DataFrame:
    """The same, or nearly the same, prompt with different answers."""
    found = [pl.DataFrame(schema=SCHEMA)]
    if (exact := _table(stages, "dedup_exact", "conflicts")) is not None:
        later = pl.int_range(pl.len()).over("conflict") > 0
        other = [
            pl.when(later).then(pl.first(name).over("conflict")).otherwise(pl.last(name).over("conflict")).alias(f"other_{name}")
            for name in ("source", "line")
        ]
        both = exact.with_columns(pl.len().over("conflict").alias("rows"), *other)
        several = pl.format("{} other rows, such as ", pl.col("rows") - 1)
        such = pl.when(pl.col("rows") > 2).then(several).otherwise(pl.lit(""))
        detail = pl.format("Has the same prompt as {}{}:{}, and another answer.", such, "other_source", "other_line")
        found.append(_marked(both, "conflict", pl.lit(1.0), detail, "other_"))
    if (pairs := _table(stages, "dedup_near", "pairs")) is not None:
        like = pairs.filter("conflict")
        detail = pl.format(
            "{} % of its shingles are those of {}:{}, but the answers share only {} %.",
            _percent("similarity"), "kept_source", "kept_line", _percent("answer_similarity"),
        )  # fmt: skip
        found.append(_marked(like, "conflict", pl.col("similarity"), detail, "kept_"))
    return pl.concat([_complete(each) for each in found])


def _percent(column: str) -> pl.Expr:
    return (100 * pl.col(column)).round().cast(pl.Int64)


def _near_misses(stages: dict[str, Stage]) -> pl.DataFrame:
    """Rows a little less similar to a kept row than the threshold."""
    found = [pl.DataFrame(schema=SCHEMA)]
    for stage, unit in (("dedup_near", "of its shingles are those of"), ("dedup_semantic", "is its cosine in meaning with")):
        pairs = _table(stages, stage, "pairs")
        if pairs is not None:
            stays = pairs.filter(~pl.col("dropped") & ~(pl.col("conflict") if "conflict" in pairs.columns else pl.lit(False)))
            detail = pl.format(
                "{} % " + unit + " {}:{}: below the threshold, so both stay.", _percent("similarity"), "kept_source", "kept_line"
            )
            found.append(_marked(stays, "near_miss", pl.col("similarity"), detail, "kept_"))
    return pl.concat([_complete(each) for each in found])


def _near_leaks(stages: dict[str, Stage]) -> pl.DataFrame:
    """Rows that decontaminate flagged and let go on, and the left side of pairs that the leakage gate found and allowed."""
    found = [pl.DataFrame(schema=SCHEMA)]
    if (flagged := _table(stages, "decontaminate", "flagged")) is not None:
        proofs = [orjson.loads(each) for each in flagged["evidence"]]
        scores = [proof.get("score", proof.get("similarity", proof.get("coverage"))) for proof in proofs]
        table = flagged.with_columns(
            pl.Series("score", [float(each) if isinstance(each, int | float) else 0.5 for each in scores], dtype=pl.Float64)
        )
        found.append(_marked(table, "near_leak", pl.col("score"), pl.col("detail")))
    if (pairs := _table(stages, "leakage", "pairs")) is not None:
        left = pairs.rename({f"left_{name}": name for name in PLACE})
        detail = pl.format("Is like {}:{} in {} ({}).", "right_source", "right_line", "right", "kind")
        found.append(_marked(left, "near_leak", pl.col("similarity").fill_null(1.0), detail, "right_"))
    return pl.concat([_complete(each) for each in found])


def _longest(every: pl.DataFrame) -> pl.DataFrame:
    """The longest of a hundred rows, by characters."""
    count = int(np.ceil(LONG_SHARE * every.height))
    longest = every.sort("chars", *PLACE, descending=[True, False, False, False]).head(count).filter(pl.col("chars") > 0)
    most, median = max(int(longest["chars"].max() or 0), 1), max(float(every["chars"].median() or 0), 1.0)  # type: ignore[arg-type]
    detail = pl.format("{} characters, {} times the median.", "chars", (pl.col("chars") / median).round(1))
    return _marked(longest, "longest", pl.col("chars") / most, detail)
