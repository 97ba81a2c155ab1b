"""What the report counts in narrow columns, held against the same counted the slow way or by the stage itself."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate import dedup_near, record, review
from curate.reporting import clusters, flow, gather, leaks, reviewed, samples, sizes
from tests.helpers import chat, frame, run_stage, section, write_input

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "larch")


def near_rows(count: int = 120) -> pl.DataFrame:
    """Texts of 40 words, many of which are another one with some words replaced."""
    random = np.random.default_rng(11)
    rows: list[dict[str, Any]] = []
    for at in range(count):
        if at % 4 == 0:
            words = [f"{WORDS[random.integers(12)]}{random.integers(90)}" for _ in range(40)]
        else:
            for place in random.choice(40, random.integers(1, 5), replace=False):
                words = [*words[:place], f"other{random.integers(1000)}", *words[place + 1 :]]
        rows.append(chat(" ".join(words), f"answer {' '.join(words[::-1])}", source=f"f{at % 5}.jsonl"))
    return frame(rows)


@pytest.fixture(scope="module")
def deduplicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("near")
    write_input(near_rows(), root / "scrub")
    run_stage(dedup_near.STAGE, root / "scrub", root / "dedup_near", "near_miss=0.5", "threshold=0.7")
    return root


def test_what_if_is_what_a_run_at_that_threshold_drops(deduplicated: Path, tmp_path: Path) -> None:
    stage = gather.Stage("dedup_near", deduplicated / "dedup_near", {})
    told = clusters.what_if(clusters._fallen(stage), clusters._near(stage), 0.7, 0.5)
    estimate = {row["threshold"]: row["dropped"] for row in told["rows"]}
    assert [row["threshold"] for row in told["rows"] if row["now"]] == [0.7]
    for limit in (0.55, 0.6, 0.7, 0.8, 0.9):
        real = run_stage(dedup_near.STAGE, deduplicated / "scrub", tmp_path / str(limit), "near_miss=0.5", f"threshold={limit}")["dropped"]
        assert abs(estimate[limit] - real) <= max(3, 0.2 * real), f"at {limit}: {estimate[limit]}, really {real}"
        if limit == 0.7:
            assert estimate[limit] == real
    assert estimate[0.55] > estimate[0.7] > estimate[0.9], "the case is worth something only if thresholds matter"


def test_a_row_whose_better_row_falls_too_may_stay() -> None:
    row, other = np.array([1, 2]), np.array([0, 1])  # 1 is like 0, and 2 like 1: 1 falls, so 2 stays
    assert clusters._falls(row, other, 3) == 1


def test_sets_go_on_over_stages() -> None:
    def pairs(*rows: tuple[str, int, float, str, int]) -> pl.DataFrame:
        return pl.DataFrame(rows, schema=clusters.PAIRS, orient="row")

    settled = clusters._settled(
        {"dedup_exact": pairs(("a", 1, 1.0, "b", 1), ("a", 2, 1.0, "c", 9)), "dedup_near": pairs(("b", 1, 0.9, "d", 4))}
    )
    ends = {(r["source"], r["line"]): (r["kept_source"], r["kept_line"]) for r in settled.to_dicts()}
    assert ends == {("a", 1): ("d", 4), ("b", 1): ("d", 4), ("a", 2): ("c", 9)}


def test_lengths_are_those_of_the_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    lengths = random.integers(1, 900, 300)
    rows = [chat("q" * int(n), "", label=f"l{at % 3}", source="s") for at, n in enumerate(lengths)]
    write_input(frame([*rows, chat("x" * 123_456, "", label="l0")]), tmp_path / "split")
    classes = sizes.characters(gather.Stage("split", tmp_path / "split", {}))
    told = sizes.by_split(classes)[""]
    every = np.sort([*lengths, 123_456])
    assert told["rows"] == 301 and told["sum"] == every.sum() and told["max"] == 123_456
    assert told["median"] == every[150] and told["p95"] == every[int(0.95 * 301)]
    shape = sizes.histogram(classes)
    assert sum(shape["splits"][""]) + shape["beyond"] == 301 and shape["beyond"] >= 1
    by_label = {each["label"]: each for each in sizes.by_label(classes)}
    assert by_label["l1"]["sum"] == lengths[1::3].sum() and by_label["l0"]["max"] == 123_456


def test_the_flow_table_shows_a_stage_that_loses_a_row_silently(tmp_path: Path) -> None:
    everything = near_rows(20)
    for name, kept in (("ingest", everything), ("clean", everything[1:])):
        write_input(kept, tmp_path / name)
        record.empty(record.DROPPED).write_parquet(tmp_path / name / "dropped.parquet")
    found = {
        name: gather.Stage(name, tmp_path / name, {"rows_in": 20, "kept": kept, "added": 0, "dropped": 0})
        for name, kept in (("ingest", 20), ("clean", 19))
    }
    assert flow.table(found)["off"] == 1
    assert flow.table({"ingest": found["ingest"]})["off"] == 0


def test_samples_are_the_nearest_and_one_of_each_file_whatever_the_batches(deduplicated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = gather.Stage("dedup_near", deduplicated / "dedup_near", {})
    files = [f"f{at}.jsonl" for at in range(5)]
    chosen, counts = samples.choose(stage, "dropped", 2, files)
    everyone = pl.read_parquet(deduplicated / "dedup_near" / "dropped.parquet")
    similar = everyone["evidence"].str.json_path_match("$.similarity").cast(pl.Float64).sort().to_list()
    assert counts == {"near_duplicate": everyone.height}
    assert [row["evidence"]["similarity"] for row in chosen["near_duplicate"][:2]] == similar[:2]
    assert {row["source"] for row in chosen["near_duplicate"]} == set(everyone["source"])
    monkeypatch.setattr(gather, "BATCH", 7)
    assert samples.choose(stage, "dropped", 2, files) == (chosen, counts)


def test_a_value_on_the_edge_of_what_is_shown_is_still_found(tmp_path: Path) -> None:
    from curate.pii.settings import ScrubParams

    mail = "anna.schmidt@firm-example.com"
    text = "x " * ((samples.SHOWN_CHARS - 20) // 2) + mail
    write_input(frame([chat(text, "yes", source="a.jsonl", line=1)]), tmp_path / "ingest")
    (tmp_path / "clean").mkdir()
    gone = {"id": "1", "source": "a.jsonl", "line": 1, "reason": "too_long", "detail": "", "evidence": "{}"}
    pl.DataFrame([gone], schema=record.DROPPED).write_parquet(tmp_path / "clean" / "dropped.parquet")
    found = {name: gather.Stage(name, tmp_path / name, {}) for name in ("ingest", "clean")}
    record.empty(record.DROPPED).write_parquet(tmp_path / "ingest" / "dropped.parquet")
    [group] = samples.samples(found, 1, section("scrub", ScrubParams), tmp_path)
    assert "anna.s" not in group.shown[0].text and group.shown[0].text.startswith("user: x x")


def test_a_value_that_only_the_repairs_bring_to_light_is_found_too() -> None:
    from curate.pii.settings import ScrubParams

    scrub = section("scrub", ScrubParams)
    for written in ("anna.schmidt&#64;firm.example.com", "<b>anna.schmidt</b>@firm.example.com", "anna.schm\u200bidt@firm.example.com"):
        assert "anna" not in samples._scrubbed(f"Mail {written}, please.", scrub)
    assert samples._scrubbed("The caf\xc3\xa9 \u200b is shut.", scrub) == "The caf\xc3\xa9 \u200b is shut.", "else it is shown as it came"


def test_decisions_that_were_not_applied_are_named(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    base = {"id": "1", "source": "a.jsonl", "label": None, "time": "t", "reason": "", "detail": ""}
    rows = [
        base | {"line": 1, "action": "drop", "reviewer": "ann", "differ": None, "state": "applied"},
        base | {"line": 2, "action": "edit", "reviewer": "bob", "differ": None, "state": "vanished"},
        base | {"line": 3, "action": "keep", "reviewer": "ann", "differ": "bob", "state": "applied"},
    ]
    pl.DataFrame(rows, schema=review.TABLE).write_parquet(tmp_path / "review" / "decisions.parquet")
    told = reviewed.numbers({"review": gather.Stage("review", tmp_path / "review", {})})
    assert told is not None and (told["decisions"], told["reviewers"]) == (3, 2)
    assert told["states"] == {"applied": 2, "vanished": 1} and [each["line"] for each in told["open"]] == [2, 3]
    assert reviewed.numbers({}) is None


def test_benchmarks_are_counted_in_one_order_and_flagged_rows_with_them(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "exam.jsonl").write_text("".join(f'{{"question": "What is {at}?", "answer": "{at}"}}\n' for at in range(9)))
    (tmp_path / "decontaminate").mkdir()
    tiers = [f"tier {letter}" for letter in "hgfedcba"]
    rows = [
        {
            "id": "1",
            "source": "a",
            "line": at,
            "reason": "r",
            "detail": "",
            "evidence": f'{{"set":"exam.jsonl","item":{at},"tier":"{tier}"}}',
        }
        for at, tier in enumerate(tiers)
    ]
    for name, some in (("dropped", rows), ("flagged", rows[:2])):
        pl.DataFrame(some, schema=record.DROPPED).write_parquet(tmp_path / "decontaminate" / f"{name}.parquet")
    [told] = leaks.benchmarks({"decontaminate": gather.Stage("decontaminate", tmp_path / "decontaminate", {})}, tmp_path / "sets")
    assert (told["items"], told["met"]) == (9, 8)
    assert list(told["dropped"]) == sorted(tiers) and told["flagged"] == {"tier g": 1, "tier h": 1}
