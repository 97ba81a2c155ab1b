"""Approvals: a failed gate stops training until somebody waives it by name for this dataset; `review.required` asks for one always."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from curate import approvals
from curate.approvals import Approval
from curate.hashing import dataset_sha256
from curate.record import InputError
from flows import approve
from tests.helpers import ROOT
from train import card
from train.train import check_approval

DATASET, OTHER = "a" * 64, "b" * 64


def gate(name: str, state: str) -> dict[str, Any]:
    return {"name": name, "state": state, "value": "7 rows", "limit": "0 rows", "sentence": "."}


GATES = [gate("Leakage", "fail"), gate("Synthetic rows", "fail"), gate("Rows lost", "warn"), gate("Truncated rows", "pass")]


def reported(folder: Path, dataset: str | None, gates: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gates.json").write_bytes(approvals.gates_json(dataset, gates))
    (folder / "curation.json").write_bytes(orjson.dumps({"gates": gates}))
    return folder / "gates.json"


def test_a_failed_gate_stops_until_it_is_waived_by_name_for_this_dataset(tmp_path: Path) -> None:
    path, gates = tmp_path / "approvals.jsonl", reported(tmp_path, DATASET, GATES)
    with pytest.raises(InputError, match=r"failed for this dataset: Leakage, Synthetic rows.*--waive 'Leakage' --waive 'Synthetic rows'"):
        approvals.check(DATASET, False, path, gates)
    approvals.append(path, Approval(DATASET, "anna", waived=("Leakage",), note="The benchmark is ours."))
    approvals.append(path, Approval(OTHER, "anna", waived=("Synthetic rows",), note="Another dataset."))
    with pytest.raises(InputError, match=r"failed for this dataset: Synthetic rows\."):
        approvals.check(DATASET, False, path, gates)
    last = approvals.append(path, Approval(DATASET, "ben", waived=("Synthetic rows",), note="Known."))
    assert [each.reviewer for each in approvals.check(DATASET, True, path, gates)] == ["anna", "ben"]
    assert approvals.of(DATASET, path)[-1] == last


def test_an_approval_is_asked_for_only_where_it_is_required(tmp_path: Path) -> None:
    path, gates = tmp_path / "approvals.jsonl", reported(tmp_path, DATASET, GATES[2:])
    assert approvals.check(DATASET, False, path, gates) == []
    approvals.append(path, Approval(OTHER, "anna"))
    with pytest.raises(InputError, match="holds no approval of this dataset \\(aaaaaaaaaaaa"):
        approvals.check(DATASET, True, path, gates)


def test_a_report_about_another_dataset_or_none_closes_no_gate(tmp_path: Path) -> None:
    path = tmp_path / "approvals.jsonl"
    assert approvals.check(DATASET, False, path, reported(tmp_path, OTHER, GATES)) == []
    assert approvals.check(DATASET, False, path, tmp_path / "none.json") == []
    (tmp_path / "gates.json").write_text("[]")
    with pytest.raises(InputError, match="not what the report writes"):
        approvals.check(DATASET, False, path, tmp_path / "gates.json")


def test_only_failed_gates_reach_the_file_that_training_depends_on() -> None:
    assert orjson.loads(approvals.gates_json(DATASET, GATES)) == {"dataset": DATASET, "failed": ["Leakage", "Synthetic rows"]}
    worded = [each | {"sentence": "Other words."} for each in GATES if each["state"] == "fail"]
    assert approvals.gates_json(DATASET, GATES) == approvals.gates_json(DATASET, worded)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"dataset": "abc"}, "not 64 hex digits"),
        ({"reviewer": " "}, "reviewer must be a name"),
        ({"waived": ["Leakage"]}, "needs a 'note'"),
        ({"time": "yesterday"}, "not ISO 8601"),
        ({"waivd": []}, "waivd"),
        ({"time": None}, "'time' is missing"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    good = {"dataset": DATASET, "reviewer": "anna", "time": "2026-11-26T09:00:00Z"}
    path = tmp_path / "approvals.jsonl"
    path.write_bytes(orjson.dumps(good) + b"\n" + orjson.dumps(good | line) + b"\n")
    with pytest.raises(InputError, match=f"line 2: .*{message}"):
        approvals.of(DATASET, path)


# --- the command


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a formatted dataset, a report about it, and the project's params."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for split in ("train", "validation", "test"):
        (tmp_path / "data/format/kept" / split).mkdir(parents=True)
        pl.DataFrame({"id": [split]}).write_parquet(tmp_path / "data/format/kept" / split / "part-00000.parquet")
    reported(tmp_path / "reports", dataset_sha256(tmp_path / "data/format"), GATES)
    return tmp_path


def said(error: pytest.ExceptionInfo[SystemExit], capsys: pytest.CaptureFixture[str]) -> str:
    return f"{error.value} {capsys.readouterr().err}"


def test_approving_with_a_failed_gate_writes_nothing_until_it_is_waived(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as error:
            approve.main(["--reviewer", "anna", *arguments])
        assert not (workspace / "data/approvals.jsonl").exists()
        return said(error, capsys)

    assert "failed: Leakage, Synthetic rows. Nothing was written" in refused()
    assert "--waive 'Leak': no such gate failed. Failed: Leakage, Synthetic rows" in refused("--waive", "Leak")
    assert "needs a 'note'" in refused("--waive", "Leakage", "--waive", "Synthetic rows")
    approve.main(["--show"])
    assert not (workspace / "data/approvals.jsonl").exists()
    approve.main(["--reviewer", "anna", "--waive", "Leakage", "--waive", "Synthetic rows", "--note", "Our own benchmark."])
    line = orjson.loads((workspace / "data/approvals.jsonl").read_bytes())
    assert line["dataset"] == dataset_sha256(workspace / "data/format") and line["warnings"] == ["Rows lost"]
    assert "anna approves it with 1 open warning" in capsys.readouterr().out
    assert [each.reviewer for each in check_approval(line["dataset"], {"review": {"required": True}})] == ["anna"]


def test_a_report_about_another_dataset_cannot_be_approved(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reported(workspace / "reports", OTHER, [])
    with pytest.raises(SystemExit) as error:
        approve.main(["--reviewer", "anna"])
    assert "not a report about the dataset as it stands" in said(error, capsys)


def test_training_refuses_before_it_loads_anything(workspace: Path) -> None:
    dataset = dataset_sha256(workspace / "data/format")
    with pytest.raises(InputError, match="Leakage, Synthetic rows"):
        check_approval(dataset, {"review": {"required": False}})
    reported(workspace / "reports", dataset, [])
    assert check_approval(dataset, {}) == []
    with pytest.raises(InputError, match=r"review\.required is true"):
        check_approval(dataset, {"review": {"required": True, "approvals": "data/approvals.jsonl"}})


def test_the_card_names_who_approved() -> None:
    record = {
        "base": {"name": "tiny", "revision": None, "sha256": "0"}, "dataset": {"sha256": DATASET, "template_sha256": None},
        "dvc_lock_sha256": None, "code": {"commit": None}, "hardware": {"device": "cpu", "precision": "fp32"}, "seconds": 1,
        "approvals": [asdict(Approval(DATASET, "anna", "2026-11-26T09:00:00Z", waived=("Leakage",), note="Ours."))],
    }  # fmt: skip
    names = ("train_rows", "validation_rows", "train_tokens", "trained_tokens", "steps", "best_step", "trainable_parameters", "parameters")
    metrics = dict.fromkeys((*names, "base_validation_loss", "best_validation_loss"), 1)
    assert card._facts(record, metrics, "loss")["Approved by anna"] == "2026-11-26; waived: Leakage"
