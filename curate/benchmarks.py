"""Evaluation sets that training must never see: every file of a folder, read as items of question and answer.

An item keeps the name of its file and its row or line there, so that a match can be looked up. Benchmarks are small beside the data:
they are held in memory.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate.record import InputError

ITEM: dict[str, pl.DataType] = {
    "set": pl.String(),  # file, relative to the folder
    "item": pl.Int64(),  # 1-based row (or line) in it
    "item_id": pl.String(),  # what the file calls it, else null
    "question": pl.String(),
    "answer": pl.String(),  # empty if the file gives none
}
QUESTIONS = ("question", "prompt", "instruction", "query", "problem", "text", "input", "sentence")
ANSWERS = ("answer", "completion", "output", "response", "solution", "target", "label", "category", "intent", "answers", "chosen")
IDS = ("id", "item_id", "task_id", "question_id", "qid", "uuid")
TALKS = ("messages", "conversations", "conversation")
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PASSED_OVER = (".md", ".gitignore", ".gitkeep", ".dvc")  # notes beside the sets


def read_benchmarks(folder: Path) -> pl.DataFrame:
    """The items of all sets under `folder`, in order of file name and row, with the columns of `ITEM`.

    Items without a question are left out. An empty folder gives no items. Raises InputError if the folder is missing, or a file is
    broken, of no known kind, or holds no question at all.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of benchmarks. Make it (it may be empty), or set `benchmarks` to where the sets are.")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(PASSED_OVER))
    items = [item for path in paths for item in _items(path, path.relative_to(folder).as_posix())]
    return pl.DataFrame(items, schema=ITEM, orient="row")


def _items(path: Path, name: str) -> list[tuple[str, int, str | None, str, str]]:
    items, columns = [], list[str]()
    for at, row in _rows(path):
        question, answer = question_and_answer(row)
        columns = columns or [str(key) for key in row]
        if question.strip():
            items.append((name, at, _first(row, IDS) or None, question, answer))
    if not items:
        raise InputError(
            f"{path}: no benchmark item in it has a question. Columns found: {columns}; known: {', '.join(QUESTIONS)}, messages."
        )
    return items


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = path.suffix.lower()
    try:
        if kind == ".jsonl":
            yield from _lines(path)
        elif kind == ".json":
            yield from enumerate(_objects(path), 1)
        elif kind in (".csv", ".tsv"):
            table = pl.read_csv(path, separator="\t" if kind == ".tsv" else ",", infer_schema=False)
            yield from enumerate(table.iter_rows(named=True), 1)
        elif kind == ".parquet":
            yield from enumerate(pl.read_parquet(path).iter_rows(named=True), 1)
        else:
            raise InputError(f"{path}: not a benchmark file. Expected one of {', '.join(SUFFIXES)}; move it out of the folder.")
    except (pl.exceptions.PolarsError, orjson.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable {kind} file ({str(error).splitlines()[0]}). Mend it or take it out.") from None


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for at, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{at}: not valid JSON ({error}). Mend this line or take the file out.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{at}: expected an object of columns, found {type(row).__name__}.")
        yield at, row


def _objects(path: Path) -> list[Mapping[str, Any]]:
    """A list of objects, or an object with one such list (`{"data": [...]}`)."""
    loaded = orjson.loads(path.read_bytes())
    lists = [loaded] if isinstance(loaded, list) else [each for each in loaded.values() if isinstance(each, list)] if loaded else []
    if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
        raise InputError(f"{path}: expected a list of objects, or an object that holds one such list.")
    return list(lists[0])


def question_and_answer(row: Mapping[str, Any]) -> tuple[str, str]:
    """The two texts of one raw benchmark row; where no column is known by name, all its strings are the question.

    >>> question_and_answer({"instruction": "Add.", "input": "1+2", "output": 3})
    ('Add.\\n1+2', '3')
    >>> question_and_answer({"text": "Where is my card?", "category": "card_arrival"})
    ('Where is my card?', 'card_arrival')
    """
    named = {str(key).strip().lower(): value for key, value in row.items()}
    for name in TALKS:
        if isinstance(named.get(name), list):
            return _talk(named[name], _first(named, ANSWERS))
    if isinstance(named.get("prompt"), list):
        return _talk(named["prompt"], _first(named, ANSWERS))
    question, answer = _first(named, QUESTIONS), _first(named, ANSWERS)
    if named.get("instruction") and named.get("input") and question == _text(named["instruction"]):
        question = f"{question}\n{_text(named['input'])}"
    if not question:
        known = {*ANSWERS, *IDS}
        question = "\n".join(value for key, value in named.items() if isinstance(value, str) and value and key not in known)
    return question, answer


def _talk(messages: list[Any], answer: str) -> tuple[str, str]:
    """The user's messages of a conversation, and its last message where that is the assistant's."""
    turns = [each for each in messages if isinstance(each, dict)]
    said = [(str(turn.get("role", turn.get("from", ""))), _text(turn.get("content", turn.get("value")))) for turn in turns]
    asked = "\n".join(text for role, text in said if role in ("user", "human"))
    if said and said[-1][0] in ("assistant", "gpt"):
        answer = said[-1][1]
    return asked, answer


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The text of the first of these columns that has one."""
    return next((text for name in names if (text := _text(row.get(name)))), "")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_text(each) for each in value)
    if isinstance(value, dict):
        return "\n".join(_text(each) for each in value.values() if isinstance(each, str | list))
    return str(value)
