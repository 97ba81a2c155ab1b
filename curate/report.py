"""Writes what a reviewer reads before spending GPU hours: reports/curation.html (one offline file), curation.json and gates.json.

Nothing stays behind: this stage only looks. The JSON holds counts and no text of any row; the page adds bounded samples. Everything
that comes from data is escaped, and the page forbids scripts outright.
"""

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import jinja2
import orjson
import polars as pl
import xxhash
from pydantic import Field

from curate import approvals, dataset_card, record
from curate.hashing import dataset_sha256
from curate.params import check_section, params_class
from curate.pii.settings import ScrubParams
from curate.record import InputError
from curate.reporting import figures, gates, gather, truth
from curate.reporting.charts import buckets
from curate.reporting.samples import Sample, samples
from curate.reporting.tokens import coloured_example
from curate.stage import command, say, write_whole

PACKAGES = ("polars", "pyarrow", "datasketch", "presidio-analyzer", "ftfy", "tokenizers", "transformers")
HERE = Path(__file__).resolve().parent
Share = Annotated[float, Field(ge=0, le=1)]


@params_class
class Params:
    """`params.yaml: report`."""

    truth: str | None
    samples: Annotated[int, Field(ge=0, le=50)]
    gates: gates.Limits


def build(data: Path, out: Path, params: Params, sections: dict[str, Any]) -> None:
    """Read what the stages under `data` left and write both files into `out`."""
    found = gather.stages(data)
    if "ingest" not in found:
        raise InputError(f"{data}: holds no ingest/metrics.json, so there is nothing to report on. Run the pipeline first: `dvc repro`.")
    numbers = count(data, found, params, sections)
    scrub = check_section(sections, "scrub", ScrubParams, Path("params.yaml"))
    benchmarks = Path(sections["decontaminate"]["benchmarks"])
    shown = samples(found, params.samples, scrub, benchmarks)
    page = render(numbers, found, figures.pictures(numbers), shown)
    write_whole(out / "curation.json", orjson.dumps(numbers, option=orjson.OPT_INDENT_2) + b"\n")
    write_whole(out / "curation.html", page.encode())
    dataset = dataset_sha256(found["format"].folder) if "format" in found else None
    write_whole(out / "gates.json", approvals.gates_json(dataset, numbers["gates"]))
    verdict = numbers["verdict"]
    say(f"report: {verdict['state']}: {verdict['sentence']} -> {out / 'curation.html'}")


def count(data: Path, found: dict[str, gather.Stage], params: Params, sections: dict[str, Any]) -> dict[str, Any]:
    """Everything that curation.json holds."""
    last = [name for name in gather.STAGES[:-1] if name in found][-1]
    final = found[last].folder
    threshold = float(sections.get("dedup_near", {}).get("threshold", 1.0))
    sets = gather.duplicate_sets(found)
    numbers: dict[str, Any] = {
        "rows": {"raw": found["ingest"].metrics["rows_in"], "final": found[last].metrics["kept"]},
        "waterfall": gather.waterfall(found),
        "sources": gather.by_source(found),
        "labels": gather.labels_by_split(final),
        "duplicates": {
            "threshold": threshold,
            "sets": len(sets),
            "largest": sets[:10],
            "sizes": _sizes([each["dropped"] + 1 for each in sets]),
            "similarity": _similarities(found),
        },
        "personal": {"entities": gather.entities(found), **gather.not_searched(data)},
        "leakage": _rows(found, "leakage", "matrix"),
        "conflicts": _count(found, "dedup_exact", "conflicts"),
        "characters": {split: gather.quantiles(lengths) for split, lengths in gather.characters(final).items()},
        "character_histogram": _histogram(gather.characters(final)),
        "provenance": _provenance(data, found, sections),
    }
    if "format" in found:
        lengths = gather.tokens(found["format"].folder)
        numbers["tokens"] = {split: gather.quantiles(each) for split, each in lengths.items()}
        numbers["token_histogram"] = _histogram(lengths)
        numbers["formatted"] = _formatted(found["format"])
    if params.truth is not None:
        numbers["truth"] = truth.score(Path(params.truth), found, threshold)
    numbers["gates"] = gates.check(numbers, params.gates)
    numbers["verdict"] = gates.verdict(numbers["gates"])
    return numbers


def _formatted(stage: gather.Stage) -> dict[str, Any]:
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


def render(
    numbers: dict[str, Any], found: dict[str, gather.Stage], pictures: dict[str, Any], shown: list[tuple[str, str, list[Sample]]]
) -> str:
    """The page. Jinja escapes whatever is not made by our own picture and marking functions."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    example = coloured_example(found["format"].folder, _tokenizer_of(numbers)) if "format" in found else None
    return environment.get_template("page.html.jinja").render(n=numbers, pictures=pictures, samples=shown, example=example)


def _tokenizer_of(numbers: dict[str, Any]) -> Path:
    return Path(numbers["provenance"]["params"]["format"]["tokenizer"])


def _sizes(sizes: list[int]) -> dict[str, int]:
    """Duplicate sets by size: 2, 3, 4, 5-9, 10-99, 100 and more."""
    names = {"2": (2, 2), "3": (3, 3), "4": (4, 4), "5-9": (5, 9), "10-99": (10, 99), "100+": (100, 1 << 62)}
    return {name: sum(low <= size <= high for size in sizes) for name, (low, high) in names.items()}


def _similarities(found: dict[str, gather.Stage]) -> dict[str, int]:
    """Checked pairs of dedup_near by similarity, in steps of 0.02 from the near-miss limit up."""
    table = found["dedup_near"].table("histogram") if "dedup_near" in found else None
    if table is None or not table.height:
        return {}
    steps = table.select((pl.col("from") * 50 + 1e-6).floor().clip(0, 49).cast(pl.Int32).alias("step"), "pairs")
    return {f"{step / 50:.2f}": count for step, count in steps.group_by("step").agg(pl.col("pairs").sum()).sort("step").rows()}


def _rows(found: dict[str, gather.Stage], stage: str, name: str) -> list[dict[str, Any]]:
    table = found[stage].table(name) if stage in found else None
    return table.to_dicts() if table is not None else []


def _count(found: dict[str, gather.Stage], stage: str, name: str) -> int:
    table = found[stage].table(name) if stage in found else None
    return table.height if table is not None else 0


def _histogram(lengths: dict[str, list[int]]) -> dict[str, Any]:
    """One set of buckets for all splits, up to the 99th percentile so that one giant does not flatten the rest."""
    everything = sorted(length for each in lengths.values() for length in each)
    if not everything:
        return {"edges": [0, 1], "splits": {}, "beyond": 0}
    top = everything[int(0.99 * (len(everything) - 1))]
    shown = {split: [length for length in each if length <= top] for split, each in lengths.items()}
    edges, _ = buckets([top])
    counts = {split: buckets(each, top=top)[1] for split, each in shown.items()}
    return {"edges": edges, "splits": counts, "beyond": len(everything) - sum(len(each) for each in shown.values())}


def _provenance(data: Path, found: dict[str, gather.Stage], sections: dict[str, Any]) -> dict[str, Any]:
    """Hashes of data, code and params, and the versions of the libraries that made the rows."""
    code = xxhash.xxh3_128()
    for path in sorted(HERE.rglob("*.py")):
        code.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes())
    used = {name: section for name, section in sections.items() if name in (*gather.STAGES, "report")}
    return {
        "data": {name: gather.folder_hash(stage.folder) for name, stage in found.items()},
        "code": code.hexdigest(),
        "params": used,
        "params_hash": xxhash.xxh3_128_hexdigest(orjson.dumps(used, option=orjson.OPT_SORT_KEYS)),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    command("report", "curate.report", Params, build, ("data",), all_sections=True)
