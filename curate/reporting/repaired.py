"""What clean mended in place: for each repair how many rows, and some places before and after.

The text before is that of ingest, where nothing is scrubbed yet. So only rows are shown that went through scrub without a finding. What
clean took out scrub never saw: comments and attributes of tags are masked, and what is shown of the text before is searched here as well.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from curate import record, store
from curate.pii.conversation import scrubbed
from curate.pii.residual import masked
from curate.pii.settings import ScrubParams
from curate.reporting.gather import Stage
from curate.reporting.plain import MARKS, visible

SHOWN = 3  # places of each repair
DRAWN = 50  # rows of each repair among which such places are looked for
HIDDEN_TOO = re.compile(f"[\u200c\u200d]|{MARKS}")  # joiners and accents, which the page shows as they are everywhere else
AROUND, LONGEST = 60, 400  # characters beside what was changed, and of it
MARGIN = 1000  # characters beside what is shown that are searched for personal data with it: a value on the edge is found whole
TAG = re.compile(r"<!--.*?(?:-->|\Z)|<[^<>]*=[^<>]*>", re.DOTALL)  # with something in it that may name somebody
VALUE = re.compile(r"(?<==)\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'>]+)")
SPACES = {" ": "·", "\t": "→", "\n": "↵\n"}
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


def shown(found: dict[str, Stage], scrub: ScrubParams) -> dict[str, list[Place]]:
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
        if len(places.setdefault(repair, [])) == SHOWN:
            continue
        both = zip(before.get((source, line), []), after.get((source, line), []), strict=False)
        change = next(((old, new) for old, new in both if old != new), None)
        if change is not None and _names_nobody(*change, scrub):
            places[repair].append(Place(source, line, *marked(*change)))
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


def _names_nobody(before: str, after: str, scrub: ScrubParams) -> bool:
    """Whether scrub would let the part of `before` that is shown stand as it is."""
    start, end = _stretch(before, after)
    stop = min(len(before) - end, start + LONGEST)
    looked_at = before[max(0, start - AROUND - MARGIN) : stop + AROUND + MARGIN]
    return scrubbed([looked_at], scrub) == [looked_at]


def _stretch(before: str, after: str) -> tuple[int, int]:
    """How many characters both have in common at the start, and then at the end."""
    start = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
    most = min(len(before), len(after)) - start
    return start, next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)


def veiled(text: str) -> str:
    """`text` with what stands in comments and attributes masked: x for a letter, 0 for a digit.

    >>> veiled('<a href="mailto:ann@b.c">Write</a> <!-- Ann -->')
    '<a href="xxxxxx:xxx@x.x">Write</a> <!-- xxx -->'
    """
    return TAG.sub(
        lambda tag: masked(tag[0]) if tag[0].startswith("<!--") else VALUE.sub(lambda value: masked(value[0]), tag[0]),
        text,
    )


def marked(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts around the stretch in which they differ, the differences marked; white space among them is shown.

    >>> marked("See you \\nsoon", "See you\\nsoon")
    (Markup('See you<del>·</del>\\nsoon'), Markup('See you\\nsoon'))
    """
    before, after = veiled(before), veiled(after)
    start, end = _stretch(before, after)
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    sides = _differences(old[:LONGEST], new[:LONGEST])
    made = []
    for text, inside, changed in ((before, sides[0], old), (after, sides[1], new)):
        head, tail = text[max(0, start - AROUND) : start], text[len(text) - end :][:AROUND]
        cut = " … (shortened)" if len(changed) > LONGEST else ""
        parts = ("…" * (start > AROUND), visible(head), inside, cut, visible(tail), "…" * (end > AROUND))
        made.append(Markup("{}{}{}{}{}{}").format(*parts))
    return made[0], made[1]


def _differences(old: str, new: str) -> tuple[Markup, Markup]:
    left: list[Markup] = []
    right: list[Markup] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for part, tag, side in ((old[a:b], "del", left), (new[c:d], "ins", right)):
            if part:
                side.append(escape(visible(part)) if kind == "equal" else Markup("<{0}>{1}</{0}>").format(Markup(tag), _seen(part)))
    return Markup("").join(left), Markup("").join(right)


def _seen(text: str) -> str:
    """Changed text with its hidden characters as code points, and with its white space visible where it is nothing else."""
    if text.isspace():
        return "".join(SPACES.get(each, f"⟨U+{ord(each):04X}⟩") for each in text)
    return HIDDEN_TOO.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", visible(text))


def section(found: dict[str, Stage], scrub: ScrubParams) -> dict[str, Any] | None:
    """What the page shows."""
    rows = numbers(found)
    if not rows:
        return None
    places = shown(found, scrub)
    order = sorted(rows, key=lambda name: (-rows[name], name))
    return {
        "kinds": [{"name": name, "rows": rows[name], "means": MEANINGS.get(name, ""), "places": places.get(name, [])} for name in order]
    }
