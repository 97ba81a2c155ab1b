"""Some of the values that scrub replaced, masked, with the words around them: what kind of thing was taken for what, and never the thing.

Read from where the findings stand in the rows before scrub; every finding in the words around is masked as well, so that nothing is
shown which the scrubbed rows do not hold.
"""

from itertools import pairwise
from typing import Any

import polars as pl

from curate import record, store
from curate.pii.residual import masked
from curate.pii.slots import slots
from curate.reporting.gather import Stage
from curate.stages import STAGES

SHOWN = 3  # values of each entity
AROUND = 60  # characters shown on both sides


def masked_samples(found: dict[str, Stage]) -> dict[str, list[dict[str, Any]]]:
    """By entity `SHOWN` places: `source`, `line`, `field`, `turn`, the `mask` and the words `before` and `after` it. Chosen by the
    rows' ids, so in no order of the file. Empty where scrub has not run or the rows before it are gone."""
    if "scrub" not in found or not found["scrub"].has("findings"):
        return {}
    folder = next((found[name].folder for name in reversed(STAGES[: STAGES.index("scrub")]) if name in found), None)
    chosen = _chosen(found["scrub"])
    if folder is None or not folder.is_dir() or not chosen.height:
        return {}
    keys = chosen.select("source", "line").unique()
    rows = {
        (row["source"], row["line"]): [slot.own for slot in slots(row)]
        for part in store.parts(folder)
        for row in pl.scan_parquet(part.path)
        .join(keys.lazy(), on=["source", "line"], how="semi")
        .collect(engine="streaming")
        .iter_rows(named=True)
    }
    beside = found["scrub"].lazy("findings").join(keys.lazy(), on=["source", "line"], how="semi").collect(engine="streaming")
    spans: dict[tuple[str, int, int], list[tuple[int, int, str]]] = {}
    for source, line, slot, start, end, entity in beside.select("source", "line", "slot", "start", "end", "entity").rows():
        spans.setdefault((source, line, slot), []).append((start, end, entity))
    samples: dict[str, list[dict[str, Any]]] = {}
    for one in chosen.iter_rows(named=True):
        place = (one["source"], one["line"])
        if place in rows:
            text, others = rows[place][one["slot"]], spans[(*place, one["slot"])]
            shown = {name: one[name] for name in ("source", "line", "field", "turn")} | around(text, one["start"], one["end"], others)
            samples.setdefault(one["entity"], []).append(shown)
    return samples


def around(text: str, start: int, end: int, spans: list[tuple[int, int, str]]) -> dict[str, str]:
    """The mask of text[start:end], and up to `AROUND` characters on both sides with the other spans named and not shown.

    >>> around("Ann, call 555-0100 or Bo", 10, 18, [(0, 3, "PERSON"), (10, 18, "PHONE_NUMBER"), (22, 24, "PERSON")])
    {'before': '[PERSON], call ', 'mask': '000-0000', 'after': ' or [PERSON]'}
    """
    return {
        "before": "…" * (start > AROUND) + _hidden(text, max(0, start - AROUND), start, spans),
        "mask": masked(text[start:end]),
        "after": _hidden(text, end, min(len(text), end + AROUND), spans) + "…" * (len(text) > end + AROUND),
    }


def _hidden(text: str, low: int, high: int, spans: list[tuple[int, int, str]]) -> str:
    inside = sorted((max(start, low), min(end, high), entity) for start, end, entity in spans if start < high and end > low)
    edges = [(low, low, ""), *inside, (high, high, "")]
    parts = [f"{text[left[1] : right[0]]}{f'[{right[2]}]' if right[2] else ''}" for left, right in pairwise(edges)]
    return "".join(parts)


def _chosen(scrub: Stage) -> pl.DataFrame:
    """`SHOWN` findings in texts for each entity, of different rows."""
    best = pl.DataFrame()
    for batch in scrub.batches("findings"):
        drawn = batch.filter(pl.col("slot").is_not_null()).unique(["entity", "source", "line"], keep="first", maintain_order=True)
        drawn = drawn.with_columns(pl.Series("draw", record.draws(drawn["id"]), dtype=pl.UInt64))
        order = ["entity", "draw", "source", "line", "slot", "start"]
        best = pl.concat([best, drawn] if best.height else [drawn]).sort(order).filter(pl.int_range(pl.len()).over("entity") < SHOWN)
    return best
