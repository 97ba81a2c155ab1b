"""Everything that curation.json holds: counts and places, no text of any row."""

from importlib import metadata
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import xxhash

from curate import dataset_card, record
from curate.reporting import (
    clusters,
    dealt,
    difference,
    flow,
    gates,
    gather,
    leaks,
    made,
    meanings,
    personal,
    repaired,
    reviewed,
    sizes,
    truth,
    worth,
)
from curate.reporting.gather import Stage
from curate.reporting.layout import Given
from curate.stages import STAGES

PACKAGES = ("polars", "pyarrow", "datasketch", "presidio-analyzer", "ftfy", "tokenizers", "transformers")


def numbers(given: Given, truth_path: str | None, previous: str | None, limits: gates.Limits) -> dict[str, Any]:
    """The whole of curation.json. `truth_path`: planted defects to score the stages against. `previous`: see `difference`."""
    found, last = given.found, gather.last_records(given.found)
    threshold = float(given.sections.get("dedup_near", {}).get("threshold", 1.0))
    told: dict[str, Any] = {
        "rows": {"raw": found["ingest"].metrics["rows_in"], "final": last.metrics["kept"]},
        "waterfall": flow.waterfall(found),
        "flow": flow.table(found),
        "sources": flow.by_source(found),
        "labels": gather.labels_by_split(last),
        "label_losses": flow.by_label(found),
        "duplicates": clusters.numbers(found, given.sections),
        "personal": personal.numbers(given.data, found),
        "leakage": leaks.matrix(found),
        "benchmarks": leaks.benchmarks(found, Path(given.sections["decontaminate"]["benchmarks"])),
        "suspicious": given.suspicious.about,
        "conflicts": _rows(found, "dedup_exact", "conflicts"),
        **_lengths("character", sizes.characters(last)),
        "provenance": _provenance(given),
    }
    parts = {
        "splits": dealt.numbers(found),
        "augmentation": made.numbers(found),
        "repaired": repaired.numbers(found),
        "reviewed": reviewed.numbers(found),
        "difference": difference.numbers(found, previous),
    }
    told |= {name: part for name, part in parts.items() if part is not None}
    if "format" in found:
        told |= _lengths("token", sizes.tokens(found["format"]))
        told["formatted"] = _formatted(found["format"])
    if truth_path is not None:
        told["truth"] = truth.score(Path(truth_path), found, threshold)
    told["gates"] = gates.check(told, limits, given.sections["train"]["method"])
    told["verdict"] = gates.verdict(told["gates"])
    reasons = {reason for step in told["waterfall"] for reason in step["reasons"]}
    told["meanings"] = {reason: meaning for reason, meaning in meanings.MEANINGS.items() if reason in reasons}
    told["worth_a_look"] = worth.a_look(told)
    return told


def _lengths(unit: str, classes: pl.DataFrame) -> dict[str, Any]:
    return {
        f"{unit}s": sizes.by_split(classes),
        f"{unit}_histogram": sizes.histogram(classes),
        f"{unit}_labels": sizes.by_label(classes),
    }


def _rows(found: dict[str, Stage], stage: str, name: str) -> int:
    """Rows of an extra table; 0 where there is none."""
    return int(found[stage].lazy(name).select(pl.len()).collect().item()) if stage in found and found[stage].has(name) else 0


def _formatted(stage: Stage) -> dict[str, Any]:
    """What format made of the rows: template and hashes, lengths before any cut, cuts, pools, tokens that the vocabulary lacks."""
    about, counts = orjson.loads((stage.folder / "format.json").read_bytes()), stage.metrics["counts"]
    splits = [split for split in ("all", *record.SPLITS) if counts.get(f"{split}_rows")]
    names = ("rows", "pairs", "tokens", "trained_tokens", "over_length", "truncated", "split")
    return {
        "about": about,
        "splits": {split: {name: counts.get(f"{split}_{name}", 0) for name in names} for split in splits},
        "lengths": dataset_card.lengths(counts, about.get("context")),
        "mixed": dataset_card.mixed(counts),
        "tokens": sum(counts.get(f"{split}_tokens", 0) for split in splits),
        "unknown": counts.get("unknown_tokens", 0),
        "lone_bytes": counts.get("lone_byte_tokens", 0),
    }


def _provenance(given: Given) -> dict[str, Any]:
    """Hashes of data, code and params, and the versions of the libraries that made the rows."""
    used = {name: section for name, section in given.sections.items() if name in (*STAGES, "report")}
    return {
        "data": {name: gather.folder_hash(stage.folder) for name, stage in given.found.items()},
        "code": given.code,
        "params": used,
        "params_hash": xxhash.xxh3_128_hexdigest(orjson.dumps(used, option=orjson.OPT_SORT_KEYS)),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
