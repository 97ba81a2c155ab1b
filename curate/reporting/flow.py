"""Where every row went: stage by reason by raw file and by label, with sums that add up."""

from collections import Counter
from typing import Any

import polars as pl

from curate.reporting.gather import MOST, NO_LABEL, Stage, last_records, most, shortened, synthetic

SHOWN_SOURCES = 12  # columns of the table on the page; other files are one more
NAMED_SOURCES = 200  # files that curation.json names for each reason
OTHERS = "other files"


def waterfall(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Per stage: rows in, kept, added, dropped by reason and source. Raises nothing: a sum that is off shows as a failed gate."""
    steps = []
    for stage in found.values():
        reasons: dict[str, dict[str, int]] = {}
        for reason, source, count in dropped_by(stage).rows():
            reasons.setdefault(reason, {})[source] = count
        named = {reason: most(sources, NAMED_SOURCES) for reason, sources in reasons.items()}
        steps.append(
            {
                "stage": stage.name,
                "enabled": stage.metrics.get("enabled", True),
                **{key: stage.metrics[key] for key in ("rows_in", "kept", "added", "dropped")},
                "reasons": {
                    reason: {"rows": sum(reasons[reason].values()), "sources": sources, **({"other_sources": rest} if rest else {})}
                    for reason, (sources, rest) in named.items()
                },
                "flagged": {name.removeprefix("flagged "): n for name, n in _counts(stage).items() if name.startswith("flagged ")},
                "counts": _counts(stage),
            }
        )
    return steps


def _counts(stage: Stage) -> dict[str, int]:
    counts: dict[str, int] = stage.metrics.get("counts", {})
    return counts


def dropped_by(stage: Stage) -> pl.DataFrame:
    """reason, source, len of the dropped rows, sorted."""
    return stage.lazy().group_by("reason", "source").len().sort("reason", "source").collect(engine="streaming")


def _kept_by(stage: Stage, column: str) -> Counter[str]:
    counted = stage.kept(column).group_by(column).len().collect(engine="streaming")
    return Counter(dict(counted.with_columns(pl.col(column).fill_null(NO_LABEL)).rows()))


def table(found: dict[str, Stage]) -> dict[str, Any]:
    """The waterfall as a table: a column for every file that loses rows (those that lose most; the rest is one more), rows of four kinds:

    `read` (raw rows), `reason` (dropped by a stage), `added` (made by a stage), `left` (after the last stage). `off`: columns in which
    read + added - dropped is not what is left: 0 unless a stage is at fault.
    """
    before = _kept_by(found["ingest"], "source")
    rows: list[dict[str, Any]] = []
    lost: Counter[str] = Counter()
    for stage in found.values():
        gone: Counter[str] = Counter()
        for (reason,), group in dropped_by(stage).group_by("reason", maintain_order=True):
            cells = Counter(dict(group.select("source", "len").rows()))
            gone.update(cells)
            rows.append({"kind": "reason", "stage": stage.name, "reason": str(reason), "by": cells})
        lost.update(gone)
        if stage.name == "ingest":
            read = before + gone
            rows.insert(0, {"kind": "read", "stage": "", "reason": "", "by": read})
            continue
        kept = _kept_by(stage, "source")
        added = Counter(
            {name: more for name in {*kept, *before, *gone} if (more := kept[name] + gone[name] - before[name]) and stage.metrics["added"]}
        )
        if added:
            rows.append({"kind": "added", "stage": stage.name, "reason": "", "by": added})
        before = kept
    rows.append({"kind": "left", "stage": "", "reason": "", "by": before})
    everyone = {name for row in rows for name in row["by"]}
    shown = sorted(+lost, key=lambda name: (-lost[name], -read[name], name))[:SHOWN_SOURCES]
    return {
        "columns": shown,
        "others": len(everyone) - len(shown),
        "off": _off(rows, everyone),
        "rows": [_cells(row, shown) for row in rows],
    }


def _off(rows: list[dict[str, Any]], everyone: set[str]) -> int:
    sign = {"read": 1, "added": 1, "reason": -1, "left": -1}
    total: Counter[str] = Counter()
    for row in rows:
        for name, count in row["by"].items():
            total[name] += sign[row["kind"]] * count
    return sum(total[name] != 0 for name in everyone)


def _cells(row: dict[str, Any], shown: list[str]) -> dict[str, Any]:
    by = row["by"]
    whole = sum(by.values())
    cells = [by[name] for name in shown]
    return {key: row[key] for key in ("kind", "stage", "reason")} | {"rows": whole, "cells": cells, "others": whole - sum(cells)}


def by_source(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Per raw file: rows read, rows that are still there at the end of the stages that have run, and the share lost."""
    gone = found["ingest"].lazy().group_by("source").len().collect(engine="streaming")
    read = _kept_by(found["ingest"], "source") + Counter(dict(gone.rows()))
    left = Counter(
        dict(last_records(found).kept("source", "meta").filter(~synthetic()).group_by("source").len().collect(engine="streaming").rows())
    )
    named = sorted(read.items()) if len(read) <= MOST else sorted(read.items(), key=lambda item: (left[item[0]] - item[1], item[0]))[:MOST]
    return [
        {"source": source, "rows": rows, "kept": left[source], "lost_share": round(1 - left[source] / rows, 4)} for source, rows in named
    ]


def by_label(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Per label: rows that ingest read, what each stage took, rows still there and the share lost; quarantined rows have no label yet."""
    order = [stage for name, stage in found.items() if name != "format"]
    counted = []
    for stage in order:
        made = stage.name in ("augment", "leakage")
        rows = stage.kept("label", "meta").filter(~synthetic()) if made else stage.kept("label")
        counted.append(Counter(dict(rows.group_by(pl.col("label").fill_null(NO_LABEL)).len().collect(engine="streaming").rows())))
    first, last = counted[0], counted[-1]
    names = sorted(first, key=lambda label: (last[label] - first[label], label))[:MOST]
    found_: list[dict[str, Any]] = []
    for label in names:
        taken = {
            stage.name: before[label] - after[label]
            for stage, before, after in zip(order[1:], counted, counted[1:], strict=False)
            if before[label] != after[label]
        }
        share = round(1 - last[label] / first[label], 4)
        found_.append({"label": shortened(label), "rows": first[label], "kept": last[label], "lost_share": share, "lost": taken})
    return found_
