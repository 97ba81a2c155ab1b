"""What removed and flagged rows looked like, beside what they resemble: bounded, near the threshold first, never an original value.

Rows that were dropped before scrub ran are scrubbed here before they are shown; quarantined raw rows are shown by file and line alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import xxhash
from markupsafe import Markup, escape

from curate import store
from curate.benchmarks import read_benchmarks
from curate.pii.conversation import scrubbed
from curate.pii.settings import ScrubParams
from curate.reporting.charts import diff
from curate.reporting.gather import STAGES, Stage

Where = tuple[str, int]
SHOWN_CHARS = 1500  # of a text; the rest is one click away in the raw file


@dataclass(frozen=True)
class Sample:
    """One removed row for the page."""

    stage: str
    reason: str
    where: str
    detail: str
    score: str
    text: Markup
    other: Markup | None  # the kept row or benchmark span it was compared with
    other_where: str


def samples(found: dict[str, Stage], per_reason: int, scrub: ScrubParams, benchmarks: Path) -> list[tuple[str, str, list[Sample]]]:
    """(stage, reason, at most `per_reason` rows), in stage order. `benchmarks` is the folder that decontaminate compared with."""
    chosen = {name: _choose(_judged(stage), per_reason) for name, stage in found.items()}
    shown = []
    items = _items(benchmarks, chosen.get("decontaminate", []))
    for name, rows in chosen.items():
        texts = _texts(found, name, rows, scrub)
        shown += [_sample(name, row, texts, items) for row in rows]
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in shown:
        groups.setdefault((sample.stage, sample.reason), []).append(sample)
    return [(stage, reason, rows) for (stage, reason), rows in groups.items()]


def _items(benchmarks: Path, rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Question and answer of the benchmark items that the evidence of `rows` names."""
    wanted = {(row["evidence"]["set"], row["evidence"]["item"]) for row in rows if "item" in row["evidence"]}
    if not wanted or not benchmarks.is_dir():
        return {}
    items = read_benchmarks(benchmarks).select("set", "item", "question", "answer").rows()
    return {(name, at): f"{question}\n{answer}".strip() for name, at, question, answer in items if (name, at) in wanted}


def _judged(stage: Stage) -> pl.DataFrame:
    """The rows that a stage dropped, and those that it let go on but wants looked at."""
    flagged = stage.table("flagged")
    if flagged is None:
        return stage.dropped
    return pl.concat(
        [stage.dropped, flagged.select(stage.dropped.columns).with_columns(pl.format("{} (flagged, goes on)", "reason").alias("reason"))]
    )


def _choose(dropped: pl.DataFrame, per_reason: int) -> list[dict[str, Any]]:
    """Of every reason the rows with the lowest similarity or score first, then in an order that has nothing to do with the file."""
    rows: list[dict[str, Any]] = []
    for _, group in dropped.group_by("reason", maintain_order=True):
        candidates = [row | {"evidence": orjson.loads(row["evidence"])} for row in group.to_dicts()]
        candidates.sort(key=lambda row: (_score(row["evidence"]), xxhash.xxh3_64_intdigest(f"{row['source']}:{row['line']}".encode())))
        rows += candidates[:per_reason]
    return rows


def _score(evidence: dict[str, Any]) -> float:
    score = evidence.get("similarity", evidence.get("score", 1.0))
    return float(score) if isinstance(score, int | float) else 1.0


def _texts(found: dict[str, Stage], name: str, rows: Sequence[dict[str, Any]], scrub: ScrubParams) -> dict[Where, str]:
    """The texts of the rows, and of those they were dropped for, as they stood when they reached the stage."""
    before = STAGES[: STAGES.index(name)]
    came_from = next((found[each].folder for each in reversed(before) if each in found), None)
    if came_from is None or not rows:
        return {}
    wanted = {(row["source"], row["line"]) for row in rows}
    wanted |= {(row["evidence"]["kept_source"], row["evidence"]["kept_line"]) for row in rows if "kept_source" in row["evidence"]}
    texts = read_texts(came_from, wanted)
    if "scrub" in STAGES[STAGES.index(name) :]:  # the stage came before scrub, or is scrub itself
        texts = dict(zip(texts, scrubbed(list(texts.values()), scrub), strict=True))
    return texts


def read_texts(folder: Path, wanted: set[Where]) -> dict[Where, str]:
    """Conversations as text, of some rows of a stage's output."""
    if not wanted:
        return {}
    keys = pl.DataFrame(sorted(wanted), schema={"source": pl.String, "line": pl.Int64}, orient="row").lazy()
    texts: dict[Where, str] = {}
    for part in store.parts(folder):
        rows = pl.scan_parquet(part.path).select("source", "line", "messages").join(keys, on=["source", "line"], how="semi").collect()
        for source, line, messages in rows.rows():
            texts.setdefault((source, line), as_text(messages))
    return texts


def as_text(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation with its roles, shortened."""
    whole = "\n".join(f"{message['role']}: {message['content'] or ''}" for message in messages)
    return whole if len(whole) <= SHOWN_CHARS else whole[:SHOWN_CHARS] + " … (shortened)"


def _sample(stage: str, row: dict[str, Any], texts: dict[Where, str], items: dict[tuple[str, int], str]) -> Sample:
    proof = row["evidence"]
    text = texts.get((row["source"], row["line"]), "")
    other, other_where = None, ""
    if "kept_source" in proof:
        other, other_where = texts.get((proof["kept_source"], proof["kept_line"])), f"{proof['kept_source']}:{proof['kept_line']}"
    elif "item" in proof:
        other, other_where = items.get((proof["set"], proof["item"])), f"{proof['set']}, item {proof['item']}"
    shown, beside = (escape(text), None) if other is None else diff(text, other)
    return Sample(stage, row["reason"], f"{row['source']}:{row['line']}", row["detail"], _shown_score(proof), shown, beside, other_where)


def _shown_score(proof: dict[str, Any]) -> str:
    score = proof.get("similarity", proof.get("score"))
    return f"{score:.3f}" if isinstance(score, float) else ""
