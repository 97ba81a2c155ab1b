"""Who won, item by item: win rates, how far two raters agree, and the file of labels that people gave.

A *contest* is two systems' answers to one item, named by the item's id and by the system that the tuned model is held against. Its outcome
is `tuned`, the other system's name, `tie`, or `unreadable` (a judge whose answer made no sense: no side wins, and it is counted).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from curate.record import InputError
from evaluate import spreadsheets
from evaluate.metrics import binary_difference
from evaluate.statistics import Interval, kappa, wilson

TUNED, TIE, UNREADABLE = "tuned", "tie", "unreadable"
COLUMNS = ("id", "against", "winner", "answers")
MARK_COLUMNS = ("id", "system", "criterion", "score", "answers")
SHOWN = 8  # faults of a file that are named before the rest is only counted


def win_rate(outcomes: Sequence[str], other: str, groups: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    """Wins, losses and ties of the tuned model against `other`, the win rate (a tie is half a win), its interval, p and the word.

    Winning and losing are two shares of the same items, so that the interval is Newcombe's and the test McNemar's (here the sign test), or
    the bootstrap and the sign-flip test over groups where a group has more than one item.
    """
    won, lost = (np.array([each == name for each in outcomes], dtype=np.float64) for name in (TUNED, other))
    clustered = list(groups) if len(set(groups)) < len(groups) else None
    found = binary_difference(lost, won, clustered, seed, resamples)
    rate = found.difference
    return {
        "items": len(outcomes),
        "wins": int(won.sum()),
        "losses": int(lost.sum()),
        "ties": sum(each in (TIE, UNREADABLE) for each in outcomes),
        "win_rate": asdict(Interval(0.5 + rate.value / 2, 0.5 + rate.low / 2, 0.5 + rate.high / 2, rate.n)),
        "lead": asdict(rate),  # share won minus share lost
        "p": found.p,
        "verdict": found.verdict,
        "detectable": None if found.detectable is None else found.detectable / 2,  # of the win rate
    }


def agreement(pairs: Sequence[tuple[str, str]], words: Sequence[str], ordered: bool = False) -> dict[str, Any]:
    """How far two raters agree on the same items: `pairs` of their words, all of `words`. The table has the first rater's words as rows."""
    place = {word: at for at, word in enumerate(words)}
    table = np.zeros((len(words), len(words)), dtype=np.int64)
    for first, second in pairs:
        table[place[first], place[second]] += 1
    return {
        "items": len(pairs),
        "raw": asdict(wilson(int(np.trace(table)), len(pairs))),
        "kappa": asdict(kappa(table, ordered)),
        "words": list(words),
        "table": table.tolist(),
    }


def answers_hash(*answers: str) -> str:
    """What ties a label to the answers it was given for: after another training the same item has others.

    It begins with a letter: a spreadsheet would round a hash of digits alone.
    """
    return "h" + xxhash.xxh3_64_hexdigest("\0".join(answers).encode("utf-8", errors="surrogatepass"))


def write_labels(path: Path, labels: Iterable[tuple[str, str, str, str]]) -> None:
    """A file of labels: id, against, winner, hash of the answers."""
    spreadsheets.write(path, COLUMNS, [list(each) for each in labels])


def read_labels(path: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """By (id, against): winner and hash of the answers (empty where the file has none). Winner is `tuned`, the other system, or `tie`.

    Raises InputError that names the rows at fault.
    """
    rows = spreadsheets.read(path, COLUMNS[:3])
    found: dict[tuple[str, str], tuple[str, str]] = {}
    faults = []
    for number, row in rows:
        against, winner = row["against"].strip(), row["winner"].strip().lower()
        key = (row["id"].strip(), against)
        if winner not in (TUNED, against, TIE):
            faults.append(f"row {number}: winner '{winner[:40]}' is none of {TUNED}, {against}, {TIE}")
        elif key in found:
            faults.append(f"row {number}: item {key[0]} against {against} has a label already")
        found[key] = (winner, row.get("answers", "").strip())
    refuse(path, faults)
    return found


def read_marks(path: Path, criteria: Sequence[str], scale: int) -> dict[tuple[str, str, str], tuple[int, str]]:
    """By (id, system, criterion): the score that people gave and the hash of the answer.

    Raises InputError that names the rows at fault.
    """
    found: dict[tuple[str, str, str], tuple[int, str]] = {}
    faults = []
    for number, row in spreadsheets.read(path, MARK_COLUMNS[:4]):
        key, score = (row["id"].strip(), row["system"].strip(), row["criterion"].strip()), row["score"].strip()
        if key[2] not in criteria:
            faults.append(f"row {number}: criterion '{key[2][:40]}' is none of {', '.join(criteria)}")
        elif score not in [str(each) for each in range(1, scale + 1)]:
            faults.append(f"row {number}: score '{score[:40]}' is no whole number from 1 to {scale}")
        elif key in found:
            faults.append(f"row {number}: item {key[0]}, {key[1]}, {key[2]} has a score already")
        else:
            found[key] = (int(score), row.get("answers", "").strip())
    refuse(path, faults)
    return found


def refuse(path: Path, faults: Sequence[str]) -> None:
    """Raises InputError if there are any faults, naming the first few."""
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise InputError(f"{path}: mend these rows and give the file again:\n  " + "\n  ".join(faults[:SHOWN]) + more)


def counted(outcomes: Mapping[Any, str]) -> dict[str, int]:
    """How often each outcome came, in alphabetical order."""
    values = list(outcomes.values())
    return {word: values.count(word) for word in sorted(set(values))}
