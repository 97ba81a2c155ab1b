"""The judge's part of the evaluation page."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from evaluate import page
from evaluate.ask import Row
from evaluate.contests import TIE, TUNED, UNREADABLE
from evaluate.drawings import forest, interval_point
from evaluate.holdout import Item
from evaluate.side_by_side import short
from evaluate.tables import cell

WORDS = {TIE: "Tie", UNREADABLE: "Unreadable"}


def render(figures: dict[str, Any], read: Sequence[dict[str, Any]], items: Sequence[Item], rows: Mapping[str, Sequence[Row]]) -> Markup:
    """The section. `figures` as evaluation.json holds them, `read` the judgements to show; every text of the data is escaped."""
    titles = {name: page.TITLES.get(name, WORDS.get(name, name)) for name in (*rows, TIE, UNREADABLE)}
    points = [
        interval_point(f"{titles[other]}: judge's lead of tuned", each["lead" if figures["mode"] == "pairwise" else "difference"])
        for other, each in figures["against"].items()
    ]
    html = (
        page.environment()
        .get_template("judge.html.jinja")
        .render(
            judge=figures,
            titles=titles,
            points=[point for point in points if point is not None],
            forest=forest,
            cell=cell,
            people=_people(figures),
            read=[_read(each, items[each["at"]], rows, titles) for each in read],
        )
    )
    return Markup(html)


def _people(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Every agreement with people, with a title."""
    if figures["mode"] == "pairwise":
        found = {f"tuned against {other}": each["people"] for other, each in figures["against"].items()}
    else:
        found = dict(figures["people"] or {})
    return [each | {"title": title} for title, each in found.items() if each is not None]


def _read(each: dict[str, Any], item: Item, rows: Mapping[str, Sequence[Row]], titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "outcome": titles[each["outcome"]],
        "prompt": short(item.prompt, from_end=True),
        "sides": [(titles[name], short(str(rows[name][each["at"]]["output"])) or "(nothing)") for name in (TUNED, each["other"])],
        "reasons": [short(reason) for reason in each["reasons"]],
    }
