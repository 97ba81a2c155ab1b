"""What removed and flagged rows looked like, beside what they resemble: bounded, near the threshold first, never an original value.

Rows that were dropped before scrub ran are scrubbed here before they are shown; quarantined raw rows are shown by file and line alone.
"""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import xxhash
from markupsafe import Markup, escape

from curate import repairs, store
from curate.benchmarks import read_benchmarks
from curate.pii.conversation import scrubbed
from curate.pii.settings import ScrubParams
from curate.reporting.charts import diff
from curate.reporting.gather import Stage, shortened
from curate.reporting.plain import visible
from curate.stages import STAGES

Where = tuple[str, int]
SHOWN_CHARS = 1500  # of a text; the rest is one click away in the raw file
READ_CHARS = 3000  # of a text that are scrubbed before it is cut: a value on the edge of what is shown is still found whole
DETAIL_CHARS = 400


@dataclass(frozen=True)
class Sample:
    """One removed row for the page."""

    source: str
    line: int
    detail: str
    score: str
    text: Markup
    other: Markup | None  # the kept row or benchmark item it was compared with
    other_where: str


@dataclass(frozen=True)
class Group:
    """The samples of one stage and reason, and how many rows there are in all."""

    stage: str
    reason: str
    flagged: bool
    rows: int
    shown: list[Sample]

    @property
    def anchor(self) -> str:
        return f"s-{self.stage}-{'flagged-' if self.flagged else ''}{self.reason}"

    @property
    def sources(self) -> dict[str, int]:
        """Where the first sample of each raw file stands among `shown`."""
        return {sample.source: at for at, sample in reversed(list(enumerate(self.shown)))}


def samples(found: dict[str, Stage], per_reason: int, scrub: ScrubParams, benchmarks: Path, sources: Sequence[str] = ()) -> list[Group]:
    """Of every stage and reason at most `per_reason` rows, nearest to the threshold first, and one more of each of `sources` that has
    none among them. `benchmarks` is the folder that decontaminate compared with."""
    groups = []
    for name, stage in found.items():
        chosen = [(flagged, choose(stage, table, per_reason, sources)) for table, flagged in (("dropped", False), ("flagged", True))]
        rows = [row for _, (reasons, _) in chosen for kept in reasons.values() for row in kept]
        texts, items = _texts(found, name, rows, scrub), _items(benchmarks, rows)
        for flagged, (reasons, counts) in chosen:
            for reason in sorted(reasons):
                shown = [_sample(row, texts, items) for row in reasons[reason]]
                groups.append(Group(name, reason, flagged, counts[reason], shown))
    return groups


def choose(stage: Stage, table: str, per_reason: int, sources: Sequence[str]) -> tuple[dict[str, list[dict[str, Any]]], Counter[str]]:
    """Rows of a table by reason (the lowest similarity or score first, then in an order that has nothing to do with the file), and how
    many rows each reason has. Read in batches: what is held are the rows that are shown."""
    best: dict[str, pl.DataFrame] = {}
    first: dict[tuple[str, str], pl.DataFrame] = {}
    counts: Counter[str] = Counter()
    order = ["score", "draw", "source", "line"]
    for batch in stage.batches(table):
        scored = batch.with_columns(_score(), _draw(batch))
        for (reason,), group in scored.group_by("reason", maintain_order=True):
            name = str(reason)
            counts[name] += group.height
            best[name] = pl.concat([best[name], group] if name in best else [group]).sort(order).head(per_reason)
            for (source,), some in group.filter(pl.col("source").is_in(sources)).group_by("source"):
                key = (name, str(source))
                first[key] = pl.concat([first[key], some] if key in first else [some]).sort(order).head(min(per_reason, 1))
    for (name, source), row in sorted(first.items(), key=lambda item: (item[0][0], sources.index(item[0][1]))):
        if source not in best[name]["source"].to_list():
            best[name] = pl.concat([best[name], row])
    return {name: [_read(row) for row in rows.to_dicts()] for name, rows in best.items()}, counts


def _read(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"evidence": orjson.loads(row["evidence"])}


def _score() -> pl.Expr:
    """Similarity or score of the evidence; 1 where it has none."""
    found = (pl.col("evidence").str.json_path_match(f"$.{name}").cast(pl.Float64, strict=False) for name in ("similarity", "score"))
    return pl.coalesce(*found, 1.0).alias("score")


def _draw(batch: pl.DataFrame) -> pl.Series:
    places = zip(batch["source"], batch["line"], strict=True)
    return pl.Series("draw", [xxhash.xxh3_64_intdigest(f"{source}:{line}".encode()) for source, line in places], dtype=pl.UInt64)


def _items(benchmarks: Path, rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Question and answer of the benchmark items that the evidence of `rows` names."""
    wanted = {(row["evidence"]["set"], row["evidence"]["item"]) for row in rows if "item" in row["evidence"]}
    if not wanted or not benchmarks.is_dir():
        return {}
    items = read_benchmarks(benchmarks).select("set", "item", "question", "answer").rows()
    return {
        (name, at): shown(f"user: {question}\nassistant: {answer}" if answer else f"user: {question}")
        for name, at, question, answer in items
        if (name, at) in wanted
    }


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
        texts = {where: _scrubbed(text, scrub) for where, text in texts.items()}
    return {where: shown(text) for where, text in texts.items()}


def _scrubbed(text: str, scrub: ScrubParams) -> str:
    """`text` as scrub would leave it. Where repairs of clean bring a value to light (`ann&#64;b.org`), the repaired text."""
    mended = text
    for _ in range(2):
        for repair in repairs.REPAIRS:
            mended = repair.mend(mended)
    for other in (mended, html.unescape(text)):
        if (found := scrubbed([other], scrub)[0]) != other:
            text = found
            break
    return scrubbed([text], scrub)[0]


def read_texts(folder: Path, wanted: set[Where]) -> dict[Where, str]:
    """Conversations as text, of some rows of a stage's output; of each at most READ_CHARS."""
    if not wanted:
        return {}
    keys = pl.DataFrame(sorted(wanted), schema={"source": pl.String, "line": pl.Int64}, orient="row").lazy()
    texts: dict[Where, str] = {}
    for part in store.parts(folder):
        rows = pl.scan_parquet(part.path).select("source", "line", "messages").join(keys, on=["source", "line"], how="semi")
        for source, line, messages in rows.collect(engine="streaming").sort("source", "line").rows():
            texts.setdefault((source, line), as_text(messages))
    return texts


def as_text(messages: Sequence[dict[str, Any]]) -> str:
    """The beginning of a conversation, with its roles."""
    whole = "\n".join(f"{message['role']}: {(message['content'] or '')[: READ_CHARS + 1]}" for message in messages[:READ_CHARS])
    return whole if len(whole) <= READ_CHARS else whole[: READ_CHARS + 1]


def shown(text: str) -> str:
    """A text as the page shows it."""
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " … (shortened)"


def _sample(row: dict[str, Any], texts: dict[Where, str], items: dict[tuple[str, int], str]) -> Sample:
    proof = row["evidence"]
    text = texts.get((row["source"], row["line"]), "")
    other, other_where = None, ""
    if "kept_source" in proof:
        other, other_where = texts.get((proof["kept_source"], proof["kept_line"])), f"{proof['kept_source']}:{proof['kept_line']}"
    elif "item" in proof:
        other, other_where = items.get((proof["set"], proof["item"])), f"{proof['set']}, item {proof['item']}"
    marked, beside = (escape(visible(text)), None) if other is None else diff(text, other)
    return Sample(row["source"], row["line"], shortened(row["detail"], DETAIL_CHARS), _told(proof), marked, beside, other_where)


def _told(proof: dict[str, Any]) -> str:
    score = proof.get("similarity", proof.get("score"))
    return f"{score:.3f}" if isinstance(score, float) else ""
