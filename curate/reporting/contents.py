"""What stands on the page, in order. A new section: one entry here, a template in sections/, its function in a module beside this."""

from pathlib import Path
from typing import Any

from curate.reporting import datamap, leaks, personal, repaired, replaced
from curate.reporting.layout import Given, Section
from curate.reporting.lookat import rows_to_look_at
from curate.reporting.samples import Group, samples
from curate.reporting.spans import benchmark_spans
from curate.reporting.tokens import coloured_example


def _removed(given: Given, numbers: dict[str, Any]) -> list[Group]:
    return samples(given.found, given.samples, given.scrub, _benchmarks(given), numbers["flow"]["columns"])


def _leaks(given: Given, numbers: dict[str, Any]) -> dict[str, Any]:
    spans = benchmark_spans(given.found, _benchmarks(given))
    return {"squares": leaks.squares(numbers["leakage"]), "pairs": leaks.pairs(given.found), "spans": spans}


def _benchmarks(given: Given) -> Path:
    return Path(given.sections["decontaminate"]["benchmarks"])


def _example(given: Given, _: dict[str, Any]) -> Any:
    if "format" not in given.found:
        return None
    return coloured_example(given.found["format"].folder, Path(given.sections["format"]["tokenizer"])) or None


SECTIONS = (
    Section("gates", "Gates"),
    Section("difference", "What is new", lambda given, numbers: numbers.get("difference")),
    Section("funnel", "Where rows went"),
    Section("samples", "Removed rows", _removed),
    Section("repaired", "Repaired rows", lambda given, _: repaired.section(given.found, given.scrub)),
    Section("suspicious", "Suspicious rows", rows_to_look_at),
    Section("reviewed", "Decisions", lambda given, numbers: numbers.get("reviewed")),
    Section("map", "Data map", datamap.shown),
    Section("duplicates", "Duplicates"),
    Section("leakage", "Leakage", _leaks),
    Section("personal", "Personal data", lambda given, _: personal.shown(given.found) | {"replaced": replaced.masked_samples(given.found)}),
    Section("labels", "Labels and splits"),
    Section("augmentation", "Synthetic rows", lambda given, numbers: numbers.get("augmentation")),
    Section("lengths", "Lengths"),
    Section("formatted", "Tokens", lambda given, numbers: numbers.get("formatted")),
    Section("example", "What is trained", _example),
    Section("truth", "Planted defects", lambda given, numbers: numbers.get("truth")),
    Section("provenance", "Provenance"),
)
