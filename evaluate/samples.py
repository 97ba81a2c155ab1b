"""pass@k: how often at least one of k answers drawn at random is right, by a rule that can be checked (curate/answers.py, or python tests).

For each of `items` hold-out rows `answers` answers are drawn with a temperature, each is checked, and the chance for every `k` is
estimated without bias (measures.pass_at_k). What is drawn depends on `evaluate.seed` and the batch: a run that goes on draws the same.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import xxhash
from pydantic import Field

from curate import answers, sandbox
from curate.params import params_class
from evaluate import ask, holdout, inference, journal, measures, metrics
from evaluate.ask import Questions, Settings
from evaluate.holdout import Item
from evaluate.models import Loaded
from evaluate.statistics import bootstrap


@params_class
class Samples:
    """`params.yaml: evaluate.samples`."""

    items: Annotated[int, Field(ge=1)]
    answers: Annotated[int, Field(ge=2, le=1000)]
    temperature: Annotated[float, Field(gt=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    check: Literal["exact", "number", "regex", "json_schema", "python"]
    k: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        if max(self.k) > self.answers:
            raise ValueError(f"samples.k = {max(self.k)} is more than samples.answers = {self.answers}: draw as many at least")


def chosen(items: Sequence[Item], wanted: Samples) -> list[int]:
    """Positions of the items that are asked: with a prompt and a reference to check against, at most `wanted.items` by hash of the id."""
    able = [at for at, item in enumerate(items) if item.has_prompt and _checkable(wanted.check, item.answer)]
    return [able[place] for place in sorted(holdout.by_hash([items[at].id for at in able], wanted.items))]


def _checkable(check: str, reference: str) -> bool:
    if check == "number":
        return answers.number(reference) is not None
    if check == "regex":
        return measures.scores("regex", ["x"], [reference], [None]) != [None]
    if check == "json_schema":
        return measures.scores("json_schema", ["{}"], [reference], [None]) != [None]
    return bool(reference.strip())


def right(check: str, given: Sequence[str], references: Sequence[str]) -> list[bool]:
    """Whether each answer is right. python: the reference holds tests, which the answer's code must pass in a process of its own."""
    if check == "python":
        programs = [f"{answers.code(said)}\n\n{tests}\n" for said, tests in zip(given, references, strict=True)]
        return sandbox.passes(programs)
    return [answers.is_right(check, said, reference) for said, reference in zip(given, references, strict=True)]


def asked_of(
    system: str, loaded: Loaded, weights: str, questions: Questions, settings: Settings, wanted: Samples, seed: int
) -> tuple[list[int], Path]:
    """How many answers of each chosen item are right, and the journal with all of them."""
    places = chosen(questions.items, wanted)
    whole = [questions.items[at] for at in places]
    prompts = [item.ids[: item.start] for item in whole]
    state = [weights, str(settings), str(wanted), str(seed), *(ask.asked(prompt) for prompt in prompts)]
    path = questions.shelf / f"{system}-{xxhash.xxh3_64_hexdigest(chr(0).join(state).encode())}.samples.jsonl"

    def work(batch: Sequence[int]) -> list[dict[str, Any]]:
        own = xxhash.xxh3_64_intdigest(f"{seed}\x1f{','.join(map(str, batch))}".encode()) % 2**32
        asked = [at // wanted.answers for at in batch]
        draw = inference.Draw(own, wanted.temperature, wanted.top_p)
        said = inference.batch_samples(loaded, [prompts[at] for at in asked], settings.max_new_tokens, draw)
        good = right(wanted.check, [each.text for each in said], [whole[at].answer for at in asked])
        return [
            {
                "id": whole[at].id,
                "output": each.text,
                "stop": each.stop,
                "tokens": each.tokens,
                "prompt_tokens": len(prompts[at]),
                "right": ok,
            }
            for at, each, ok in zip(asked, said, good, strict=True)
        ]

    lengths = [len(prompt) for prompt in prompts for _ in range(wanted.answers)]
    batches = inference.answer_batches(loaded, lengths, settings.max_new_tokens, settings.batch_tokens)
    journal.run(path, f"evaluate ({system}: samples)", batches, work)
    counts = [0] * len(places)
    for row in journal.read(path):
        counts[row["item"] // wanted.answers] += row["right"]
    return counts, path


def figures(counts: dict[str, list[int]], items: Sequence[Item], wanted: Samples, seed: int, resamples: int) -> dict[str, Any] | None:
    """pass@k by system with intervals, and tuned against base, item by item; None if no item can be checked."""
    places = chosen(items, wanted)
    if not places:
        return None
    named = [items[at].group or items[at].id for at in places]
    groups = named if len(set(named)) < len(named) else None
    chances = {
        system: {k: np.array([measures.pass_at_k(wanted.answers, good, k) for good in right_ones]) for k in wanted.k}
        for system, right_ones in counts.items()
    }
    return {
        "check": wanted.check,
        "items": len(places),
        "answers": wanted.answers,
        "temperature": wanted.temperature,
        "systems": {
            system: {str(k): asdict(bootstrap(values, seed, resamples, groups)) for k, values in by_k.items()}
            for system, by_k in chances.items()
        },
        "tuned_against_base": {
            str(k): asdict(metrics.mean_difference(chances["tuned"][k] - chances["base"][k], groups, True, seed, resamples))
            for k in wanted.k
        },
    }
