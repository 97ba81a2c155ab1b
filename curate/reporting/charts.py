"""Pictures for the report: plain SVG that prints, needs no script and takes its colours from the page (light and dark).

Every picture has a title for screen readers, and every mark a title with its exact value for hovering.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from curate.reporting.plain import visible

LEFT, ROW, WIDTH = 150, 26, 720  # pixels: room for row labels, height of a row, width of a picture


@dataclass(frozen=True)
class Bar:
    """One row of `bars`: a label and its segments as (css class, value, what the value is)."""

    label: str
    segments: tuple[tuple[str, float, str], ...]
    note: str = ""


def tag(name: str, text: str = "", **attributes: object) -> Markup:
    written = Markup("").join(Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Markup("<{}{}>{}</{}>").format(name, written, text if isinstance(text, Markup) else visible(text), name)


def svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<div class="wide"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, round(height), title)
    return head + Markup("").join(parts) + Markup("</svg></div>")


def bars(title: str, rows: Sequence[Bar], largest: float | None = None) -> Markup:
    """Horizontal bars, stacked where a row has several segments. `largest` is the value of the full width (default: the longest row)."""
    full = largest or max((sum(value for _, value, _ in row.segments) for row in rows), default=0) or 1
    room = WIDTH - LEFT - 90
    parts = []
    for at, row in enumerate(rows):
        top = at * ROW + 4
        parts.append(tag("text", _short(row.label), x=LEFT - 8, y=top + 14, text_anchor="end", class_="label"))
        x = float(LEFT)
        for css, value, what in row.segments:
            wide = room * value / full
            if wide > 0:
                parts.append(tag("rect", tag("title", what), x=f"{x:.1f}", y=top, width=f"{max(wide, 0.75):.1f}", height=18, class_=css))
            x += wide
        parts.append(tag("text", row.note, x=f"{x + 6:.1f}", y=top + 14, class_="value"))
    return svg(title, len(rows) * ROW + 8, parts)


def _short(label: str, most: int = 22) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], unit: str, mark: float | None = None, css: str = "kept") -> Markup:
    """Columns between `edges` (one more than `counts`). `mark` draws a vertical line, such as a threshold, at a value."""
    height, base, left = 170, 140, 44
    room, tallest = WIDTH - left - 20, max([*counts, 1])
    low, high = edges[0], edges[-1]

    def x_of(value: float) -> float:
        return left + room * (value - low) / ((high - low) or 1)

    parts = [tag("line", x1=left, x2=WIDTH - 20, y1=base, y2=base, class_="axis")]
    for at, count in enumerate(counts):
        x, wide, tall = x_of(edges[at]), x_of(edges[at + 1]) - x_of(edges[at]), (base - 14) * count / tallest
        what = f"{count:,} between {_number(edges[at])} and {_number(edges[at + 1])} {unit}"
        if count:
            size = {
                "x": f"{x + 0.5:.1f}",
                "y": f"{base - max(tall, 1):.1f}",
                "width": f"{max(wide - 1, 0.75):.1f}",
                "height": f"{max(tall, 1):.1f}",
            }
            parts.append(tag("rect", tag("title", what), class_=css, **size))
    for at in range(0, len(edges), max(1, (len(edges) - 1) // 6)):
        parts.append(tag("text", _number(edges[at]), x=f"{x_of(edges[at]):.1f}", y=base + 16, text_anchor="middle", class_="value"))
    parts.append(tag("text", f"{max(counts, default=0):,}", x=left - 6, y=20, text_anchor="end", class_="value"))
    parts.append(tag("text", unit, x=WIDTH - 20, y=base + 28, text_anchor="end", class_="value"))
    if mark is not None and low <= mark <= high:
        parts.append(tag("line", x1=f"{x_of(mark):.1f}", x2=f"{x_of(mark):.1f}", y1=6, y2=base, class_="mark"))
        parts.append(tag("text", f"threshold {_number(mark)}", x=f"{x_of(mark) - 5:.1f}", y=14, text_anchor="end", class_="value"))
    return svg(title, height, parts)


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
