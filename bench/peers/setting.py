"""What all peers share: the setting of the comparison, and the word n-grams for libraries that leave them to the caller.

Standard library only: this file is also imported in the peers' own environments, where nothing of Finery is.
"""

import os
from pathlib import Path

WORDS = 3  # words of a shingle
THRESHOLD = 0.8
PERMUTATIONS = 128
BANDS = 16
PROCESSES = os.cpu_count() or 1  # for tools that take a number of processes


def shingles(text: str) -> list[str]:
    """The word n-grams of a text, lower case, split at white space, repeats included. A shorter text is one shingle.

    >>> shingles("A rose is a rose")
    ['a rose is', 'rose is a', 'is a rose']
    """
    words = text.lower().split()
    if len(words) < WORDS:
        return [" ".join(words)]
    return list(map(" ".join, zip(*(words[at:] for at in range(WORDS)), strict=False)))


def part_paths(folder: str) -> list[str]:
    """The parquet files of an input folder, in order."""
    return [str(path) for path in sorted(Path(folder).glob("*.parquet"))]
