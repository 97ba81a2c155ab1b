"""The list of sections: each has its template, none can bring in script or style of its own, and what is None stays away."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curate.params import check_section, read_params
from curate.pii.settings import ScrubParams
from curate.reporting import layout, outliers, suspicious
from curate.reporting.contents import SECTIONS
from curate.reporting.layout import Given, Section
from tests.helpers import ROOT

REPORTING = ROOT / "curate/reporting"
SCRUB = check_section(read_params(ROOT / "params.yaml"), "scrub", ScrubParams, ROOT / "params.yaml")
FOUND = suspicious.Found(pl.DataFrame(), {}, outliers.Sample(pl.DataFrame(), np.zeros((0, 1)), ""), np.zeros(0))
GIVEN = Given(Path("data"), {}, {}, SCRUB, 3, "", FOUND)


def test_every_section_has_its_template_and_every_template_its_section() -> None:
    anchors = [each.anchor for each in SECTIONS]
    assert len(set(anchors)) == len(anchors)
    assert sorted(anchors) == sorted(path.name.partition(".")[0] for path in (REPORTING / layout.FOLDER).iterdir())


@pytest.mark.parametrize("path", sorted(REPORTING.rglob("*.jinja")), ids=lambda path: path.name)
def test_templates_keep_to_what_the_policy_allows(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=|\son\w+\s*=|\|\s*safe\b|autoescape", text)
    if path.name != "page.html.jinja":
        assert "<script" not in text and "<style" not in text


def test_a_section_without_anything_to_say_is_left_out() -> None:
    listed = (
        Section("map", "Map", lambda given, numbers: [numbers["rows"], "text of a row"]),
        Section("hidden", "Hidden", lambda given, numbers: None),
        Section("plain", "Plain"),
    )
    filled = layout.fill(GIVEN, {"rows": 2}, listed)
    assert [(each.anchor, each.shown) for each in filled] == [("map", [2, "text of a row"]), ("plain", {})]
    assert filled[0].template == "sections/map.html.jinja"
