"""What a reader should look at beside the gates, whether one warns of it or not: a line each, on the first screen."""

from typing import Any

from curate.reporting.gates import beside

OFF = {  # what was not done where a stage is off
    "clean": "texts were neither repaired nor filtered",
    "dedup_exact": "copies were not looked for",
    "scrub": "personal data and secrets were not looked for",
    "dedup_near": "near-duplicates were not looked for",
    "dedup_semantic": "rows that say the same in other words were not looked for",
    "decontaminate": "benchmark items were not looked for",
    "augment": "no rows were made for rare labels",
    "leakage": "what splits share was not measured",
}
POOR = 0.6  # a classifier that agrees with fewer of the labels says little about any of them


def a_look(numbers: dict[str, Any]) -> list[dict[str, str]]:
    """`told`, a sentence, and `section`, the anchor of the section that shows it."""
    kinds, labels = numbers["suspicious"]["kinds"], numbers["suspicious"]["labels"]
    repairs: dict[str, int] = numbers.get("repaired") or {}
    found = [
        (
            kinds["conflict"]["found"],
            f"{{:,}} rows share a prompt with another row and answer it differently{beside(kinds['conflict'])}; all were kept",
            "look-conflict",
        ),
        (
            labels["sure"],
            f"A classifier doubts {{:,}} of {labels['rows']:,} labels ({labels['sure'] / max(labels['rows'], 1):.0%}); it agrees with "
            f"{labels['agree']:.0%} of all{', so it is a poor judge here' if labels['agree'] < POOR else ''}",
            "look-label_error",
        ),
        (
            kinds["near_leak"]["found"],
            "{:,} rows resemble a benchmark item or a row of another split and were kept",
            "look-near_leak",
        ),
        (
            kinds["near_miss"]["found"],
            f"{{:,}} rows are like another one, a little below the threshold for duplicates{beside(kinds['near_miss'])}; all were kept",
            "look-near_miss",
        ),
        (
            sum(repairs.values()),
            f"{{:,}} repairs changed rows in place: {', '.join(f'{name} {rows:,}' for name, rows in sorted(repairs.items()))}",
            "repaired",
        ),
    ]
    lines = [{"told": told.format(count), "section": section} for count, told, section in found if count]
    personal = numbers["personal"]
    missing = personal.get("not_searched", [])
    if missing:
        lines.append({"told": f"Not searched for: {', '.join(missing)}. {personal.get('why', '')}".strip(), "section": "personal"})
    off = [step["stage"] for step in numbers["waterfall"] if not step["enabled"]]
    return lines + [{"told": f"{stage} is off: {OFF.get(stage, 'its work was not done')}", "section": "funnel"} for stage in off]
