"""A dataset made to break whatever shows it, and the stages run on it up to leakage: for the tests in a browser."""

import csv
from pathlib import Path
from typing import Any

import orjson

from curate import augment, clean, decontaminate, dedup_exact, dedup_near, dedup_semantic, ingest, leakage, report, scrub, split, stage
from tests.helpers import ROOT, run_stage

HOME = "http://evil.example"
STRINGS = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    f'<img src="{HOME}/a.png" onerror="alert(3)">',
    f'<svg onload="alert(4)"><image href="{HOME}/b.png"/></svg>',
    f'<iframe src="{HOME}/c"></iframe><object data="{HOME}/d"></object>',
    f"</style><style>body{{display:none}} @import url({HOME}/e.css);</style>",
    f'"><base href="{HOME}"><meta http-equiv="refresh" content="0;url={HOME}/f">',
    f"![picture]({HOME}/g.png) [click](javascript:alert(5))",
    f'<a href="javascript:alert(6)" autofocus onfocus="alert(7)">x</a><form action="{HOME}"><button>',
    "{{ 7*7 }}{% raw %}{{ config }}${alert(8)}<%= 7*7 %>",
    "</pre></details></section></main></body></html>",
    "</table></div><!-- <![CDATA[",
    "pay \u202eeurt\u202c \u2066now\u2069 \u200b\u200d\ufeff",
    "\u202e\u202e\u202enever closed",
    "Z" + "\u0301\u0489" * 400 + "algo",
    "position:fixed;top:0;left:0;width:100vw;height:100vh",
    "__proto__",
    "&lt;b&gt;&amp;#x3c;script&amp;#x3e;",
)
LONG = "W" * 1_000_000
WORDS = "When I open the account page on the second day of the month it shows the bill of the month before and not the new one"


def raw_rows() -> list[dict[str, Any]]:
    """Rows whose prompt, answer, label and group hold each string, with exact and near duplicates, and one word of a million letters."""
    rows = []
    for at, text in enumerate(STRINGS):
        prompt = f"Case {at}: {WORDS}, number {at * 7919} {text}"
        row = {
            "prompt": prompt,
            "completion": f"Answer {at * 31}: please look again tomorrow. {text}",
            "label": f"{text}"[:200],
            "group": text,
        }
        rows += [row, row, row | {"prompt": f"{prompt} today"}]
        rows += [
            row | {"prompt": f"{each} {at} {text} {each * 3}", "completion": f"{each} done {at}. {text} {each}", "label": text[:200]}
            for each in ("alpha", "bravo charlie", "delta echo foxtrot", "golf", "hotel india")
        ]
    rows += [{"prompt": f"{LONG} why", "completion": f"{LONG} because", "label": "W" * 5000, "group": LONG}] * 2
    rows += [{"prompt": f"Mail <b onclick=alert(9)>anna{at}@firm.example.com</b>", "completion": "Sent.", "label": "x"} for at in range(3)]
    return rows


def write_raw(folder: Path) -> None:
    """The rows in files with hostile names, and some lines that no parser takes."""
    folder.mkdir()
    rows = raw_rows()
    for at, name in enumerate(("<img src=x onerror=alert(10)>.jsonl", "{{ 7*7 }}&amp;.jsonl", "a\u202egnp.jsonl", "'\"`.jsonl")):
        some = [orjson.dumps(row) for row in rows[at::4]]
        (folder / name).write_bytes(b"\n".join([*some, b"{<script>alert(11)</script>", b""]))
    with (folder / "=1+1.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "completion", "label"], *([text, text, text] for text in STRINGS[:6])])


def write_benchmark(folder: Path) -> None:
    """One set that holds two of the prompts."""
    folder.mkdir()
    items = [{"question": row["prompt"], "answer": row["completion"]} for row in (raw_rows()[0], raw_rows()[24])]
    (folder / "<svg onload=alert(12)>.jsonl").write_bytes(b"\n".join(orjson.dumps(item) for item in items))


def run_all(root: Path) -> tuple[Path, Path]:
    """(folder of the stages, folder of the report) under `root`."""
    write_raw(root / "raw")
    write_benchmark(root / "benchmarks")
    data, sets = root / "data", f"benchmarks={root / 'benchmarks'}"
    run_stage(ingest.STAGE, root / "raw", data / "ingest", "max_row_bytes=8000000")
    before = "ingest"
    for each, *overrides in (
        (clean.STAGE, "enabled=false"),
        (dedup_exact.STAGE,),
        (scrub.STAGE,),
        (dedup_near.STAGE,),
        (dedup_semantic.STAGE,),
        (decontaminate.STAGE, sets),
        (split.STAGE, "pinned=null"),
        (augment.STAGE, sets, "floor=2"),
        (leakage.STAGE, sets),
    ):
        run_stage(each, data / before, data / each.name, *overrides)  # type: ignore[arg-type]
        before = each.name
    options = ["--params", str(ROOT / "params.yaml"), "-S", "report.truth=null", "-S", f"decontaminate.benchmarks={root / 'benchmarks'}"]
    arguments = [str(data), str(root / "reports"), *options]
    stage.command("report", "curate.report", report.Params, report.build, ("data",), arguments, all_sections=True)
    return data, root / "reports"
