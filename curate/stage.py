"""The stage contract: reads rows, runs a stage's pure functions on them, and writes what they say, all or nothing.

A stage is a `Stage` of up to five plain functions, called in this order:

    prepare(params)                 once: an index or table that the others need (`context`); must pickle
    scan(in_dir, scratch, params, context)  once, for stages without a plan: a look at narrow columns of the input; the new context.
                                    What it writes to `scratch` lives as long as the run
    survey(batch, params, context)  per batch, in worker processes: narrow columns only, one row per row of the batch
    plan(narrow, params, context)   once, over the surveys of all rows (memory-mapped from disk; column `known`: see `run`): what to drop,
                                    which split, a new context
    rows(batch, params, context)    per batch, in worker processes: the rows that go on and those that do not

A batch is a frame of the record's columns with `row` (u32, position in the whole input) and `split` in front. The laws (nothing
vanishes, same bytes, all or nothing, bounded memory) are enforced here and nowhere else.
"""

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import orjson
import polars as pl

from curate import record, store
from curate.params import check_section, read_params
from curate.record import DROPPED, FineryError, StageFailure
from curate.store import read_rows, write_whole

__all__ = ["Outcome", "Plan", "Progress", "Stage", "command", "drop", "main", "read_rows", "run", "say", "write_whole"]

T = TypeVar("T")
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):  # every part of Finery passes here before it loads a library that phones home
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads do not spin: five times faster on a busy machine
IN_MEMORY = 64 << 20  # bytes of surveys that are held before others go to disk: more costs memory and, in pages made, time
HELD = 192 << 20  # bytes of columns of the input that are held between survey and rows, so that they are read once
INLINE_BATCHES = 1  # input of at most this many batches (or `Stage.inline`) is done in this process: starting workers costs more


@dataclass(frozen=True)
class Outcome:
    """What became of one batch: `kept` (record columns, and `split` where it changes), `dropped` (columns of DROPPED)."""

    kept: pl.DataFrame
    dropped: pl.DataFrame
    added: int = 0  # rows of `kept` that were not in the batch (augment)
    counts: Mapping[str, int] = field(default_factory=dict)  # summed over batches, into metrics.json
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)  # joined over batches, into OUT_DIR/<name>.parquet


@dataclass(frozen=True)
class Plan:
    """What a look at all rows decided. `drop` has columns row, reason, detail, evidence; `split` one value per row."""

    drop: pl.DataFrame | None = None
    split: pl.Series | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    context: Any = None  # handed to `rows`


@dataclass(frozen=True)
class Stage:
    """One stage: its name (module, params section, folder) and its functions. See the module's docstring."""

    name: str
    params: type
    rows: Callable[[pl.DataFrame, Any, Any], Outcome] | None = None
    prepare: Callable[[Any], Any] | None = None
    scan: Callable[[Path, Path, Any, Any], Any] | None = None
    survey: Callable[[pl.DataFrame, Any, Any], pl.DataFrame] | None = None
    plan: Callable[[pl.DataFrame, Any, Any], Plan] | None = None
    recall: Callable[[Path, pl.DataFrame, Any, Any], tuple[pl.DataFrame, Any] | None] | None = None  # see `_Run._survey`
    planned: Callable[[Any], bool] | None = None  # whether survey and plan are called at all with these params; None: always
    private: bool = False  # its folder is for the owner alone (mode 700): it holds what scrub has yet to replace
    threads: bool = False  # survey runs in threads of this process: for functions that spend their time in compiled code
    rows_threads: int = 0  # with at most so many workers, rows runs in threads of this process: compiled code takes most of its time
    rows_most: int = 0  # rows gets at most so many rows at once, so that all workers end at about the same time; 0: whole batches
    source: Callable[[Path, Any], Iterator[pl.DataFrame]] | None = None  # ingest: batches of raw rows instead of parts
    inline: int = INLINE_BATCHES  # more where a batch is little work beside the cost of sending it
    schema: Mapping[str, pl.DataType] = field(default_factory=lambda: record.SCHEMA)
    finish: Callable[[Path, Any, Mapping[str, Any]], None] | None = None  # more files into the output folder (format's card)


def drop(rows: pl.DataFrame, reason: str | pl.Expr, detail: str | pl.Expr, evidence: pl.Expr | None = None) -> pl.DataFrame:
    """`rows` as dropped rows. `evidence` is a struct or a JSON string expression; nothing if there is none.

    >>> rows = pl.DataFrame({"id": ["a"], "source": ["f"], "line": [3], "n": [0]})
    >>> drop(rows, "empty", "No text.", pl.struct("n"))["evidence"][0]
    '{"n":0}'
    """
    proof = pl.lit("{}") if evidence is None else evidence
    marked = rows.with_columns(
        (pl.lit(reason) if isinstance(reason, str) else reason).alias("reason"),
        (pl.lit(detail) if isinstance(detail, str) else detail).alias("detail"),
        proof.alias("evidence"),
    )
    if isinstance(marked.schema["evidence"], pl.Struct):
        marked = marked.with_columns(pl.col("evidence").struct.json_encode())
    return record.as_dropped(marked)


def run(
    stage: Stage,
    in_dir: Path,
    out_dir: Path,
    params: Any,
    workers: int = 1,
    part_rows: int = store.PART_ROWS,
    against: Path | None = None,
) -> dict[str, Any]:
    """Run `stage` from folder to folder and return its metrics. Same rows and params give the same bytes.

    `against` is a folder of rows that are settled already: the plan sees them too (column `known`), may compare with them and never drops
    them, and they are not written again. That is how new files are deduplicated against the dataset they would join.

    Raises FineryError of some kind; `out_dir` is then as it was.
    """
    if in_dir.resolve().is_relative_to(out_dir.resolve()):
        raise record.InputError(f"{out_dir}: the output would replace the input {in_dir}. Name another folder.")
    with store.whole_folder(out_dir, private=stage.private) as partial:
        if not getattr(params, "enabled", True):
            metrics = _pass_through(in_dir, partial)
        else:
            metrics = _Run(stage, in_dir, partial, params, workers, part_rows, against).metrics()
        write_whole(partial / "metrics.json", orjson.dumps(metrics, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        if stage.finish is not None:
            stage.finish(partial, params, metrics)
    say(f"{stage.name}: {metrics['rows_in']:,} in, {metrics['kept']:,} kept, {metrics['dropped']:,} dropped -> {out_dir}")
    return metrics


def _pass_through(in_dir: Path, partial: Path) -> dict[str, Any]:
    """A stage that is switched off: the same files under the same names."""
    found = store.parts(in_dir)
    for part in found:
        target = partial / "kept" / part.split / part.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(part.path, target)
    store.write_parquet(record.empty(DROPPED), partial / "dropped.parquet")
    count = sum(part.rows for part in found)
    return _metrics(count, count, 0, Counter(), Counter()) | {"enabled": False}


def _metrics(rows_in: int, kept: int, added: int, reasons: Counter[str], counts: Counter[str]) -> dict[str, Any]:
    dropped = sum(reasons.values())
    if rows_in + added != kept + dropped:
        raise StageFailure(
            f"{rows_in:,} rows in + {added:,} added, but {kept:,} kept + {dropped:,} dropped: rows vanished. This is a fault in the stage."
        )
    return {"rows_in": rows_in, "kept": kept, "added": added, "dropped": dropped, "reasons": dict(reasons), "counts": dict(counts)}


class _Run:
    """One run of a stage: the sinks that its outcomes flow into."""

    def __init__(
        self, stage: Stage, in_dir: Path, out: Path, params: Any, workers: int, part_rows: int, against: Path | None = None
    ) -> None:
        self.stage, self.in_dir, self.out, self.params, self.workers = stage, in_dir, out, params, workers
        self.part_rows, self.against = part_rows, against
        self.known = 0  # rows of `against`, which stand before the rows of `in_dir` in the survey
        self.writers: dict[str, store.PartWriter] = {}
        self.dropped: list[pl.DataFrame] = []
        self.planned: list[pl.DataFrame] = []  # apart and after: mixed in, their order would tell how the batches were cut
        self.tables: dict[str, list[pl.DataFrame]] = {}
        self.reasons: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.rows_in = self.kept = self.added = self.in_memory = 0
        self.writing: deque[Future[None]] = deque()
        self.tables_written: list[Future[None]] = []
        self.held: list[pl.DataFrame] = []  # the first batches of `in_dir`: up to HELD bytes

    def metrics(self) -> dict[str, Any]:
        context = self.stage.prepare(self.params) if self.stage.prepare else None
        plan = Plan(context=context)
        with tempfile.TemporaryDirectory(dir=self.out, prefix=".scratch-") as scratch:
            if self.stage.scan is not None:
                plan = Plan(context=self.stage.scan(self.in_dir, Path(scratch), self.params, context))
            if self.stage.plan is not None and (self.stage.planned is None or self.stage.planned(self.params)):
                narrow, context = self._survey(Path(scratch), context)
                plan = self.stage.plan(narrow, self.params, context)
                del narrow
            with ThreadPoolExecutor(1) as self.writes, ThreadPoolExecutor(1) as self.table_writes:
                if self.stage.rows is None:  # no rows will add to them
                    self.counts.update(plan.counts)
                    self.tables_written = [self._write_table(name, [table]) for name, table in plan.tables.items()]
                else:
                    self._take_tables(plan.counts, plan.tables)
                self._rows(plan)
                self._close()
        return _metrics(self.rows_in, self.kept, self.added, self.reasons, self.counts)

    def _survey(self, scratch: Path, context: Any) -> tuple[pl.DataFrame, Any]:
        """The narrow frames of all batches, spooled to disk and memory-mapped: the system pages them out under pressure."""
        new = self._surveyed(self.in_dir, scratch, context)
        if self.against is None:
            return new.with_columns(pl.lit(False).alias("known")), context
        recalled = self.stage.recall(self.against, new, self.params, context) if self.stage.recall else None
        if recalled is None:  # recall: settled rows that can matter, from what an earlier run stored of them, and a context for the plan
            settled = self._surveyed(self.against, scratch, context)
        else:
            settled, context = recalled
        self.known = settled.height
        both = [settled.with_columns(pl.lit(True).alias("known")), new.with_columns(pl.lit(False).alias("known"))]
        return pl.concat(both, rechunk=False), context

    def _surveyed(self, folder: Path, scratch: Path, context: Any) -> pl.DataFrame:
        assert self.stage.survey is not None
        frames: list[pl.DataFrame] = []
        if self.stage.threads:
            for at, (height, narrow) in enumerate(self._each(_Bound(self.stage.survey, self.params, context), "survey", folder)):
                _check_height(narrow, height)
                self.in_memory += int(narrow.estimated_size())
                path = scratch / f"{folder is self.in_dir}-{at}.arrow"
                if self.in_memory > IN_MEMORY:
                    store.write_ipc(narrow, path)
                frames.append(store.map_ipc(path) if self.in_memory > IN_MEMORY else narrow)
        else:
            work = _Spool(self.stage.survey, self.params, context, scratch)
            frames = [store.map_ipc(path) for _, path in self._each(work, "survey", folder)]
        if not frames:  # no rows at all: the plan still sees its columns
            nothing = record.empty({"row": pl.UInt32(), "split": pl.String(), **record.SCHEMA})
            frames = [self.stage.survey(nothing, self.params, context)]
        return pl.concat(frames, rechunk=False)

    def _read(self, folder: Path) -> Iterator[pl.DataFrame]:
        """The batches of a folder; the first ones of `in_dir` are read once and held."""
        if folder is not self.in_dir or not self.stage.threads:
            yield from store.batches(folder)
            return
        yield from self.held
        size = HELD if self.held else 0
        for batch in store.batches(folder, skip=len(self.held)):
            size += int(batch.estimated_size())
            if size <= HELD:
                self.held.append(batch)
            yield batch

    def _rows(self, plan: Plan) -> None:
        work: Callable[[pl.DataFrame], Outcome] = _keep_all
        if self.stage.rows is not None:
            work = _Bound(self.stage.rows, self.params, plan.context)
        by_row, split = self._by_row(plan.drop), None if plan.split is None else plan.split[self.known :]
        for height, outcome in self._each(work, "rows", self.in_dir):
            self.rows_in += height
            kept, dropped, planned = outcome.kept, outcome.dropped, record.empty(DROPPED)
            if by_row is not None or split is not None:
                kept, planned = _apply(outcome.kept, by_row, split)
                self.planned.append(planned)
            if height + outcome.added != kept.height + dropped.height + planned.height:
                raise StageFailure(
                    f"{self.stage.name}: a batch of {height} rows (+ {outcome.added} added) became {kept.height} kept and "
                    f"{dropped.height + planned.height} dropped. This is a fault in the stage."
                )
            self.added += outcome.added
            self.kept += kept.height
            self._write(kept)
            self.dropped.append(dropped)
            for gone in (dropped, planned):
                self.reasons.update(gone["reason"].to_list())
            self._take_tables(outcome.counts, outcome.tables)
        splits: Iterable[str] = record.SPLITS
        if plan.split is None:  # a split that came in empty goes out empty
            splits = () if self.stage.source else [part.split for part in store.parts(self.in_dir) if part.split]
        while self.writing:
            self.writing.popleft().result()
        for name in splits:
            self._writer(name)

    def _by_row(self, drop: pl.DataFrame | None) -> pl.DataFrame | None:
        """The planned drops, with `row` counted from the first row of `in_dir`, sorted by it."""
        if drop is None:
            return None
        if drop.height and int(drop["row"].min()) < self.known:  # type: ignore[arg-type]
            raise StageFailure(f"{self.stage.name}: the plan drops rows of {self.against}. This is a fault in the stage.")
        return drop.with_columns((pl.col("row").cast(pl.Int64) - self.known).cast(pl.UInt32)).sort("row")

    def _each(self, work: Callable[[pl.DataFrame], T], phase: str, folder: Path) -> Iterator[tuple[int, T]]:
        """(rows of the batch, work(batch)) for every batch, in order, over the worker processes."""
        source = self.stage.source
        total = None if source else sum(part.rows for part in store.parts(folder))
        incoming = source(folder, self.params) if source else self._read(folder)
        if phase == "rows" and self.stage.rows_most:
            incoming = _pieces(incoming, self.stage.rows_most)
        if total is None:  # how much there is shows in the first batches
            head = list(itertools.islice(incoming, self.stage.inline + 1))
            incoming, few = itertools.chain(head, incoming), len(head) <= self.stage.inline
            del head  # else these batches would stay in memory to the end
        else:
            few = total <= self.stage.inline * store.GROUP_ROWS
        progress = Progress(f"{self.stage.name} ({phase})", total)
        results: Iterator[tuple[int, T]]
        if few or self.workers == 1:
            results = ((batch.height, work(batch)) for batch in incoming)
        elif phase == "rows" and self.stage.rows is None:  # nothing to compute: sending batches to workers would be all the work
            results = ((batch.height, work(batch)) for batch in _read_ahead(incoming))
        elif self.stage.threads if phase == "survey" else self.workers <= self.stage.rows_threads:
            results = _in_threads(work, incoming, self.workers)
        else:
            results = _in_order(work, incoming, self.workers)
        for height, result in results:
            progress.add(height)
            yield height, result
        progress.done()

    def _writer(self, split: str) -> store.PartWriter:
        if split not in self.writers:
            self.writers[split] = store.PartWriter(self.out / "kept" / split, store.arrow_schema(self.stage.schema), self.part_rows)
        return self.writers[split]

    def _write(self, kept: pl.DataFrame) -> None:
        """Hand rows to the writing thread, which is at most a few batches behind."""
        self.writing.append(self.writes.submit(self._write_now, kept))
        if len(self.writing) > 2 * INLINE_BATCHES:
            self.writing.popleft().result()

    def _write_now(self, kept: pl.DataFrame) -> None:
        columns = [pl.col(name).cast(kind) for name, kind in self.stage.schema.items()]
        splits = kept["split"].unique(maintain_order=True).to_list() if "split" in kept.columns else [""]
        for split in splits:  # none if all rows were dropped; `_close` sees to a folder without any part
            of_split = kept if len(splits) == 1 else kept.filter(pl.col("split") == split)
            self._writer(split).write(of_split.select(columns))

    def _take_tables(self, counts: Mapping[str, int], tables: Mapping[str, pl.DataFrame]) -> None:
        self.counts.update(counts)
        for name, table in tables.items():
            self.tables.setdefault(name, []).append(table)

    def _close(self) -> None:
        if not self.writers:
            self._writer("")
        gone = [*self.dropped, *self.planned] or [record.empty(DROPPED)]
        self.tables_written += [self._write_table(name, frames) for name, frames in {"dropped": gone, **self.tables}.items()]
        for writer in self.writers.values():
            writer.close()
        for each in self.tables_written:
            each.result()

    def _write_table(self, name: str, frames: list[pl.DataFrame]) -> Future[None]:
        return self.table_writes.submit(store.write_parquet, pl.concat(frames), self.out / f"{name}.parquet")


@dataclass(frozen=True)
class _Bound:
    """A stage's function with its params and context, in a form that travels to worker processes."""

    function: Callable[[pl.DataFrame, Any, Any], Any]
    params: Any
    context: Any

    def __call__(self, batch: pl.DataFrame) -> Any:
        return self.function(batch, self.params, self.context)


@dataclass(frozen=True)
class _Spool:
    """A survey whose result goes to disk in the process that made it: frames of signatures are large to send, and pickling frames over
    numpy's memory was seen to hang a worker."""

    survey: Callable[[pl.DataFrame, Any, Any], pl.DataFrame]
    params: Any
    context: Any
    scratch: Path

    def __call__(self, batch: pl.DataFrame) -> Path:
        narrow = self.survey(batch, self.params, self.context)
        _check_height(narrow, batch.height)
        handle, name = tempfile.mkstemp(dir=self.scratch, suffix=".arrow")
        os.close(handle)
        store.write_ipc(narrow, Path(name))
        return Path(name)


def _check_height(narrow: pl.DataFrame, height: int) -> None:
    if narrow.height != height:
        raise StageFailure(f"a survey gave {narrow.height} rows for {height}. This is a fault in the stage.")


def _keep_all(batch: pl.DataFrame) -> Outcome:
    return Outcome(batch, record.empty(DROPPED))


def _apply(rows: pl.DataFrame, by_row: pl.DataFrame | None, split: pl.Series | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`rows` without those that the plan drops, and these; split column set from the plan."""
    if split is not None:
        rows = rows.with_columns(split.gather(rows["row"]).alias("split"))
    if by_row is None or not rows.height:
        return rows, record.empty(DROPPED)
    first, last = (int(each) for each in rows.select(pl.col("row").min(), pl.col("row").max().alias("last")).row(0))
    by_row = by_row[by_row["row"].search_sorted(first, side="left") : by_row["row"].search_sorted(last, side="right")]
    if not by_row.height:
        return rows, record.empty(DROPPED)
    out = rows.join(by_row, on="row", how="inner", maintain_order="left")
    return rows.join(by_row, on="row", how="anti", maintain_order="left"), record.as_dropped(out)


def _pieces(incoming: Iterator[pl.DataFrame], most: int) -> Iterator[pl.DataFrame]:
    return (piece for batch in incoming for piece in batch.iter_slices(most))


def _read_ahead(incoming: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same batches, each read while the one before is at work."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, incoming, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, incoming, None)
            yield batch


def _in_threads(work: Callable[[pl.DataFrame], T], incoming: Iterable[pl.DataFrame], threads: int) -> Iterator[tuple[int, T]]:
    """Results in the order of the batches from threads, with at most two batches a thread under way."""
    with ThreadPoolExecutor(threads) as pool:
        yield from _results(lambda batch: pool.submit(work, batch), incoming, 2 * threads)


def _results(submit: Callable[[pl.DataFrame], Future[T]], incoming: Iterable[pl.DataFrame], most: int) -> Iterator[tuple[int, T]]:
    waiting: deque[tuple[int, Future[T]]] = deque()
    for batch in incoming:
        waiting.append((batch.height, submit(batch)))
        if len(waiting) >= most:
            height, future = waiting.popleft()
            yield height, future.result()
    while waiting:
        height, future = waiting.popleft()
        yield height, future.result()


def _in_order(work: Callable[[pl.DataFrame], T], incoming: Iterable[pl.DataFrame], workers: int) -> Iterator[tuple[int, T]]:
    """Results in the order of the batches from worker processes, with at most two batches per worker under way."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    os.environ.setdefault("POLARS_MAX_THREADS", "2")  # with one, a frame that waits to be freed can block the one that is sent
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(work, os.getpid())) as pool:
        try:
            yield from _results(lambda batch: pool.submit(_work, batch), incoming, 2 * workers)
        except BrokenProcessPool:
            if sys.version_info < (3, 11, 7):  # which wait at their end until dead workers have read the queue (CPython issue 94777)
                vars(pool)["_call_queue"]._reader.close()
            raise StageFailure(
                "a worker process was killed, most likely for want of memory. Try --workers 1, or free some memory."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker_function: Callable[[pl.DataFrame], Any] | None = None  # what this process is for; set once, when a worker starts


def _start_worker(work: Callable[[pl.DataFrame], Any], parent: int) -> None:
    global _worker_function
    _worker_function = work
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: int) -> None:
    """Ends this worker when its parent was killed: a spawned process is not told otherwise."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(batch: pl.DataFrame) -> Any:
    assert _worker_function is not None
    return _worker_function(batch)


class Progress:
    """Rows, rows/s and time left: a bar rewritten in place on a terminal, a line every five seconds in a log."""

    def __init__(self, name: str, total: int | None) -> None:
        self.name, self.total, self.count = name, total, 0
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def add(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now - self.shown >= (0.2 if self.terminal else 5):
            self.shown = now
            self._show(now)

    def done(self) -> None:
        if self.terminal and self.shown != self.start:
            print(file=sys.stderr)

    def _show(self, now: float) -> None:
        rate = self.count / max(now - self.start, 1e-9)
        left, bar = "", ""
        if self.total:
            left = f", {max(self.total - self.count, 0) / max(rate, 1e-9):,.0f} s left"
            filled = min(20, 20 * self.count // self.total)
            bar = f" [{'#' * filled}{'.' * (20 - filled)}] {100 * self.count // self.total} %"
        line = f"{self.name}:{bar} {self.count:,} rows, {rate:,.0f} rows/s{left}"
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)


def say(message: str) -> None:
    """One line to the log (stderr)."""
    print(message, file=sys.stderr, flush=True)


def default_workers() -> int:
    """FINERY_WORKERS if set, else the number of cores."""
    given = os.environ.get("FINERY_WORKERS", "")
    if given and not (given.isdigit() and int(given) > 0):
        raise record.ParamsError(f"FINERY_WORKERS={given!r}: expected a whole number of 1 or more.")
    return int(given) if given else (os.cpu_count() or 1)


def main(stage: Stage, arguments: Sequence[str] | None = None) -> None:
    """The command line of a stage: `python -m curate.<stage> IN_DIR OUT_DIR [--params FILE] [-S key=value] [--workers N]`."""
    parser = _parser(f"curate.{stage.name}", stage.name)
    parser.add_argument("in_dir", type=Path, metavar="IN_DIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--workers", type=int, help="worker processes (default: FINERY_WORKERS, else one a core)")
    parser.add_argument("--part-rows", type=int, default=store.PART_ROWS, help="rows of an output part (default: %(default)s)")
    if stage.plan is not None and stage.planned is None:
        parser.add_argument("--against", type=Path, metavar="DIR", help="rows that are settled: compared with, never dropped, not written")
    options = parser.parse_args(arguments)

    def work() -> None:
        params: Any = check_section(read_params(options.params, options.set), stage.name, stage.params, options.params)
        workers = options.workers if options.workers is not None else default_workers()
        if workers < 1 or options.part_rows < 1:
            raise record.ParamsError("--workers and --part-rows: expected 1 or more.")
        os.environ["FINERY_WORKERS"] = str(workers)  # for what a plan does in threads
        run(stage, options.in_dir, options.out_dir, params, workers, options.part_rows, getattr(options, "against", None))

    guarded(stage.name, work)
    if arguments is None and stage.threads:  # no worker to wait for, and all is written: leave the memory to the system
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def command(
    name: str,
    module: str,
    params: type,
    build: Callable[..., None],
    inputs: Sequence[str],
    arguments: Sequence[str] | None = None,
    all_sections: bool = False,
) -> None:
    """The command line of a part that is no row-by-row stage (base, report, train, evaluate).

    `python -m MODULE INPUT… OUT_DIR [--params FILE] [-S key=value]`; calls `build(*inputs, out, params)` with paths. With
    `all_sections`, `build` gets the whole of params.yaml (overrides applied) as one more argument: provenance records it.
    """
    parser = _parser(module, name)
    for each in inputs:
        parser.add_argument(each, type=Path, metavar=each.upper())
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    options = parser.parse_args(arguments)

    def work() -> None:
        sections = read_params(options.params, options.set)
        section: Any = check_section(sections, name, params, options.params)
        build(*(getattr(options, each) for each in inputs), options.out, section, *([sections] if all_sections else []))

    guarded(name, work)


def _parser(module: str, name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Finery's {name} stage.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="section.key=value", help="override a value of params.yaml")
    return parser


def _place(error: BaseException) -> str:
    """File and line of the last frame in the project's own code, else of the last frame."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if Path(each.filename).is_relative_to(Path(__file__).parent.parent) and ".venv" not in each.filename]
    last = (own or list(frames))[-1] if frames else None
    return f"{Path(last.filename).name}:{last.lineno}" if last else "an unknown place"


def guarded(name: str, work: Callable[[], None]) -> None:
    """Run `work`; end the process with a message and exit code, never a traceback unless FINERY_DEBUG=1."""
    try:
        work()
        return
    except FineryError as error:
        message, code = f"{name}: {error}", 2
        cause: BaseException = error
    except KeyboardInterrupt as error:
        message, code, cause = f"{name}: interrupted; earlier output is as it was.", 130, error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        message, code, cause = f"{name}: {error.strerror or error}{where}. Earlier output is as it was; mend this and run again.", 2, error
    except Exception as error:  # its message may quote a row
        where = _place(error)
        message = (
            f"{name}: internal error: {type(error).__name__} at {where}. Earlier output is as it was.\n"
            "Set FINERY_DEBUG=1 for its message and the traceback, which may show rows."
        )
        code, cause = 1, error
    if os.environ.get("FINERY_DEBUG") == "1":
        raise cause
    say(message)
    raise SystemExit(code)
