"""The laws of the house: accounting, same bytes, all or nothing, strict params, errors without tracebacks."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import pytest
from pydantic import Field

from curate import dedup_exact, record, store
from curate.params import check_section, params_class, read_params
from curate.record import DROPPED, InputError, ParamsError, StageFailure
from curate.stage import Outcome, Plan, Stage, default_workers, drop, guarded, run
from tests.helpers import ROOT, chat, frame, preference, write_input


@params_class
class Inner:
    """Of the params below."""

    deep: int


@params_class
class Params:
    """Of the stages below."""

    enabled: bool
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    inner: Inner | None = None
    by_name: dict[str, Inner] | None = None


ON = Params(True)


def keep_all(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    return Outcome(batch, record.empty(DROPPED))


def lose_one(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    return Outcome(batch[1:], record.empty(DROPPED))


def add_silently(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    return Outcome(pl.concat([batch, batch]), record.empty(DROPPED))


def add_openly(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    return Outcome(pl.concat([batch, batch]), record.empty(DROPPED), added=batch.height, counts={"seen": batch.height})


def drop_short(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    long = record.prompt_and_answer(batch)["answer"].str.len_chars() > 4
    return Outcome(batch.filter(long), drop(batch.filter(~long), "short", "The answer is short."))


def fail_late(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    if batch["row"].max() > 5000:  # type: ignore[operator]
        raise ValueError("boom")
    return keep_all(batch, params, context)


def die(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    os._exit(9)


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    return batch.select("line")


def survey_short(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    return batch.select("line")[1:]


def drop_every_third(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    third = narrow.with_row_index("row").filter(pl.col("line") % 3 == 0)
    named = [pl.lit("third").alias("reason"), pl.lit("Every third goes.").alias("detail"), pl.lit("{}").alias("evidence")]
    return Plan(third.select("row", *named))


def to_splits(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    return Plan(split=narrow.select(pl.when(pl.col("line") % 4 == 0).then(pl.lit("test")).otherwise(pl.lit("train")))["literal"])


def stage(rows: Callable[..., Outcome] | None = None, plan: Callable[..., Plan] | None = None) -> Stage:
    return Stage("it", Params, rows=rows, survey=survey if plan else None, plan=plan)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten thousand rows: three batches."""
    rows = [chat(f"Question {n}?", "yes" if n % 5 else f"Answer {n}", label=str(n % 7)) for n in range(10_000)]
    return write_input(frame(rows), tmp_path_factory.mktemp("many"))


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return write_input(frame([chat(f"Q{n}", f"Answer {n}") for n in range(6)]), tmp_path / "few")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# 1. Nothing vanishes


@pytest.mark.parametrize("rows", [lose_one, add_silently])
def test_rows_that_vanish_or_appear_fail_the_stage(few: Path, tmp_path: Path, rows: Callable[..., Outcome]) -> None:
    with pytest.raises(StageFailure, match="became"):
        run(stage(rows), few, tmp_path / "out", ON)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_declared_may_appear(few: Path, tmp_path: Path) -> None:
    metrics = run(stage(add_openly), few, tmp_path / "out", ON)
    assert (metrics["rows_in"], metrics["added"], metrics["kept"], metrics["counts"]) == (6, 6, 12, {"seen": 6})


def test_a_survey_must_speak_of_every_row(few: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match="survey gave 5 rows for 6"):
        run(Stage("it", Params, survey=survey_short, plan=drop_every_third), few, tmp_path / "out", ON)


def test_dropped_rows_say_who_they_are_and_why(few: Path, tmp_path: Path) -> None:
    metrics = run(stage(plan=drop_every_third), few, tmp_path / "out", ON)
    gone = pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    assert metrics["reasons"] == {"third": 2}
    assert dict(gone.schema) == DROPPED
    assert gone.select("source", "line", "reason").rows() == [("t.jsonl", 3, "third"), ("t.jsonl", 6, "third")]
    assert orjson.loads((tmp_path / "out" / "metrics.json").read_bytes()) == metrics
    kept = store.read_rows(tmp_path / "out")
    assert (kept["line"].to_list(), dict(kept.schema)) == ([1, 2, 4, 5], record.SCHEMA)


def test_a_stage_that_drops_all_still_leaves_the_columns(few: Path, tmp_path: Path) -> None:
    write_input(frame([chat("Q", "no")]), tmp_path / "short")
    run(stage(drop_short), tmp_path / "short", tmp_path / "out", ON)
    assert store.read_rows(tmp_path / "out").schema == pl.Schema(record.SCHEMA)


# 2. Same input, same bytes


@pytest.mark.parametrize("which", [stage(drop_short, drop_every_third), stage(plan=to_splits)], ids=["drop", "split"])
def test_one_and_two_workers_write_the_same_bytes(many: Path, tmp_path: Path, which: Stage) -> None:
    for workers in (1, 2):
        run(which, many, tmp_path / str(workers), ON, workers)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_the_cut_of_the_input_changes_nothing(many: Path, tmp_path: Path) -> None:
    """The same rows in parts of 1 000 in give the same bytes out, and small parts out hold the same rows."""
    run(stage(keep_all), many, tmp_path / "small", ON, part_rows=1000)
    assert len(store.parts(tmp_path / "small")) == 10
    run(stage(drop_short, drop_every_third), many, tmp_path / "a", ON)
    run(stage(drop_short, drop_every_third), tmp_path / "small", tmp_path / "b", ON)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    run(stage(drop_short, drop_every_third), many, tmp_path / "c", ON, part_rows=300)
    assert store.read_rows(tmp_path / "c").equals(store.read_rows(tmp_path / "a"))


def test_long_rows_close_a_row_group_early(tmp_path: Path) -> None:
    rows = frame([chat("Q", "x" * (9 << 20)) for _ in range(8)])
    write_input(rows, tmp_path / "long")
    assert [batch.height for batch in store.batches(tmp_path / "long")] == [4, 4]


def test_splits_come_out_under_their_names(many: Path, tmp_path: Path) -> None:
    run(stage(plan=to_splits), many, tmp_path / "out", ON)
    assert [(part.split, part.rows) for part in store.parts(tmp_path / "out")] == [("train", 7500), ("validation", 0), ("test", 2500)]
    run(stage(keep_all), tmp_path / "out", tmp_path / "again", ON)
    assert tree(tmp_path / "out" / "kept") == tree(tmp_path / "again" / "kept")


def test_a_stage_switched_off_passes_bytes_on(many: Path, tmp_path: Path) -> None:
    run(stage(lose_one), many, tmp_path / "out", Params(False))
    assert tree(tmp_path / "out" / "kept") == tree(many / "kept")
    metrics = orjson.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert (metrics["enabled"], metrics["rows_in"], metrics["kept"]) == (False, 10_000, 10_000)


# 3. All or nothing


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_leaves_the_output_as_it_was(many: Path, tmp_path: Path, workers: int) -> None:
    run(stage(keep_all), many, tmp_path / "out", ON)
    before = tree(tmp_path / "out")
    with pytest.raises(ValueError, match="boom"):
        run(stage(fail_late), many, tmp_path / "out", ON, workers)
    assert tree(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_worker_that_dies_is_a_failure_with_advice(many: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match="--workers 1"):
        run(stage(die), many, tmp_path / "out", ON, 2)
    assert list(tmp_path.iterdir()) == []


def test_new_output_replaces_all_of_the_old(few: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "kept").mkdir(parents=True)
    (tmp_path / "out" / "kept" / "part-00009.parquet").write_text("stale")
    run(stage(keep_all), few, tmp_path / "out", ON)
    assert [part.path.name for part in store.parts(tmp_path / "out")] == ["part-00000.parquet"]


def test_an_output_never_replaces_what_is_no_output(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.tex").write_text("years of work")
    (tmp_path / "file").write_text("text")
    for out, said in (
        (tmp_path / "thesis", "no stage wrote"),
        (tmp_path / "file", "is a file"),
        (few, "replace the input"),
        (few.parent, "replace the input"),
    ):
        with pytest.raises(InputError, match=said):
            run(stage(keep_all), few, out, ON)
    monkeypatch.chdir(tmp_path / "thesis")
    with pytest.raises(InputError, match="no stage wrote"):
        run(stage(keep_all), few, tmp_path / "thesis", ON)
    assert (tmp_path / "thesis" / "chapter-1.tex").read_text() == "years of work"
    assert len(store.parts(few)) > 0


def test_leftovers_of_killed_runs_are_cleared(few: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f".out.partial-{gone.pid}", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rest").write_text("rest")
    under_way = tmp_path / ".out.partial-1"  # of a run that is still alive: it holds its lock
    under_way.mkdir()
    with (under_way / store.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(stage(keep_all), few, tmp_path / "out", ON)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.partial-1", "few", "out"]


def test_killed_between_the_renames_the_old_output_comes_back(few: Path, tmp_path: Path) -> None:
    run(stage(keep_all), few, tmp_path / "out", ON)
    before = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(StageFailure):
        run(stage(lose_one), few, tmp_path / "out", ON)
    assert tree(tmp_path / "out") == before


def test_write_whole_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    with pytest.raises(OSError):
        store.write_whole(tmp_path / "report", b"x")  # a folder is in the way
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_missing_and_broken_input_says_what_to_do(few: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run(stage(keep_all), tmp_path / "nowhere", tmp_path / "out", ON)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no part"):
        run(stage(keep_all), tmp_path / "empty", tmp_path / "out", ON)
    store.parts(few)[0].path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"part-00000.parquet: not a readable"):
        run(stage(keep_all), few, tmp_path / "out", ON)


# 5. Values live in params.yaml


def params_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        ("it: {enabled: true, shares: 0.1}", None, ["it.shares", "Did you mean 'share'", "enabled"]),
        ("it: {share: 0.1}", None, ["it.enabled", "missing"]),
        ("it: {enabled: 'yes'}", None, ["it.enabled", "'yes'", "boolean"]),
        ("it: {enabled: 1}", None, ["it.enabled", "1"]),
        ("it: {enabled: true, share: 7}", None, ["it.share", "7", "less than or equal to 1"]),
        ("it: [1]", None, ["it", "[1]"]),
        ("it: {enabled: true, inner: {dep: 1}}", None, ["it.inner", "dep", "Did you mean 'deep'"]),
        ("it: {enabled: true, by_name: {x: {deep: 1, deeep: 1}}}", None, ["it.by_name.x.deeep", "Did you mean 'deep'"]),
        ("its: {enabled: true}", None, ["'it' is missing", "Did you mean 'its'"]),
        ("[1]", None, ["one section per stage"]),
        ("it: {", None, ["not valid YAML"]),
        ("it: {enabled: true}", "it.enabld=false", ["it.enabld", "Did you mean 'enabled'"]),
        ("it: {enabled: true}", "itt.enabled=false", ["'itt'", "Did you mean 'it'"]),
        ("it: {enabled: true}", "it.enabled", ["section.key=value"]),
        ("it: {enabled: true}", "it.enabled=[", ["not a YAML value"]),
        ("it: {enabled: true}", "it.enabled=3", ["it.enabled", "3"]),
    ],
)
def test_params_errors_name_the_key_and_the_nearest_spelling(tmp_path: Path, text: str, override: str | None, words: list[str]) -> None:
    path = params_file(tmp_path, text)
    with pytest.raises(ParamsError) as raised:
        check_section(read_params(path, [override] if override else []), "it", Params, path)
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert override or "params.yaml" in message


def test_params_are_read_with_overrides(tmp_path: Path) -> None:
    path = params_file(tmp_path, "it: {enabled: true, share: 0.1}")
    assert check_section(read_params(path, ["it.share=1"]), "it", Params, path) == Params(True, 1.0)


def test_a_missing_params_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere.yaml: no such file"):
        read_params(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_workers_from_the_environment_are_checked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FINERY_WORKERS", value)
    with pytest.raises(ParamsError, match=f"FINERY_WORKERS='{value}'"):
        default_workers()


# 6. Errors reach people as sentences


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("x.jsonl: no such file."), 2, ["it: x.jsonl: no such file."]),
        (OSError(28, "No space left on device", "/data/x"), 2, ["No space left on device", "/data/x"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (KeyError("k"), 1, ["internal error", "KeyError", "FINERY_DEBUG=1"]),
    ],
)
def test_errors_end_in_a_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: list[str]
) -> None:
    monkeypatch.delenv("FINERY_DEBUG", raising=False)
    with pytest.raises(SystemExit) as raised:
        guarded("it", raising(error))
    said = capsys.readouterr().err
    assert raised.value.code == code
    assert all(word in said for word in words)
    monkeypatch.setenv("FINERY_DEBUG", "1")
    with pytest.raises(type(error)):
        guarded("it", raising(error))


def command(*arguments: object, debug: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FINERY_DEBUG"} | ({"FINERY_DEBUG": "1"} if debug else {})
    return subprocess.run(
        [sys.executable, "-m", "curate.dedup_exact", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line(few: Path, tmp_path: Path) -> None:
    assert command(few, tmp_path / "out", "--workers", 1, "--part-rows", 2).returncode == 0
    assert [part.rows for part in store.parts(tmp_path / "out")] == [2, 2, 2]
    bad = command(few, tmp_path / "out", "-S", "dedup_exact.enabeld=false")
    assert (bad.returncode, "Did you mean 'enabled'" in bad.stderr, "Traceback" in bad.stderr) == (2, True, False)
    bad = command(tmp_path / "nowhere", tmp_path / "out", debug=True)
    assert (bad.returncode, "Traceback" in bad.stderr) == (1, True)
    assert len(store.parts(tmp_path / "out")) == 3


# The record


def test_texts_go_out_and_come_back() -> None:
    rows = frame([chat("a", "b", "c", "d", system="s"), preference("p", "good", "bad"), chat("", "x")])
    flat = record.texts(rows)
    assert flat.height == 5 + 4 + 2
    assert record.with_texts(rows, flat).equals(rows)
    shouted = record.with_texts(rows, flat.with_columns(pl.col("content").str.to_uppercase()))
    assert shouted["messages"][0].to_list()[1]["content"] == "A"
    assert shouted["rejected"][1].to_list()[1]["content"] == "BAD"
    assert shouted["rejected"][0] is None


def test_prompt_and_answer_leave_system_messages_out() -> None:
    rows = frame([chat("a", "b", "c", "d", system="s"), chat("only a question"), chat("", "")])
    assert record.prompt_and_answer(rows).rows() == [("a\nb\nc", "d"), ("only a question", ""), ("", "")]


def test_fold_keeps_digits_and_operators() -> None:
    texts = pl.DataFrame({"text": ["  12+35\n\u00a0= X ", "99*3 = x"]}).select(record.fold(pl.col("text")))["text"]
    assert texts.to_list() == ["12+35 = x", "99*3 = x"]


def test_the_id_depends_on_content_alone() -> None:
    one, two = chat("a", "b", line=1, source="x", group="g"), chat("a", "b", line=2, source="y")
    assert one["id"] == two["id"]
    assert len({one["id"], chat("a", "b", label="l")["id"], chat("a", "c")["id"], preference("a", "b", "c")["id"]}) == 4


def metrics_of(folder: Path) -> Any:
    return orjson.loads((folder / "metrics.json").read_bytes())


def test_settled_rows_are_seen_and_never_written(few: Path, tmp_path: Path) -> None:
    known = write_input(frame([chat("Q0", "Answer 0"), chat("Q3", "Answer 3")]), tmp_path / "known")
    run(dedup_exact.STAGE, few, tmp_path / "out", dedup_exact.Params(True, ()), against=known)
    assert store.read_rows(tmp_path / "out")["line"].to_list() == [2, 3, 5, 6]
    assert metrics_of(tmp_path / "out")["rows_in"] == 6


DYING = """
import os
import polars as pl
from curate import stage
from curate.record import StageFailure

def die(batch):
    os._exit(9)

if __name__ == "__main__":
    batches = (pl.DataFrame({"a": [str(at) * 40 for at in range(60_000)]}) for _ in range(20))
    try:
        list(stage._in_order(die, batches, 2))
    except StageFailure as error:
        print(error)
"""


def test_a_command_whose_workers_died_with_batches_on_the_way_ends(tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "dying.py"], cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "a worker process was killed" in done.stdout, done.stderr
