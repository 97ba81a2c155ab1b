"""The tables of the evaluation page: all figures by system, and the slices."""

from collections.abc import Sequence
from typing import Any

from evaluate.drawings import interval_point
from evaluate.measures import BY_NAME
from evaluate.metrics import CONFUSIONS, SLICED_BY

NOT_KNOWN = "–"
SLICE_TITLES = {
    "personal": "personal data (placeholders of scrub)",
    "likeness": "likeness to training rows",
    "synthetic": "synthetic or not",
    "length": "length",
}


def measures(figures: dict[str, Any]) -> list[dict[str, Any]]:
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
        cells = [{"value": text(system[key], layout), "note": ""} for system in figures["systems"].values()]
        rows.append({"title": title, "cells": [*cells, {"value": "", "note": ""}]})
    for key, title in (("bleu_corpus", "BLEU of the corpus"), ("chrf_corpus", "chrF of the corpus"), ("macro_f1", "Macro-F1 of labels")):
        if any(key in system for system in figures["systems"].values()):
            cells = [{"value": text(system.get(key), "{:.2f}"), "note": ""} for system in figures["systems"].values()]
            rows.append({"title": title, "cells": [*cells, {"value": "", "note": ""}]})
    ends = [{"value": _ends(system), "note": ""} for system in figures["systems"].values()]
    rows.append({"title": "Answers without an end", "cells": [*ends, {"value": "", "note": ""}]})
    return rows


def wrong_labels(figures: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """The commonest confusions: true label, what was said, and how often each system said it; those of the tuned model first.

    Only the commonest of each system are counted (evaluate/metrics.py): a dash is none, or too few to be among them.
    """
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for name, system in figures["systems"].items():
        for each in system.get("confusions", []):
            counts.setdefault((each["label"], each["said"]), {})[name] = each["count"]
    order = sorted(counts, key=lambda pair: (-counts[pair].get("tuned", 0), -max(counts[pair].values()), pair))[:CONFUSIONS]
    return [(*pair, [str(counts[pair].get(name, NOT_KNOWN)) for name in figures["systems"]]) for pair in order]


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
    note = f"{text(interval['low'], layout)} to {text(interval['high'], layout)}, n = {interval['n']:,}{more}"
    return {"value": text(interval["value"], layout), "note": note}


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def text(value: float | None, layout: str = "{:.4f}") -> str:
    return NOT_KNOWN if value is None else layout.format(value)


def slice_tables(slices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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
        "base": text(each["loss_base"]),
        "tuned": text(each["loss_tuned"]),
        "difference": text(difference["value"], "{:+.4f}"),
        "interval": f"{text(difference['low'])} to {text(difference['high'])}" if point else "",
        "point": (point, reach),
        "p": _p(each["p_holm"]).removeprefix("= "),
        "exact_base": cell(each["exact_base"], True)["value"],
        "exact_tuned": cell(each["exact_tuned"], True)["value"],
    }
