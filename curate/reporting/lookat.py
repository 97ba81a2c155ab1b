"""The suspicious rows as the page shows them: the first of every kind, with their text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup, escape

from curate.reporting.charts import diff
from curate.reporting.gather import last_records
from curate.reporting.layout import Given
from curate.reporting.plain import visible
from curate.reporting.samples import Where, read_texts, shown
from curate.reporting.suspicious import KINDS

SHOWN = 10  # rows of each kind; of conflicts, groups of rows
MEMBERS = 4  # rows of a group that are shown
TITLES = {
    "label_error": ("Doubtful labels", "The words speak for another label than the row has, judged by rows that carry it."),
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
    others: list[tuple[Markup, str]]  # text and place of the rows beside it
    more: int  # rows of its group that are not shown


@dataclass(frozen=True)
class Kind:
    """Rows of one kind, and how many there are in all."""

    name: str
    title: str
    why: str
    found: int
    rows: list[Row]


def rows_to_look_at(given: Given, numbers: dict[str, Any]) -> list[Kind]:
    """The first `SHOWN` of every kind, kinds in order; conflicting rows as one item for each group."""
    every = given.suspicious.rows
    single = every.filter(pl.col("kind") != "conflict").group_by("kind", maintain_order=True).head(SHOWN).to_dicts()
    groups = [(row, [_other(row)] if row["other_source"] is not None else []) for row in single]
    groups += conflicts(every.filter(pl.col("kind") == "conflict").to_dicts())[:SHOWN]
    wanted = {place for row, others in groups for place in (_place(row), *others[: MEMBERS - 1])}
    texts = read_texts(last_records(given.found).folder, wanted)
    kinds = []
    for kind in KINDS:
        rows = [_row(row, others, texts) for row, others in groups if row["kind"] == kind]
        if rows:
            kinds.append(Kind(kind, *TITLES[kind], numbers["suspicious"]["kinds"][kind]["found"], rows))
    return kinds


def conflicts(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], list[Where]]]:
    """The first row of each group of rows that contradict each other, directly or through another, and the places of all others."""
    group: dict[Where, list[Where]] = {}
    for row in rows:
        one, other = group.setdefault(_place(row), [_place(row)]), group.setdefault(_other(row), [_other(row)])
        if one is not other:
            one.extend(other)
            group.update(dict.fromkeys(other, one))
    first: dict[int, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(id(group[_place(row)]), row)
    return [(row, [place for place in group[_place(row)] if place != _place(row)]) for row in first.values()]


def _place(row: dict[str, Any]) -> Where:
    return row["source"], row["line"]


def _other(row: dict[str, Any]) -> Where:
    return row["other_source"], row["other_line"]


def _row(row: dict[str, Any], others: list[Where], texts: dict[Where, str]) -> Row:
    text = shown(texts.get(_place(row), ""))
    marked, beside = escape(visible(text)), []
    for at, place in enumerate(each for each in others[: MEMBERS - 1] if each in texts):
        mine, other = diff(text, shown(texts[place]))
        marked = mine if at == 0 else marked
        beside.append((other, f"{place[0]}:{place[1]}"))
    told = {name: row[name] for name in ("source", "line", "label", "score", "detail", "suggestion")}
    return Row(**told, text=marked, others=beside, more=len(others) - len(beside) if beside else 0)
