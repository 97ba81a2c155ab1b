"""The page is a list of sections. A section is a template `sections/<anchor>.html.jinja` and a function for what only the page shows.

A new section is one more entry of `SECTIONS` and its template. Rules that templates keep to: no inline script or style attribute (the
page's policy forbids both; style by classes of page.css), no `| safe`, a bounded number of rows. In a template are `n` (everything in
curation.json), `pictures` and `shown` (what the section's function returned).
What page.js makes of the markup, where scripts run:

- `<table class="sort">`: headers sort; a cell's `data-v` is its value where the text is not;
- `<div data-filter="Rows">…`: a search field that hides table rows and `.item` elements without the words typed;
- `<div data-fold>…`: buttons that open and close every `<details>` inside;
- a mark with a `<title>` in an `<svg>`: the title beside the pointer at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.pii.settings import ScrubParams
from curate.reporting.gather import Stage
from curate.reporting.suspicious import Found


@dataclass(frozen=True)
class Given:
    """What sections are made from."""

    data: Path  # the folder of the stage folders
    found: dict[str, Stage]  # the stages that have run, in order
    sections: dict[str, Any]  # all of params.yaml
    scrub: ScrubParams  # with which texts from before the scrub stage are scrubbed before they are shown
    samples: int  # rows shown of each stage and reason
    code: str  # hash of the code that made the rows
    suspicious: Found  # rows to look at, and a sample of all with vectors


@dataclass(frozen=True)
class Section:
    """`anchor` names the template and the link."""

    anchor: str
    title: str
    shown: Callable[[Given, dict[str, Any]], Any] | None = None  # for the page alone, from what is given and all numbers; texts are fine.
    # Where it returns None the section is left out


@dataclass(frozen=True)
class Filled:
    """A section with what its functions returned."""

    anchor: str
    title: str
    shown: Any

    @property
    def template(self) -> str:
        return f"{FOLDER}/{self.anchor}.html.jinja"


FOLDER = "sections"
SCRIPTS = ("page.js",)  # inline, in this order, in one element whose hash the page's policy names
STYLES = ("page.css",)


def fill(given: Given, numbers: dict[str, Any], listed: tuple[Section, ...]) -> list[Filled]:
    """The sections that have something to say, in order. `numbers`: all of curation.json."""
    filled = []
    for each in listed:
        shown = each.shown(given, numbers) if each.shown is not None else {}
        if shown is not None:
            filled.append(Filled(each.anchor, each.title, shown))
    return filled
