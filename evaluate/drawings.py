"""The drawings of the evaluation page, as SVG. Only numbers and our own titles go in, and both are escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluate.measures import BY_NAME

SIDES = ("base is better", "tuned is better")  # of the line at zero


@dataclass(frozen=True)
class Point:
    """An estimate with its interval, to be drawn on a common scale; `word` (better, worse, not shown) gives its colour."""

    title: str
    value: float
    low: float
    high: float
    word: str | None = None


def interval_point(title: str, interval: dict[str, Any], word: str | None = None) -> Point | None:
    """The point of an interval; None where it is not known."""
    if None in (interval["value"], interval["low"], interval["high"]):
        return None
    return Point(title, interval["value"], interval["low"], interval["high"], word)


def forest(points: Sequence[Point], unit: str = "", sides: tuple[str, str] = SIDES) -> Markup:
    """Points with intervals around a line at zero, a row each: title, picture, figures. On a phone the picture has a line of its own."""
    reach = max((abs(end) for point in points for end in (point.low, point.high)), default=1.0) or 1.0

    def place(value: float) -> str:
        return f"{50 + 48 * value / reach:.2f}%"

    head = Markup('<div class="point soft"><span>{}</span><span class="sides-of"><span>← {}</span><span>{} →</span></span></div>')
    drawn = [head.format(unit, *sides)]
    for point in points:
        drawn.append(
            Markup(
                '<div class="point {}"><span>{}</span><svg width="100%" height="24" aria-hidden="true">'
                '<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/><line class="whisker" x1="{}" x2="{}" y1="50%" y2="50%"/>'
                '<circle class="dot" cx="{}" cy="50%" r="5"/></svg><span><b>{}</b> <span class="soft">{} to {}</span></span></div>'
            ).format(
                (point.word or "").replace(" ", "-"), point.title, place(point.low), place(point.high), place(point.value),
                *(f"{each:+.3f}" if each else "0" for each in (point.value, point.low, point.high)),
            )
        )  # fmt: skip
    return Markup('<div class="forest">{}</div>').format(Markup("").join(drawn))


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


def bars(figures: dict[str, Any], titles: dict[str, str]) -> list[dict[str, Any]]:
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
                    "title": titles[name],
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
