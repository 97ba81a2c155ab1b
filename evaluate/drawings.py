"""The drawings of the evaluation page, as SVG. Only numbers and our own titles go in, and both are escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from evaluate.measures import BY_NAME

ROW = 26  # pixels between two points


@dataclass(frozen=True)
class Point:
    """An estimate with its interval, to be drawn on a common scale."""

    title: str
    value: float
    low: float
    high: float


def interval_point(title: str, interval: dict[str, Any]) -> Point | None:
    """The point of an interval; None where it is not known."""
    if None in (interval["value"], interval["low"], interval["high"]):
        return None
    return Point(title, interval["value"], interval["low"], interval["high"])


def forest(points: Sequence[Point], width: int) -> Markup:
    """An SVG of points with intervals around a line at zero. Only numbers and our own titles go in, and both are escaped."""
    reach = max((abs(end) for point in points for end in (point.low, point.high)), default=1.0) or 1.0
    left, span, height = 250, width - 250 - 90, ROW * len(points) + 8

    def place(value: float) -> float:
        return round(left + span * (value + reach) / (2 * reach), 1)

    drawn = [Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(place(0), height)]
    for at, point in enumerate(points):
        y = ROW * at + 17
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
