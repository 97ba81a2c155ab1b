"""From the judge's answers to figures: outcomes, win rates, marks, agreement with people. What could not be read is counted."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from evaluate import contests, judging
from evaluate.contests import TIE, TUNED, UNREADABLE
from evaluate.judging import Ask, Bench
from evaluate.metrics import mean_difference
from evaluate.statistics import bootstrap, wilson

READ = 6  # judgements shown on the page
Labels = Mapping[Any, tuple[Any, str]]  # by contest or mark: what people said, and the hash of the answers they said it of
Marks = Mapping[str, Mapping[int, Mapping[str, int]]]  # by system, item and criterion


def _said(bench: Bench, wanted: Sequence[Ask]) -> Iterator[tuple[Ask, dict[str, Any] | None]]:
    yield from zip(wanted, bench.answers.get([ask.key for ask in wanted]), strict=True)


def pairwise(
    bench: Bench, chosen: Sequence[int], wanted: Sequence[Ask], others: Sequence[str], labels: Labels | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of every contest, and judgements for the page."""
    words: dict[tuple[int, str], list[str | None]] = {}
    counts, cut = Counter[str](), 0
    for ask, entry in _said(bench, wanted):
        winner = None if entry is None else judging.read_winner(entry["answer"])
        if entry is not None:
            counts[winner or UNREADABLE] += 1
            cut += bool(entry["cut"]) and winner is None
        word = None if entry is None else UNREADABLE if winner is None else {"A": ask.systems[0], "B": ask.systems[1]}.get(winner, TIE)
        other = next(name for name in ask.systems if name != TUNED)
        words.setdefault((ask.at, other), []).append(word)
    decided = counts["A"] + counts["B"]
    figures: dict[str, Any] = {
        "unreadable": counts[UNREADABLE],
        "unreadable_cut": cut,
        "first_shown_won": asdict(wilson(counts["A"], decided)),  # a half, if the order means nothing to the judge
        "against": {},
    }
    outcomes: dict[tuple[int, str], str] = {}
    for other in others:
        found = {at: _outcome(words.get((at, other), [TIE, TIE])) for at in chosen}  # never asked: the answers are the same
        known = {at: outcome for at, outcome in found.items() if outcome is not None}
        outcomes |= {(at, other): outcome for at, outcome in known.items()}
        groups = [bench.questions.items[at].group for at in known]
        figures["against"][other] = contests.win_rate(list(known.values()), other, groups, bench.seed, bench.resamples) | {
            "same_answers": sum(bench.same(at, other) for at in chosen),
            "inconsistent": sum(len(set(words.get((at, other), [])) - {UNREADABLE}) > 1 for at in known),
            "unreadable": sum(outcome == UNREADABLE for outcome in known.values()),
            "unanswered": len(chosen) - len(known),
            "people": None if labels is None else _people(bench, known, other, labels),
        }
    return figures, _to_be_read(bench, wanted, outcomes)


def _outcome(words: Sequence[str | None]) -> str | None:
    """Of the same pair in two orders: the word both give, a tie where they differ, unreadable where either is; None if one is missing."""
    if None in words:
        return None
    return UNREADABLE if UNREADABLE in words else words[0] if len(set(words)) == 1 else TIE


def _people(bench: Bench, outcomes: Mapping[int, str], other: str, labels: Labels) -> dict[str, Any]:
    """How far the judge agrees with the labels. A label for other answers than these says nothing and is counted as stale."""
    pairs, stale = [], 0
    for at, outcome in outcomes.items():
        winner, answers = labels.get((bench.questions.items[at].id, other), ("", ""))
        said = contests.answers_hash(*(str(bench.rows[name][at]["output"]) for name in (TUNED, other)))
        if winner:
            stale += answers not in ("", said)
            pairs += [(outcome, winner)] if answers in ("", said) else []
    return contests.agreement(pairs, (TUNED, other, TIE, UNREADABLE)) | {"stale": stale}


def _to_be_read(bench: Bench, wanted: Sequence[Ask], outcomes: Mapping[tuple[int, str], str]) -> list[dict[str, Any]]:
    """Judgements for the page: against the base, losses first, then wins, in the order of the items."""
    asked: dict[tuple[int, str], list[Ask]] = {}
    for ask in wanted:
        asked.setdefault((ask.at, next(name for name in ask.systems if name != TUNED)), []).append(ask)
    rank = {"base": 0, TIE: 2, TUNED: 1, UNREADABLE: 3}
    order = sorted((key for key in asked if key[1] == "base" and key in outcomes), key=lambda key: (rank[outcomes[key]], key[0]))
    found = []
    for at, other in order[:READ]:
        reasons = [judging.read_reason(bench.answers[ask.key]["answer"]) for ask in asked[at, other]]
        found.append({"at": at, "other": other, "outcome": outcomes[at, other], "reasons": reasons})
    return found


def rubric(bench: Bench, wanted: Sequence[Ask], systems: Sequence[str], labels: Labels | None) -> dict[str, Any]:
    """Mean marks of every system, and by how much the tuned model's are higher."""
    marks: dict[str, dict[int, dict[str, int]]] = {name: {} for name in systems}
    unreadable, cut = Counter[str](), 0
    for ask, entry in _said(bench, wanted):
        scores = None if entry is None else judging.read_scores(entry["answer"], list(bench.criteria), bench.judge.scale)
        if scores is not None:
            marks[ask.systems[0]][ask.at] = scores
        elif entry is not None:
            unreadable[ask.systems[0]] += 1
            cut += bool(entry["cut"])
    figures: dict[str, Any] = {"unreadable": sum(unreadable.values()), "unreadable_cut": cut, "scale": bench.judge.scale, "systems": {}}
    for name in systems:
        each = {criterion: _mean(bench, marks[name], partial(_mark, criterion)) for criterion in bench.criteria}
        figures["systems"][name] = {"unreadable": unreadable[name], "criteria": each, "mean": _mean(bench, marks[name], _middle)}
    figures["against"] = {other: _lead(bench, marks, unreadable, other) for other in systems if other != TUNED}
    figures["people"] = None if labels is None else {name: _marks_of_people(bench, marks, name, labels) for name in bench.criteria}
    return figures


def _mark(criterion: str, scores: Mapping[str, int]) -> float:
    return float(scores[criterion])


def _middle(scores: Mapping[str, int]) -> float:
    return sum(scores.values()) / len(scores)


def _mean(bench: Bench, marks: Mapping[int, Mapping[str, int]], value: Callable[[Mapping[str, int]], float]) -> dict[str, Any]:
    return asdict(bootstrap([value(each) for each in marks.values()], bench.seed, bench.resamples, _groups(bench, list(marks))))


def _groups(bench: Bench, items: Sequence[int]) -> list[str] | None:
    groups = [bench.questions.items[at].group for at in items]
    return groups if len(set(groups)) < len(groups) else None


def _lead(bench: Bench, marks: Marks, unreadable: Mapping[str, int], other: str) -> dict[str, Any]:
    """Mean of all criteria, tuned minus other, on the items that the judge scored for both; `if_unreadable` are the lowest and highest
    mean there could be, had it scored the others too."""
    both = [at for at in marks[TUNED] if at in marks[other]]
    gap = np.array([_middle(marks[TUNED][at]) - _middle(marks[other][at]) for at in both])
    found = mean_difference(gap, _groups(bench, both), True, bench.seed, bench.resamples)
    most, lost = bench.judge.scale - 1, unreadable[TUNED] + unreadable[other]
    ends = [(float(gap.sum()) + side * most * lost) / max(len(both) + lost, 1) for side in (-1, 1)]
    return asdict(found) | {"items": len(both), "if_unreadable": ends if lost else None}


def _marks_of_people(bench: Bench, marks: Marks, criterion: str, labels: Labels) -> dict[str, Any]:
    """Agreement on one criterion, over all systems; a mark is a place on a scale."""
    pairs, stale = [], 0
    for name, scored in marks.items():
        for at, scores in scored.items():
            score, answers = labels.get((bench.questions.items[at].id, name, criterion), (0, ""))
            fresh = answers in ("", contests.answers_hash(str(bench.rows[name][at]["output"])))
            stale += bool(score) and not fresh
            pairs += [(str(scores[criterion]), str(score))] if score and fresh else []
    return contests.agreement(pairs, [str(each) for each in range(1, bench.judge.scale + 1)], ordered=True) | {"stale": stale}
