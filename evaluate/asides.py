"""The parts of the page beside the items: side effects in words, changed questions, pass@k, and cost. Numbers and our own words alone."""

from typing import Any

from evaluate.robust import KIND_TITLES

Cell = dict[str, str]
NOT_KNOWN = "–"


def side_effects(figures: dict[str, Any], titles: dict[str, str]) -> list[str]:
    """A sentence for each thing that was looked at: general text, canaries, training rows by heart, originals of scrub."""
    found = []
    if (forgot := figures.get("forgetting")) is not None:
        missing = forgot["not_a_number"]
        without = f" Without a loss: {missing['base']} texts with the base, {missing['tuned']} tuned." if any(missing.values()) else ""
        found.append(
            f"General text ({forgot['texts']:,}): loss {_number(forgot['loss_base'])} with the base, {_number(forgot['loss_tuned'])} "
            f"tuned; a rise of {_interval(forgot['rise'])}.{without}"
        )
    for name, each in figures["memorisation"].items():
        found.append(
            f"Canaries, {titles[name].lower()}: {each['top']} of {each['canaries']} in the top twentieth of random texts, mean exposure "
            f"{each['exposure']:.2f} bits{': known by heart' if each['flagged'] else ''}."
        )
    if (heart := figures.get("verbatim")) is not None:
        shares = "; ".join(
            f"{titles[name].lower()} {_share(each['training'])} of training rows, {_share(each['holdout'])} of hold-out rows"
            for name, each in heart["systems"].items()
        )
        found.append(
            f"Continued word for word (the last {heart['tokens']} tokens of an answer): {shares}. Tuned against base on the training rows: "
            f"{_interval(heart['more_than_base'], '{:+.1%}')}."
        )
    for name, each in (figures.get("originals") or {}).items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in each["kinds"].items())
        held = f"{each['held']} hold originals that scrub had replaced ({kinds}; not shown)" if each["held"] else "none holds an original"
        found.append(f"Personal data, {titles[name].lower()}: of {each['answers']:,} answers {held}.")
    return found


def robustness(figures: dict[str, Any], titles: dict[str, str], names: dict[str, str]) -> dict[str, Any] | None:
    """Head and rows of the table of changed questions; None if none were asked. `names` are the titles of the metrics."""
    found = figures.get("robustness")
    if found is None:
        return None
    rows = []
    for kind in found["left_out"]:
        for name in next(iter(found["systems"].values()))[kind]:
            cells = [_difference(by_kind[kind][name]) for by_kind in found["systems"].values()]
            against = _difference(found["tuned_against_base"][kind]) if name == "loss" else {"value": "", "note": ""}
            if any(cell["value"] != NOT_KNOWN for cell in cells):
                rows.append({"kind": KIND_TITLES[kind], "title": names[name], "cells": [*cells, against]})
    left = [
        f"{KIND_TITLES[kind]}: " + ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in missed.items())
        for kind, missed in found["left_out"].items()
        if missed
    ]
    return {"systems": [titles[name] for name in found["systems"]], "rows": rows, "left_out": "; ".join(left)}


def pass_at_k(figures: dict[str, Any], titles: dict[str, str]) -> dict[str, Any] | None:
    """Head and rows of the table of pass@k; None if nothing was drawn."""
    found = figures.get("pass_at_k")
    if found is None:
        return None
    rows = [
        {
            "title": f"pass@{k}",
            "cells": [*(_cell(by_k[k]) for by_k in found["systems"].values()), _difference(found["tuned_against_base"][k])],
        }
        for k in found["tuned_against_base"]
    ]
    drawn = f"{found['answers']} answers each at temperature {found['temperature']:g}"
    about = f"{found['items']:,} items, {drawn}, right by the rule {found['check']}"
    return {"systems": [titles[name] for name in found["systems"]], "rows": rows, "about": about}


def cost(figures: dict[str, Any], titles: dict[str, str]) -> dict[str, Any] | None:
    """The table of costs: a column a system; None if nothing was measured."""
    found = figures.get("cost")
    if found is None:
        return None
    systems = found["systems"]
    lines = [
        ("Time to first token, a prompt alone", [_first(each) for each in systems.values()]),
        ("Answers: tokens/s", [_rate(each["generation"], "made_tokens_per_second") for each in systems.values()]),
        ("Answers: rows in a batch", [_batch(each["generation"]) for each in systems.values()]),
        ("Answers: peak memory", [_memory(each["generation"]) for each in systems.values()]),
        ("Losses: tokens/s", [_rate(each["scoring"], "read_tokens_per_second") for each in systems.values()]),
        ("Losses: rows in a batch", [_batch(each["scoring"]) for each in systems.values()]),
        ("Losses: peak memory", [_memory(each["scoring"]) for each in systems.values()]),
        ("Weights in memory", [_plain(_bytes(each["weights_bytes"])) for each in systems.values()]),
        ("Adapter on disk", [_adapter(each["adapter"]) for each in systems.values()]),
    ]
    rows = [{"title": title, "cells": cells} for title, cells in lines if any(cell["value"] != NOT_KNOWN for cell in cells)]
    return {"systems": [titles.get(name, name) for name in systems], "rows": rows, "device": found["device"]}


def _first(each: dict[str, Any]) -> Cell:
    if each["first_token_seconds"] is None:
        return _plain(NOT_KNOWN)
    return {"value": f"{1000 * each['first_token_seconds']:,.1f} ms", "note": f"prompt of {each['first_token_prompt_tokens']:g} tokens"}


def _rate(phase: dict[str, Any] | None, key: str) -> Cell:
    if phase is None:
        return _plain(NOT_KNOWN)
    return {"value": f"{phase[key]:,.0f}", "note": f"{phase['rows']:,} rows in {phase['seconds']:,.1f} s"}


def _batch(phase: dict[str, Any] | None) -> Cell:
    if phase is None:
        return _plain(NOT_KNOWN)
    return {"value": f"{phase['batch_rows_median']:g}", "note": f"at most {phase['batch_rows_most']}; {phase['batches']} batches"}


def _memory(phase: dict[str, Any] | None) -> Cell:
    return _plain(NOT_KNOWN if phase is None else _bytes(phase["peak_bytes"]))


def _adapter(adapter: dict[str, int] | None) -> Cell:
    if adapter is None:
        return _plain(NOT_KNOWN)
    return {"value": _bytes(adapter["bytes"]), "note": f"{adapter['parameters']:,} parameters"}


def _bytes(size: int | None) -> str:
    return NOT_KNOWN if size is None else f"{size / 1e9:,.2f} GB" if size >= 1e9 else f"{size / 1e6:,.2f} MB"


def _plain(value: str) -> Cell:
    return {"value": value, "note": ""}


def _cell(interval: dict[str, Any]) -> Cell:
    if interval["value"] is None:
        return _plain(NOT_KNOWN)
    return {"value": f"{interval['value']:.1%}", "note": f"{_text(interval['low'], '{:.1%}')} to {_text(interval['high'], '{:.1%}')}"}


def _difference(found: dict[str, Any]) -> Cell:
    part = found["difference"]
    if not part["n"]:
        return _plain(NOT_KNOWN)
    value = f"{_text(part['value'], '{:+.4f}')} {found['verdict'] or ''}".rstrip()
    return {"value": value, "note": f"{_text(part['low'], '{:+.4f}')} to {_text(part['high'], '{:+.4f}')}, n = {part['n']:,}"}


def _interval(part: dict[str, Any], layout: str = "{:+.4f}") -> str:
    return f"{_text(part['value'], layout)} ({_text(part['low'], layout)} to {_text(part['high'], layout)})"


def _share(part: dict[str, Any]) -> str:
    return NOT_KNOWN if part["value"] is None else f"{part['value']:.1%} of {part['n']:,}"


def _number(value: float | None) -> str:
    return _text(value, "{:.4f}")


def _text(value: float | None, layout: str) -> str:
    return NOT_KNOWN if value is None else layout.format(value)
