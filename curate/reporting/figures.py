"""The report's pictures, drawn from its numbers."""

from typing import Any

from markupsafe import Markup

from curate.record import SPLITS
from curate.reporting.charts import Bar, bars, histogram

MOST_LABELS = 30  # rows of the label picture; the table below it has them all


def pictures(numbers: dict[str, Any]) -> dict[str, Markup]:
    """Funnel, labels, duplicate sizes, similarity and lengths; a picture whose numbers are missing is left out."""
    found = {"funnel": _funnel(numbers), "labels": _labels(numbers)}
    if any(numbers["duplicates"]["sizes"].values()):
        sizes = numbers["duplicates"]["sizes"]
        found["sizes"] = bars(
            "Duplicate sets by number of rows",
            [Bar(f"{name} rows", (("dropped", count, f"{count:,} sets"),), f"{count:,}") for name, count in sizes.items()],
        )
    if numbers["duplicates"]["similarity"]:
        steps = {float(step): count for step, count in numbers["duplicates"]["similarity"].items()}
        low = min(steps)
        edges = [round(low + at / 50, 2) for at in range(round((1 - low) * 50) + 1)]
        counts = [steps.get(edge, 0) for edge in edges[:-1]]
        found["similarity"] = histogram(
            "Similarity of compared pairs", edges, counts, "Jaccard similarity", numbers["duplicates"]["threshold"], counted="pairs"
        )
    for name, unit in (("character", "characters"), ("token", "tokens")):
        shape = numbers.get(f"{name}_histogram")
        if shape and shape["splits"]:
            total = [sum(column) for column in zip(*shape["splits"].values(), strict=True)]
            beyond = f" ({shape['beyond']:,} rows beyond)"
            found[unit] = histogram(f"Length of rows in {unit}", shape["edges"], total, unit, note=beyond)
    return found


def _funnel(numbers: dict[str, Any]) -> Markup:
    rows = [Bar("raw rows", (("kept", numbers["rows"]["raw"], f"{numbers['rows']['raw']:,} rows"),), f"{numbers['rows']['raw']:,}")]
    for step in numbers["waterfall"]:
        parts = (
            ("kept", step["kept"] - step["added"], f"{step['kept'] - step['added']:,} kept"),
            ("added", step["added"], f"{step['added']:,} added"),
            ("dropped", step["dropped"], f"{step['dropped']:,} dropped"),
        )
        lost = f" −{step['dropped']:,}" if step["dropped"] else ""
        more = f" +{step['added']:,}" if step["added"] else ""
        rows.append(Bar(step["stage"], parts, f"{step['kept']:,}{more}{lost}" if step["enabled"] else f"{step['kept']:,} (off)"))
    return bars("Rows after every stage", rows)


def _labels(numbers: dict[str, Any]) -> Markup:
    rows = []
    for label, splits in list(numbers["labels"].items())[:MOST_LABELS]:
        total = sum(splits[split] for split in SPLITS)
        shown = SPLITS if total else ("",)
        parts = tuple((split, splits[split], f"{splits[split]:,} in {split}") for split in shown if split)
        rows.append(Bar(label, parts, f"{total:,}"))
    return bars("Rows per label and split", rows)
