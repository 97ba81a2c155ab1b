"""Hold-out, base and adapter in, one verdict out: better, worse or not shown; stays behind: rows that cannot be scored, counted.

`OUT_DIR/items.parquet` has one row per item and system, `OUT_DIR/answers/<system>.jsonl` every answer with its rendered prompt, and
`OUT_DIR/metrics.json` the figures; `reports/evaluation.json` holds the same figures and `reports/evaluation.html` shows them. Times go to
the log. The rule of the verdict is in evaluate/verdict.py. What is asked lies in `.<out>-answers` beside OUT_DIR until the stage has ended
well: a killed run goes on from there.
"""

import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import orjson
import polars as pl
from pydantic import Field

from curate import store
from curate.params import params_class
from curate.record import StageFailure
from curate.stage import command, say, write_whole
from evaluate import ask, cost, effects, heads, holdout, judge_page, likeness, measures, metrics, models, originals, page, pairs, systems
from evaluate import judge as judges
from evaluate.asked_once import Answers
from evaluate.beside import RESAMPLES, Beside, Wanted
from evaluate.endpoint import Endpoint
from evaluate.judging import Judge
from evaluate.originals import Originals
from evaluate.robust import Robustness
from evaluate.samples import Samples
from evaluate.statistics import Interval
from evaluate.verdict import Rule, Verdict, judge, judge_pairs

NO_SECTIONS: Mapping[str, Any] = MappingProxyType({})


@params_class
class Params:
    """`params.yaml: evaluate`."""

    loss_items: Annotated[int, Field(ge=10)] | None
    generate_items: Annotated[int, Field(ge=0)]
    max_new_tokens: Annotated[int, Field(ge=1)]
    few_shot: Annotated[int, Field(ge=0, le=16)]
    metrics: Literal["auto"] | tuple[str, ...]
    merged: str | None
    previous: str | None
    endpoint: Endpoint | None
    judge: Judge | None
    general: str | None
    robustness: Robustness | None
    samples: Samples | None
    originals: Originals | None
    verdict: Rule
    batch_tokens: Annotated[int, Field(ge=1)]
    quantize: Literal["as_trained", "none", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    require: Literal["better"] | None
    reports: str

    def __post_init__(self) -> None:
        unknown = [] if self.metrics == "auto" else [name for name in self.metrics if name not in measures.NAMES]
        if unknown:
            raise ValueError(f"metrics: '{unknown[0]}' is none of auto, {', '.join(measures.NAMES)}")


def build(format_dir: Path, base_dir: Path, train_dir: Path, out: Path, params: Params, sections: Mapping[str, Any] = NO_SECTIONS) -> None:
    """Ask every system the same items, compare, judge, write. `sections` is all of params.yaml: `originals` needs scrub's.

    Raises InputError (a folder or the adapter is missing, or they do not belong together), StageFailure (`require` not met; the
    report is written all the same).
    """
    began = time.monotonic()
    adapter = train_dir / "adapter"
    story = models.trained_as(adapter, base_dir)
    settings = _settings(params, story)
    method = (story.get("train") or {}).get("method", "sft")
    if method in models.SCORERS:
        figures, scores, html = heads.judge(
            method, format_dir, base_dir, adapter, story, params.loss_items, settings.quantize, settings.precision
        )
        if params.judge is not None:
            say("evaluate: evaluate.judge is for answers, and a head gives none: nothing is judged")
        _write(figures | _origin(base_dir, story), scores, html, {}, None, out, params)
        _tell(figures, out, params, began)
        return
    items, left_out = holdout.read(format_dir, params.loss_items)
    shelf = out.parent / f".{out.name}-answers"
    general = Path(params.general) if params.general is not None else None
    wanted = Wanted(general, method in pairs.METHODS, params.loss_items, params.robustness, params.samples, params.seed)
    beside = Beside(wanted, format_dir, settings)
    searcher = originals.auditor(params.originals, sections, base_dir)
    extra = systems.Extra(params.merged, params.previous, params.endpoint)
    read = len(items)
    rows, items, questions = systems.every_system(items, format_dir, base_dir, adapter, settings, extra, shelf, beside.probe)
    if read > len(items):
        left_out = left_out | {"longer_than_model": read - len(items)}
    scores = systems.frame(rows, items, likeness.of_items(format_dir, items), metrics.SCORES)
    answers = [item.answer for item in items]
    names = params.metrics
    if names == "auto":
        names = measures.by_task([answers[at] for at in questions.chosen], [items[at].label for at in questions.chosen])
    scores = metrics.with_measures(scores, answers, names)
    journals = {path.name.split("-")[0]: path for path in sorted(questions.used)} | beside.journals
    held: originals.Found = {}
    asides = beside.found(scores, items, names) | {"originals": None}
    if searcher is not None:
        held, asides["originals"] = originals.look(searcher, journals, {item.id: item.prompt for item in items})
    scores = originals.hide(
        scores, held
    )  # from here on nothing holds them: neither figures (wrong labels are listed) nor the judge's server
    figures, _ = figures_of(scores, answers, names, params.verdict, asides, params.seed, RESAMPLES)
    judged, section = None, None
    if params.judge is not None:
        rows = originals.unsaid(rows, items, held)
        answered = Answers(out.with_name(f".{out.name}-judged.jsonl"), [out / "judge.jsonl"])
        judged = judges.run(params.judge, questions, rows, answered, params.seed, RESAMPLES)
        figures |= {"judge": judged.figures}
    figures = metrics.tidy(figures | {"left_out": left_out} | _origin(base_dir, story)) | {"cost": cost.of_shelf(questions.used)}
    if judged is not None:
        section = judge_page.render(figures["judge"], judged.read, items, rows)
    kept = {name: originals.without(path, name.split(".")[0], held) for name, path in journals.items()}
    _write(figures, scores, page.render(figures, scores, items, section), kept, judged, out, params)
    shutil.rmtree(shelf, ignore_errors=True)
    _tell(figures, out, params, began)


def _origin(base_dir: Path, story: dict[str, Any]) -> dict[str, Any]:
    return {"base": _named(models.describe(base_dir)), "dataset": (story.get("dataset") or {}).get("sha256")}


def _write(
    figures: dict[str, Any],
    scores: pl.DataFrame,
    html: str,
    answers: Mapping[str, Iterable[bytes]],
    judged: judges.Judged | None,
    out: Path,
    params: Params,
) -> None:
    """Items, figures, page, the file of answers of every system, and that of the judge.

    What differs from run to run (`cost`) goes to the reports alone.
    """
    lasting = {name: each for name, each in figures.items() if name != "cost"}
    reports = Path(params.reports)
    with store.whole_folder(out) as partial:
        store.write_parquet(scores, partial / "items.parquet")
        write_whole(partial / "metrics.json", _json(lasting))
        for name, lines in answers.items():
            (partial / "answers").mkdir(exist_ok=True)
            with (partial / "answers" / f"{name}.jsonl").open("wb") as file:
                file.writelines(lines)
        if judged is not None:
            judged.answers.write(judged.keys, partial / "judge.jsonl")
    write_whole(reports / "evaluation.json", _json(figures))
    write_whole(reports / "evaluation.html", html.encode())


def _json(figures: dict[str, Any]) -> bytes:
    return orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def _tell(figures: dict[str, Any], out: Path, params: Params, began: float) -> None:
    word, page_of = figures["verdict"], Path(params.reports) / "evaluation.html"
    say(f"evaluate: {figures['items']:,} items in {time.monotonic() - began:,.1f} s -> {out}")
    print(f"Verdict: {word}. {figures['reason']} Report: {page_of}", flush=True)
    if params.require is not None and word != params.require:
        raise StageFailure(
            f"evaluate.require = {params.require}, but the verdict is {word}. Read {page_of}; "
            "set evaluate.require: null to go on all the same."
        )


def _settings(params: Params, story: dict[str, Any]) -> ask.Settings:
    """How to ask; weights are rounded as they were in training, if that is wanted."""
    trained = ((story.get("params") or {}).get("train") or {}).get("quantize")
    wanted = trained if params.quantize == "as_trained" else params.quantize
    quantize: Literal["none", "int8", "nf4"] = wanted if wanted in ("int8", "nf4") else "none"
    return ask.Settings(params.generate_items, params.max_new_tokens, params.few_shot, params.batch_tokens, quantize, params.precision)


def _named(about: dict[str, Any]) -> dict[str, Any]:
    return {key: about.get(key) for key in ("name", "revision", "kind")}


def figures_of(
    scores: pl.DataFrame, answers: Sequence[str], names: Sequence[str], rule: Rule, beside: dict[str, Any], seed: int, resamples: int
) -> tuple[dict[str, Any], Verdict]:
    """Every figure of the report, by name, and the verdict they give."""
    known = scores["system"].unique(maintain_order=True).to_list()
    against = {other: metrics.compare(scores, other, names, seed, resamples) for other in known if other != "tuned"}
    main = against["base"]
    limits = effects.broken(beside["memorisation"], beside["forgetting"], beside.get("originals"), rule)
    if (moved := beside["preference"]) is None:
        verdict = judge(main.metrics, main.prompt_gain, main.control, limits, rule)
    else:
        right = moved["reward_accuracy"]
        verdict = judge_pairs(moved["pairs"], None if right is None else Interval(**right), limits)
    slices, small = metrics.slices(scores, seed, resamples)
    first = scores.filter(pl.col("system") == known[0])
    new = scores.filter(pl.col("likeness") != "neighbour")
    adjusted = metrics.compare(new, "base", names, seed, resamples) if 0 < new.height < scores.height else None
    return {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "rule": asdict(rule),
        "items": first.height,
        "items_with_prompt": int(first["answer_loss"].is_not_null().sum()),
        "metrics": list(names),
        "systems": {system: metrics.of_system(scores, system, answers, names, seed, resamples) for system in known},
        "tuned_against": {other: asdict(each) for other, each in against.items()},
        "without_neighbours": None if adjusted is None else asdict(adjusted) | {"items": int(new["item"].n_unique())},
        "slices": slices,
        "slices_left_out": small,
    } | beside, verdict


def main(arguments: list[str] | None = None) -> None:
    """`python -m evaluate.evaluate FORMAT BASE TRAIN OUT_DIR [--params FILE] [-S key=value]`."""
    command("evaluate", "evaluate.evaluate", Params, build, ("format", "base", "train"), arguments, all_sections=True)


if __name__ == "__main__":
    main(sys.argv[1:])
