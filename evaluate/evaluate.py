"""Hold-out, base and adapter in, one verdict out: better, worse or not shown; stays behind: rows that cannot be scored, counted.

`OUT_DIR/items.parquet` has one row per item and system, `OUT_DIR/answers/<system>.jsonl` every answer with its rendered prompt, and
`OUT_DIR/metrics.json` the figures; `reports/evaluation.json` holds the same figures, `reports/evaluation.html` shows them, and
`reports/model-card.md` is the adapter's card with the verdict in it. Times go to the log. The rule of the verdict is in
evaluate/verdict.py. What is asked lies in `.<out>-answers` beside OUT_DIR until the stage has ended well: a killed run goes on from there.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import orjson
import polars as pl
from pydantic import Field

from curate import store
from curate.params import params_class
from curate.record import InputError, StageFailure
from curate.stage import command, say, write_whole
from evaluate import (
    ask,
    card,
    cost,
    heads,
    holdout,
    judge_page,
    likeness,
    measures,
    metrics,
    models,
    originals,
    page,
    pairs,
    systems,
)
from evaluate import judge as judges
from evaluate.asked_once import Answers
from evaluate.beside import RESAMPLES, Beside, Wanted
from evaluate.endpoint import Endpoint
from evaluate.figures import figures_of
from evaluate.judging import Judge
from evaluate.originals import Originals
from evaluate.robust import Robustness
from evaluate.samples import Samples
from evaluate.verdict import Rule, after

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
    _check_reports(Path(params.reports))
    adapter = train_dir / "adapter"
    story = models.trained_as(adapter, base_dir)
    settings = _settings(params, story)
    trained = story.get("train") or {}
    method, rule = trained.get("method", "sft"), after(trained, params.verdict)
    if method in models.SCORERS:
        _judge_head(method, format_dir, base_dir, adapter, story, out, params, began)
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
    if (chosen := params.metrics) == "auto":
        chosen = measures.by_task([answers[at] for at in questions.chosen], [items[at].label for at in questions.chosen])
    names = [*chosen, *({rule.primary} - {"loss", *chosen})]
    scores = metrics.with_measures(scores, answers, names)
    journals = {path.name.split("-")[0]: path for path in sorted(questions.used)} | beside.journals
    held: originals.Found = {}
    asides = beside.found(scores, items, names) | {"originals": None}
    if searcher is not None:
        held, asides["originals"] = originals.look(searcher, journals, {item.id: item.prompt for item in items})
    scores = originals.hide(
        scores, held
    )  # from here on nothing holds them: neither figures (wrong labels are listed) nor the judge's server
    figures = figures_of(scores, answers, names, rule, asides, params.seed, RESAMPLES, trained)
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
    _write(figures, scores, page.render(figures, scores, items, section), card.of(adapter, figures, page.TITLES), kept, judged, out, params)
    shutil.rmtree(shelf, ignore_errors=True)
    _tell(figures, out, params, began)


def _check_reports(folder: Path) -> None:
    """Hours of answers must not end at a folder that cannot be written."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written" if there.is_dir() else "is no folder"
        raise InputError(f"evaluate.reports = {folder}: {there} {why}. Mend that, or name another folder.")


def _judge_head(
    method: str, format_dir: Path, base_dir: Path, adapter: Path, story: dict[str, Any], out: Path, params: Params, began: float
) -> None:
    quantize = _settings(params, story).quantize
    figures, scores, html = heads.judge(method, format_dir, base_dir, adapter, story, params.loss_items, quantize, params.precision)
    if params.judge is not None:
        say("evaluate: evaluate.judge is for answers, and a head gives none: nothing is judged")
    _write(figures | _origin(base_dir, story), scores, html, card.of(adapter, figures, page.TITLES), {}, None, out, params)
    _tell(figures, out, params, began)


def _origin(base_dir: Path, story: dict[str, Any]) -> dict[str, Any]:
    return {"base": _named(models.describe(base_dir)), "dataset": (story.get("dataset") or {}).get("sha256")}


def _write(
    figures: dict[str, Any],
    scores: pl.DataFrame,
    html: str,
    told: str,
    answers: Mapping[str, Iterable[bytes]],
    judged: judges.Judged | None,
    out: Path,
    params: Params,
) -> None:
    """Items, figures, page, card (`told`), the file of answers of every system, and that of the judge.

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
    write_whole(reports / card.NAME, told.encode())


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


def main(arguments: list[str] | None = None) -> None:
    """`python -m evaluate.evaluate FORMAT BASE TRAIN OUT_DIR [--params FILE] [-S key=value]`."""
    command("evaluate", "evaluate.evaluate", Params, build, ("format", "base", "train"), arguments, all_sections=True)


if __name__ == "__main__":
    main(sys.argv[1:])
