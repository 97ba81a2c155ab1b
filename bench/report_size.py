"""`python -m bench.report_size --rows 1000000`: seconds, memory and bytes of the curation report on that many made-up rows.

Writes what the stages would leave (six-column records, a tenth near-duplicates, a twentieth exact ones, some leaks) under --folder, runs
`python -m curate.report` on it, and, where there is a chromium, opens the page.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import xxhash

from bench.measure import measure
from curate import record, scrub, store

SLICE = 50_000
TOPICS, LABELS, FILES = 60, 200, 40
FALL = {"dedup_exact": 0.05, "scrub": 0.0, "dedup_near": 0.1, "decontaminate": 0.005}  # share of all rows that each drops


def ident(number: int) -> str:
    """A row's id: of 128 random bits, as that of a real one."""
    return xxhash.xxh3_128_hexdigest(number.to_bytes(8, "little"))


def vocabulary(random: np.random.Generator) -> np.ndarray:
    """8 000 words of made-up syllables."""
    syllables = np.array([a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "ar", "en", "il")])
    return np.array(["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(8000)])


def some_rows(first: int, count: int, words: np.ndarray, random: np.random.Generator) -> pl.DataFrame:
    """Rows `first` to `first + count` as records: a prompt of 30 words and an answer of 60, a third of them of the row's topic."""
    topic = random.integers(0, TOPICS, count)
    drawn = random.zipf(1.3, (count, 90)) % 8000
    own = (topic[:, None] * 97 + random.integers(0, 60, (count, 90))) % 8000
    text = words[np.where(random.random((count, 90)) < 0.33, own, drawn)]
    at = np.arange(first, first + count)
    rows = [
        {
            "id": ident(number),
            "source": f"part-{number % FILES:02d}.jsonl",
            "line": number // FILES + 1,
            "kind": "chat",
            "messages": [
                {"role": "user", "content": " ".join(each[:30]), "extra": None},
                {"role": "assistant", "content": " ".join(each[30:]), "extra": None},
            ],
            "rejected": None,
            "label": f"topic {number_of_topic % LABELS} {number % 3}",
            "group": None,
            "meta": "{}",
        }
        for number, number_of_topic, each in zip(at.tolist(), topic.tolist(), text.tolist(), strict=True)
    ]
    return pl.DataFrame(rows, schema=record.SCHEMA)


def write(folder: Path, count: int) -> None:
    """The stages' folders: ingest holds all rows, each later stage loses its share, split and leakage have splits."""
    random = np.random.default_rng(7)
    words, draw = vocabulary(random), random.random(count)
    cuts = np.cumsum([0.0, *FALL.values()])
    stages = {"ingest": 0.0} | {name: float(cut) for name, cut in zip(FALL, cuts[1:], strict=True)}
    writers = {name: store.PartWriter(folder / name / "kept", store.arrow_schema(record.SCHEMA)) for name in stages}
    parts = {split: store.PartWriter(folder / "leakage" / "kept" / split, store.arrow_schema(record.SCHEMA)) for split in record.SPLITS}
    for first in range(0, count, SLICE):
        rows = some_rows(first, min(SLICE, count - first), words, random)
        own = draw[first : first + rows.height]
        for name, cut in stages.items():
            writers[name].write(rows.filter(pl.Series(own >= cut)))
        left = rows.filter(pl.Series(own >= cuts[-1]))
        share = random.random(left.height)
        for split, low, high in (("train", 0.0, 0.9), ("validation", 0.9, 0.95), ("test", 0.95, 1.0)):
            parts[split].write(left.filter(pl.Series((share >= low) & (share < high))))
    for writer in (*writers.values(), *parts.values()):
        writer.close()
    kept = count
    record.empty(record.DROPPED).write_parquet(folder / "ingest" / "dropped.parquet")
    metrics(folder / "ingest", count, count, {})
    for name, low, high in zip(FALL, cuts[:-1], cuts[1:], strict=True):
        gone = np.flatnonzero((draw >= low) & (draw < high))
        fallen(name, gone, count, random).write_parquet(folder / name / "dropped.parquet")
        metrics(folder / name, kept, kept - len(gone), {f"{name} reason": len(gone)})
        kept -= len(gone)
    findings(np.flatnonzero(draw >= cuts[1])[: count // 2]).write_parquet(folder / "scrub" / "findings.parquet")
    near = fallen("dedup_near", np.flatnonzero(draw > 0.9)[:100_000], count, random)
    pairs(near, random).write_parquet(folder / "dedup_near" / "pairs.parquet")
    record.empty(record.DROPPED).write_parquet(folder / "leakage" / "dropped.parquet")
    metrics(folder / "leakage", kept, kept, {})


def fallen(name: str, at: np.ndarray, count: int, random: np.random.Generator) -> pl.DataFrame:
    """DROPPED rows of a stage, each with the evidence that it would have."""
    rows = []
    for number, other, similarity in zip(
        at.tolist(), random.integers(0, count, len(at)).tolist(), random.uniform(0.8, 1, len(at)), strict=True
    ):
        proof: dict[str, Any] = {
            "kept_id": ident(other),
            "kept_source": f"part-{other % FILES:02d}.jsonl",
            "kept_line": other // FILES + 1,
        }
        if name == "decontaminate":
            proof = {"set": "exam.jsonl", "item": other % 100, "item_id": None, "tier": "ngram", "overlap": "question", "score": 0.9}
            proof |= {
                "span": {"field": "messages", "turn": 0, "start": 0, "end": 90},
                "item_span": {"field": "question", "start": 0, "end": 90},
            }
        proof["similarity"] = 1.0 if name == "dedup_exact" else round(float(similarity), 4)
        place = {"id": ident(number), "source": f"part-{number % FILES:02d}.jsonl", "line": number // FILES + 1}
        rows.append(place | {"reason": f"{name} reason", "detail": "Made up.", "evidence": orjson.dumps(proof).decode()})
    return pl.DataFrame(rows, schema=record.DROPPED)


def findings(at: np.ndarray) -> pl.DataFrame:
    """Something that scrub found in each of the rows, of ten kinds."""
    place = {
        "id": [ident(number) for number in at.tolist()],
        "source": [f"part-{number % FILES:02d}.jsonl" for number in at],
        "line": at // FILES + 1,
    }
    fixed = {"field": "messages", "turn": 0, "slot": 0, "recognizer": "made up", "score": 0.9, "start": 10, "end": 20}
    kinds = pl.Series("entity", [f"KIND_{number % 10}" for number in at])
    made = pl.DataFrame(place).with_columns(kinds, *(pl.lit(value).alias(name) for name, value in fixed.items()))
    return made.select(pl.col(name).cast(kind) for name, kind in scrub.FINDINGS.items())


def pairs(near: pl.DataFrame, random: np.random.Generator) -> pl.DataFrame:
    """A full `pairs` table of rows that stayed."""
    proof = pl.col("evidence").str
    return near.select(
        "id", "source", "line",
        proof.json_path_match("$.kept_id").alias("kept_id"),
        proof.json_path_match("$.kept_source").alias("kept_source"),
        proof.json_path_match("$.kept_line").cast(pl.Int64).alias("kept_line"),
        pl.Series("similarity", random.uniform(0.6, 0.8, near.height)),
        pl.Series("answer_similarity", random.uniform(0.6, 0.8, near.height)),
        pl.lit(False).alias("dropped"), pl.lit(False).alias("conflict"),
    )  # fmt: skip


def metrics(folder: Path, rows_in: int, kept: int, reasons: dict[str, int]) -> None:
    counted = {"rows_in": rows_in, "kept": kept, "added": 0, "dropped": rows_in - kept, "reasons": reasons, "counts": {}}
    (folder / "metrics.json").write_bytes(orjson.dumps(counted))


def opened(page: Path) -> float | None:
    """Seconds until a browser has loaded the page; None where there is none."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page()
        start = time.perf_counter()
        shown.goto(page.resolve().as_uri())
        shown.evaluate("document.documentElement.scrollHeight")
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    """Print one line of figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.report_size", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="raw rows (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("bench/.data/report_size"), help="where the stages' folders go (default: %(default)s)"
    )
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    write(options.folder / "data", options.rows)
    out = options.folder / "reports"
    command = [sys.executable, "-m", "curate.report", str(options.folder / "data"), str(out), "-S", "report.truth=null"]
    found = measure(command)
    if found.error:
        raise SystemExit(found.error)
    html, numbers = ((out / name).stat().st_size / 1e6 for name in ("curation.html", "curation.json"))
    browser = opened(out / "curation.html")
    told = "not opened" if browser is None else f"opened in {browser:.2f} s"
    cost = f"{found.seconds:.0f} s, {found.peak / 2**20:,.0f} MiB at most"
    print(f"{options.rows:,} rows: {cost}, curation.html {html:.2f} MB, curation.json {numbers:.2f} MB, {told}")


if __name__ == "__main__":
    main()
