"""The hold-out items, what each is paired with in the control, and the examples shown in few-shot. Everything is fixed by ids."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from curate import store
from curate.record import InputError

COLUMNS = ["id", "source", "line", "kind", "label", "prompt", "answer", "input_ids", "labels"]
MAYBE = ["group", "synthetic"]  # also read where format wrote them
IGNORED = -100  # label of a token that is not trained
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")  # as scrub writes them


@dataclass(frozen=True)
class Item:
    """One formatted row. `ids[:start]` is the prompt, `ids[start:stop]` the last trained run of tokens: the answer.

    `ids` (int32) and `trained` (bool) are arrays: five bytes a token, so that the items of a large hold-out stay small.
    """

    id: str
    source: str
    line: int
    kind: str
    label: str | None
    prompt: str
    answer: str
    ids: np.ndarray
    trained: np.ndarray
    start: int
    stop: int
    group: str = ""
    synthetic: bool = False

    @property
    def personal(self) -> bool:
        """Whether scrub left a placeholder in it."""
        return bool(_PLACEHOLDER.search(self.prompt) or _PLACEHOLDER.search(self.answer))

    @property
    def has_prompt(self) -> bool:
        """Whether the answer answers something; a plain document is all answer."""
        return self.start > 0 and bool(self.prompt.strip())


def read(folder: Path, most: int | None) -> tuple[list[Item], dict[str, int]]:
    """The items of the test split (at most `most`, chosen by hash of the id, in file order) and reasons with counts of rows left out.

    Raises InputError if there is no test row, or none with a trained token.
    """
    tests = [part for part in store.parts(folder) if part.split == "test"]
    if sum(part.rows for part in tests) == 0:
        raise InputError(f"{folder}: no rows in kept/test, so there is nothing to evaluate on. Raise the test share in split.ratios.")
    _check_columns(tests[0].path)
    chosen = by_hash(pl.concat([pl.read_parquet(part.path, columns=["id"]) for part in tests])["id"].to_list(), most)
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    known = pl.read_parquet_schema(tests[0].path)
    for batch in store.batches(tests[0].path.parent, [*COLUMNS, *(name for name in MAYBE if name in known)]):
        for row in batch.filter(pl.col("row").is_in(chosen)).iter_rows(named=True):
            item = _item(row)
            if isinstance(item, Item):
                items.append(item)
            else:
                left_out[item] += 1
    if not items:
        raise InputError(f"{folder}: none of the {len(chosen)} test rows can be scored ({dict(left_out)}). Run format again.")
    return items, dict(left_out)


def _check_columns(path: Path) -> None:
    missing = [name for name in COLUMNS if name not in pl.read_parquet_schema(path)]
    if missing:
        raise InputError(f"{path}: has no column {', '.join(missing)}. Give the folder that format wrote (data/format).")


def by_hash(ids: Sequence[str], most: int | None) -> set[int]:
    """Positions of at most `most` ids, those of the lowest hash: adding a row moves at most one other out."""
    if most is None or most >= len(ids):
        return set(range(len(ids)))
    return set(sorted(range(len(ids)), key=lambda at: (hashed(ids[at]), at))[:most])


def hashed(text: str) -> int:
    """A number for an id that has nothing to do with what else is there."""
    return xxhash.xxh3_64_intdigest(text.encode())


def _item(row: dict[str, object]) -> Item | str:
    """The row as an item, or why it cannot be scored."""
    ids = np.asarray(row["input_ids"] or [], dtype=np.int32)
    labels = np.asarray(row["labels"] or [], dtype=np.int32)
    if len(ids) != len(labels):
        return "ids_and_labels_differ"
    trained = labels != IGNORED
    trained[:1] = False  # nothing stands before the first token, so no model predicts it
    if not trained.any():
        return "no_trained_token"
    stop = int(np.flatnonzero(trained)[-1]) + 1
    before = np.flatnonzero(labels[:stop] == IGNORED)
    fields = {name: row[name] for name in ("id", "source", "line", "kind", "label")}
    return Item(
        **fields,  # type: ignore[arg-type]
        prompt=str(row["prompt"] or ""),
        answer=str(row["answer"] or ""),
        ids=ids,
        trained=trained,
        start=int(before[-1]) + 1 if len(before) else 0,
        stop=stop,
        group=str(row.get("group") or row["id"]),
        synthetic=bool(row.get("synthetic")),
    )


def partners(items: Sequence[Item]) -> list[int | None]:
    """For each item the position of the item whose prompt it gets in the control; None for items without a prompt.

    A derangement of the items with prompts. Items are put in order by label (or source, where there is no label), largest group first,
    then by hash, and the order is rotated by the size of the largest group. No item meets itself; if no group is more than half, none
    meets its own group; otherwise as few as can be do.
    """
    asked = [at for at, item in enumerate(items) if item.has_prompt]
    found: list[int | None] = [None] * len(items)
    if len(asked) < 2:
        return found
    group = {at: items[at].label if items[at].label is not None else f"\0{items[at].source}" for at in asked}
    sizes = Counter(group.values())
    order = sorted(asked, key=lambda at: (-sizes[group[at]], hashed(str(group[at])), hashed(items[at].id), at))
    shift = max(sizes.values()) % len(order) or 1
    for place, at in enumerate(order):
        found[at] = order[(place + shift) % len(order)]
    return found


def shots(folder: Path, items: Sequence[Item], count: int, longest: int) -> list[tuple[tuple[int, ...], ...]]:
    """For each item the tokens of up to `count` training examples to show before it.

    Examples come from the item's source (any source where it has none), by lowest hash of the id, and have at most `longest` tokens; not
    synthetic, not plain documents. The label is not looked at: where the answer is the label, that would give it away.
    """
    if count == 0:
        return [()] * len(items)
    wanted = {item.source for item in items if item.has_prompt}
    best: dict[str | None, list[tuple[int, tuple[int, ...]]]] = {}
    for batch in store.batches(folder / "kept" / "train", ["id", "source", "kind", "synthetic", "prompt", "input_ids"]):
        usable = batch.filter(
            ~pl.col("synthetic") & (pl.col("kind") != "text") & (pl.col("prompt") != "") & (pl.col("input_ids").list.len() <= longest)
        )
        for id_, source, ids in usable.select("id", "source", "input_ids").iter_rows():
            for key in (source, None) if source in wanted else (None,):
                _keep_lowest(best.setdefault(key, []), (hashed(id_), tuple(ids)), count)
    chosen = {key: tuple(ids for _, ids in examples) for key, examples in best.items()}
    return [chosen.get(item.source, chosen.get(None, ())) if item.has_prompt else () for item in items]


def _keep_lowest(held: list[tuple[int, tuple[int, ...]]], new: tuple[int, tuple[int, ...]], count: int) -> None:
    if len(held) < count or new < held[-1]:
        held.append(new)
        held.sort()
        del held[count:]
