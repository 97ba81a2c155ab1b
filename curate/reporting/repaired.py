"""What clean mended in place: for each repair how many rows, and some places before and after.

The text before is that of ingest, where nothing is scrubbed yet. So only rows are shown that went through scrub without a finding: of all
others the page says that they hold personal data.
"""

import re
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from curate import record, store
from curate.reporting.gather import Stage
from curate.reporting.plain import MARKS, visible

SHOWN = 3  # places of each repair
DRAWN = 50  # rows of each repair among which such places are looked for
HIDDEN_TOO = re.compile(f"[\u200c\u200d]|{MARKS}")  # joiners and accents, which the page shows as they are everywhere else
AROUND, LONGEST = 60, 400  # characters beside what was changed, and of it
MEANINGS = {
    "line_ends": "CRLF and CR became LF",
    "html": "tags and entities of scraped pages became plain text",
    "encoding": "UTF-8 that was once read in a wrong code page",
    "control": "control characters were taken out",
    "invisible": "characters without width, or that turn the direction of text, were taken out",
    "nfc": "letters with separate accents were composed",
    "trailing_space": "white space at line ends was taken out",
}


@dataclass(frozen=True)
class Place:
    """Where a text was changed: both versions with the change marked."""

    source: str
    line: int
    before: Markup
    after: Markup


def numbers(found: dict[str, Stage]) -> dict[str, int] | None:
    """Rows that each repair changed; None where clean has not run."""
    if "clean" not in found:
        return None
    counts: dict[str, int] = found["clean"].metrics.get("counts", {})
    return {name.removeprefix("repaired_"): count for name, count in counts.items() if name.startswith("repaired_") and count}


def shown(found: dict[str, Stage]) -> dict[str, list[Place]]:
    """By repair at most `SHOWN` places, chosen by the rows' ids."""
    if not all(name in found for name in ("ingest", "clean", "scrub")) or not found["clean"].has("repaired"):
        return {}
    drawn = _drawn(found["clean"])
    keys = drawn.select("source", "line").unique().lazy()
    clear = found["scrub"].kept("source", "line").select("source", "line").join(keys, on=["source", "line"], how="semi")
    if found["scrub"].has("findings"):
        clear = clear.join(found["scrub"].lazy("findings"), on=["source", "line"], how="anti")
    wanted = drawn.join(clear.collect(engine="streaming"), on=["source", "line"], how="semi")
    before, after = (_messages(found[name], wanted) for name in ("ingest", "clean"))
    places: dict[str, list[Place]] = {}
    for source, line, repair in wanted.select("source", "line", "repair").rows():
        where = (source, line)
        changes = [(old, new) for old, new in zip(before.get(where, []), after.get(where, []), strict=False) if old != new]
        if changes and len(places.setdefault(repair, [])) < SHOWN:
            places[repair].append(Place(source, line, *marked(*changes[0])))
    return places


def _drawn(clean: Stage) -> pl.DataFrame:
    """`DRAWN` rows of each repair; the fewer repairs a row has, the clearer it shows one."""
    best = pl.DataFrame()
    for batch in clean.batches("repaired"):
        some = batch.with_columns(
            pl.Series("draw", record.draws(batch["id"]), dtype=pl.UInt64), pl.len().over("source", "line").alias("all")
        )
        best = pl.concat([best, some] if best.height else [some]).sort("repair", "all", "draw", "source", "line")
        best = best.filter(pl.int_range(pl.len()).over("repair") < DRAWN)
    return best


def _messages(stage: Stage, wanted: pl.DataFrame) -> dict[tuple[str, int], list[str]]:
    keys = wanted.select("source", "line").unique().lazy()
    found = {}
    for part in store.parts(stage.folder):
        rows = pl.scan_parquet(part.path).select("source", "line", "messages", "rejected").join(keys, on=["source", "line"], how="semi")
        for source, line, messages, rejected in rows.collect(engine="streaming").rows():
            found[source, line] = [each["content"] or "" for each in [*(messages or []), *(rejected or [])]]
    return found


def marked(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts around the stretch in which they differ, which is marked; white space in it is shown.

    >>> marked("See you \\nsoon", "See you\\nsoon")
    (Markup('See you<del>·</del>\\nsoon'), Markup('See you<ins></ins>\\nsoon'))
    """
    start = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    most = min(len(before), len(after)) - start
    end = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    made = []
    for text, tag in ((before, "del"), (after, "ins")):
        stop = len(text) - end
        changed = text[start:stop] if stop - start <= LONGEST else f"{text[start : start + LONGEST]} … (shortened)"
        head, tail = text[max(0, start - AROUND) : start], text[stop : stop + AROUND]
        inside = HIDDEN_TOO.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", visible(changed))
        if not changed.strip():
            inside = inside.replace(" ", "·").replace("\t", "→")
        made.append(
            Markup("{}{}<{}>{}</{}>{}{}").format(
                "…" * (start > AROUND), visible(head), Markup(tag), escape(inside), Markup(tag), visible(tail), "…" * (end > AROUND)
            )
        )
    return made[0], made[1]


def section(found: dict[str, Stage]) -> dict[str, Any] | None:
    """What the page shows."""
    rows = numbers(found)
    if not rows:
        return None
    places = shown(found)
    order = sorted(rows, key=lambda name: (-rows[name], name))
    return {
        "kinds": [{"name": name, "rows": rows[name], "means": MEANINGS.get(name, ""), "places": places.get(name, [])} for name in order]
    }
