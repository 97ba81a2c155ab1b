"""Does an answer hold personal data that scrub replaced? The answers of every system are searched for what is on the leak list.

Only hashes are compared where there is a scrub key; without one the originals are read from the rows before scrub, in memory alone. What is
found is told by its kind and never shown: the answer that holds it is left out of every file and of the page. What stands in the
item's own prompt already is not counted: repeating it is no memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
from pydantic import Field

from curate.params import check_section, params_class
from curate.pii import audit
from curate.pii.settings import ScrubParams
from curate.record import InputError
from curate.stage import say
from evaluate import journal
from evaluate.ask import Row
from evaluate.holdout import Item

HIDDEN = "[This answer held an original that scrub had replaced ({}). It is not shown.]"


@params_class
class Originals:
    """`params.yaml: evaluate.originals`."""

    scrub: Annotated[str, Field(min_length=1)]
    before: Annotated[str, Field(min_length=1)]


AT_ONCE = 1000  # answers searched together
Found = dict[tuple[str, str], tuple[str, ...]]  # (system, id of the item): kinds of the originals in an answer


def auditor(wanted: Originals | None, sections: Mapping[str, Any], base_dir: Path) -> audit.Auditor | None:
    """What searches; None if nothing is to be searched for. Raises InputError or ParamsError as the audit does."""
    if wanted is None:
        return None
    if not (sections.get("scrub") or {}).get("enabled", True):
        say("evaluate: scrub.enabled is false, so there are no originals to look for in the answers.")
        return None
    params: Any = check_section(dict(sections), "scrub", ScrubParams, Path("params.yaml"))
    try:
        return audit.auditor_of(Path(wanted.scrub), Path(wanted.before), params, base_dir / "tokenizer")
    except InputError as error:
        raise InputError(f"evaluate.originals: {error} Or set evaluate.originals: null, and answers are not searched.") from None


def search(searcher: audit.Auditor, answers: Iterable[tuple[str, str, str, str]]) -> Found:
    """The answers that hold originals; `answers` are (system, id of the item, prompt, answer)."""
    found: dict[tuple[str, str], set[str]] = {}
    coming = iter(answers)
    while some := list(islice(coming, AT_ONCE)):
        held: dict[int, set[str]] = {}
        for place, _, kind in searcher.searched([(f"{at}", answer) for at, (_, _, _, answer) in enumerate(some)]):
            held.setdefault(int(place), set()).add(kind)
        for at, kinds in held.items():
            system, id_, prompt, _ = some[at]
            kinds -= {kind for _, _, kind in searcher.searched([("0", prompt)])}
            if kinds:
                found.setdefault((system, id_), set()).update(kinds)
    return {place: tuple(sorted(kinds)) for place, kinds in found.items()}


def look(searcher: audit.Auditor, journals: Mapping[str, Path], prompts: Mapping[str, str]) -> tuple[Found, dict[str, Any]]:
    """What is found in these files of answers (by `system` or `system.samples`), and its figures. `prompts` by id of the item."""
    asked: Counter[str] = Counter()

    def answers() -> Iterator[tuple[str, str, str, str]]:
        for name, path in journals.items():
            for row in journal.read(path):
                if row["output"]:
                    asked[name.split(".")[0]] += 1
                    yield name.split(".")[0], row["id"], prompts[row["id"]], row["output"]

    found = search(searcher, answers())
    return found, figures(found, asked)


def figures(found: Found, asked: Mapping[str, int]) -> dict[str, Any]:
    """Per system: answers searched, answers with originals by kind, and how many of these the base's answer to the same item has not."""
    systems = {}
    for system, count in asked.items():
        mine = {id_: kinds for (name, id_), kinds in found.items() if name == system}
        kinds = Counter(kind for each in mine.values() for kind in each)
        new = sum(any(kind not in found.get(("base", id_), ()) for kind in each) for id_, each in mine.items())
        systems[system] = {"answers": count, "held": len(mine), "not_in_base": new, "kinds": dict(sorted(kinds.items()))}
    return systems


def hide(scores: pl.DataFrame, found: Found) -> pl.DataFrame:
    """`scores` with a note for each answer that holds originals."""
    if not found:
        return scores
    notes = pl.DataFrame(
        [(system, id_, HIDDEN.format(", ".join(kinds))) for (system, id_), kinds in found.items()],
        schema={"system": pl.String, "id": pl.String, "note": pl.String}, orient="row",
    )  # fmt: skip
    joined = scores.join(notes, on=["system", "id"], how="left", maintain_order="left", validate="m:1")
    return joined.with_columns(
        pl.when(pl.col("output").is_null()).then(None).otherwise(pl.coalesce("note", "output")).alias("output")
    ).drop("note")


def unsaid(rows: Mapping[str, Sequence[Row]], items: Sequence[Item], found: Found) -> dict[str, list[Row]]:
    """The rows of all systems without the answers that hold originals: those go to no server."""
    if found:
        say(f"evaluate: {len(found)} answers hold originals that scrub had replaced: the judge is not shown them.")
    return {
        system: [row | {"output": None} if (system, item.id) in found else row for item, row in zip(items, each, strict=True)]
        for system, each in rows.items()
    }


def is_hidden(output: str) -> bool:
    """Whether this stands for an answer that is not shown."""
    return output.startswith(HIDDEN.partition("{")[0])


def without(path: Path, system: str, found: Found) -> Iterator[bytes]:
    """The lines of a file of answers with the same notes."""
    mine = {id_: kinds for (name, id_), kinds in found.items() if name == system}
    with path.open("rb") as file:
        for line in file:
            row = orjson.loads(line) if mine else {}
            kinds = mine.get(row.get("id", ""))
            yield line if kinds is None else orjson.dumps(row | {"output": HIDDEN.format(", ".join(kinds))}) + b"\n"
