"""The whole of Finery on its sample: rebuilt from raw files to verdict in a fresh folder, then interrupted, misused and given new data.

One run of `dvc repro` serves all tests here. It starts in the background with the first test of a run, and these tests come last (see
conftest.py).
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from curate.stages import STAGES
from flows import intake
from tests.workspace import environment, run


@pytest.fixture(scope="session")
def built(building: tuple[Path, "subprocess.Popen[bytes]"]) -> Path:
    """A workspace after its first `dvc repro`. Tests that change it put it back."""
    folder, process = building
    if process.wait():
        pytest.fail(f"dvc repro ended with {process.returncode}:\n{(folder / 'build.log').read_text()[-3000:]}")
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "reports/curation.json").read_text())
    return loaded


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# --- the main job ---------------------------------------------------------------------------------------------------------------------


def test_every_row_is_accounted_for(built: Path) -> None:
    numbers = report_of(built)
    assert next(gate for gate in numbers["gates"] if gate["name"] == "Every row accounted for")["state"] == "pass"
    assert not [gate for gate in numbers["gates"] if gate["state"] == "fail"]


@pytest.mark.parametrize(
    "defect", ["malformed", "exact_duplicate", "personal", "secret", "benchmark_leak", "conflict", "damaged", "hostile"]
)
def test_every_planted_defect_of_these_kinds_is_found(built: Path, defect: str) -> None:
    kind = report_of(built)["truth"]["defects"][defect]
    assert kind["planted"] > 0
    assert kind["found"] == kind["planted"], kind["missed"]


def test_planted_near_duplicates_are_found(built: Path) -> None:
    kind = report_of(built)["truth"]["defects"]["near_duplicate"]
    assert kind["planted"] >= 50
    assert kind["found"] / kind["planted"] >= 0.98, kind["missed"]


@pytest.mark.parametrize("defect", ["wrong_language", "refusal", "cut_off", "bad_turns"])
def test_what_clean_should_drop_is_dropped(built: Path, defect: str) -> None:
    kind = report_of(built)["truth"]["defects"][defect]
    assert kind["found"] == kind["planted"], kind["missed"]


def test_no_clean_row_is_dropped(built: Path) -> None:
    scored = report_of(built)["truth"]
    assert scored["clean_rows"] >= 800
    assert scored["clean_rows_dropped"] == []


def test_no_planted_value_stands_anywhere_after_scrub(built: Path) -> None:
    truth = [json.loads(line) for line in (built / "data/sample/truth.jsonl").read_text().splitlines()]
    values = {value.encode() for row in truth if "values" in row for group in row["values"].values() for value in group}
    downstream = [*STAGES[STAGES.index("scrub") :], "train", "evaluate"]
    texts = [
        path.read_bytes()
        for name in downstream
        for path in (built / "data" / name).rglob("*")
        if path.suffix in (".json", ".md", ".jinja", ".tsv")
    ]
    texts += [path.read_bytes() for path in (built / "reports").rglob("*") if path.is_file()]
    for name in downstream:
        for path in (built / "data" / name).rglob("*.parquet"):
            texts.append(json.dumps(pl.read_parquet(path).to_dicts(), ensure_ascii=False, default=str).encode())
    assert len(texts) > 20
    assert {value for value in values for text in texts if value in text} == set()


def test_the_audit_finds_no_original_downstream_and_finds_one_that_is_planted(built: Path) -> None:
    told = run(built, "-m", "curate.scrub", "--audit")
    assert "none found" in told.stderr and "data/format" in told.stderr and "dvc.lock" in told.stderr
    truth = [json.loads(line) for line in (built / "data/sample/truth.jsonl").read_text().splitlines()]
    value = next(row["values"]["EMAIL_ADDRESS"][0] for row in truth if "EMAIL_ADDRESS" in row.get("values", {}))
    for place in ("reports/note.md", "data/train/note.log", "data/format/note.json"):
        (built / place).write_text(f"about {value}")
        try:
            told = run(built, "-m", "curate.scrub", "--audit", check=False)
        finally:
            (built / place).unlink()
        assert told.returncode == 1 and f"{place}: line 1: EMAIL_ADDRESS" in told.stdout and value not in told.stdout + told.stderr
    assert [oct((built / "data" / name).stat().st_mode & 0o777) for name in ("ingest", "clean", "dedup_exact")] == ["0o700"] * 3


def test_the_tuned_model_beats_its_base_and_the_verdict_says_so(built: Path) -> None:
    evaluation = json.loads((built / "reports/evaluation.json").read_text())
    assert evaluation["verdict"] == "better", evaluation["reason"]
    fall = evaluation["tuned_against"]["base"]["metrics"]["loss"]["difference"]
    assert 0 < fall["low"] < fall["high"]


def test_nothing_changed_means_nothing_runs(built: Path) -> None:
    again = run(built, "-m", "dvc", "repro")
    assert "Running stage" not in again.stdout + again.stderr


def test_the_adapter_says_where_it_comes_from(built: Path) -> None:
    checked = run(built, "-m", "train.verify", "data/train/adapter", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_row_can_be_traced_from_its_raw_line(built: Path) -> None:
    truth = [json.loads(line) for line in (built / "data/sample/truth.jsonl").read_text().splitlines()]
    near = next(row for row in truth if row["variant"] == "light")
    told = run(built, "-m", "curate.trace", f"{near['source']}:{near['line']}").stdout
    assert "near_duplicate" in told and near["of"] in told
    secret = next(row for row in truth if row["defect"] == "secret")
    told = run(built, "-m", "curate.trace", f"{secret['source']}:{secret['line']}").stdout
    assert "SECRET" in told and secret["values"]["SECRET"][0] not in told


# --- killed and repeated --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["ingest", "scrub", "dedup_near", "format"])
def test_a_killed_stage_leaves_nothing_half_written(built: Path, stage: str) -> None:
    out = built / "data" / stage
    before = hashes(out)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--force", stage]
    with subprocess.Popen(
        command, cwd=built, env=environment(built), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.parent.glob(f".{stage}.partial-*")):  # the stage has begun to write
            assert process.poll() is None and time.monotonic() < deadline, "the stage ended before it could be killed"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
    assert not out.exists() or hashes(out) == before, "whole or nothing"
    run(built, "-m", "dvc", "repro", "--single-item", "--force", stage)
    assert hashes(out) == before
    assert not list(out.parent.glob(f".{stage}.*")), "what the killed run left is gone"


# --- what bad input gets --------------------------------------------------------------------------------------------------------------


def mistake(folder: Path, *command: str) -> str:
    """The message of a command that has to fail without a traceback."""
    done = run(folder, *command, check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in text
    return text


def test_a_misspelt_key_is_named_with_its_nearest(built: Path) -> None:
    params = built / "params.yaml"
    before = params.read_text()
    try:
        params.write_text(before.replace("  threshold: 0.8 # Jaccard", "  treshold: 0.8 # Jaccard", 1))
        text = mistake(built, "-m", "dvc", "repro")
        assert "dedup_near.treshold" in text and "'threshold'" in text
    finally:
        params.write_text(before)
    assert (built / "data/dedup_near/kept").is_dir() or run(built, "-m", "dvc", "checkout", "--quiet").returncode == 0


def test_an_empty_raw_folder_says_what_to_do(built: Path, tmp_path: Path) -> None:
    text = mistake(built, "-m", "curate.ingest", str(tmp_path), str(tmp_path / "out"))
    assert str(tmp_path) in text
    assert not (tmp_path / "out").exists()


def test_a_missing_stage_says_what_to_run(built: Path, tmp_path: Path) -> None:
    assert "Run the stage before this one first" in mistake(built, "-m", "curate.clean", str(tmp_path / "nowhere"), str(tmp_path / "out"))


def test_an_unreadable_part_is_named(built: Path, tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 but not really")
    assert "part-00000.parquet" in mistake(built, "-m", "curate.clean", str(tmp_path), str(tmp_path / "out"))


def test_a_base_that_cannot_be_loaded_is_named(built: Path, tmp_path: Path) -> None:
    text = mistake(built, "-m", "train.base", "data/leakage", str(tmp_path / "base"), "-S", "base.model=nobody/no-such-model")
    assert "nobody/no-such-model" in text
    assert not (tmp_path / "base").exists()


def test_a_leak_after_split_fails_the_gate_and_is_named(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "data/augment", tmp_path / "augment")
    train, test = (next((tmp_path / "augment/kept" / split).glob("*.parquet")) for split in ("train", "test"))
    leaked = pl.read_parquet(test)[:1].with_columns(source=pl.lit("by-hand.jsonl"), line=pl.lit(1, dtype=pl.Int64))
    pl.concat([pl.read_parquet(train), leaked]).write_parquet(train)
    assert "by-hand.jsonl:1" in mistake(built, "-m", "curate.leakage", str(tmp_path / "augment"), str(tmp_path / "leakage"))
    assert not (tmp_path / "leakage").exists()


# --- the flows ------------------------------------------------------------------------------------------------------------------------


def test_the_pipeline_runs_the_graph_under_prefect(built: Path) -> None:
    shutil.rmtree(built / "data/format")
    done = run(built, "-m", "flows.pipeline")
    assert "every stage is up to date" in done.stdout
    assert (built / "data/format/kept/train").is_dir()
    assert "Running stage" not in run(built, "-m", "dvc", "repro").stdout, "it ended where `dvc repro` ends"


def test_a_failing_stage_fails_the_pipeline_with_its_own_error(built: Path) -> None:
    params = yaml.safe_load((built / "params.yaml").read_text())
    params["clean"]["languages"] = ["klingon"]
    before = (built / "params.yaml").read_text()
    try:
        (built / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        text = mistake(built, "-m", "flows.pipeline", "--upto", "clean")
        assert "clean ended with exit code" in text and "klingon" in text
        assert "no such stage" in mistake(built, "-m", "flows.pipeline", "--upto", "polish")
    finally:
        (built / "params.yaml").write_text(before)
        run(built, "-m", "dvc", "checkout", "--quiet")


def test_intake_tells_new_from_known_and_takes_in_only_when_asked(built: Path) -> None:
    known = [json.loads(line) for line in (built / "data/raw/chats.jsonl").read_text().splitlines()[:3]]
    exam = json.loads((built / "data/benchmarks/pellmoor_exam.jsonl").read_text().splitlines()[0])
    fresh = [
        {
            "question": "My cat chewed through the thin grey cable behind the sofa. Can I solder it myself?",
            "answer": "Better not. We post a new lead free of charge, and it plugs straight in.",
        },
        {
            "question": "Does the aerial socket in our loft have anything to do with the broadband?",
            "answer": "Nothing at all, it is for television. Your line ends at the small white box downstairs.",
        },
    ]
    rows = [*known, {"question": exam["question"], "answer": exam["answer"]}, *fresh]
    new = built / "new rows.jsonl"
    new.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    before = hashes(built / "data/raw")
    out = built / "looked-at"
    told = run(built, "-m", "flows.intake", new.name, "--out", str(out)).stdout
    summary = json.loads((out / "intake.json").read_text())
    assert (summary["rows"], summary["new"], summary["already_in_dataset"], summary["leaking"]) == (7, 2, 3, 1)
    assert summary["dropped"]["ingest"] == {"invalid_json": 1}
    assert "Nothing was changed" in told and (out / "reports/curation.html").exists()
    assert hashes(built / "data/raw") == before


def test_intake_takes_in_whole_files_and_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RAW", tmp_path / "raw")
    (tmp_path / "raw").mkdir()
    new = tmp_path / "new.jsonl"
    new.write_text("{}\n")
    with pytest.raises(intake.IntakeError, match="no row of these files is new"):
        intake.accept([new], new_rows=0)
    intake.accept([new], new_rows=1)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["new.jsonl"]
    new.write_text("{} \n")
    with pytest.raises(intake.IntakeError, match=r"other files named new\.jsonl"):
        intake.accept([new], new_rows=1)
    assert (tmp_path / "raw/new.jsonl").read_text() == "{}\n"


def test_intake_refuses_what_makes_no_sense(built: Path) -> None:
    assert "no such file" in mistake(built, "-m", "flows.intake", "nowhere.jsonl")
    assert "in data/raw already" in mistake(built, "-m", "flows.intake", "data/raw/chats.jsonl")
    assert "lies in the current dataset" in mistake(built, "-m", "flows.intake", "nowhere.jsonl", "--out", "data/new")
