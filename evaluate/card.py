"""The adapter's model card with what the evaluation says of it: `reports/model-card.md`.

The card in the adapter's folder is made by train, before there is a verdict, and belongs to it: DVC would take a changed folder for a stale
one. So evaluate writes a copy. Counts and figures only, no text of any row.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluate import tables

NAME = "model-card.md"
_SECTION = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def of(adapter: Path, figures: dict[str, Any], titles: dict[str, str]) -> str:
    """The card in the adapter's folder with a section `Evaluation` before its other sections, in place of one that is there."""
    path = adapter / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else f"# {adapter.name}\n"
    text = _SECTION.sub("", text)
    head, mark, rest = text.partition("\n## ")
    return f"{head.rstrip()}\n\n{_section(figures, titles)}{mark}{rest}"


def _section(figures: dict[str, Any], titles: dict[str, str]) -> str:
    lines = ["## Evaluation", "", f"Verdict on {figures['items']:,} hold-out items: **{figures['verdict']}**. {figures['reason']}"]
    if "systems" in figures:  # a head has no systems beside it, and its reason names every figure
        rows = [[row["title"], *(_cell(each) for each in row["cells"])] for row in tables.measures(figures)]
        lines += ["", *_table(["", *(titles[name] for name in figures["systems"]), "Tuned against base"], rows)]
        lines += ["", "In brackets: 95 % intervals. Above zero in the last column favours the tuned model."]
    return "\n".join(lines) + "\n"


def _cell(cell: dict[str, str]) -> str:
    return f"{cell['value']} ({cell['note']})" if cell["note"] else cell["value"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (head, ["---"] * len(head), *rows)]
