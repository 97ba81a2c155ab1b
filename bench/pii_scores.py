"""What a scrubber takes out of texts whose personal values are known: recall and precision per entity, and changes where none are due."""

import json
import random
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import pii_text
from bench.measure import ROOT
from bench.pii_text import Gold, Sample
from curate.pii.conversation import carried
from curate.pii.engine import find_many
from curate.pii.settings import ScrubParams

SHARED = ROOT.parent / "shared" / "data"
GENERATED = SHARED / "pii_generated.json"
SEED = 17
LEFT = 4  # letters and digits in a row of a value that may not stay
LINES = 200_000
LISTS = {"faker", "phonenumbers"}  # packages that are names, and prefixes of telephone numbers
SAME = {"STREET_ADDRESS": "ADDRESS", "DOMAIN_NAME": "URL", "DATE_OF_BIRTH": "DATE_TIME"}  # one row of the table
Span = tuple[int, int, str]  # start, end, entity
Scrubber = Callable[[Sequence[str]], list[list[Span]]]


@dataclass
class Score:
    """Counts of one entity. `gone`: values that no longer stand in the output; `whole`: no four characters in a row of them do."""

    gold: int = 0
    gone: int = 0
    whole: int = 0
    found: int = 0
    right: int = 0


def generated() -> list[Sample]:
    """Microsoft's generated sentences. Raises SystemExit where they are absent."""
    if not GENERATED.exists():
        raise SystemExit(f"{GENERATED}: no such file. Put the public presidio-research sample there.")
    rows = json.loads(GENERATED.read_text(encoding="utf-8"))
    return [
        Sample(
            row["full_text"],
            tuple(Gold(each["entity_type"], each["start_position"], each["end_position"]) for each in row["spans"]),
            row["template_id"],
        )
        for row in rows
    ]


def finery(params: ScrubParams) -> Scrubber:
    """The spans that the scrub stage replaces, each text a conversation of its own."""

    def spans(texts: Sequence[str]) -> list[list[Span]]:
        results = []
        for text, found in zip(texts, find_many(texts, params), strict=True):
            if isinstance(found, Exception):
                raise found
            results.append([(each.start, each.end, each.entity) for each in carried([text], [found])[0]])
        return results

    return spans


def score(samples: Sequence[Sample], scrub: Scrubber) -> dict[str, Score]:
    """Per entity of the gold spans, and of the findings; entities of `SAME` are one."""
    scores: dict[str, Score] = {}
    for sample, spans in zip(samples, scrub([each.text for each in samples]), strict=True):
        output = masked(sample.text, spans)
        for gold in sample.spans:
            own = scores.setdefault(_name(gold.entity), Score())
            own.gold += 1
            own.gone += re.search(rf"(?<!\w){re.escape(sample.text[gold.start : gold.end])}(?!\w)", output) is None
            own.whole += not _left(sample.text, gold, spans)
        for start, end, entity in spans:
            own = scores.setdefault(_name(entity), Score())
            own.found += 1
            own.right += any(_name(gold.entity) == _name(entity) and gold.start < end and start < gold.end for gold in sample.spans)
    return scores


def _name(entity: str) -> str:
    return SAME.get(entity, entity)


def masked(text: str, spans: Iterable[Span]) -> str:
    """The text with each span (they may overlap) replaced by one sign that is no letter."""
    pieces, at = [], 0
    for start, end, _ in sorted(spans):
        pieces += [text[at : max(start, at)], "\ufffc" if end > at else ""]
        at = max(at, end)
    return "".join([*pieces, text[at:]])


def _left(text: str, gold: Gold, spans: list[Span]) -> bool:
    hidden = {at for start, end, _ in spans for at in range(max(start, gold.start), min(end, gold.end))}
    rest = "".join("\ufffc" if at in hidden else text[at] for at in range(gold.start, gold.end))
    return any(len(run) >= LEFT for run in re.findall(r"[^\W_]+", rest))


def table(ours: Mapping[str, Score], stock: Mapping[str, Score]) -> str:
    """Entities that the texts hold, most first."""
    lines = [
        "| entity | values | Finery: recall | whole | precision | Presidio: recall | whole | precision |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for entity, own in sorted(ours.items(), key=lambda each: -each[1].gold):
        if own.gold:
            cells = [_share(part, whole) for each in (own, stock[entity]) for part, whole in _pairs(each)]
            lines.append(f"| {entity} | {own.gold:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pairs(score: Score) -> tuple[tuple[int, int], ...]:
    return (score.gone, score.gold), (score.whole, score.gold), (score.right, score.found)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "–"


def second_set(count: int) -> list[Sample]:
    return pii_text.make(count)


def sums_changed(params: ScrubParams) -> tuple[int, int]:
    """Rows of GSM8K that scrub changes, and rows."""
    rows = [json.loads(line) for name in ("train", "test") for line in (SHARED / f"gsm8k_{name}.jsonl").read_text().splitlines()]
    spans = finery(params)([f"{row['question']}\n{row['answer']}" for row in rows])
    return sum(map(bool, spans)), len(rows)


def sources(lines: int = LINES, seed: int = SEED) -> list[str]:
    """Python files of the project, then of its dependencies in a drawn order, until they have `lines` lines.

    Left out are Faker and phonenumbers (lists of names, and of prefixes of telephone numbers), the project's tests and its files that use
    `curate.pii`: the people made up in them are to be found.
    """
    own = sorted(path for folder in ("curate", "train", "evaluate", "flows", "bench") for path in (ROOT / folder).rglob("*.py"))
    own = [path for path in own if ".envs" not in path.parts and not _about_people(path)]  # bench/.envs: the peers
    others = sorted(each for each in Path(sysconfig.get_paths()["purelib"]).rglob("*.py") if LISTS.isdisjoint(each.parts))
    random.Random(seed).shuffle(others)
    texts: list[str] = []
    count = 0
    for path in (*own, *others):
        if count >= lines:
            break
        text = path.read_text(encoding="utf-8", errors="replace")
        texts.append(text)
        count += text.count("\n") + 1
    return texts


def _about_people(path: Path) -> bool:
    return "pii" in path.as_posix() or re.search(r"\bpii\b|\bscrub\b", path.read_text(encoding="utf-8")) is not None


def lines_changed(texts: Sequence[str], params: ScrubParams) -> tuple[int, int, Counter[str]]:
    """Lines that anything but a secret changes, lines, and the same by entity (a line may count for several)."""
    changed: Counter[str] = Counter()
    total = touched = 0
    for at in range(0, len(texts), 256):
        for text, spans in zip(texts[at : at + 256], finery(params)(texts[at : at + 256]), strict=True):
            total += text.count("\n") + 1
            places = {
                (text.count("\n", 0, start) + line, entity)
                for start, end, entity in spans
                for line in range(text.count("\n", start, end) + 1)
            }
            places = {each for each in places if not each[1].startswith("SECRET_")}
            touched += len({line for line, _ in places})
            changed.update(entity for _, entity in places)
    return touched, total, changed
