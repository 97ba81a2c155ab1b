"""What has changed since an earlier version of the dataset: rows added, removed, changed, and those that end elsewhere now.

A row is known by its id, the hash of its content as it was read, so that moving a file or a line changes nothing. Of rows with the same
content the one that came furthest counts. Where a place (file and line) holds another content than before, the row has changed.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from curate.record import InputError
from curate.reporting.gather import MOST, NO_LABEL, Stage, last_records, shortened, stages, synthetic
from curate.stages import STAGES

NAMED = 12  # rows named for each way
OF_STAGE = ("dropped.parquet", "metrics.json")
SCHEMA = {"id": pl.String(), "source": pl.String(), "line": pl.Int64(), "label": pl.String(), "fate": pl.String()}


def numbers(found: dict[str, Stage], previous: str | None) -> dict[str, Any] | None:
    """The difference to `previous`, a folder of stages or a git revision; None where none is named. Raises InputError if it has none."""
    if previous is None:
        return None
    with earlier(previous) as folder:
        before = fates(stages(folder))
    return {"previous": previous, **between(before, fates(found))}


@contextmanager
def earlier(previous: str) -> Iterator[Path]:
    """The folder of the earlier stages: `previous` itself, or what DVC fetches of that git revision."""
    if Path(previous).is_dir():
        yield Path(previous)
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name in STAGES[:-1]:
            wanted = (*OF_STAGE, "kept") if name in ("ingest", "leakage") else OF_STAGE
            (Path(scratch) / name).mkdir()
            for part in wanted:
                _fetch(previous, f"data/{name}/{part}", Path(scratch) / name / part, needed=name in ("ingest", "leakage"))
        yield Path(scratch)


def _fetch(revision: str, path: str, out: Path, needed: bool) -> None:
    command = ["dvc", "get", "--quiet", "--rev", revision, "--out", str(out), ".", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(f"report.previous = {revision}: no such folder, and dvc, which would fetch that revision, is not here.") from None
    if done.returncode and needed:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"report.previous = {revision}: neither a folder nor a git revision whose {path} DVC can fetch ({why}). Give a folder that "
            "holds the stages' folders, a revision whose data is in DVC's cache or remote, or null."
        )


def fates(found: dict[str, Stage]) -> pl.DataFrame:
    """SCHEMA of every raw row that has a content, by id: in which split it ended, or which stage dropped it. Narrow columns only."""
    if "ingest" not in found:
        raise InputError("report.previous: holds no ingest/metrics.json. Name a folder that holds the stages' folders.")
    last = last_records(found)
    ended = last.kept("id", "source", "line", "label", "meta").filter(~synthetic())
    ended = ended.with_columns(pl.when(pl.col("split") == "").then(pl.lit("dataset")).otherwise("split").alias("fate"))
    frames = [ended.select(list(SCHEMA)).collect(engine="streaming")]
    for name, stage in reversed(found.items()):
        if name != "format" and stage.has("dropped"):
            gone = stage.lazy().filter(pl.col("id") != "")
            named = pl.format("dropped by {}", pl.lit(name))
            frames.append(gone.select("id", "source", "line", pl.lit(None, pl.String).alias("label"), named.alias("fate")).collect())
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames]).unique("id", keep="first", maintain_order=True)


def between(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any]:
    """Counts and places: rows added, removed, changed, moved (by from and to), and rows of each label in the dataset before and after."""
    added, removed = after.join(before, on="id", how="anti"), before.join(after, on="id", how="anti")
    changed = removed.join(added, on=["source", "line"], how="inner", suffix="_now")
    new = added.join(changed.select("source", "line"), on=["source", "line"], how="anti")
    gone = removed.join(changed.select("source", "line"), on=["source", "line"], how="anti")
    both = before.join(after, on="id", how="inner", suffix="_now").filter(pl.col("fate") != pl.col("fate_now"))
    moves = both.group_by(pl.col("fate").alias("from"), pl.col("fate_now").alias("to")).len("rows")
    moves = moves.sort("rows", "from", "to", descending=[True, False, False])
    return {
        "rows": {"before": before.height, "after": after.height},
        "dataset": {"before": _ended(before).height, "after": _ended(after).height},
        "added": _counted(new),
        "removed": _counted(gone),
        "changed": _counted(changed),
        "moved": [
            move | {"places": _places(both.filter((pl.col("fate") == move["from"]) & (pl.col("fate_now") == move["to"])))}
            for move in moves.to_dicts()
        ],
        "labels": _labels(before, after),
    }


def _ended(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(~pl.col("fate").str.starts_with("dropped by "))


def _counted(rows: pl.DataFrame) -> dict[str, Any]:
    by = rows.group_by("source").len().sort("len", "source", descending=[True, False]).head(NAMED)
    return {"rows": rows.height, "sources": dict(by.rows()), "places": _places(rows)}


def _places(rows: pl.DataFrame) -> list[str]:
    return [f"{source}:{line}" for source, line in rows.select("source", "line").sort("source", "line").head(NAMED).rows()]


def _labels(before: pl.DataFrame, after: pl.DataFrame) -> list[dict[str, Any]]:
    """Labels whose rows in the dataset are not as many as before, the largest change first."""
    name = pl.col("label").fill_null(NO_LABEL)
    old, new = (_ended(rows).group_by(name).len() for rows in (before, after))
    joined = old.rename({"len": "before"}).join(new.rename({"len": "after"}), on="label", how="full", coalesce=True).fill_null(0)
    change = pl.col("after").cast(pl.Int64) - pl.col("before").cast(pl.Int64)
    differing = joined.with_columns(change.alias("change")).filter(pl.col("change") != 0)
    ordered = differing.sort(pl.col("change").abs(), pl.col("label"), descending=[True, False]).head(MOST)
    return [row | {"label": shortened(row["label"])} for row in ordered.select("label", "before", "after", "change").to_dicts()]
