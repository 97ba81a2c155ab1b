"""`python -m bench.pii [equal speed recall kept]`: scrub against stock Presidio, and against texts whose personal values are known.

- equal: spans, entities and scores of Finery's screened search and of `AnalyzerEngine` with the same recognizers, on the rows of t0_55k and
  pii_generated in a drawn order, in two processes. All of it takes long; `--rows N --skip M` takes a stretch.
- speed: MB/s of `python -m curate.scrub` with 2 workers on t0_55k, start-up included, and of the loop over `AnalyzerEngine.analyze` on a
  drawn share of its rows, start-up left out: with the same recognizers, and with Presidio's own.
- recall: recall and precision per entity on pii_generated and on `bench/pii_text.py`, beside Presidio's own recognizers.
- kept: what scrub changes where little is personal: rows of GSM8K (names allowed) and lines of source code.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import data, pii_scores
from bench.measure import ROOT, measure
from bench.pii_scores import Span
from curate.params import check_section, read_params
from curate.pii import engine, ner
from curate.pii.settings import ScrubParams

PARTS = ("equal", "speed", "recall", "kept")
TEXTS = 2_500  # of the second set
SHARE = 200  # rows that the stock loop gets
SEED = 17
CHUNK = 50
PARAMS = ROOT / "params.yaml"


@lru_cache
def params(*overrides: str) -> ScrubParams:
    """The section scrub of params.yaml."""
    return check_section(read_params(PARAMS, [f"scrub.{each}" for each in overrides]), "scrub", ScrubParams, PARAMS)


def asked(drop: str = "", add: str = "") -> ScrubParams:
    """The params with an entity less, or with one more and private addresses searched for too: gold values are of both kinds."""
    names = [each for each in params().entities if each != drop] + ([add] if add else [])
    return params(f"entities=[{', '.join(names)}]", *(["keep_private_ips=false"] if add else []))


@lru_cache(maxsize=1)
def stock() -> Any:
    """`AnalyzerEngine` as it comes for English, except that its spaCy model, which must be downloaded, is a blank pipeline: no names."""
    import tldextract

    engine.analyzer(params())  # imports Presidio without torch
    from curate.pii.presidio import AnalyzerEngine, RecognizerRegistry

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]  # else it asks the network
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    return AnalyzerEngine(registry, ner.blank())


def stock_spans(texts: Sequence[str]) -> list[list[Span]]:
    """What stock Presidio finds, at its default threshold of 0."""
    return [[(each.start, each.end, each.entity_type) for each in stock().analyze(text, "en")] for text in texts]


def _compared(texts: list[str]) -> tuple[int, int, list[str]]:
    """Texts whose findings differ, findings, and the first differing texts. Run in a process of its own."""
    made = engine.analyzer(params())
    count, differ = 0, []
    for text, ours in zip(texts, engine.analyze(texts, made), strict=True):
        theirs = {(each.start, each.end, each.entity_type, round(each.score, 2)) for each in made.engine.analyze(text, "en")}
        count += len(theirs)
        if isinstance(ours, Exception) or {(each.start, each.end, each.entity, each.score) for each in ours} != theirs:
            differ.append(text)
    return len(differ), count, differ[:3]


def equal(rows: int | None, skip: int) -> str:
    """Compare on a stretch of the rows (all by default). Raises SystemExit at the first difference."""
    texts = [*data.standard(), *(each.text for each in pii_scores.generated())]
    random.Random(SEED).shuffle(texts)
    texts = texts[skip : None if rows is None else skip + rows]
    chunks = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
    found, started = 0, time.monotonic()
    with get_context("spawn").Pool(2) as pool:
        for at, (wrong, count, examples) in enumerate(pool.imap_unordered(_compared, chunks), 1):
            found += count
            if wrong:
                raise SystemExit(f"{wrong} texts differ from AnalyzerEngine, the first:\n{examples[0]}")
            if at % 20 == 0:
                print(f"{at * CHUNK:,} of {len(texts):,} texts equal, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    size = sum(len(text.encode()) for text in texts) / 1e6
    return f"{len(texts):,} texts ({size:.1f} MB): all {found:,} findings equal, in {time.monotonic() - started:.0f} s."


def speed(share: int) -> str:
    """A Markdown table of MB/s."""
    texts = data.standard()
    inputs = data.make("t0_55k", iter(texts), len(texts))
    size = sum(len(text.encode()) for text in texts) / 1e6
    with TemporaryDirectory() as scratch:
        run = measure([sys.executable, "-m", "curate.scrub", str(inputs.finery), str(Path(scratch) / "out"), "--workers", "2"])
    if run.error:
        raise SystemExit(run.error)
    some = random.Random(SEED).sample(texts, share)
    lines = [
        "| | MB | seconds | MB/s | Finery is faster by |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| Finery, `python -m curate.scrub`, 2 workers, whole command | {size:.1f} | {run.seconds:.1f} | {size / run.seconds:.2f} | |",
    ]
    for title, one in (("the same recognizers", engine.analyzer(params()).engine), ("its own recognizers", stock())):
        one.analyze(texts[0], "en")  # what loads at the first text
        started = time.perf_counter()
        for text in some:
            one.analyze(text, "en")
        seconds, mega = time.perf_counter() - started, sum(len(text.encode()) for text in some) / 1e6
        rate = mega / seconds
        lines.append(f"| Presidio's loop, {title} | {mega:.2f} | {seconds:.1f} | {rate:.3f} | {size / run.seconds / rate:.1f} × |")
    return "\n".join(lines)


def recall(count: int) -> str:
    """The two tables; Finery with params.yaml and DOMAIN_NAME, which the sets hold and params.yaml leaves out."""
    ours = pii_scores.finery(asked(add="DOMAIN_NAME"))
    parts = []
    for title, samples in (("pii_generated.json", pii_scores.generated()), ("bench/pii_text.py", pii_scores.second_set(count))):
        table = pii_scores.table(pii_scores.score(samples, ours), pii_scores.score(samples, stock_spans))
        parts.append(f"**{title}**, {len(samples):,} texts\n\n{table}")
    return "\n\n".join(parts)


def kept(lines: int) -> str:
    """Rows of GSM8K and lines of code that change."""
    changed, rows = pii_scores.sums_changed(asked(drop="PERSON"))
    touched, total, by = pii_scores.lines_changed(pii_scores.sources(lines), params())
    several = ", ".join(f"{entity} {count:,}" for entity, count in by.most_common())
    return (
        f"GSM8K, names allowed: {changed:,} of {rows:,} rows changed ({changed / rows:.3%}).\n"
        f"Code: {touched:,} of {total:,} lines changed by anything but secrets ({touched / total:.3%}): {several}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts asked for and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.pii", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {' '.join(PARTS)} (default: all)")
    parser.add_argument("--rows", type=int, help="texts to compare in `equal` (default: all)")
    parser.add_argument("--skip", type=int, default=0, help="texts to leave out before them")
    parser.add_argument("--share", type=int, default=SHARE, help="rows for the stock loop in `speed` (default: %(default)s)")
    parser.add_argument("--texts", type=int, default=TEXTS, help="texts of the second set in `recall` (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=pii_scores.LINES, help="lines of code in `kept` (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    if min(each for each in (options.rows, options.share, options.texts, options.lines) if each is not None) < 1 or options.skip < 0:
        parser.error("--rows, --share, --texts and --lines: expected 1 or more; --skip: 0 or more")
    run = {
        "recall": lambda: recall(options.texts),
        "kept": lambda: kept(options.lines),
        "speed": lambda: speed(options.share),
        "equal": lambda: equal(options.rows, options.skip),
    }
    for part, made in run.items():
        if not options.parts or part in options.parts:
            print(f"## {part}\n\n{made()}\n", flush=True)


if __name__ == "__main__":
    main()
