"""Writes what a reviewer reads before spending GPU hours: reports/curation.html (one offline file), curation.json, gates.json and
the tables of `dvc plots`; and data/report/suspicious.parquet, the rows to look at, for the review page.

Nothing stays behind: this stage only looks. The JSON holds counts and no text of any row; the page adds bounded samples. Everything
that comes from data is escaped, and the page's policy lets no script run but its own.
"""

import base64
import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import jinja2
import orjson
import xxhash
from markupsafe import Markup
from pydantic import Field

from curate import approvals
from curate.hashing import dataset_sha256
from curate.params import check_section, params_class
from curate.pii.settings import ScrubParams
from curate.record import InputError, ParamsError
from curate.reporting import count, datamap, figures, gates, gather, layout, plain, plots, suspicious
from curate.reporting.contents import SECTIONS
from curate.stage import command, say, write_whole
from curate.store import write_parquet

HERE = Path(__file__).resolve().parent


@params_class
class Params:
    """`params.yaml: report`."""

    truth: str | None
    samples: Annotated[int, Field(ge=0, le=50)]
    previous: Annotated[str, Field(min_length=1)] | None
    map: Literal["pca", "umap"]
    suspicious: suspicious.Settings
    gates: gates.Limits


def build(data: Path, out: Path, params: Params, sections: dict[str, Any]) -> None:
    """Read what the stages under `data` left and write the report into `out`."""
    found = gather.stages(data)
    if "ingest" not in found:
        raise InputError(f"{data}: holds no ingest/metrics.json, so there is nothing to report on. Run the pipeline first: `dvc repro`.")
    if (method := sections.get("train", {}).get("method")) not in gates.FAMILIES:
        raise ParamsError(f"params.yaml: train.method: {method!r} is none of {', '.join(gates.FAMILIES)}, so its rows cannot be counted.")
    if params.map == "umap":
        datamap.load_umap()  # or say that it is missing before the work begins
    scrub = check_section(sections, "scrub", ScrubParams, Path("params.yaml"))
    looked_at = suspicious.find(gather.last_records(found).folder, found, params.suspicious)
    given = layout.Given(data, found, sections, scrub, params.samples, code_hash(), looked_at)
    numbers = count.numbers(given, params.truth, params.previous, params.gates)
    page = render(numbers, figures.pictures(numbers), layout.fill(given, numbers, SECTIONS))
    write_whole(out / "curation.json", orjson.dumps(numbers, option=orjson.OPT_INDENT_2) + b"\n")
    write_whole(out / "curation.html", page.encode())
    shutil.rmtree(out / "plots", ignore_errors=True)
    (out / "plots").mkdir()
    for name, table in plots.tables(numbers).items():
        table.write_csv(out / "plots" / f"{name}.csv")
    (data / "report").mkdir(exist_ok=True)
    write_parquet(looked_at.rows, data / "report" / "suspicious.parquet")
    dataset = dataset_sha256(found["format"].folder) if "format" in found else None
    write_whole(out / "gates.json", approvals.gates_json(dataset, numbers["gates"]))
    verdict = numbers["verdict"]
    say(f"report: {verdict['state']}: {verdict['sentence']} -> {out / 'curation.html'}")


def render(numbers: dict[str, Any], pictures: dict[str, Any], contents: list[layout.Filled]) -> str:
    """The page. Jinja escapes whatever is not made by our own picture and marking functions."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=plain.finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = plain.breakable
    style, script = (
        Markup("".join((HERE / "reporting" / name).read_text("utf-8") for name in names)) for names in (layout.STYLES, layout.SCRIPTS)
    )
    page = environment.get_template("page.html.jinja")
    return page.render(
        n=numbers, pictures=pictures, contents=contents, style=style, script=script, hashes={"style": _hash(style), "script": _hash(script)}
    )


def code_hash() -> str:
    """xxh3-128 over the code that made the rows and this report."""
    code = xxhash.xxh3_128()
    for path in sorted(HERE.rglob("*.py")):
        code.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes())
    return code.hexdigest()


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inline element: only this very text is run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


if __name__ == "__main__":
    command("report", "curate.report", Params, build, ("data",), all_sections=True)
