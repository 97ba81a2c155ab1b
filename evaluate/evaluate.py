"""Hold-out, base and adapter in, one verdict out: better, worse or not shown; stays behind: rows that cannot be scored, counted.

`OUT_DIR/items.parquet` has one row per item and system, `OUT_DIR/metrics.json` the figures; `reports/evaluation.json` holds the same
figures and `reports/evaluation.html` shows them. Times go to the log. The rule of the verdict is in evaluate/verdict.py.
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import polars as pl
from pydantic import Field

from curate import store
from curate.params import params_class
from curate.record import StageFailure
from curate.stage import command, say, write_whole
from evaluate import ask, heads, holdout, metrics, models, page
from evaluate.verdict import Verdict, judge

RESAMPLES = 10_000  # the ends of a 95 % interval then move by about 1 % of its width from seed to seed


@params_class
class Params:
    """`params.yaml: evaluate`."""

    loss_items: Annotated[int, Field(ge=10)] | None
    generate_items: Annotated[int, Field(ge=0)]
    max_new_tokens: Annotated[int, Field(ge=1)]
    few_shot: Annotated[int, Field(ge=0, le=16)]
    batch_tokens: Annotated[int, Field(ge=1)]
    quantize: Literal["as_trained", "none", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    require: Literal["better"] | None
    reports: str


def build(format_dir: Path, base_dir: Path, train_dir: Path, out: Path, params: Params) -> None:
    """Ask every system the same items, compare, judge, write.

    Raises InputError (a folder or the adapter is missing, or they do not belong together), StageFailure (`require` not met; the
    report is written all the same).
    """
    began = time.monotonic()
    adapter = train_dir / "adapter"
    story = models.trained_as(adapter, base_dir)
    method = (story.get("train") or {}).get("method", "sft")
    if method in models.SCORERS:
        settings = _settings(params, story)
        figures, scores, html = heads.judge(
            method, format_dir, base_dir, adapter, story, params.loss_items, settings.quantize, settings.precision
        )
        _write(figures | _origin(base_dir, story), scores, html, out, params, began)
        return
    items, left_out = holdout.read(format_dir, params.loss_items)
    scores, items, too_long = ask.every_system(items, format_dir, base_dir, adapter, _settings(params, story))
    if too_long:
        left_out = left_out | {"longer_than_model": too_long}
    scores = metrics.with_matches(scores, [item.answer for item in items])
    figures, _ = figures_of(scores, params.seed, RESAMPLES)
    figures = metrics.tidy(figures | {"left_out": left_out} | _origin(base_dir, story))
    _write(figures, scores, page.render(figures, scores, items), out, params, began)


def _origin(base_dir: Path, story: dict[str, Any]) -> dict[str, Any]:
    return {"base": _named(models.describe(base_dir)), "dataset": (story.get("dataset") or {}).get("sha256")}


def _write(figures: dict[str, Any], scores: pl.DataFrame, html: str, out: Path, params: Params, began: float) -> None:
    written = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
    reports, word = Path(params.reports), figures["verdict"]
    with store.whole_folder(out) as partial:
        store.write_parquet(scores, partial / "items.parquet")
        write_whole(partial / "metrics.json", written)
    write_whole(reports / "evaluation.json", written)
    write_whole(reports / "evaluation.html", html.encode())
    say(f"evaluate: {figures['items']:,} items in {time.monotonic() - began:,.1f} s -> {out}")
    print(f"Verdict: {word}. {figures['reason']} Report: {reports / 'evaluation.html'}", flush=True)
    if params.require is not None and word != params.require:
        raise StageFailure(
            f"evaluate.require = {params.require}, but the verdict is {word}. Read {reports / 'evaluation.html'}; "
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


def figures_of(scores: pl.DataFrame, seed: int, resamples: int) -> tuple[dict[str, Any], Verdict]:
    """Every figure of the report, by name, and the verdict they give."""
    systems = scores["system"].unique(maintain_order=True).to_list()
    against = {other: metrics.compare(scores, other, seed, resamples) for other in systems if other != "tuned"}
    main = against["base"]
    verdict = judge(main.loss, main.prompt_gain, main.control, (main.label_accuracy, main.exact_match))
    slices, small = metrics.slices(scores, seed, resamples)
    first = scores.filter(pl.col("system") == systems[0])
    return {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "items": first.height,
        "items_with_prompt": int(first["answer_loss"].is_not_null().sum()),
        "systems": {system: metrics.of_system(scores, system, seed, resamples) for system in systems},
        "tuned_against": {other: asdict(each) for other, each in against.items()},
        "slices": slices,
        "slices_left_out": small,
    }, verdict


def main(arguments: list[str] | None = None) -> None:
    """`python -m evaluate.evaluate FORMAT BASE TRAIN OUT_DIR [--params FILE] [-S key=value]`."""
    command("evaluate", "evaluate.evaluate", Params, build, ("format", "base", "train"), arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
