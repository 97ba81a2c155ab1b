"""Record that somebody approved the dataset as it stands, with its open warnings: a line in data/approvals.jsonl, kept by git.

    python -m flows.approve [--reviewer NAME] [--waive GATE] [--note TEXT] [--show]

`train` refuses a dataset with a failed gate that nobody waived by name, and any dataset without an approval where `review.required` is
true. An approval holds for one content of train and validation: other rows need a new one.
"""

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from curate import approvals
from curate.approvals import Approval
from curate.hashing import dataset_sha256
from curate.ledger import parse
from curate.params import read_params
from curate.record import InputError, ParamsError
from curate.stage import guarded


def gates_of(report: Path, dataset: str) -> list[dict[str, Any]]:
    """The gates of the report, which must be about `dataset`. Raises InputError."""
    if approvals.failed_gates(dataset, report / "gates.json") is None:
        raise InputError(f"{report}: not a report about the dataset as it stands ({dataset[:12]}…). Make it: `dvc repro report`.")
    try:
        return list(orjson.loads((report / "curation.json").read_bytes())["gates"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        raise InputError(f"{report / 'curation.json'}: missing, or not what the report writes. `dvc repro --force report`.") from None


def approval(dataset: str, gates: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> Approval:
    """What is to be written. Raises ParamsError where a waived gate did not fail, InputError where a failed one is not waived."""
    names = {state: [gate["name"] for gate in gates if gate["state"] == state] for state in ("warn", "fail")}
    wrong = [name for name in options.waive if name not in names["fail"]]
    if wrong:
        raise ParamsError(f"--waive '{wrong[0]}': no such gate failed. Failed: {', '.join(names['fail']) or 'none'}.")
    left = [name for name in names["fail"] if name not in options.waive]
    if left:
        raise InputError(f"failed: {', '.join(left)}. Nothing was written. Mend the data, or let each pass by name: --waive '{left[0]}'.")
    found = {"dataset": dataset, "reviewer": options.reviewer, "warnings": names["warn"], "waived": options.waive, "note": options.note}
    return parse(Approval, {name: value for name, value in found.items() if value})


def run(options: argparse.Namespace) -> None:
    """Show how the dataset stands, and write the approval unless `--show` says not to."""
    path = Path(read_params(options.params)["review"]["approvals"])
    dataset = dataset_sha256(options.data)
    gates = gates_of(options.report, dataset)
    print(f"Dataset {dataset[:12]}… in {options.data}:")
    for gate in gates:
        print(f"  {gate['state']:4}  {gate['name']}: {gate['value']} (wanted: {gate['limit']})")
    for each in approvals.of(dataset, path):
        print(f"Approved by {each.reviewer} on {each.time[:10]}" + (f"; waived: {', '.join(each.waived)}" if each.waived else "") + ".")
    if options.show:
        return
    made = approvals.append(path, approval(dataset, gates, options))
    noted = f" with {len(made.warnings)} open warning{'s' * (len(made.warnings) != 1)}" if made.warnings else ""
    print(f"{made.reviewer} approves it{noted}: written to {path}. Commit that file.")


def _git_name() -> str:
    try:
        found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.approve", description="Approve the dataset as it stands.")
    parser.add_argument("--reviewer", default=_git_name(), metavar="NAME", help="who approves (default: git's user.name)")
    parser.add_argument("--waive", action="append", default=[], metavar="GATE", help="let this failed gate pass; needs --note")
    parser.add_argument("--note", metavar="TEXT", help="why")
    parser.add_argument("--show", action="store_true", help="only show how the dataset stands; write nothing")
    parser.add_argument(
        "--data", type=Path, default=Path("data/format"), metavar="DIR", help="the formatted dataset (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    options = parser.parse_args(arguments)
    guarded("approve", lambda: run(options))


if __name__ == "__main__":
    main()
