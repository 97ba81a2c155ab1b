"""The systems that are compared, one after another in memory: base, few-shot base, tuned, and what params ask for beside them."""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from curate.record import InputError, StageFailure
from curate.stage import say
from evaluate import ask, endpoint, holdout, inference, models
from evaluate.ask import Questions, Row, Settings
from evaluate.holdout import Item
from evaluate.models import Loaded

Probe = Callable[[str, Loaded, str, Questions], None]  # what else is asked while a system, in the state named, is in memory
ADAPTER = "data/train/adapter"  # where a revision of this project keeps it


@dataclass(frozen=True)
class Extra:
    """Systems beside base, few-shot base and tuned; each may be None."""

    merged: str | None  # folder of a merged model
    previous: str | None  # folder of an adapter, or a git revision whose adapter DVC fetches
    endpoint: endpoint.Endpoint | None


def every_system(
    items: list[Item], format_dir: Path, base_dir: Path, adapter: Path, settings: Settings, extra: Extra, shelf: Path, probe: Probe
) -> tuple[dict[str, list[Row]], list[Item], Questions]:
    """The rows of all systems by name, the items that fit the model, and the questions. An adapter shares the base's memory.

    Raises InputError if one of the systems is not there, before any is asked.
    """
    if not adapter.is_dir():
        raise InputError(f"{adapter}: no such folder. Run train first (`dvc repro` does).")
    if extra.merged is not None:
        models.check_whole(Path(extra.merged))
    with tempfile.TemporaryDirectory() as scratch:
        before = None if extra.previous is None else fetched(extra.previous, Path(scratch))
        if before is not None:
            models.trained_as(before, base_dir)
        return _ask_all(items, format_dir, base_dir, adapter, settings, extra, before, shelf, probe)


def _ask_all(
    items: list[Item], format_dir: Path, base_dir: Path, adapter: Path, settings: Settings, extra: Extra, previous: Path | None,
    shelf: Path, probe: Probe,
) -> tuple[dict[str, list[Row]], list[Item], Questions]:  # fmt: skip
    base = models.load_base(base_dir, settings.quantize, settings.precision)
    _check_tokens(items, base, format_dir, base_dir)
    fitting = [item for item in items if len(item.ids) <= base.limit]
    if not fitting:
        raise InputError(f"{format_dir}: every test row is longer than the {base.limit} tokens of the model. Lower format.max_length.")
    ends = _end_tokens(fitting, base.tokenizer)
    base = models.with_stops(base, ends)
    questions = Questions.of(fitting, settings, _template(format_dir), shelf)
    plain = [np.empty(0, dtype=np.int32)] * len(fitting)
    state = fingerprint(base_dir)
    rows = {"base": ask.ask("base", base, state, plain, questions, settings)}
    probe("base", base, state, questions)
    if settings.few_shot:
        longest = base.limit // (settings.few_shot + 1)
        examples = _that_fit(holdout.shots(format_dir, fitting, settings.few_shot, longest), fitting, base, settings)
        begin = [np.array([token for example in shown for token in example], dtype=np.int32) for shown in examples]
        made = ask.ask("few_shot", base, state, begin, questions, settings)
        rows["few_shot"] = [row | {"shots": len(shown)} for row, shown in zip(made, examples, strict=True)]
    tuned = models.with_adapter(base, adapter)
    inference.empty_cache()
    trained = state + fingerprint(adapter)
    rows["tuned"] = ask.ask("tuned", tuned, trained, plain, questions, settings)
    probe("tuned", tuned, trained, questions)
    tokenizer = base.tokenizer
    del base, tuned
    if extra.merged is not None:
        inference.empty_cache()
        merged = models.with_stops(models.load_whole(Path(extra.merged), tokenizer, settings.precision), ends)
        rows["merged"] = ask.ask("merged", merged, fingerprint(Path(extra.merged)), plain, questions, settings)
        probe("merged", merged, fingerprint(Path(extra.merged)), questions)
        del merged
    if previous is not None:
        inference.empty_cache()
        fresh = models.with_stops(models.load_base(base_dir, settings.quantize, settings.precision), ends)
        before = models.with_adapter(fresh, previous)
        rows["previous"] = ask.ask("previous", before, state + fingerprint(previous), plain, questions, settings)
        probe("previous", before, state + fingerprint(previous), questions)
        del fresh, before
    if extra.endpoint is not None:
        rows["endpoint"] = endpoint.answers(extra.endpoint, tokenizer, questions, settings.max_new_tokens)
    check_same_questions(rows)
    return rows, fitting, questions


def fetched(previous: str, scratch: Path) -> Path:
    """The folder of the previous adapter: `previous` itself, or what DVC fetches of that git revision.

    Raises InputError if it is neither a folder nor a revision with a tracked adapter.
    """
    if Path(previous).is_dir():
        return Path(previous)
    out = scratch / "adapter"
    command = ["dvc", "get", "--rev", previous, "--out", str(out), ".", ADAPTER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[0] if errors else "dvc get failed"
        raise InputError(
            f"evaluate.previous = {previous}: neither a folder nor a git revision whose {ADAPTER} can be fetched ({why}). Give a folder "
            "with an adapter, or a revision that has dvc.lock and whose files are in DVC's cache or remote."
        )
    say(f"evaluate: the previous adapter is that of revision {previous}")
    return out


def check_same_questions(rows: dict[str, list[Row]]) -> None:
    """Comparisons are worth nothing if the systems were not asked the same: same items, same prompts, same tokens, in the same order."""
    first, *others = rows
    wanted = [(row["asked"], row["tokens"]) for row in rows[first]]
    for name in others:
        if [(row["asked"], row["tokens"]) for row in rows[name]] != wanted:
            raise StageFailure(f"the systems {first} and {name} were not asked the same items and prompts. This is a fault in evaluate.")


def fingerprint(folder: Path) -> str:
    """A hash of all files of a folder with weights."""
    state = xxhash.xxh3_64()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        state.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)
    return state.hexdigest()


def _template(format_dir: Path) -> str:
    path = format_dir / "template.jinja"
    return xxhash.xxh3_64_hexdigest(path.read_bytes()) if path.is_file() else ""


def _check_tokens(items: Sequence[Item], base: Loaded, format_dir: Path, base_dir: Path) -> None:
    highest, known = max(int(item.ids.max()) for item in items), int(base.model.get_input_embeddings().weight.shape[0])
    if highest >= known:
        raise InputError(
            f"{format_dir}: holds token {highest}, but the base in {base_dir} knows {known} tokens. It was formatted with another "
            "tokenizer: set format.tokenizer to the base's and run format again."
        )


def _end_tokens(items: Sequence[Item], tokenizer: object) -> list[int]:
    """Special tokens that end trained answers: where generation must stop."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)  # type: ignore[attr-defined]
    return sorted({int(item.ids[item.stop - 1]) for item in items} & special)


def _that_fit(
    examples: Sequence[tuple[tuple[int, ...], ...]], items: Sequence[Item], base: Loaded, settings: Settings
) -> list[tuple[tuple[int, ...], ...]]:
    """As many examples before each item as leave room for it and its answer."""
    found = []
    for item, shown in zip(items, examples, strict=True):
        room = base.limit - max(len(item.ids), item.start + settings.max_new_tokens)
        fit = []
        for example in shown:
            room -= len(example)
            if room < 0:
                break
            fit.append(example)
        found.append(tuple(fit))
    return found


def frame(rows: dict[str, list[Row]], items: Sequence[Item], likeness: Sequence[str], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """One row per item and system, of `schema`."""
    lengths = np.array([len(item.ids) for item in items])
    short, long = np.quantile(lengths, [1 / 3, 2 / 3])
    own = [
        {
            "item": at, "id": item.id, "source": item.source, "line": item.line, "kind": item.kind, "label": item.label,
            "group": item.group, "length": "short" if lengths[at] <= short else "long" if lengths[at] > long else "medium",
            "personal": "yes" if item.personal else "no", "synthetic": "yes" if item.synthetic else "no", "likeness": likeness[at],
        }
        for at, item in enumerate(items)
    ]  # fmt: skip
    whole = [each | {"system": name, "shots": 0} | row for name, made in rows.items() for each, row in zip(own, made, strict=True)]
    return pl.DataFrame(whole, schema=schema)
