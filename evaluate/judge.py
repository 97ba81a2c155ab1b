"""A language model as a judge: which of two answers is better, or how good each is, through an OpenAI-compatible server.

Pairwise, each pair is asked in both orders; a judge that changes its mind with the order has found no difference (a tie, and counted as
inconsistent). Source of both: L. Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, NeurIPS 2023, sections 3.3 and 3.4.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.record import StageFailure
from curate.stage import Progress, say
from evaluate import contests, endpoint, judgements, judging
from evaluate.ask import Questions, Row
from evaluate.asked_once import Answers
from evaluate.contests import TUNED
from evaluate.endpoint import FAILED_SHARE, Refused, Unreachable
from evaluate.holdout import by_hash
from evaluate.judging import Ask, Bench, Judge

AGAINST = ("base", "previous")  # what the tuned model is held against, where it is there
ONE_ITEM = (400, 413, 422)  # HTTP: this request is wrong, such as a prompt longer than the judge can see; any other refusal stops the run
ALL_REFUSED = 4  # that many at the start, and it is not for the item


@dataclass(frozen=True)
class Judged:
    """What the judge said of everything: figures for the report, judgements to be read, and the answers used (by key)."""

    figures: dict[str, Any]
    read: list[dict[str, Any]]
    answers: Answers
    keys: list[str]


def run(judge: Judge, questions: Questions, rows: Mapping[str, Sequence[Row]], answers: Answers, seed: int, resamples: int) -> Judged:
    """Have the answers judged: tuned against base and previous, on at most `judge.items` items, chosen by hash.

    Raises InputError (the server refuses, or a file of criteria or labels is at fault), StageFailure (no server, or most questions failed);
    what was answered until then is kept, and the next run goes on from there.
    """
    bench = Bench(judge, judging.criteria_of(judge), questions, rows, answers, seed, resamples)
    systems = [name for name in (TUNED, *AGAINST) if name in rows]
    answered = [at for at in questions.chosen if all(rows[name][at]["output"] is not None for name in systems)]
    taken = by_hash([questions.items[at].id for at in answered], judge.items)
    chosen = [at for place, at in enumerate(answered) if place in taken]
    marks = None if judge.labels is None else _labels(judge, bench.criteria)  # a faulty file is told before anything is paid for
    wanted = _pairs(bench, chosen, systems) if judge.mode == "pairwise" else [bench.ask(at, (name,)) for name in systems for at in chosen]
    troubles = _ask_all(bench, wanted)
    figures: dict[str, Any] = {
        "mode": judge.mode,
        "model": judge.server.model,
        "prompt": bench.version,
        "criteria": list(bench.criteria),
        "reference": judge.reference,
        "items": len(chosen),
        "asked": len(wanted),
        "unanswered": sum(ask.key not in answers for ask in wanted),
        "refused": troubles,
    }
    if judge.mode == "pairwise":
        found, read = judgements.pairwise(bench, chosen, wanted, [name for name in systems if name != TUNED], marks)
    else:
        found, read = judgements.rubric(bench, wanted, systems, marks), []
    return Judged(figures | found, read, answers, [ask.key for ask in wanted])


def _labels(judge: Judge, criteria: Mapping[str, str]) -> Mapping[Any, tuple[Any, str]]:
    assert judge.labels is not None
    if judge.mode == "pairwise":
        return contests.read_labels(Path(judge.labels))
    return contests.read_marks(Path(judge.labels), list(criteria), judge.scale)


def _pairs(bench: Bench, chosen: Sequence[int], systems: Sequence[str]) -> list[Ask]:
    """Both orders of every pair whose answers differ; of two that are the same neither is better, whatever a judge would say."""
    differ = [(other, at) for other in systems if other != TUNED for at in chosen if not bench.same(at, other)]
    return [bench.ask(at, order) for other, at in differ for order in ((TUNED, other), (other, TUNED))]


def _ask_all(bench: Bench, wanted: Sequence[Ask]) -> int:
    """Ask what was never asked, a batch at a time; returns how many questions the server would not take."""
    server, counts = bench.judge.server, Counter[str]()
    new = list({ask.key: ask for ask in wanted if ask.key not in bench.answers}.values())
    say(f"evaluate: judge: {len(wanted):,} questions, {len(wanted) - len(new):,} of them answered already, in {bench.answers.path}")
    progress, refused = Progress("evaluate (judge)", len(new)), 0

    def one(ask: Ask) -> dict[str, Any] | Refused | None:
        body = bench.body(ask.at, ask.systems)
        try:
            made = endpoint.post(server, "/chat/completions", body, _read, counts, "evaluate.judge.server")
        except Refused as error:
            if error.code not in ONE_ITEM:
                raise
            return error
        return None if made is None else {"key": ask.key, "request": body, **made}

    try:
        with ThreadPoolExecutor(server.parallel) as pool:
            for at in range(0, len(new), server.parallel):
                made = list(pool.map(one, new[at : at + server.parallel]))
                bench.answers.add([each for each in made if isinstance(each, dict)])
                no = [each for each in made if isinstance(each, Refused)]
                refused += len(no)
                if no and refused == at + len(made) >= min(len(new), ALL_REFUSED):  # a wrong model or setting, not one long item
                    raise no[0]
                progress.add(len(made))
    except Unreachable as error:
        raise StageFailure(
            f"evaluate.judge: {error}. Start it, or set evaluate.judge: null. Judgements so far are kept: run again and it goes on."
        ) from None
    finally:
        progress.done()
        if counts:
            say(f"evaluate: judge: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    missing = sum(ask.key not in bench.answers for ask in wanted)
    if missing > FAILED_SHARE * len(wanted):
        raise StageFailure(
            f"evaluate.judge: {missing} of {len(wanted)} questions to {server.url} got no answer, in spite of {server.retries} retries "
            f"({refused} were refused: longer than the judge can see?). The others are kept: run again and it goes on."
        )
    return refused


def _read(answer: Any) -> dict[str, Any]:
    """Text, and whether it was cut. Raises KeyError, IndexError or TypeError if the answer is not what the API promises."""
    choice = answer["choices"][0]
    return {"answer": str(choice["message"]["content"] or ""), "cut": choice.get("finish_reason") == "length"}
