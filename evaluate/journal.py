"""Results that go to disk batch by batch, so that a killed evaluation goes on where it stopped and asks nothing twice.

A journal is a file of JSON lines, a line an item, in the order of the planned batches. A batch is written by one call when it is done.
What a kill left of an unfinished batch is cut off when the journal is opened again: batches are asked whole, since an answer's last digits
may depend on what it was batched with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from curate.record import StageFailure
from curate.stage import Progress, say


def run(path: Path, name: str, batches: Sequence[Sequence[int]], work: Callable[[Sequence[int]], Sequence[dict[str, Any]]]) -> None:
    """Ask `work` for every batch (positions of items) that is not in the journal yet, with progress under `name`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _cut_to_whole_batches(path, batches)
    progress = Progress(name, sum(map(len, batches)) - sum(map(len, batches[:done])))
    if done:
        say(f"{name}: {sum(map(len, batches[:done])):,} items are done already, in {path}")
    with path.open("ab", buffering=0) as file:
        for batch in batches[done:]:
            rows = work(batch)
            if len(rows) != len(batch):
                raise StageFailure(f"{name}: {len(rows)} results for {len(batch)} items. This is a fault in evaluate.")
            lines = [orjson.dumps({"item": item, **row}) + b"\n" for item, row in zip(batch, rows, strict=True)]
            file.write(b"".join(lines))
            progress.add(len(batch))
    progress.done()


def _cut_to_whole_batches(path: Path, batches: Sequence[Sequence[int]]) -> int:
    """Cuts the file behind its last whole batch; returns how many there are."""
    if not path.is_file():
        return 0
    done, end = 0, 0
    with path.open("rb") as file:
        for batch in batches:
            lines = [file.readline() for _ in batch]
            if not all(line.endswith(b"\n") and orjson.loads(line)["item"] == item for line, item in zip(lines, batch, strict=True)):
                break
            done, end = done + 1, file.tell()
    with path.open("rb+") as file:
        file.truncate(end)
    return done


def read(path: Path) -> list[dict[str, Any]]:
    """The results, in the order they were made."""
    with path.open("rb") as file:
        return [orjson.loads(line) for line in file]
