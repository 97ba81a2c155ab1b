"""The suspicious rows as the page shows them: the first of every kind, with their text."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from curate.reporting.charts import diff
from curate.reporting.gather import last_records
from curate.reporting.layout import Given
from curate.reporting.plain import visible
from curate.reporting.samples import Where, read_texts, shown
from curate.reporting.suspicious import KINDS

SHOWN = 10  # rows of each kind
TITLES = {
    "label_error": ("Probable label errors", "The words speak for another label than the row has, judged by rows that carry it."),
    "outlier": ("Outliers", "Like nothing else in the dataset: of another subject, language or form, or rare and precious."),
    "conflict": ("Conflicts", "The same or nearly the same prompt with another answer: a model can learn only one."),
    "near_leak": ("Near leaks", "Pieces of benchmark items, or rows like one of another split, that were let through."),
    "near_miss": ("Below the threshold", "Alike, but not enough to be a duplicate: both rows stay."),
    "longest": ("Longest", "Long rows are cut first, and weigh most in the loss."),
    "odd_characters": ("Odd characters", "Damaged, invisible, or of another script than the rest of the word."),
    "active_content": ("Markup, templates, formulas", "Kept as text and inert here; other programs that show the rows may run it."),
}


@dataclass(frozen=True)
class Row:
    """One suspicious row."""

    source: str
    line: int
    label: str | None
    score: float
    detail: str
    suggestion: str | None
    text: Markup
    other: Markup | None  # of the row beside it
    other_where: str


@dataclass(frozen=True)
class Kind:
    """Rows of one kind, and how many there are in all."""

    name: str
    title: str
    why: str
    found: int
    rows: list[Row]


def rows_to_look_at(given: Given, numbers: dict[str, Any]) -> list[Kind]:
    """The first `SHOWN` of every kind, kinds in order."""
    first = given.suspicious.rows.group_by("kind", maintain_order=True).head(SHOWN).to_dicts()
    folder = last_records(given.found).folder
    places = {(row["source"], row["line"]) for row in first}
    places |= {(row["other_source"], row["other_line"]) for row in first if row["other_source"] is not None}
    texts = read_texts(folder, places)
    kinds = []
    for kind in KINDS:
        rows = [_row(each, texts) for each in first if each["kind"] == kind]
        if rows:
            kinds.append(Kind(kind, *TITLES[kind], numbers["suspicious"]["kinds"][kind]["found"], rows))
    return kinds


def _row(row: dict[str, Any], texts: dict[Where, str]) -> Row:
    text, other, where = texts.get((row["source"], row["line"]), ""), texts.get((row["other_source"], row["other_line"])), ""
    marked, beside = escape(visible(shown(text))), None
    if other is not None:
        (marked, beside), where = diff(shown(text), shown(other)), f"{row['other_source']}:{row['other_line']}"
    told = {name: row[name] for name in ("source", "line", "label", "score", "detail", "suggestion")}
    return Row(**told, text=marked, other=beside, other_where=where)
