"""The report: numbers that add up, samples that show the evidence, and no text of the data that could act."""

import re
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from curate import dedup_exact, record, report, stage
from curate.params import check_section, read_params
from curate.pii.settings import ScrubParams
from curate.reporting import charts, gates, gather, meanings, samples, truth, worth
from tests.helpers import ROOT, chat, frame, section, write_input
from train.allowed import METHODS, PAIRS

HOSTILE = (
    "<script>alert(1)</script>",
    "</table></div>",
    "{{ 7*7 }}",
    '=HYPERLINK("https://x.example","y")',
    "{% raw %}",
    '"><img src=x onerror=alert(1)>',
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of ingest (one row quarantined), clean (off) and dedup_exact on rows full of hostile text."""
    root = tmp_path_factory.mktemp("data")
    rows = [
        chat(f"Question {at}: {text}", f"Answer {at}: {text}", label=text, source=f"f{text[:9]}.csv".replace("/", "_"))
        for at, text in enumerate(HOSTILE)
    ]
    again = [chat(row["messages"][0]["content"].upper(), row["messages"][1]["content"], source="again.csv") for row in rows]
    everything = frame([*rows, *again])
    write_input(everything, root / "ingest")
    bad = pl.DataFrame(
        [{"id": "", "source": "<b>.jsonl", "line": 3, "reason": "invalid_json", "detail": "cut & gone", "evidence": "{}"}],
        schema=record.DROPPED,
    )
    _finish(root / "ingest", bad, everything.height)
    write_input(everything, root / "clean")
    _finish(root / "clean", record.empty(record.DROPPED), everything.height)
    stage.run(dedup_exact.STAGE, root / "clean", root / "dedup_exact", dedup_exact.Params(enabled=True, sources=()))
    return root


def _finish(folder: Path, dropped: pl.DataFrame, kept: int) -> None:
    dropped.write_parquet(folder / "dropped.parquet")
    reasons = dict(dropped.group_by("reason").len().rows())
    metrics = {"rows_in": kept + dropped.height, "kept": kept, "added": 0, "dropped": dropped.height, "reasons": reasons, "counts": {}}
    (folder / "metrics.json").write_bytes(orjson.dumps(metrics))


@pytest.fixture(scope="module")
def written(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports")
    stage.command("report", "curate.report", report.Params, report.build, ("data",), [str(data), str(out), *_options()], all_sections=True)
    return out


def _options() -> list[str]:
    return ["--params", str(ROOT / "params.yaml"), "-S", "report.truth=null"]


def test_numbers_add_up(written: Path) -> None:
    numbers = orjson.loads((written / "curation.json").read_bytes())
    assert numbers["rows"] == {"raw": 13, "final": 6}
    steps = {step["stage"]: step for step in numbers["waterfall"]}
    assert steps["ingest"]["reasons"]["invalid_json"] == {"rows": 1, "sources": {"<b>.jsonl": 1}}
    assert steps["dedup_exact"]["dropped"] == 6
    assert sum(source["rows"] for source in numbers["sources"]) == 13
    assert sum(source["kept"] for source in numbers["sources"]) == 6
    accounted = next(gate for gate in numbers["gates"] if gate["name"] == "Every row accounted for")
    assert accounted["state"] == "pass"


def test_a_row_that_vanished_fails_the_gate(data: Path, written: Path) -> None:
    numbers = orjson.loads((written / "curation.json").read_bytes())
    numbers["rows"]["final"] -= 1
    found = gates.check(numbers, section("report", report.Params).gates, "sft")
    assert gates.verdict(found)["state"] == "fail"


def test_the_rows_that_the_method_learns_from_are_counted(written: Path) -> None:
    numbers = orjson.loads((written / "curation.json").read_bytes()) | {"splits": {"crossing": {}}}
    numbers["labels"] = {"a": {"train": 150, "validation": 0, "test": 0}, gather.NO_LABEL: {"train": 100, "validation": 0, "test": 0}}
    numbers["formatted"] = {"splits": {"train": {"rows": 250, "pairs": 30}}}
    limits = section("report", report.Params).gates

    def told(method: str) -> tuple[str, str]:
        [gate] = [each for each in gates.check(numbers, limits, method) if each["name"] == "Training rows"]
        return gate["value"], gate["state"]

    assert told("sft") == ("250 rows", "pass")
    assert told("dpo") == told("reward") == ("30 pairs", "warn")
    assert told("classify") == ("150 labelled rows", "warn")
    assert set(gates.FAMILIES) == set(METHODS) and {name for name, of in gates.FAMILIES.items() if of == "preference"} == set(PAIRS)


def test_a_label_that_lost_most_of_its_rows_is_warned_of(written: Path) -> None:
    numbers = orjson.loads((written / "curation.json").read_bytes())
    numbers["label_losses"] = [
        {"label": "rare", "rows": 20, "kept": 1, "lost_share": 0.95},
        {"label": "b", "rows": 9, "kept": 9, "lost_share": 0.0},
    ]
    [gate] = [
        each for each in gates.check(numbers, section("report", report.Params).gates, "sft") if each["name"] == "Rows lost in one label"
    ]
    told = "'rare' lost most; 1 of 2 labels are over the limit. Rows without a label do not count."
    assert (gate["state"], gate["value"], gate["sentence"]) == ("warn", "95.0%", told)


def test_conflicts_are_warned_of_with_the_files_between_which_they_are(written: Path) -> None:
    numbers = orjson.loads((written / "curation.json").read_bytes())
    limits = section("report", report.Params).gates

    def told(found: int, beside: dict[str, Any]) -> tuple[str, str]:
        numbers["suspicious"]["kinds"]["conflict"] = {"found": found, "listed": found, **beside}
        [gate] = [each for each in gates.check(numbers, limits, "sft") if each["name"] == "Conflicts"]
        return gate["state"], gate["sentence"].partition("answer")[2]

    assert told(0, {}) == ("pass", ". None was dropped for it.")
    assert told(2, {"beside": {"files": ["a.csv", "b.csv"], "rows": 2}}) == (
        "warn",
        " (all between a.csv and b.csv). None was dropped for it.",
    )


def test_nothing_of_the_data_is_active(written: Path) -> None:
    page = (written / "curation.html").read_text()
    head, _, script = page.rpartition("<script>")
    page = head + script.partition("</script>")[2]
    assert "<script" not in page
    tags = re.sub(r">[^<]*<", "><", re.sub(r'="[^"]*"', '=""', page))  # a quote that closed a value too early would show what follows
    assert "onerror" not in tags and "alert" not in tags, "only as text and in values, never as an attribute"
    assert "&lt;script&gt;" in page, "the sample is shown"
    assert "{{ 7*7 }}" in page and "Question 2: 49" not in page
    assert len(re.findall("<table[ >]", page)) == page.count("</table>"), "a cell cannot close the table"
    assert page.count("<div") == page.count("</div>")
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page), "the page loads nothing"


def test_evidence_stands_beside_the_row(written: Path) -> None:
    page = (written / "curation.html").read_text()
    assert "dedup_exact: exact_duplicate" in page
    assert "<del>" in page and "<ins>" in page


def test_flagged_rows_are_shown_beside_the_dropped_ones(data: Path, tmp_path: Path) -> None:
    row = pl.read_parquet(data / "clean" / "kept" / "*.parquet").row(0, named=True)
    folder = tmp_path / "decontaminate"
    folder.mkdir()
    gone = {"id": row["id"], "source": row["source"], "line": row["line"], "detail": "Other numbers.", "evidence": '{"score":0.91}'}
    pl.DataFrame([gone | {"reason": "benchmark_masked"}], schema=record.DROPPED).write_parquet(folder / "flagged.parquet")
    found = {"clean": gather.Stage("clean", data / "clean", {}), "decontaminate": gather.Stage("decontaminate", folder, {})}
    scrub = check_section(read_params(ROOT / "params.yaml"), "scrub", ScrubParams, ROOT / "params.yaml")
    [group] = samples.samples(found, 5, scrub, tmp_path)
    assert (group.stage, group.reason, group.flagged, group.rows) == ("decontaminate", "benchmark_masked", True, 1)
    assert "Question 0" in group.shown[0].text and group.shown[0].score == "0.910"


def test_the_json_holds_no_text_of_a_row(written: Path) -> None:
    assert b"Question 0" not in (written / "curation.json").read_bytes()


def test_same_data_same_bytes(data: Path, written: Path, tmp_path: Path) -> None:
    stage.command(
        "report", "curate.report", report.Params, report.build, ("data",), [str(data), str(tmp_path), *_options()], all_sections=True
    )
    for name in ("curation.html", "curation.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_an_empty_data_folder_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        stage.command(
            "report",
            "curate.report",
            report.Params,
            report.build,
            ("data",),
            [str(tmp_path), str(tmp_path), *_options()],
            all_sections=True,
        )
    assert stopped.value.code == 2
    assert "Run the pipeline first" in capsys.readouterr().err
    assert not (tmp_path / "curation.html").exists()


def test_bars_show_every_value_and_escape_labels() -> None:
    picture = charts.bars("t", [charts.Bar("<i>", (("kept", 3, "3 rows"), ("dropped", 1, "1 row")), "3")])
    assert "&lt;i&gt;" in picture and "<i>" not in picture
    widths = [float(width) for width in re.findall(r'<rect[^>]*width="([\d.]+)%"', picture)]
    assert widths[0] == pytest.approx(3 * widths[1], rel=0.01)


def test_diff_marks_only_what_differs() -> None:
    left, right = charts.diff("the hub is red now", "the hub was red <now>")
    assert left == "the hub <del>is</del> red <del>now</del>"
    assert right == "the hub <ins>was</ins> red <ins>&lt;now&gt;</ins>"


@pytest.fixture
def scored_stages(tmp_path: Path) -> dict[str, gather.Stage]:
    """One exact duplicate found, one clean row lost at clean, one personal value left standing."""
    rows = frame([chat("mail me at anna@example.com", "done")])
    write_input(rows, tmp_path / "scrub")
    write_input(rows, tmp_path / "ingest")
    drops: dict[str, list[tuple[str, int, str, dict[str, Any]]]] = {
        "ingest": [],
        "clean": [("clean.csv", 7, "too_short", {})],
        "dedup_exact": [("planted.csv", 2, "exact_duplicate", {"kept_source": "a.csv", "kept_line": 2})],
        "scrub": [],
    }
    for name, each in drops.items():
        (tmp_path / name).mkdir(exist_ok=True)
        _dropped(each).write_parquet(tmp_path / name / "dropped.parquet")
    return {name: gather.Stage(name, tmp_path / name, {"rows_in": 5, "kept": 5, "dropped": 0}) for name in drops}


def _dropped(rows: list[tuple[str, int, str, dict[str, Any]]]) -> pl.DataFrame:
    made = [
        {"id": "x", "source": source, "line": line, "reason": reason, "detail": "", "evidence": orjson.dumps(proof).decode()}
        for source, line, reason, proof in rows
    ]
    return pl.DataFrame(made, schema=record.DROPPED)


def test_truth_counts_found_missed_and_clean_rows_lost(scored_stages: dict[str, gather.Stage], tmp_path: Path) -> None:
    planted = [
        {
            "source": "planted.csv",
            "line": 2,
            "defect": "exact_duplicate",
            "variant": "case",
            "stage": "dedup_exact",
            "reason": "exact_duplicate",
            "of": "a.csv:2",
            "jaccard": 1.0,
        },
        {"source": "planted.csv", "line": 9, "defect": "refusal", "variant": "x", "stage": "clean", "reason": "refusal"},
        {
            "source": "t.jsonl",
            "line": 1,
            "defect": "personal",
            "variant": "x",
            "stage": None,
            "reason": None,
            "values": {"E": ["anna@example.com"]},
        },
    ]
    path = tmp_path / "truth.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in planted))
    scored = truth.score(path, scored_stages, 0.8)
    assert {defect: (kind["planted"], kind["found"]) for defect, kind in scored["defects"].items()} == {
        "exact_duplicate": (1, 1), "refusal": (1, 0), "personal": (1, 0),
    }  # fmt: skip
    assert scored["defects"]["refusal"]["missed"] == ["planted.csv:9 (x)"]
    assert scored["clean_rows_dropped"] == ["clean.csv:7 (too_short)"]


def test_a_broken_truth_file_is_a_clear_error(scored_stages: dict[str, gather.Stage], tmp_path: Path) -> None:
    (tmp_path / "truth.jsonl").write_text("{")
    with pytest.raises(record.InputError, match="truth"):
        truth.score(tmp_path / "truth.jsonl", scored_stages, 0.8)


def test_the_first_screen_names_what_no_gate_catches_and_links_to_it(written: Path) -> None:
    numbers, page = orjson.loads((written / "curation.json").read_bytes()), (written / "curation.html").read_text()
    first = page[: page.index('<section id="gates"')]
    for each in numbers["worth_a_look"]:
        assert f'href="#{each["section"]}"' in first and f'id="{each["section"]}"' in page
    for gate in numbers["gates"]:
        assert f'href="#{gate["section"]}"' in page


def test_what_is_worth_a_look() -> None:
    kinds: dict[str, Any] = {kind: {"found": 0, "listed": 0} for kind in ("conflict", "near_leak", "near_miss")}
    numbers: dict[str, Any] = {
        "suspicious": {"kinds": kinds, "labels": {"sure": 0, "rows": 10, "agree": 0.9}},
        "personal": {},
        "waterfall": [{"stage": "clean", "enabled": True}],
    }
    assert worth.a_look(numbers) == []
    kinds["conflict"] |= {"beside": {"files": ["a.csv", "b.csv"], "rows": 4}}
    kinds["near_miss"] = {"found": 9, "listed": 9, "beside": {"files": ["a.csv"], "rows": 5}}
    kinds["conflict"]["found"], numbers["suspicious"]["labels"]["sure"] = 4, 3
    numbers["personal"] = {"not_searched": ["LOCATION"], "why": "No model."}
    numbers["waterfall"] = [{"stage": "dedup_semantic", "enabled": False}]
    told = [each["told"] for each in worth.a_look(numbers)]
    assert (
        told[0] == "4 rows share a prompt with another row and answer it differently (all between a.csv and b.csv); all were kept"
        and told[1].startswith("A classifier doubts 3 of 10 labels (30%)")
        and told[1].endswith("90% of all")
    )
    numbers["suspicious"]["labels"]["agree"] = 0.4
    assert worth.a_look(numbers)[1]["told"].endswith("40% of all, so it is a poor judge here")
    assert "(5 within a.csv); all were kept" in told[2]
    kinds["near_miss"]["beside"]["rows"] = 4
    assert "within" not in worth.a_look(numbers)[2]["told"]
    assert told[3] == "Not searched for: LOCATION. No model." and told[4].startswith("dedup_semantic is off: ")


def test_every_reason_of_the_docs_has_a_meaning() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs/formats.md").read_text().split("## Reasons for which")[1], re.MULTILINE))
    named |= set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "docs/format.md").read_text().split("## ")[1], re.MULTILINE))
    assert len(named) > 15 and named <= set(meanings.MEANINGS)
