"""Rows and runs for the tests."""

from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import record, stage, store
from curate.params import check_section, read_params

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


def chat(
    *turns: str, label: str | None = None, group: str | None = None, system: str | None = None, line: int = 0, source: str = "t.jsonl"
) -> dict[str, Any]:
    """A chat row: turns alternate user, assistant, user, … A `line` of 0 is numbered by `frame`."""
    messages = [{"role": "system", "content": system, "extra": None}] if system is not None else []
    messages += [{"role": ("user", "assistant")[at % 2], "content": text, "extra": None} for at, text in enumerate(turns)]
    return row("chat", messages, label=label, group=group, line=line, source=source)


def document(text: str, line: int = 0, source: str = "t.txt") -> dict[str, Any]:
    """A plain text row."""
    return row("text", [{"role": "text", "content": text, "extra": None}], line=line, source=source)


def preference(prompt: str, chosen: str, rejected: str, label: str | None = None) -> dict[str, Any]:
    """A preference row."""
    user = {"role": "user", "content": prompt, "extra": None}
    better, worse = ([user, {"role": "assistant", "content": text, "extra": None}] for text in (chosen, rejected))
    return row("preference", better, rejected=worse, label=label)


def row(
    kind: str,
    messages: list[dict[str, Any]],
    rejected: list[dict[str, Any]] | None = None,
    label: str | None = None,
    group: str | None = None,
    meta: dict[str, Any] | None = None,
    line: int = 0,
    source: str = "t.jsonl",
) -> dict[str, Any]:
    """Any row of the record."""
    return {
        "id": record.content_id(kind, messages, rejected, label),
        "source": source,
        "line": line,
        "kind": kind,
        "messages": messages,
        "rejected": rejected,
        "label": label,
        "group": group,
        "meta": orjson.dumps(meta or {}).decode(),
    }


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame of the record; rows without a line get 1, 2, 3, …"""
    numbered = [each | {"line": each["line"] or at} for at, each in enumerate(rows, 1)]
    return pl.DataFrame(numbered, schema=record.SCHEMA)


def section(name: str, cls: type, *overrides: str) -> Any:
    """A section of the project's params.yaml with `key=value` overrides."""
    path = ROOT / "params.yaml"
    return check_section(read_params(path, [f"{name}.{each}" for each in overrides]), name, cls, path)


def write_input(rows: pl.DataFrame, folder: Path, splits: dict[str, pl.DataFrame] | None = None) -> Path:
    """`rows` (or one frame per split) as the output folder of an earlier stage."""
    for split, each in (splits or {"": rows}).items():
        writer = store.PartWriter(folder / "kept" / split, store.arrow_schema(record.SCHEMA))
        writer.write(each.select(list(record.SCHEMA)))
        writer.close()
    return folder


def run_stage(
    which: stage.Stage, in_dir: Path, out_dir: Path, *overrides: str, workers: int = 1, part_rows: int = store.PART_ROWS
) -> dict[str, Any]:
    """Run a stage with the project's params and overrides; returns its metrics."""
    return stage.run(which, in_dir, out_dir, section(which.name, which.params, *overrides), workers, part_rows)


def dropped(folder: Path) -> list[dict[str, Any]]:
    """The dropped rows with their evidence parsed."""
    rows = pl.read_parquet(folder / "dropped.parquet").to_dicts()
    return [each | {"evidence": orjson.loads(each["evidence"])} for each in rows]
