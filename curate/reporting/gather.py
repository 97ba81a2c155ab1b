"""Reads what the stages wrote and counts it: the numbers of the report, without any text of a row.

Everything is computed from narrow columns, part by part; a stage that has not run (as in `flows.intake`, which ends at split) is left out.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import xxhash

from curate import store
from curate.record import SPLITS

STAGES = (
    "ingest", "clean", "dedup_exact", "scrub", "dedup_near", "review", "dedup_semantic", "decontaminate", "split", "augment", "leakage",
    "format",
)  # fmt: skip
NO_LABEL = "(no label)"


@dataclass(frozen=True)
class Stage:
    """What a stage left in its folder."""

    name: str
    folder: Path
    metrics: dict[str, Any]
    dropped: pl.DataFrame

    def table(self, name: str) -> pl.DataFrame | None:
        """An extra table of the stage, or None where it wrote none."""
        path = self.folder / f"{name}.parquet"
        return pl.read_parquet(path) if path.exists() else None


def stages(data: Path) -> dict[str, Stage]:
    """The stages that have run, in order."""
    found = {}
    for name in STAGES:
        folder = data / name
        if (folder / "metrics.json").exists():
            metrics = orjson.loads((folder / "metrics.json").read_bytes())
            found[name] = Stage(name, folder, metrics, pl.read_parquet(folder / "dropped.parquet"))
    return found


def waterfall(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Per stage: rows in, kept, added, dropped by reason and source. Raises nothing: a sum that is off shows as a failed gate."""
    steps = []
    for stage in found.values():
        by = stage.dropped.group_by("reason", "source").len().sort("reason", "source").rows()
        reasons: dict[str, dict[str, int]] = {}
        for reason, source, count in by:
            reasons.setdefault(reason, {})[source] = count
        steps.append(
            {
                "stage": stage.name,
                "enabled": stage.metrics.get("enabled", True),
                **{key: stage.metrics[key] for key in ("rows_in", "kept", "added", "dropped")},
                "reasons": {reason: {"rows": sum(sources.values()), "sources": sources} for reason, sources in reasons.items()},
                "counts": stage.metrics.get("counts", {}),
            }
        )
    return steps


def by_source(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Per raw file: rows read, rows that are still there at the end of the stages that have run, and the share lost."""
    read = _sources(found["ingest"].folder) + Counter(found["ingest"].dropped["source"].to_list())
    last = [stage for stage in found.values() if stage.name != "format"][-1]
    left = _sources(last.folder, real_only=True)
    return [
        {"source": source, "rows": rows, "kept": left[source], "lost_share": round(1 - left[source] / rows, 4)}
        for source, rows in sorted(read.items())
    ]


def _sources(folder: Path, real_only: bool = False) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in store.batches(folder, ["source", "meta"]):
        rows = batch.filter(~_synthetic()) if real_only else batch
        counts.update(rows["source"].to_list())
    return counts


def _synthetic() -> pl.Expr:
    return pl.col("meta").str.contains('"synthetic":', literal=True)


def labels_by_split(folder: Path) -> dict[str, dict[str, int]]:
    """label -> split -> rows, the labels with most rows first; `synthetic` is counted beside the splits."""
    counts: dict[str, Counter[str]] = {}
    for batch in store.batches(folder, ["label", "meta"]):
        grouped = batch.group_by(pl.col("label").fill_null(NO_LABEL), "split", _synthetic().alias("synthetic")).len()
        for label, split, synthetic, count in grouped.rows():
            counts.setdefault(label, Counter())[split] += count
            counts[label]["synthetic"] += count if synthetic else 0
    ordered = sorted(counts, key=lambda label: (-sum(counts[label][split] for split in SPLITS), label))
    return {label: {split: counts[label][split] for split in (*SPLITS, "synthetic")} for label in ordered}


def characters(folder: Path) -> dict[str, list[int]]:
    """Per split: length of every row in characters (all messages together)."""
    lengths: dict[str, list[int]] = {}
    for batch in store.batches(folder, ["messages"]):
        sizes = batch.select(
            "split", pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum().alias("chars")
        )
        for split, chars in sizes.group_by("split", maintain_order=True).agg("chars").rows():
            lengths.setdefault(split, []).extend(chars)
    return lengths


def tokens(folder: Path) -> dict[str, list[int]]:
    """Per split: length of every formatted row in tokens."""
    lengths: dict[str, list[int]] = {}
    for batch in store.batches(folder, ["input_ids"]):
        for split, counts in (
            batch.select("split", pl.col("input_ids").list.len().alias("n")).group_by("split", maintain_order=True).agg("n").rows()
        ):
            lengths.setdefault(split, []).extend(counts)
    return lengths


def duplicate_sets(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Kept rows that others were dropped for: where the kept row is, how many fell, by which stages. Largest sets first."""
    sets: dict[tuple[str, int], Counter[str]] = {}
    for name in ("dedup_exact", "dedup_near", "dedup_semantic"):
        if name in found:
            for evidence in found[name].dropped["evidence"]:
                proof = orjson.loads(evidence)
                if "kept_source" in proof:
                    sets.setdefault((proof["kept_source"], proof["kept_line"]), Counter())[name] += 1
    ranked = sorted(sets.items(), key=lambda item: (-item[1].total(), item[0]))
    return [{"source": source, "line": line, "dropped": counts.total(), "stages": dict(counts)} for (source, line), counts in ranked]


def entities(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Replaced personal values and secrets per entity and raw file."""
    findings = found["scrub"].table("findings") if "scrub" in found else None
    if findings is None or not findings.height:
        return []
    grouped = findings.group_by("entity", "source").len().sort("entity", "source").rows()
    result: dict[str, dict[str, int]] = {}
    for entity, source, count in grouped:
        result.setdefault(entity, {})[source] = count
    return [{"entity": entity, "values": sum(sources.values()), "sources": sources} for entity, sources in result.items()]


def not_searched(data: Path) -> dict[str, Any]:
    """What scrub says it cannot find as configured."""
    path = data / "scrub" / "notice.json"
    loaded: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    return loaded


def quantiles(values: list[int]) -> dict[str, float]:
    """Count, sum and the usual order statistics of some lengths.

    >>> quantiles([1, 2, 3, 10])["median"]
    3.0
    """
    if not values:
        return {"rows": 0, "sum": 0}
    ordered = sorted(values)

    def at(share: float) -> float:
        return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])

    return {"rows": len(ordered), "sum": sum(ordered), "median": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": float(ordered[-1])}


def folder_hash(folder: Path) -> dict[str, Any]:
    """xxh3-128 over the names and bytes of the parts of a stage, and their rows: the same data has the same hash anywhere."""
    digest, rows = xxhash.xxh3_128(), 0
    for part in store.parts(folder):
        digest.update(f"{part.split}/{part.path.name}\0".encode())
        with part.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        rows += pq.read_metadata(part.path).num_rows
    return {"hash": digest.hexdigest(), "rows": rows}
