"""Planted defects against what the pipeline did with them: found, missed, and clean rows lost.

The truth is a JSON Lines file as data/sample/plant.py writes it. Anyone can plant defects in their own data the same way: what is
planted is known, so recall and false drops are counted, not estimated.
"""

from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import store
from curate.record import InputError
from curate.reporting.gather import Stage

Where = tuple[str, int]


def score(path: Path, found: dict[str, Stage], threshold: float) -> dict[str, Any]:
    """Per defect: planted, found and what was missed; and the rows that nobody planted and that were dropped all the same.

    A planted duplicate counts from `threshold` on, and is found if it was dropped for its original or its original for it. Raises
    InputError if the file cannot be read.
    """
    try:
        truth = [orjson.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"report.truth: {path} cannot be read ({error}). Set it to null where no defects were planted.") from None
    fate = _fates(found)
    survivors = _survivors(found)
    conflicts = _conflicts(found)
    kinds: dict[str, dict[str, Any]] = {}
    for row in truth:
        if row["defect"] == "near_duplicate" and row["jaccard"] < threshold:
            continue
        kind = kinds.setdefault(row["defect"], {"planted": 0, "found": 0, "missed": []})
        kind["planted"] += 1
        if _is_found(row, fate, survivors, conflicts):
            kind["found"] += 1
        else:
            kind["missed"].append(f"{row['source']}:{row['line']} ({row['variant']})")
    planted = {(row["source"], row["line"]) for row in truth}
    excused = {_where(row["of"]) for row in truth if "of" in row and isinstance(row["of"], str)}
    lost = sorted(where for where in fate if where not in planted and not (where in excused and _is_duplicate(fate[where], planted)))
    rows = found["ingest"].metrics["rows_in"]
    return {
        "defects": kinds,
        "clean_rows": rows - len(planted),
        "clean_rows_dropped": [f"{s}:{n} ({fate[s, n]['reason']})" for s, n in lost],
    }


def _where(text: str) -> Where:
    source, _, line = text.rpartition(":")
    return source, int(line)


def _fates(found: dict[str, Stage]) -> dict[Where, dict[str, Any]]:
    """Every dropped raw row: the stage, reason and evidence."""
    fates: dict[Where, dict[str, Any]] = {}
    for stage in found.values():
        for row in stage.dropped.to_dicts():
            fates[row["source"], row["line"]] = {"stage": stage.name, "reason": row["reason"], "evidence": orjson.loads(row["evidence"])}
    return fates


def _survivors(found: dict[str, Stage]) -> dict[Where, str]:
    """Text of the rows that scrub let through, with their metadata: where planted values would show."""
    texts: dict[Where, str] = {}
    for batch in store.batches(found["scrub"].folder, ["source", "line", "messages", "meta"]):
        joined = batch.select("source", "line", pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n"), "meta")
        texts |= {(source, line): f"{text}\n{meta}" for source, line, text, meta in joined.rows()}
    return texts


def _conflicts(found: dict[str, Stage]) -> set[Where]:
    table = found["dedup_exact"].table("conflicts")
    return set(table.select("source", "line").rows()) if table is not None else set()


def _is_found(row: dict[str, Any], fate: dict[Where, dict[str, Any]], survivors: dict[Where, str], conflicts: set[Where]) -> bool:
    where = (row["source"], row["line"])
    end = fate.get(where)
    if row["defect"] in ("exact_duplicate", "near_duplicate"):
        original = _where(row["of"])
        return _dropped_for(end, original) or _dropped_for(fate.get(original), where) or _same_set(fate, where, original)
    if row["stage"] is not None:
        named = end is not None and end["stage"] == row["stage"] and row["reason"] in (None, end["reason"])
        return named and ("item" not in row or _names_item(end, row))
    if row["defect"] == "conflict":
        return end is None and {where, _where(row["of"])} <= conflicts
    text = survivors.get(where, "")
    if "values" in row:
        return bool(text) and not any(value in text for values in row["values"].values() for value in values)
    return end is None and str(row["wanted"]) in text


def _dropped_for(end: dict[str, Any] | None, other: Where) -> bool:
    return end is not None and (end["evidence"].get("kept_source"), end["evidence"].get("kept_line")) == other


def _same_set(fate: dict[Where, dict[str, Any]], one: Where, other: Where) -> bool:
    """Both were dropped in favour of the same third row."""

    def kept(where: Where) -> Any:
        proof = fate.get(where, {}).get("evidence", {})
        return proof.get("kept_source"), proof.get("kept_line")

    return bool(kept(one) == kept(other) != (None, None))


def _names_item(end: dict[str, Any] | None, row: dict[str, Any]) -> bool:
    return end is not None and str(row["item"]) in {str(value) for value in end["evidence"].values()}


def _is_duplicate(end: dict[str, Any], planted: set[Where]) -> bool:
    """Whether an original fell in favour of a planted copy of it."""
    proof = end["evidence"]
    return (proof.get("kept_source"), proof.get("kept_line")) in planted
