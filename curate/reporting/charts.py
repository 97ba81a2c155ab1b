"""Pictures for the report: plain SVG that prints, needs no script and takes its colours from the page (light and dark).

Every picture has a title for screen readers, and every mark a title with its exact value for hovering. Pictures are as wide as the
page lets them be: places from left to right are percentages and there is no viewBox, so that text keeps its size on a phone.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from curate.reporting.plain import breakable, visible


@dataclass(frozen=True)
class Bar:
    """One row of `bars`: a label and its segments as (css class, value, what the value is)."""

    label: str
    segments: tuple[tuple[str, float, str], ...]
    note: str = ""


def tag(name: str, text: str = "", **attributes: object) -> Markup:
    written = Markup("").join(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Markup("<{}{}>{}</{}>").format(name, written, text if isinstance(text, Markup) else visible(text), name)


def svg(title: str, parts: Sequence[Markup], **attributes: object) -> Markup:
    return tag("svg", Markup("").join(parts), role="img", aria_label=title, **attributes)


def percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def bars(title: str, rows: Sequence[Bar]) -> Markup:
    """Horizontal bars, stacked where a row has several segments; the longest row is as wide as the picture."""
    full = max((sum(value for _, value, _ in row.segments) for row in rows), default=0) or 1
    items = []
    for row in rows:
        parts, x = [], 0.0
        for css, value, what in row.segments:
            if value > 0:
                parts.append(
                    tag("rect", tag("title", what), x=percent(x), width=percent(max(value / full, 0.002)), height="100%", class_=css)
                )
            x += value / full
        told = ", ".join(what for _, value, what in row.segments if value > 0) or "none"
        items.append(tag("li", tag("span", breakable(row.label)) + svg(told, parts) + tag("span", row.note, class_="value")))
    return tag("ul", Markup("").join(items), class_="bars", aria_label=title)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    unit: str,
    mark: float | None = None,
    *,
    counted: str = "rows",
    note: str = "",
) -> Markup:
    """Columns between `edges` (one more than `counts`): how many `counted` there are, over an axis of `unit`. `mark` draws a vertical
    line, such as a threshold, at a value; `note` stands beside the axis' title."""
    top, base, tallest = 40, 160, max([*counts, 1])
    low, high = edges[0], edges[-1]

    def share(value: float) -> float:
        return (value - low) / ((high - low) or 1)

    most = f"{counted} in each column, at most {max(counts, default=0):,}"
    parts = [tag("line", x1=0, x2="100%", y1=y, y2=y, class_="axis") for y in (top, base)]
    parts.append(tag("text", most, x=0, y=12, class_="value"))
    for at, count in enumerate(counts):
        tall = max((base - top) * count / tallest, 1)
        what = f"{count:,} between {_number(edges[at])} and {_number(edges[at + 1])} {unit}"
        if count:
            size = {"x": percent(share(edges[at])), "width": percent(0.93 * (share(edges[at + 1]) - share(edges[at])))}
            parts.append(tag("rect", tag("title", what), y=f"{base - tall:.1f}", height=f"{tall:.1f}", class_="kept", **size))
    for at in range(0, len(edges), max(1, -(-(len(edges) - 1) // 6))):
        parts.append(_beside(_number(edges[at]), share(edges[at]), base + 16))
    parts.append(_beside(f"{unit}{note} →", 1, base + 34))
    if mark is not None and low <= mark <= high:
        x = share(mark)
        parts.append(tag("line", x1=percent(x), x2=percent(x), y1=20, y2=base, class_="mark"))
        parts.append(_beside(f"threshold {_number(mark)}", x, 32, "end" if x > 0.5 else "start"))
    return svg(f"{title}: {most}{note}", parts, height=base + 40)


def _beside(text: str, x: float, y: int, anchor: str = "middle") -> Markup:
    """A text at `x`, kept inside the picture."""
    anchor = "start" if x < 0.04 else "end" if x > 0.96 else anchor
    gap = {"start": 4, "end": -4}.get(anchor, 0) if 0 < x < 1 else 0
    return tag("text", text, x=percent(x), dx=gap, y=y, text_anchor=anchor, class_="value")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def diff(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts with the words that only one of them has marked: <del> in the first, <ins> in the second. Everything is escaped."""
    one, other = re.split(r"(\s+)", visible(before)), re.split(r"(\s+)", visible(after))
    left, right = [], []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        left_text, right_text = escape("".join(one[a:b])), escape("".join(other[c:d]))
        left.append(left_text if kind == "equal" or not left_text else Markup("<del>{}</del>").format(left_text))
        right.append(right_text if kind == "equal" or not right_text else Markup("<ins>{}</ins>").format(right_text))
    return Markup("").join(left), Markup("").join(right)
