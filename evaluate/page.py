"""The evaluation as one offline HTML page: verdict first. No script, nothing loaded from elsewhere, every text of the data escaped."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
from markupsafe import Markup

from evaluate import asides, drawings, side_by_side, tables
from evaluate.drawings import Point, interval_point
from evaluate.holdout import Item
from evaluate.measures import BY_NAME
from evaluate.metrics import FEW
from evaluate.verdict import FEWEST

TEMPLATES = Path(__file__).resolve().parent
LAYOUT, STYLE = "layout.html.jinja", "page.css"  # of every page
ASIDES = "asides.html.jinja"
TITLES = {
    "base": "Base",
    "few_shot": "Few-shot base",
    "tuned": "Tuned",
    "merged": "Merged",
    "previous": "Previous adapter",
    "endpoint": "Endpoint",
}


def environment() -> jinja2.Environment:
    """How templates beside this file are rendered."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=side_by_side.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(template: str, figures: dict[str, Any], contents: Sequence[tuple[str, str]], more: dict[str, Any]) -> str:
    """A whole page of the house: `figures` have the verdict and its reason, `contents` are anchors and titles of the sections."""
    style = (TEMPLATES / STYLE).read_text(encoding="utf-8")
    about = {
        "layout": LAYOUT,
        "asides": ASIDES,
        "style": Markup(style),
        "style_hash": "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),  # no other style is applied
        "state": figures["verdict"].replace(" ", "-"),
        "contents": contents,
    }
    return environment().get_template(template).render(figures=figures, **about, **more)


def render(figures: dict[str, Any], scores: pl.DataFrame, items: Sequence[Item], judged: Markup | None = None) -> str:
    """The page. `figures` as evaluation.json holds them, `scores` as items.parquet does, `judged` the judge's section."""
    systems = [{"key": key, "title": TITLES[key]} for key in figures["systems"]]
    bars = drawings.bars(figures, TITLES)
    names = {"loss": "loss of the answer", **{name: each.title for name, each in BY_NAME.items()}}
    shown: dict[str, Any] = {
        "main_points": _main_points(figures),
        "metric_points": _metric_points(figures),
        "words": _words(figures),
        "without": _without(figures),
        "side_effects": asides.side_effects(figures, TITLES),
        "judged": judged,
        "systems": systems,
        "measures": tables.measures(figures),
        "wrong_labels": tables.wrong_labels(figures),
        "bars": bars,
        "bars_height": (bars[-1]["y"] + 26) if bars else 0,
        "robustness": asides.robustness(figures, TITLES, names),
        "pass_at_k": asides.pass_at_k(figures, TITLES),
        "cost": asides.cost(figures, TITLES),
        "slice_tables": tables.slice_tables(figures["slices"]),
        "samples": side_by_side.samples(scores, items, TITLES),
        "forest": drawings.forest,
        "spark": drawings.spark,
        "few": FEW,
        "fewest": FEWEST,
    }
    return rendered("page.html.jinja", figures, _contents(figures, shown), shown)


def _contents(figures: dict[str, Any], shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that there are, in their order on the page."""
    preference = figures.get("preference")
    sections = [
        ("intervals", "Tuned against base", True),
        ("preferences", "Preferences", preference is not None and preference["pairs"]),
        ("side-effects", "Side effects", shown["side_effects"] or shown["without"]),
        ("judge", "Judge", shown["judged"] is not None),
        ("figures", "All figures", True),
        ("shares", "Answers that match", shown["bars"]),
        ("labels", "Wrong labels", shown["wrong_labels"]),
        ("robustness", "Typed badly", shown["robustness"]),
        ("samples", "Several answers", shown["pass_at_k"]),
        ("cost", "Cost", shown["cost"]),
        ("slices", "Slices", shown["slice_tables"]),
        ("answers", "Answers", True),
        ("rule", "The rule", True),
    ]
    return [(anchor, title) for anchor, title, there in sections if there]


def _main_points(figures: dict[str, Any]) -> list[Point]:
    found = []
    for other, comparison in figures["tuned_against"].items():
        loss = comparison["metrics"]["loss"]
        found.append(interval_point(f"Loss, {TITLES[other].lower()} − tuned", loss["difference"], loss["verdict"]))
        if comparison["control"] is not None and other == "base":
            found.append(interval_point("Prompt gain, tuned", comparison["prompt_gain"]))
            found.append(interval_point("Control: prompt gain, tuned − base", comparison["control"]))
    return [point for point in found if point is not None]


def _metric_points(figures: dict[str, Any]) -> list[Point]:
    """Tuned against base by the metrics that go from 0 to 1, each so that right is better."""
    compared = figures["tuned_against"]["base"]["metrics"]
    names = [name for name in figures["metrics"] if BY_NAME[name].better is not None]
    found = [
        interval_point(
            BY_NAME[name].title + (" (fewer)" if BY_NAME[name].better == "lower" else ""),
            compared[name]["difference"],
            compared[name]["verdict"],
        )
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
    return f"{tables.text(loss['difference']['value'], '{:+.4f}')} ({loss['verdict']}), on {adjusted['items']:,} items"
