"""`python -m bench.shingling`: what shingles make of short questions, long texts, code, Chinese and Japanese, as a Markdown table.

For each corpus and way of shingling: rows with fewer than three shingles (nothing to compare); the smallest N such that a row of which
every Nth word is another one is still at least 0.8 similar to itself, at the median (characters, where there are no spaces); and how many
of a million pairs of different rows are between 0.3 and 0.8: work for whoever checks candidates. Chinese and Japanese sentences are
Faker's, functions are those of the packages installed here.
"""

import argparse
import ast
import random
import statistics
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from faker import Faker

from bench.measure import ROOT
from curate.shingle import spelled

SHARED, SEED, ROWS = ROOT.parent / "shared" / "data", 7, 1000
EVERY = (4, 5, 6, 8, 10, 12, 15, 20, 27, 35, 50, 80)
Shingling = Callable[[str], set[str]]


def _own(text: str) -> set[str]:
    by_characters, by_words = spelled(text)
    return by_words or by_characters


def _windows(parts: list[str], width: int) -> set[str]:
    return {" ".join(parts[at : at + width]) for at in range(max(len(parts) - width + 1, 1))} if parts else set()


WAYS: dict[str, Shingling] = {
    "Finery": _own,
    "3 words at spaces": lambda text: _windows(text.lower().split(), 3),
    "5 words at spaces": lambda text: _windows(text.lower().split(), 5),
    "5 characters": lambda text: _windows(list(" ".join(text.lower().split())), 5),
}


def _functions() -> Iterator[str]:
    """Functions of 5 to 60 lines from installed packages."""
    for path in sorted(Path(np.__file__).parent.parent.glob("*/*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        try:
            found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        except SyntaxError:
            continue
        for node in found:
            if 5 <= (node.end_lineno or 0) - node.lineno <= 60:
                yield ast.get_source_segment(source, node) or ""


def _sentences(locale: str) -> list[str]:
    fake = Faker(locale)
    fake.seed_instance(SEED)
    return [fake.paragraph(nb_sentences=fake.random_int(1, 8)) for _ in range(ROWS)]


def corpora() -> Iterator[tuple[str, list[str], bool]]:
    """(name, different texts, whether words stand between spaces)."""
    draw = random.Random(SEED)
    if SHARED.is_dir():
        t0 = pl.read_parquet(SHARED / "t0_55k.parquet").select(pl.concat_str("prompt", "completion", separator="\n").alias("text"))
        for name, texts in (("Banking77", pl.read_csv(SHARED / "banking77_train.csv")["text"]), ("t0_55k", t0["text"])):
            yield name, draw.sample(sorted(set(texts.to_list())), ROWS), True
    yield "code", draw.sample(sorted(set(islice(_functions(), 20 * ROWS))), ROWS), True
    yield "Chinese", _sentences("zh_CN"), False
    yield "Japanese", _sentences("ja_JP"), False


def _changed(text: str, every: int, spaced: bool) -> str:
    """The text with every Nth word, or character, replaced by one that it does not have, from the middle of N on."""
    parts, between = (text.split(" "), " ") if spaced else (list(text), "")
    for at in range(every // 2, len(parts), every):
        parts[at] = "zqxv" if spaced else "鷗"
    return between.join(parts)


def _jaccard(one: set[str], two: set[str]) -> float:
    return len(one & two) / max(len(one | two), 1)


def _alike(sets: list[set[str]]) -> float:
    """Pairs between 0.3 and 0.8, of a million."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(shingle, len(numbers)) for shingle in sorted(each)] for each in sets]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    grams = sp.csr_array((np.ones(starts[-1], np.int32), np.concatenate(rows), starts), shape=(len(rows), len(numbers)))
    shared, sizes = (grams @ grams.T).toarray(), np.diff(starts)
    similarity = shared / np.maximum(sizes[:, None] + sizes[None, :] - shared, 1)
    above = np.triu(np.ones_like(similarity, dtype=bool), 1)
    return 1e6 * float(((similarity >= 0.3) & (similarity < 0.8) & above).sum()) / float(above.sum())


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(prog="python -m bench.shingling", description=__doc__).parse_args()
    print("| texts | median characters | shingles | median per row | rows with < 3 | one word in | pairs 0.3 to 0.8, per million |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, texts, spaced in corpora():
        length = statistics.median(map(len, texts))
        for way, shingling in WAYS.items():
            sets = [shingling(text) for text in texts]
            few = sum(len(each) < 3 for each in sets) / len(sets)
            kept = (
                every
                for every in EVERY
                if statistics.median(_jaccard(own, shingling(_changed(text, every, spaced))) for own, text in zip(sets, texts, strict=True))
                >= 0.8
            )
            size = statistics.median(map(len, sets))
            print(f"| {name} | {length:.0f} | {way} | {size:.0f} | {few:.1%} | {next(kept, '–')} | {_alike(sets):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
