"""Answers side by side on the evaluation page: items whose loss rose most first, and in each answer what the reference has not."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from evaluate.holdout import Item
from evaluate.metrics import paired

WORST, BEST = 12, 4  # items shown: most by which the loss rose, then some by which it fell
CHARACTERS = 1500  # of a text that is shown; more is cut with a note
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")


def samples(scores: pl.DataFrame, items: Sequence[Item], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Items with answers, side by side: those whose loss rose most first, then some whose loss fell most."""
    pairs = paired(scores, "base").filter(pl.col("output").is_not_null())
    ranked = pairs.with_columns((pl.col("loss") - pl.col("loss_other")).alias("rise")).sort(["rise", "item"], descending=[True, False])
    order = ranked["item"].to_list()
    worst, best = order[:WORST], order[WORST:][::-1][:BEST]
    by_system = {(row["item"], row["system"]): row for row in scores.filter(pl.col("item").is_in([*worst, *best])).iter_rows(named=True)}
    headings = {worst[0]: "Loss rose most, or fell least"} if worst else {}
    if best:
        headings[best[0]] = "Loss fell most"
    return [_sample(items[item], by_system, item, headings.get(item, ""), titles) for item in (*worst, *best)]


def _sample(
    item: Item, by_system: dict[tuple[int, str], dict[str, Any]], at: int, heading: str, titles: Mapping[str, str]
) -> dict[str, Any]:
    sides = []
    for name, title in titles.items():
        row = by_system.get((at, name))
        if row is not None and row["output"] is not None:
            sides.append(
                {
                    "title": title,
                    "text": marked(short(row["output"]), item.answer) if row["output"] else "(nothing)",
                    "exact": row.get("exact_match") == 1.0,
                    "cut": row["stop"] != "end",
                }
            )
    return {
        "heading": heading,
        "id": item.id,
        "source": item.source,
        "line": item.line,
        "label": item.label,
        "prompt": short(item.prompt, from_end=True),
        "answer": short(item.answer),
        "base_loss": f"{by_system[at, 'base']['loss']:.3f}",
        "tuned_loss": f"{by_system[at, 'tuned']['loss']:.3f}",
        "sides": sides,
    }


def short(text: str, from_end: bool = False) -> str:
    """At most `CHARACTERS` characters; of a prompt the end, which is where the question stands."""
    over = len(text) - CHARACTERS
    if over <= 0:
        return text
    return f"[… {over:,} more] {text[-CHARACTERS:]}" if from_end else f"{text[:CHARACTERS]} [… {over:,} more]"


def marked(said: str, reference: str) -> Markup:
    """`said`, escaped, with <ins> around what `reference` does not have at that place, as a comparison word by word finds it.

    >>> marked("it is <b>4", "it is <b>5")
    Markup('it is &lt;b&gt;<ins>4</ins>')
    """
    mine, theirs = _PIECE.findall(visible(said)), _PIECE.findall(visible(reference[: 2 * CHARACTERS]))
    found = Markup("")
    for what, _, _, start, stop in difflib.SequenceMatcher(None, theirs, mine, autojunk=False).get_opcodes():
        text = escape("".join(mine[start:stop]))
        found += Markup("<ins>{}</ins>").format(text) if what in ("insert", "replace") and text.strip() else text
    return found


def visible(value: Any) -> Any:
    """Text with control and direction characters made visible; anything else as it is. Applied to all that goes into the page."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(char if char.isprintable() or char in "\n\t" or char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in value)
