"""The evaluation as one offline HTML page: verdict first. No script, nothing loaded from elsewhere, every text of the data escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from evaluate import asides
from evaluate.holdout import Item
from evaluate.measures import BY_NAME
from evaluate.metrics import FEW, SLICED_BY, paired
from evaluate.verdict import FEWEST

TEMPLATES = Path(__file__).resolve().parent
TITLES = {
    "base": "Base",
    "few_shot": "Few-shot base",
    "tuned": "Tuned",
    "merged": "Merged",
    "previous": "Previous adapter",
    "endpoint": "Endpoint",
}
WORST, BEST = 12, 4  # items shown side by side: most by which the loss rose, then some by which it fell
CHARACTERS = 1500  # of a text that is shown; more is cut with a note
SLICE_TITLES = {
    "personal": "personal data (placeholders of scrub)",
    "likeness": "likeness to training rows",
    "synthetic": "synthetic or not",
    "length": "length",
}
NOT_KNOWN = "–"


@dataclass(frozen=True)
class Point:
    """An estimate with its interval, to be drawn on a common scale."""

    title: str
    value: float
    low: float
    high: float


def environment() -> jinja2.Environment:
    """How templates beside this file are rendered."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(figures: dict[str, Any], scores: pl.DataFrame, items: Sequence[Item], judged: Markup | None = None) -> str:
    """The page. `figures` as evaluation.json holds them, `scores` as items.parquet does, `judged` the judge's section."""
    systems = [{"key": key, "title": TITLES[key]} for key in figures["systems"]]
    bars = _bars(figures)
    tables = _slice_tables(figures["slices"])
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            figures=figures,
            verdict_class=figures["verdict"].replace(" ", "-"),
            systems=systems,
            measures=_measures(figures),
            main_points=_main_points(figures),
            metric_points=_metric_points(figures),
            words=_words(figures),
            without=_without(figures),
            forest=forest,
            spark=spark,
            bars=bars,
            bars_height=(bars[-1]["y"] + 26) if bars else 0,
            slice_tables=tables,
            few=FEW,
            fewest=FEWEST,
            judged=judged or "",
            samples=_samples(scores, items),
            side_effects=asides.side_effects(figures, TITLES),
            asides=_asides(figures),
        )
    )


def _asides(figures: dict[str, Any]) -> Markup:
    names = {"loss": "loss of the answer", **{name: each.title for name, each in BY_NAME.items()}}
    made = (
        environment()
        .get_template("asides.html.jinja")
        .render(
            robustness=asides.robustness(figures, TITLES, names),
            pass_at_k=asides.pass_at_k(figures, TITLES),
            cost=asides.cost(figures, TITLES),
        )
    )
    return Markup(made)  # rendered with every text escaped


def _main_points(figures: dict[str, Any]) -> list[Point]:
    found = []
    for other, comparison in figures["tuned_against"].items():
        found.append(interval_point(f"Loss, {TITLES[other].lower()} − tuned", comparison["metrics"]["loss"]["difference"]))
        if comparison["control"] is not None and other == "base":
            found.append(interval_point("Prompt gain, tuned", comparison["prompt_gain"]))
            found.append(interval_point("Control: prompt gain, tuned − base", comparison["control"]))
    return [point for point in found if point is not None]


def _metric_points(figures: dict[str, Any]) -> list[Point]:
    """Tuned against base by the metrics that go from 0 to 1, each so that right is better."""
    compared = figures["tuned_against"]["base"]["metrics"]
    names = [name for name in figures["metrics"] if BY_NAME[name].better is not None]
    found = [
        interval_point(BY_NAME[name].title + (" (fewer)" if BY_NAME[name].better == "lower" else ""), compared[name]["difference"])
        for name in names
    ]
    return [point for point in found if point is not None]


def _words(figures: dict[str, Any]) -> list[dict[str, str]]:
    """The word on each metric, tuned against base, for the first screen."""
    compared = figures["tuned_against"]["base"]["metrics"]
    return [
        {"title": "Loss" if name == "loss" else BY_NAME[name].title, "word": each["verdict"], "class": each["verdict"].replace(" ", "-")}
        for name, each in compared.items()
        if each["verdict"] is not None and each["difference"]["n"]
    ]


def _without(figures: dict[str, Any]) -> str:
    adjusted = figures["without_neighbours"]
    if adjusted is None:
        return ""
    loss = adjusted["metrics"]["loss"]
    return f"{_text(loss['difference']['value'], '{:+.4f}')} ({loss['verdict']}), on {adjusted['items']:,} items"


def interval_point(title: str, interval: dict[str, Any]) -> Point | None:
    """The point of an interval; None where it is not known."""
    if None in (interval["value"], interval["low"], interval["high"]):
        return None
    return Point(title, interval["value"], interval["low"], interval["high"])


def _measures(figures: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    against = figures["tuned_against"]["base"]
    for key, title in (("loss", "Loss, mean over items (nats a token)"), *((name, BY_NAME[name].title) for name in figures["metrics"])):
        share = key != "loss" and BY_NAME[key].binary
        cells = [cell(system["metrics"][key], share) for system in figures["systems"].values()]
        rows.append({"title": title, "cells": [*cells, _difference(against["metrics"][key])]})
    cells = [cell(system["prompt_gain"], False) for system in figures["systems"].values()]
    rows.insert(1, {"title": "Gain from the own prompt (nats a token)", "cells": [*cells, cell(against["control"], False)]})
    plain = [
        ("loss_per_token", "Loss, mean over tokens", "{:.4f}"),
        ("perplexity", "Perplexity", "{:,.2f}"),
        ("mean_shots", "Examples shown", "{:.1f}"),
    ]
    for key, title, layout in plain:
        cells = [{"value": _text(system[key], layout), "note": ""} for system in figures["systems"].values()]
        rows.append({"title": title, "cells": [*cells, {"value": "", "note": ""}]})
    for key, title in (("bleu_corpus", "BLEU of the corpus"), ("chrf_corpus", "chrF of the corpus"), ("macro_f1", "Macro-F1 of labels")):
        if any(key in system for system in figures["systems"].values()):
            cells = [{"value": _text(system.get(key), "{:.2f}"), "note": ""} for system in figures["systems"].values()]
            rows.append({"title": title, "cells": [*cells, {"value": "", "note": ""}]})
    ends = [{"value": _ends(system), "note": ""} for system in figures["systems"].values()]
    rows.append({"title": "Answers without an end", "cells": [*ends, {"value": "", "note": ""}]})
    return rows


def _ends(system: dict[str, Any]) -> str:
    return f"{system['generated'] - system['stops'].get('end', 0)} of {system['generated']}"


def _difference(found: dict[str, Any]) -> dict[str, str]:
    """Difference, its interval, p, items gained and lost, the word, and what could have been found."""
    if not found["difference"]["n"]:
        return {"value": NOT_KNOWN, "note": ""}
    made = cell(found["difference"], False, f", p {_p(found['p'])}")
    moved = f" (+{found['gained']} −{found['lost']} items)" if found["gained"] is not None else ""
    least = f"; detectable: {found['detectable']:.3f}" if found["detectable"] is not None else ""
    return {"value": f"{made['value']} {found['verdict'] or ''}{moved}", "note": made["note"] + least}


def cell(interval: dict[str, Any] | None, share: bool, more: str = "") -> dict[str, str]:
    """A figure for a table, and below it its interval and number of items."""
    if interval is None or interval["value"] is None:
        return {"value": NOT_KNOWN, "note": ""}
    layout = "{:.1%}" if share else "{:.4f}"
    note = f"{_text(interval['low'], layout)} to {_text(interval['high'], layout)}, n = {interval['n']:,}{more}"
    return {"value": _text(interval["value"], layout), "note": note}


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def _text(value: float | None, layout: str = "{:.4f}") -> str:
    return NOT_KNOWN if value is None else layout.format(value)


def _bars(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Bars of shares by system, 120 to 540 on the x axis for 0 to 1."""
    found: list[dict[str, Any]] = []
    y = 0
    for key in figures["metrics"]:
        if BY_NAME[key].better is None:
            continue
        title = BY_NAME[key].title
        first = True
        for name, system in figures["systems"].items():
            measured = system["metrics"][key]
            if None in (measured["value"], measured["low"], measured["high"]):
                continue
            y += 30 if first else 0
            ends = {side: 120 + 420 * min(max(measured[side], 0.0), 1.0) for side in ("value", "low", "high")}
            found.append(
                {
                    "heading": title if first else "",
                    "title": TITLES[name],
                    "system": name,
                    "y": y,
                    "width": round(ends["value"] - 120, 1),
                    "low": round(ends["low"], 1),
                    "high": round(ends["high"], 1),
                    "text": f"{measured['value']:.1%}" if BY_NAME[key].binary else f"{measured['value']:.3f}",
                }
            )
            first = False
            y += 24
    return found


def _slice_tables(slices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    finite = [abs(each["difference"][side] or 0.0) for each in slices for side in ("value", "low", "high")]
    reach = max(finite, default=0.0) or 1.0
    return [
        {"by": by, "title": SLICE_TITLES.get(by, by), "rows": [_slice_row(each, reach) for each in slices if each["by"] == by]}
        for by in ("label", *(each for each in SLICED_BY if each != "label"))
        if any(each["by"] == by for each in slices)
    ]


def _slice_row(each: dict[str, Any], reach: float) -> dict[str, Any]:
    difference = each["difference"]
    point = interval_point(each["name"], difference)
    return {
        "name": each["name"],
        "n": each["n"],
        "few": each["few"],
        "base": _text(each["loss_base"]),
        "tuned": _text(each["loss_tuned"]),
        "difference": _text(difference["value"], "{:+.4f}"),
        "interval": f"{_text(difference['low'])} to {_text(difference['high'])}" if point else "",
        "point": (point, reach),
        "p": _p(each["p_holm"]).removeprefix("= "),
        "exact_base": cell(each["exact_base"], True)["value"],
        "exact_tuned": cell(each["exact_tuned"], True)["value"],
    }


def forest(points: Sequence[Point], width: int) -> Markup:
    """An SVG of points with intervals around a line at zero. Only numbers and our own titles go in, and both are escaped."""
    reach = max((abs(end) for point in points for end in (point.low, point.high)), default=1.0) or 1.0
    left, span, height = 250, width - 250 - 90, 30 * len(points) + 10

    def place(value: float) -> float:
        return round(left + span * (value + reach) / (2 * reach), 1)

    drawn = [Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(place(0), height)]
    for at, point in enumerate(points):
        y = 30 * at + 20
        drawn.append(Markup('<text x="0" y="{}">{}</text>').format(y + 4, point.title))
        drawn.append(Markup('<line class="whisker" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(place(point.low), place(point.high), y=y))
        drawn.append(Markup('<circle class="dot" cx="{}" cy="{}" r="5"/>').format(place(point.value), y))
        drawn.append(Markup('<text x="{}" y="{}">{}</text>').format(left + span + 15, y + 4, f"{point.value:+.4f}"))
    label = "; ".join(f"{point.title}: {point.value:.4f}, 95 % interval {point.low:.4f} to {point.high:.4f}" for point in points)
    return Markup('<svg width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">{inner}</svg>').format(
        w=width, h=height, label=label, inner=Markup("").join(drawn)
    )


def spark(drawing: tuple[Point | None, float]) -> Markup:
    """One point with its interval, 120 wide; the numbers stand beside it in the table."""
    point, reach = drawing
    if point is None:
        return Markup("")

    def place(value: float) -> float:
        return round(60 + 58 * value / reach, 1)

    return Markup(
        '<svg width="120" height="16" viewBox="0 0 120 16" aria-hidden="true"><line class="zero" x1="60" x2="60" y1="0" y2="16"/>'
        '<line class="whisker" x1="{}" x2="{}" y1="8" y2="8"/><circle class="dot" cx="{}" cy="8" r="3.5"/></svg>'
    ).format(place(point.low), place(point.high), place(point.value))


def _samples(scores: pl.DataFrame, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items with answers, side by side: those whose loss rose most first, then some whose loss fell most."""
    pairs = paired(scores, "base").filter(pl.col("output").is_not_null())
    ranked = pairs.with_columns((pl.col("loss") - pl.col("loss_other")).alias("rise")).sort(["rise", "item"], descending=[True, False])
    order = ranked["item"].to_list()
    worst, best = order[:WORST], order[WORST:][::-1][:BEST]
    by_system = {(row["item"], row["system"]): row for row in scores.filter(pl.col("item").is_in([*worst, *best])).iter_rows(named=True)}
    headings = {worst[0]: "Loss rose most, or fell least"} if worst else {}
    if best:
        headings[best[0]] = "Loss fell most"
    return [_sample(items[item], by_system, item, headings.get(item, "")) for item in (*worst, *best)]


def _sample(item: Item, by_system: dict[tuple[int, str], dict[str, Any]], at: int, heading: str) -> dict[str, Any]:
    sides = []
    for name, title in TITLES.items():
        row = by_system.get((at, name))
        if row is not None and row["output"] is not None:
            sides.append(
                {
                    "title": title,
                    "text": short(row["output"]) or "(nothing)",
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


def visible(value: Any) -> Any:
    """Text with control and direction characters made visible; anything else as it is. Applied to all that goes into the page."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(char if char.isprintable() or char in "\n\t" or char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in value)
