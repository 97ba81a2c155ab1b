"""Tells the life of one raw row: what every stage did with it, and where it ended. Reads what the stages wrote, changes nothing.

    python -m curate.trace SOURCE:LINE [--data data]      or an id, or the beginning of one

Text is shown only as it stands after scrub; of the stages before it, only how much they changed.
"""

import argparse
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import record, store
from curate.record import FineryError, InputError
from curate.stage import guarded
from curate.stages import STAGES

SHOWN_FROM = "scrub"  # the first stage whose text may be shown
TEXT_CHARS = 240  # of each message shown
LISTED = 20  # rows named in one list, and rows of one id traced
EXACT_DIFF_CHARS = 4000  # longer differences are counted from the first to the last changed character
INDENT = " " * 17


@dataclass(frozen=True)
class RowKey:
    """What a row is found by: an id can stand for several raw rows of the same content."""

    id: str
    source: str
    line: int


def trace(data: Path, wanted: str) -> list[str]:
    """The lines to print for `wanted` (SOURCE:LINE, an id, or the beginning of one) of the stage folders under `data`.

    Raises InputError naming the nearest sources, the lines there are, or the ids that an ambiguous beginning fits.
    """
    found = find(data, wanted)
    lines: list[str] = []
    if len(found) > 1:
        lines += [f"{wanted} stands for {len(found)} rows: {_listed([f'{key.source}:{key.line}' for key in found])}.", ""]
    for at, key in enumerate(found[:LISTED]):
        lines += ([""] if at else []) + list(_life(data, key))
    return lines


# --- which row


def find(data: Path, wanted: str) -> list[RowKey]:
    """The rows that `wanted` names: one for SOURCE:LINE, one or more of the same content for an id."""
    source, colon, line = wanted.rpartition(":")
    if colon and line.isdecimal():
        return [_by_place(data, source, int(line))]
    if re.fullmatch(r"[0-9a-fA-F]{4,32}", wanted):
        return _by_id(data, wanted.lower())
    known = _sources(data)
    for name in _spellings(wanted):
        if name in known["source"]:
            raise InputError(f"{wanted}: which line? {_range(known, name)} Write {wanted}:LINE.")
    raise InputError(f"{wanted}: expected SOURCE:LINE (as in tickets.csv:12), or an id of 4 to 32 hex digits.{_nearest(known, wanted)}")


def _by_place(data: Path, source: str, line: int) -> RowKey:
    rows = _ingested(data)
    for name in _spellings(source):
        hit = rows.filter((pl.col("source") == name) & (pl.col("line") == line)).select("id", "source", "line").head(1).collect()
        if hit.height:
            return RowKey(*hit.row(0))
    known = _sources(data)
    for name in _spellings(source):
        if name in known["source"]:
            raise InputError(f"{source}:{line}: no such line. {_range(known, name)}")
    raise InputError(f"{source}:{line}: no such source.{_nearest(known, source)}")


def _by_id(data: Path, start: str) -> list[RowKey]:
    columns = ("id", "source", "line")
    hits = _ingested(data).filter(pl.col("id").str.starts_with(start)).select(columns).collect()
    if not hits.height and _kept(data, "augment") is not None:  # the id of a synthetic row
        made = _kept(data, "augment")
        assert made is not None
        hits = made.filter(pl.col("id").str.starts_with(start)).select(columns).collect()
    ids = hits["id"].unique().sort().to_list()
    if not ids:
        raise InputError(f"{start}: no row has an id that begins so. Ids stand in dropped.parquet and in the report; or write SOURCE:LINE.")
    if len(ids) > 1:
        raise InputError(f"{start}: {len(ids)} ids begin so: {_listed(ids)}. Write more of it.")
    return [RowKey(*row) for row in hits.sort("source", "line").iter_rows()]


def _ingested(data: Path) -> pl.LazyFrame:
    kept = _kept(data, "ingest")
    if kept is None:
        raise InputError(f"{data / 'ingest'}: not there, so nothing can be traced. Run `dvc repro` first, or give --data DIR.")
    columns = [pl.col("id"), pl.col("source"), pl.col("line")]
    return pl.concat([kept.select(columns), _dropped(data, "ingest").select(columns)])


def _sources(data: Path) -> pl.DataFrame:
    """Every source with its first and last line."""
    lines = pl.col("line")
    return _ingested(data).group_by("source").agg(lines.min().alias("first"), lines.max().alias("last")).sort("source").collect()


def _spellings(source: str) -> list[str]:
    """How a source may be written: as it is, with backslashes, with the raw folder in front."""
    plain = source.replace("\\", "/").removeprefix("./")
    return list(dict.fromkeys([source, plain, plain.partition("data/raw/")[2] or plain]))


def _range(known: pl.DataFrame, source: str) -> str:
    first, last = known.filter(pl.col("source") == source).select("first", "last").row(0)
    return f"{source} has lines {first:,} to {last:,}."


def _nearest(known: pl.DataFrame, wanted: str) -> str:
    names = known["source"].to_list()
    by_name = {name.rpartition("/")[2]: name for name in names}
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    close += [by_name[name] for name in difflib.get_close_matches(wanted.rpartition("/")[2], list(by_name), n=3, cutoff=0.5)]
    shown = list(dict.fromkeys(close))[:3]
    if shown:
        return f" Did you mean {' or '.join(shown)}? {' '.join(_range(known, name) for name in shown)}"
    return f" Known sources: {_listed(names)}."


# --- its life


def _life(data: Path, key: RowKey) -> Iterator[str]:
    yield f"{key.source}:{key.line}  id {key.id}"
    before: dict[str, Any] | None = None
    end = "No stage has run."
    for stage in STAGES:
        if _kept(data, stage) is None:
            yield _said(stage, "not run yet")
            continue
        gone = _drop_of(data, stage, key)
        if gone is not None:
            yield _said(stage, f"dropped: {gone['reason']}. {gone['detail']}")
            yield from _evidence(gone["evidence"])
            favoured = _favoured(gone["evidence"])
            yield f"Ended: dropped by {stage} ({gone['reason']}){favoured}."
            return
        rows = _rows_of(data, stage, key)
        if not rows:
            if before is None and stage != "augment":
                yield _said(stage, "not here yet")  # a synthetic row, before augment made it
                continue
            yield _said(stage, "neither kept nor dropped")
            yield f"Ended: lost sight of at {stage}, whose output is not made from the one before it. Run `dvc repro`."
            return
        yield from _kept_lines(data, stage, key, before, rows)
        before = rows[0]
        end = f"Ended: kept by {stage}" + (f", in the {before['split']} split." if before["split"] else ".")
    yield end


def _kept_lines(data: Path, stage: str, key: RowKey, before: dict[str, Any] | None, rows: list[dict[str, Any]]) -> Iterator[str]:
    row = rows[0]
    words = ["switched off" if _switched_off(data, stage) else "kept"]
    if row["split"] and (before is None or before["split"] != row["split"]):
        words.append(f"in {row['split']}")
    if stage == "format":
        words.append(" + ".join(f"{each['tokens']:,} tokens ({each['trained']:,} trained)" for each in rows))
    elif before is None:
        words.append(f"{row['kind']}, {len(row['messages'])} messages" + (f", label {row['label']}" if row["label"] is not None else ""))
        words += _origin(row)
    yield _said(stage, ", ".join(words))
    if before is not None and stage != "format":
        yield from _changes(before, row)
    if stage == SHOWN_FROM:
        yield from _replaced(data, key)
        yield from _text(row)
    yield from _in_favour_of(data, stage, key)
    if stage == "augment":
        yield from _children(data, key)


def _said(stage: str, words: str) -> str:
    return f"  {stage:<15}{words}"


def _origin(row: dict[str, Any]) -> list[str]:
    made = orjson.loads(row["meta"] or "{}").get("synthetic") if '"synthetic"' in (row["meta"] or "") else None
    return [f"synthetic: made by {made.get('method')} from {made.get('parent')}"] if isinstance(made, dict) else []


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Which messages a stage changed, and how many characters; never the text."""
    for field in ("messages", "rejected"):
        old, new = before[field] or [], after[field] or []
        if len(old) != len(new):
            yield f"{INDENT}{field}: {len(old)} became {len(new)}"
        for turn, (was, now) in enumerate(zip(old, new, strict=False), 1):
            count = changed_chars(was["content"] or "", now["content"] or "")
            if count:
                yield f"{INDENT}changed: {field} {turn} ({now['role']}), {count:,} characters"
            if was["extra"] != now["extra"]:
                yield f"{INDENT}changed: {field} {turn} ({now['role']}), its extra"
    yield from (f"{INDENT}changed: {name}" for name in ("label", "group", "meta") if before[name] != after[name])


def changed_chars(old: str, new: str) -> int:
    """How many characters were replaced, removed or put in.

    >>> changed_chars("cafÃ©", "café"), changed_chars("same", "same")
    (2, 0)
    """
    start = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    old, new = old[start:], new[start:]
    same = next((at for at, (a, b) in enumerate(zip(reversed(old), reversed(new), strict=False)) if a != b), min(len(old), len(new)))
    old, new = old[: len(old) - same], new[: len(new) - same]
    if max(len(old), len(new)) > EXACT_DIFF_CHARS:
        return max(len(old), len(new))
    codes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return sum(max(old_end - old_at, new_end - new_at) for tag, old_at, old_end, new_at, new_end in codes if tag != "equal")


def _replaced(data: Path, key: RowKey) -> Iterator[str]:
    """The entities that scrub replaced in this row, per message; never the originals."""
    path = data / SHOWN_FROM / "findings.parquet"
    if not path.exists():
        return
    found = pl.scan_parquet(path).filter(_is_row(key)).select("field", "turn", "entity").collect()
    for (field, turn), entities in found.group_by(["field", "turn"], maintain_order=True):
        counts = Counter(entities["entity"].to_list())
        where = f"{field}" if turn is None else f"{field} {int(str(turn)) + 1}"
        yield f"{INDENT}replaced in {where}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _text(row: dict[str, Any]) -> Iterator[str]:
    for field in ("messages", "rejected"):
        for message in row[field] or []:
            name = message["role"] if field == "messages" else f"rejected {message['role']}"
            yield f"{INDENT}{name}: {_short(message['content'] or '')}"


def _short(text: str) -> str:
    """One printable line of at most TEXT_CHARS characters: a text must not be able to steer the terminal."""
    line = "".join(char if char.isprintable() else "·" for char in text.replace("\n", " ⏎ "))
    return line if len(line) <= TEXT_CHARS else f"{line[:TEXT_CHARS]} … ({len(text):,} characters)"


def _evidence(text: str) -> Iterator[str]:
    for name, value in (orjson.loads(text or "{}") or {}).items():
        yield f"{INDENT}{name}: {_short(value if isinstance(value, str) else orjson.dumps(value).decode())}"


def _favoured(evidence: str) -> str:
    proof = orjson.loads(evidence or "{}") or {}
    if proof.get("kept_source") is not None:
        return f", in favour of {proof['kept_source']}:{proof.get('kept_line')}"
    return f", in favour of {proof['kept_id']}" if proof.get("kept_id") else ""


def _in_favour_of(data: Path, stage: str, key: RowKey) -> Iterator[str]:
    """The rows that `stage` dropped because this one stays."""
    proof = pl.col("evidence")
    source, line = proof.str.json_path_match("$.kept_source"), proof.str.json_path_match("$.kept_line")
    here = (source.is_null() | (source == key.source)) & (line.is_null() | (line == str(key.line)))
    rows = (
        _dropped(data, stage)
        .filter(proof.str.contains(key.id, literal=True))
        .filter((proof.str.json_path_match("$.kept_id") == key.id) & here)
        .select("source", "line", "reason")
        .collect()
    )
    if rows.height:
        yield f"{INDENT}dropped in its favour: " + _listed([f"{source}:{line} ({reason})" for source, line, reason in rows.iter_rows()])


def _children(data: Path, key: RowKey) -> Iterator[str]:
    """The synthetic rows that augment made from this one."""
    kept = _kept(data, "augment")
    assert kept is not None
    made = (
        kept.filter((pl.col("source") == key.source) & (pl.col("line") == key.line) & (pl.col("id") != key.id))
        .filter(pl.col("meta").str.json_path_match("$.synthetic.parent") == key.id)
        .select("id", pl.col("meta").str.json_path_match("$.synthetic.method").fill_null("?").alias("method"))
        .collect()
    )
    if made.height:
        yield f"{INDENT}made from it: " + _listed([f"{child} ({method})" for child, method in made.iter_rows()])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


# --- what the stages wrote


def _kept(data: Path, stage: str) -> pl.LazyFrame | None:
    """The kept rows of a stage, unread, with their split; null if the stage has not run."""
    if not (data / stage / "kept").is_dir():
        return None
    frames = [pl.scan_parquet(part.path).with_columns(pl.lit(part.split).alias("split")) for part in store.parts(data / stage)]
    return pl.concat(frames)


def _dropped(data: Path, stage: str) -> pl.LazyFrame:
    path = data / stage / "dropped.parquet"
    return pl.scan_parquet(path) if path.exists() else record.empty(record.DROPPED).lazy()


def _is_row(key: RowKey) -> pl.Expr:
    return (pl.col("source") == key.source) & (pl.col("line") == key.line) & (pl.col("id") == key.id)


def _drop_of(data: Path, stage: str, key: RowKey) -> dict[str, Any] | None:
    rows = _dropped(data, stage).filter(_is_row(key)).select("reason", "detail", "evidence").head(1).collect()
    return rows.row(0, named=True) if rows.height else None


def _rows_of(data: Path, stage: str, key: RowKey) -> list[dict[str, Any]]:
    """The row in the kept parts of a stage: one, or more where format cut it, or none."""
    kept = _kept(data, stage)
    assert kept is not None
    if stage == "format":
        trained = pl.col("labels").list.eval(pl.element() != -100).list.sum()
        columns = [pl.col("split"), pl.col("input_ids").list.len().alias("tokens"), trained.alias("trained")]
    else:
        columns = [pl.col(name) for name in ("split", "kind", "messages", "rejected", "label", "group", "meta")]
    return kept.filter(_is_row(key)).select(columns).collect().to_dicts()


def _switched_off(data: Path, stage: str) -> bool:
    path = data / stage / "metrics.json"
    return path.exists() and orjson.loads(path.read_bytes()).get("enabled") is False


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m curate.trace", description="The life of one raw row, stage by stage.")
    parser.add_argument("row", metavar="SOURCE:LINE", help="raw file (relative to data/raw) and line, or an id, or the beginning of one")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="where the stage folders are (default: %(default)s)")
    options = parser.parse_args(arguments)

    def work() -> None:
        try:
            print("\n".join(trace(options.data, options.row)))
        except (pl.exceptions.PolarsError, orjson.JSONDecodeError) as error:
            raise FineryError(
                f"{options.data}: a stage's output cannot be read ({str(error).splitlines()[0]}). Run `dvc repro` to make it anew."
            ) from error

    guarded("trace", work)


if __name__ == "__main__":
    main()
