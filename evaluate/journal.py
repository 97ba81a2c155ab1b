"""Results that go to disk batch by batch, so that a killed evaluation goes on where it stopped and asks nothing twice.

A journal is a file of JSON lines, a line an item, in the order of the planned batches. A batch is written by one call when it is done.
What a kill left of an unfinished batch is cut off when the journal is opened again: batches are asked whole, since an answer's last digits
may depend on what it was batched with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from curate.record import InputError, StageFailure
from curate.stage import Progress, say
from evaluate import cost


def run(
    path: Path,
    name: str,
    batches: Sequence[Sequence[int]],
    work: Callable[[Sequence[int]], Sequence[dict[str, Any]]],
    lengths: Sequence[int] | None = None,
) -> None:
    """Ask `work` for every batch (positions of items) that is not in the journal yet, with progress under `name`.

    Beside it lies what each batch took (evaluate/cost.py). `lengths`: tokens given, by item; else the results' own `prompt_tokens`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _cut_to_whole_batches(path, batches)
    progress = Progress(name, sum(map(len, batches)) - sum(map(len, batches[:done])))
    if done:
        say(f"{name}: {sum(map(len, batches[:done])):,} items are done already, in {path}")
    times = path.with_suffix(cost.TIMES)
    cost.keep(times, done)
    with path.open("ab", buffering=0) as file, times.open("ab", buffering=0) as spent:
        for number, batch in enumerate(batches[done:], done):
            began = cost.begin()
            rows = work(batch)
            if len(rows) != len(batch):
                raise StageFailure(f"{name}: {len(rows)} results for {len(batch)} items. This is a fault in evaluate.")
            lines = [orjson.dumps({"item": item, **row}) + b"\n" for item, row in zip(batch, rows, strict=True)]
            file.write(b"".join(lines))
            read = sum(row.get("prompt_tokens", 0) for row in rows) if lengths is None else sum(lengths[item] for item in batch)
            made = sum(row.get("tokens", 0) for row in rows)
            spent.write(cost.line(number, number == done, len(batch), read, made, began))
            progress.add(len(batch))
    progress.done()


def _cut_to_whole_batches(path: Path, batches: Sequence[Sequence[int]]) -> int:
    """Cuts the file behind its last whole batch; returns how many there are."""
    if not path.is_file():
        return 0
    done, end, before = 0, 0, 0
    with path.open("rb") as file:
        for batch in batches:
            lines = [file.readline() for _ in batch]
            if not all(line.endswith(b"\n") for line in lines):
                break
            if [_row(path, number, line)["item"] for number, line in enumerate(lines, before + 1)] != list(batch):
                break
            done, end, before = done + 1, file.tell(), before + len(batch)
    with path.open("rb+") as file:
        file.truncate(end)
    return done


def read(path: Path) -> list[dict[str, Any]]:
    """The results, in the order they were made. Raises InputError for a line that no run has written."""
    found: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            row = _row(path, number, line)
            if found and not _alike(row, found[0]):
                raise InputError(_odd(path, number, "has other fields, or values of another kind, than the first line"))
            found.append(row)
    return found


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(_odd(path, number, f"is not valid JSON ({error})")) from None
    if not isinstance(row, dict) or not isinstance(row.get("item"), int):
        raise InputError(_odd(path, number, "has no item"))
    return row


def _alike(row: dict[str, Any], first: dict[str, Any]) -> bool:
    return row.keys() == first.keys() and all(
        None in (value, first[key]) or _kind(value) == _kind(first[key]) for key, value in row.items()
    )


def _kind(value: Any) -> type:
    return float if type(value) is int else type(value)


def _odd(path: Path, number: int, what: str) -> str:
    return f"{path}: line {number} {what}. Something else wrote into this file; delete it and run again: what it held is asked anew."
