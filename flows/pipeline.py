"""The whole graph of dvc.yaml under Prefect: one task per stage, independent stages side by side.

DVC decides whether a stage runs (nothing changed means nothing runs), Prefect decides when. `python -m flows.pipeline [--upto STAGE]`.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.shared import CommandFailed, hide_tracebacks, run_command

# isort: split
import yaml
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

LOCK_TRIES = 3


def graph(path: Path = Path("dvc.yaml")) -> dict[str, set[str]]:
    """Stage -> the stages whose outputs it reads, in the order of the file.

    >>> graph(Path("dvc.yaml"))["clean"]
    {'ingest'}
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file. Run from the project's root.")
    stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    outs = {Path(_name(out)): stage for stage, spec in stages.items() for key in ("outs", "metrics") for out in spec.get(key, [])}
    return {
        stage: {maker for dep in spec.get("deps", []) for out, maker in outs.items() if out == Path(dep) or out in Path(dep).parents}
        for stage, spec in stages.items()
    }


def _name(out: str | Mapping[str, Any]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def upto(stages: Mapping[str, set[str]], last: str | None) -> dict[str, set[str]]:
    """The part of the graph that `last` needs, itself included."""
    if last is None:
        return dict(stages)
    wanted, waiting = set(), [last]
    while waiting:
        stage = waiting.pop()
        if stage not in wanted:
            wanted.add(stage)
            waiting.extend(stages[stage])
    return {stage: needs for stage, needs in stages.items() if stage in wanted}


def _worth_retrying(task: Any, run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, CommandFailed) and error.worth_retrying


@task(cache_policy=NO_CACHE, retries=LOCK_TRIES, retry_delay_seconds=2, retry_condition_fn=_worth_retrying, task_run_name="{name}")
def run_stage(name: str) -> float:
    """Bring one stage up to date through DVC; returns the seconds it took."""
    start = time.monotonic()
    run_command(name, [sys.executable, "-m", "dvc", "repro", "--single-item", name])
    return time.monotonic() - start


@task(cache_policy=NO_CACHE, task_run_name="summary")
def summarise(lines: list[str]) -> None:
    """One artifact with a stable key, so that runs can be compared on a server."""
    create_markdown_artifact("\n".join(["| stage | state | seconds |", "|---|---|---|", *lines]), key="finery-pipeline")


@flow(name="finery-pipeline", task_runner=ThreadPoolTaskRunner(max_workers=4), validate_parameters=False)  # type: ignore[arg-type]
def pipeline(stages: dict[str, set[str]]) -> None:
    """Run every stage once those it reads are done. Raises CommandFailed of the first stage that failed, after all others ended."""
    futures: dict[str, PrefectFuture[float]] = {}
    for name, needs in stages.items():
        futures[name] = run_stage.submit(name, wait_for=[futures[need] for need in needs if need in futures])  # type: ignore[call-overload]
    results = {name: future.result(raise_on_failure=False) for name, future in futures.items()}
    lines = [f"| {name} | {future.state.name} | {_seconds(results[name])} |" for name, future in futures.items()]
    summarise(lines)
    for result in results.values():
        if isinstance(result, CommandFailed):
            raise result
    broken = [f"{name}: {future.state.name} ({results[name]})" for name, future in futures.items() if not future.state.is_completed()]
    if broken:
        raise RuntimeError("stages that did not complete: " + "; ".join(broken))


def _seconds(result: Any) -> str:
    return f"{result:.1f}" if isinstance(result, float) else "-"


def main() -> None:
    """The command line. Exit code 0 only if every stage is up to date."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description="Run the graph of dvc.yaml under Prefect.")
    parser.add_argument("--upto", metavar="STAGE", help="the last stage wanted (default: all)")
    options = parser.parse_args()
    hide_tracebacks()
    try:
        stages = graph()
    except FileNotFoundError as error:
        raise SystemExit(f"pipeline: {error}") from None
    if options.upto is not None and options.upto not in stages:
        raise SystemExit(f"pipeline: --upto {options.upto}: no such stage. Stages: {', '.join(stages)}.")
    try:
        pipeline(upto(stages, options.upto))
    except CommandFailed as error:
        raise SystemExit(f"pipeline: {error}") from None
    print("pipeline: every stage is up to date. Look at reports/curation.html and reports/evaluation.html.")


if __name__ == "__main__":
    main()
