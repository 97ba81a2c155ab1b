"""`python -m curate.scrub --audit [PATH…]`: shows that nothing that scrub replaced stands in any file downstream.

Reads tables, texts, tokenised rows, archives and binary files; names file, row or line and entity of what it finds, never the value.
Exit code 0: nothing found; 1: something; 2: it could not be done. What is on the list, and what not: `leaklist.py`.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import regex
import xxhash

from curate import store
from curate.params import check_section, read_params
from curate.pii import leaklist
from curate.pii.auditfiles import WHOLE, texts_of, variants
from curate.pii.faker_names import WORDS, first_names, last_names
from curate.pii.identity import plain
from curate.pii.keys import key
from curate.pii.settings import ScrubParams
from curate.pii.siphash import siphash
from curate.pii.slots import slots
from curate.record import InputError, ParamsError
from curate.stage import guarded, say

BEFORE = ("raw", "ingest", "clean", "dedup_exact", "benchmarks", "pins", "sample")  # folders of data/ that scrub has not passed
BESIDE = ("reports", "logs", "dvclive", "mlruns", "dvc.yaml", "dvc.lock", "params.yaml")
BUFFER = 4 << 20  # bytes searched at once
SHOWN = 100  # places named
NEWLINE = b"\n"
NAME_BYTES = 512  # of a text, in which a name ends


@dataclass(frozen=True)
class Leak:
    """Where an original stands."""

    path: Path
    place: str
    entity: str


@dataclass
class Auditor:
    """A leak list, made ready for the search. `clean`: hashes of texts that hold nothing, which stand in several stages' folders."""

    leaks: pl.DataFrame
    secret: bytes
    tokenizer: Any = None
    clean: set[int] = field(default_factory=set)
    texts: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        wanted = self.leaks.filter(pl.col("length") > 0).unique("hash").sort("hash")
        self.hashes = wanted["hash"].to_numpy()
        self.entities = wanted["entity"].to_list()
        self.sizes = wanted["length"].to_list()
        self.lengths = np.zeros(leaklist.LONGEST + 1, np.bool_)
        self.lengths[wanted["length"].to_numpy()] = True
        self.screen = np.zeros(1 << 17, np.uint8)
        low = self.hashes & np.uint64(0xFFFFF)
        np.bitwise_or.at(self.screen, (low >> np.uint64(3)).astype(np.int64), (1 << (low & np.uint64(7))).astype(np.uint8))

    def file(self, path: Path) -> Iterator[Leak]:
        """The leaks in a file, each place and entity once."""
        seen: set[tuple[str, str]] = set()
        waiting: list[tuple[str, str]] = []
        size = 0
        for place, text in texts_of(path, self.tokenizer):
            mark = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
            if mark in self.clean:
                continue
            self.clean.add(mark)
            self.texts += 1
            waiting.append((place, text))
            size += len(text)
            if size >= BUFFER:
                yield from self._new(path, waiting, seen)
                waiting, size = [], 0
        yield from self._new(path, waiting, seen)

    def _new(self, path: Path, texts: list[tuple[str, str]], seen: set[tuple[str, str]]) -> Iterator[Leak]:
        for place, text, entity in self.searched(texts):
            self.clean.discard(xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")))  # so that its other copies are named too
            if (place, entity) not in seen:
                seen.add((place, entity))
                yield Leak(path, place, entity)

    def searched(self, texts: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
        """(place, text, entity) of every finding in these texts."""
        from curate.pii.audit_kernel import search

        forms = [(at, leaklist.folded(form)) for at, (_, text) in enumerate(texts) for form in variants(text)]
        data = "\0".join(form.replace("\0", " ") for _, form in forms).encode("utf-8", "replace")
        self.size += len(data)
        if not data or not len(self.hashes):
            return
        array = np.frombuffer(data, np.uint8)
        k0, k1 = (np.uint64(int.from_bytes(self.secret[at : at + 8], "little")) for at in (0, 8))
        out = np.zeros((1024, 2), np.int64)
        while (count := search(array, k0, k1, self.lengths, self.hashes, self.screen, out)) > len(out):
            out = np.zeros((count, 2), np.int64)
        ends = np.flatnonzero(array == 0) if count else np.zeros(0, np.int64)
        for start, index in out[:count].tolist():
            form = int(np.searchsorted(ends, start))
            place, text = texts[forms[form][0]]
            if self.entities[index] == "PERSON" and not _is_name(data[start : start + NAME_BYTES], int(self.sizes[index]), text):
                continue
            if place == WHOLE:
                begin = int(ends[form - 1]) + 1 if form else 0
                place = f"line {data.count(NEWLINE, begin, start) + 1}"
            yield place, text, self.entities[index]


def _is_name(found: bytes, size: int, text: str) -> bool:
    """Whether words in lower case that spell a listed name are one: yes if the text has them with a capital too, or if the lists of names
    know one of them. A heading `CASE HANDLER` may have been taken for a name; `a case handler` is none.

    `found`: folded text from the first word on, `size`: bytes of the compact form.
    """
    words: list[str] = []
    for word in regex.findall(r"[^\W_]+", found.decode("utf-8", "ignore")):
        if sum(len(each.encode()) for each in words) >= size:
            break
        words.append(word)
    known = any(plain(word) not in WORDS and (plain(word) in first_names() or plain(word) in last_names()) for word in words)
    written = regex.finditer(r"[\W_]+".join(map(regex.escape, words)), text, regex.IGNORECASE)
    return known or any(not match[0].islower() for match in written)


def audit(paths: Sequence[Path], auditor: Auditor) -> Iterator[Leak]:
    """The leaks in all files under `paths`, in order of their names."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder to audit.")
        files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
        for each in files:
            yield from auditor.file(each)


def auditor_of(scrub: Path, originals: Path, params: ScrubParams, tokenizer: Path) -> Auditor:
    """The auditor for what scrub replaced: from its leak list if there is a key, else from the findings and the rows before scrub.

    Raises InputError where neither can be done, ParamsError if the key is not the one that the list was made with.
    """
    path = scrub / "leaklist.parquet"
    if not path.exists():
        raise InputError(f"{path}: no such file. Run scrub first (`dvc repro scrub`), or name its output folder with --scrub.")
    reader = None
    if (tokenizer / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        reader = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    leaks, secret = pl.read_parquet(path), key(params)
    if leaks.height and secret:
        made = leaklist.list_key(secret)
        if siphash(made, leaklist.CHECK) not in set(leaks.filter(pl.col("length") == 0)["hash"]):
            raise ParamsError(f"{path}: was made with another key than the one given. Give that one, or run scrub again.")
        return Auditor(leaks, made, reader)
    if not originals.is_dir():
        raise InputError(
            f"{path}: {'the key it was made with is not given' if leaks.height else 'was made without a key'}, and there is no "
            f"{originals} with the rows before scrub. Set {params.key_env}, or name that folder with --originals."
        )
    made = os.urandom(16)  # for this run alone
    return Auditor(leaklist.entries(values_of(scrub, originals), made), made, reader)


def values_of(scrub: Path, originals: Path) -> list[tuple[str, str]]:
    """(entity, value) of all findings, read from where they stand in the rows before scrub. Only ever in memory."""
    places: dict[tuple[str, int], list[tuple[str, int | None, int, int]]] = {}
    table = pl.read_parquet(scrub / "findings.parquet", columns=["source", "line", "entity", "slot", "start", "end"])
    for source, line, entity, slot, start, end in table.rows():
        places.setdefault((source, line), []).append((entity, slot, start, end))
    found: set[tuple[str, str]] = set()
    for batch in store.batches(originals) if places else ():
        for row in batch.iter_rows(named=True):
            mine = places.pop((row["source"], row["line"]), None)
            if mine is None:
                continue
            texts = [slot.own for slot in slots(row)]
            found |= {(entity, (row["group"] if slot is None else texts[slot])[start:end]) for entity, slot, start, end in mine}
    if places:
        (source, line), _ = next(iter(places.items()))
        raise InputError(f"{originals}: has no row {source}:{line}, in which {scrub} found something. Name scrub's input with --originals.")
    return sorted(found)


def downstream(root: Path) -> list[Path]:
    """What the project holds after scrub: stage outputs, reports, logs, tracker files and DVC's."""
    data = sorted(each for each in (root / "data").glob("*") if each.is_dir() and each.name not in BEFORE and not each.name.startswith("."))
    return data + [each for name in BESIDE if (each := root / name).exists()] + sorted(root.glob("*.log"))


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curate.scrub", description="Looks for what scrub replaced where it must not be.")
    parser.add_argument("--audit", nargs="*", type=Path, metavar="PATH", help="files and folders (default: everything after scrub)")
    parser.add_argument("--scrub", type=Path, default=Path("data/scrub"), help="scrub's output folder (default: %(default)s)")
    parser.add_argument("--originals", type=Path, default=Path("data/dedup_exact"), help="scrub's input, used without a key (%(default)s)")
    parser.add_argument("--tokenizer", type=Path, default=Path("data/base/tokenizer"), help="reads input_ids (default: %(default)s)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    parser.add_argument("-S", "--set", action="append", default=[], metavar="section.key=value", help="override a value of params.yaml")
    options = parser.parse_args(arguments)
    guarded("scrub --audit", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    started = time.monotonic()
    params: Any = check_section(read_params(options.params, options.set), "scrub", ScrubParams, options.params)
    auditor = auditor_of(options.scrub, options.originals, params, options.tokenizer)
    paths = options.audit or downstream(Path())
    count = 0
    for leak in audit(paths, auditor):
        count += 1
        if count <= SHOWN:
            print(f"{leak.path}: {leak.place}: {leak.entity}")
    if count > SHOWN:
        print(f"… and {count - SHOWN:,} more")
    say(
        f"{len(auditor.hashes):,} originals looked for in {auditor.texts:,} distinct texts ({auditor.size / 1e6:.1f} MB) under "
        f"{', '.join(map(str, paths))}, {time.monotonic() - started:.0f} s: {f'found in {count:,} places' if count else 'none found'}."
    )
    if count:
        raise SystemExit(1)
