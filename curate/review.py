"""Lets every row through as reviewers left it: kept, relabelled or edited; stays behind: rows that they dropped (`reviewed`).

The decisions stand in data/decisions.jsonl (`curate/decisions.py`); of each row the one in force is applied, by id. Not applied are
decisions about another content than the row has now (`seen`), edits that do not fit the row, and decisions whose row is not here: the table
`decisions` and the counts tell which. A row that reviewers keep, relabel or edit gets a mark in `meta`: dedup_semantic, the one later stage
that drops on likeness alone, then lets it through. Nothing excuses a row from decontaminate, split or leakage.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import decisions, record
from curate.decisions import Decision, Settled
from curate.params import params_class
from curate.preference import REVIEWED
from curate.stage import Outcome, Plan, Stage, main, say

STATES = ("applied", "changed", "unfit", "vanished")
WHY = {
    "applied": "",
    "changed": "The row has another text or label than the reviewer saw. Look at it again.",
    "unfit": "The edit does not fit the row: another kind of conversation, or roles in another order. Edit it again.",
    "vanished": "No row has this id here: an earlier stage dropped it, or its raw row has changed or gone.",
}
TABLE: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "action": pl.String(),
    "label": pl.String(),  # the new one, where there is one
    "reviewer": pl.String(),
    "time": pl.String(),
    "reason": pl.String(),
    "differ": pl.String(),  # reviewers whose standing decision says something else, or null
    "state": pl.String(),  # one of STATES
    "detail": pl.String(),  # what to do, where it was not applied
}


@params_class
class Params:
    """`params.yaml: review`."""

    enabled: bool
    decisions: str
    approvals: str  # this and the next are for training: see curate/approvals.py
    required: bool


@dataclass(frozen=True)
class Context:
    """The decision in force of each id; and, after the plan, ids of rows that are to be changed or marked."""

    settled: Mapping[str, Settled]
    applied: frozenset[str] = field(default_factory=frozenset)


def prepare(params: Params) -> Context:
    """Read the decisions. Raises InputError that names the line that is wrong."""
    return Context(decisions.settled(decisions.read(Path(params.decisions))))


def survey(batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """Of each row its id; of a row that is decided on, also the hash of its content and whether the decision fits it."""
    seen: list[str | None] = [None] * batch.height
    fits = [True] * batch.height
    for at, row in _decided(batch, context.settled):
        seen[at], fits[at] = decisions.seen(row), _fits(context.settled[row["id"]].decision, row)
    return batch.select("id").with_columns(pl.Series("seen", seen, dtype=pl.String), pl.Series("fits", fits, dtype=pl.Boolean))


def _decided(batch: pl.DataFrame, wanted: Mapping[str, Any] | frozenset[str]) -> list[tuple[int, dict[str, Any]]]:
    """(position, row) of the rows of a batch whose id is in `wanted`."""
    if not wanted:
        return []
    places = [at for at, each in enumerate(batch["id"].to_list()) if each in wanted]
    return list(zip(places, batch[places].to_dicts(), strict=True))


def _fits(decision: Decision, row: Mapping[str, Any]) -> bool:
    """Whether an edit has the roles of the row, in order, or leaves turns out at its end and ends with the same role."""
    pairs = [(decision.messages, row["messages"]), (decision.rejected, row["rejected"])]
    return all(new is None or _alike([turn.role for turn in new], [turn["role"] for turn in old or ()]) for new, old in pairs)


def _alike(new: list[str], old: list[str]) -> bool:
    return bool(old) and old[: len(new)] == new and new[-1] == old[-1]


def plan(narrow: pl.DataFrame, params: Params, context: Context) -> Plan:
    """Drop what reviewers dropped; table `decisions`: every decision in force, and what became of it."""
    rows = narrow.with_row_index("row").filter(pl.col("seen").is_not_null())
    states = dict.fromkeys(context.settled, "vanished")
    gone: list[tuple[int, str, str, str]] = []
    for row in rows.iter_rows(named=True):
        decision = context.settled[row["id"]].decision
        state = "changed" if row["seen"] != decision.seen else "applied" if row["fits"] else "unfit"
        states[row["id"]] = state
        if state == "applied" and decision.action == "drop":
            gone.append(
                (row["row"], "reviewed", f"Dropped by a reviewer, {decision.reviewer}, on {decision.time[:10]}.", _evidence(decision))
            )
    counts: Counter[str] = Counter({f"decisions_{state}": 0 for state in STATES})
    counts.update(f"decisions_{state}" for state in states.values())
    counts.update(f"applied_{context.settled[each].decision.action}" for each, state in states.items() if state == "applied")
    counts["decisions_differ"] = sum(bool(each.others) for each in context.settled.values())
    _say_what_was_not(counts)
    table = pl.DataFrame([_told(each, states[row]) for row, each in sorted(context.settled.items())], schema=TABLE)
    drop = pl.DataFrame(gone, schema={"row": pl.UInt32, "reason": pl.String, "detail": pl.String, "evidence": pl.String}, orient="row")
    applied = frozenset(row for row, state in states.items() if state == "applied")
    return Plan(drop, counts=counts, tables={"decisions": table}, context=Context(context.settled, applied))


def _evidence(decision: Decision) -> str:
    shown = {name: getattr(decision, name) for name in ("reviewer", "time", "reason", "note")}
    return orjson.dumps({name: value for name, value in shown.items() if value is not None}).decode()


def _told(each: Settled, state: str) -> dict[str, Any]:
    shown = {name: getattr(each.decision, name) for name in ("id", "source", "line", "action", "label", "reviewer", "time", "reason")}
    differ = ", ".join(sorted({other.reviewer for other in each.others})) or None
    return shown | {"differ": differ, "state": state, "detail": WHY[state]}


def _say_what_was_not(counts: Mapping[str, int]) -> None:
    not_applied = {state: counts[f"decisions_{state}"] for state in STATES if state != "applied" and counts[f"decisions_{state}"]}
    if not_applied:
        told = ", ".join(f"{count:,} {state}" for state, count in not_applied.items())
        say(f"review: decisions that were not applied: {told}. decisions.parquet in the output names them.")


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """The rows with their new labels and messages, and the mark in `meta`."""
    decided = _decided(batch, context.applied)
    if not decided:
        return Outcome(batch, record.empty(record.DROPPED))
    new = pl.DataFrame(
        [changed(row, context.settled[row["id"]].decision) for _, row in decided], schema=batch.schema
    )  # a row to be dropped is changed in vain
    places = [at for at, _ in decided]
    every = pl.concat(
        [batch.with_row_index("at").filter(~pl.col("at").is_in(places)), new.insert_column(0, pl.Series("at", places, pl.UInt32))]
    )
    return Outcome(every.sort("at").drop("at"), record.empty(record.DROPPED))


def changed(row: Mapping[str, Any], decision: Decision) -> dict[str, Any]:
    """The row as a decision other than drop leaves it. The id stays: it is that of the raw row."""
    new = dict(row)
    for name, turns in (("messages", decision.messages), ("rejected", decision.rejected)):
        if turns is not None:
            new[name] = [asdict(turn) for turn in turns]
    if decision.label is not None:
        new["label"] = decision.label
    if decision.action != "drop":
        new["meta"] = orjson.dumps(orjson.loads(row["meta"] or "{}") | {REVIEWED: decision.action}).decode()
    return new


STAGE = Stage("review", Params, prepare=prepare, survey=survey, plan=plan, rows=rows, planned=lambda params: True)

if __name__ == "__main__":
    main(STAGE)
