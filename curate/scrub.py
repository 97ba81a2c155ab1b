"""Lets every row through without its personal data and secrets; stays behind: rows that could not be searched (`scrub_failed`).

Searched are the messages of both fields, their `extra`, and every value in `meta`; a `group` that holds a finding becomes a token.
`source`, `line` and `label` stay as they are. `findings.parquet` says where something was found, never what; `leaklist.parquet` holds keyed
hashes of what was replaced; `residual.parquet` what a second, independent search of the output came upon.

With surrogates there are two passes: the first learns which values the data hold, so that no fake is one of them, and which rows have
findings; the second searches those alone.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from curate import record
from curate.pii import canaries, engine, leaklist, ner, residual, settings
from curate.pii.conversation import carried, mentions, replace_in
from curate.pii.engine import Finding, find_many
from curate.pii.keys import key
from curate.pii.linking import FACT, facts_of, learnt
from curate.pii.replace import Mention, Replacer, group_token
from curate.pii.settings import ScrubParams
from curate.pii.slots import Slot, clipped, language_of, rebuilt, slots
from curate.pii.surrogates import NOTHING, Known, hashes_of
from curate.record import FineryError
from curate.stage import Outcome, Plan, Stage, drop, main, write_whole
from curate.store import write_parquet

Params = ScrubParams

FINDINGS: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "field": pl.String(),  # messages, messages.extra, rejected, rejected.extra, meta, group
    "turn": pl.UInt32(),  # position of the message; null for meta and group
    "slot": pl.UInt32(),  # position of the text among all texts of the row; null for group
    "entity": pl.String(),
    "recognizer": pl.String(),
    "score": pl.Float64(),
    "start": pl.Int64(),  # characters, in the text before scrub (of meta and extra: in the one value)
    "end": pl.Int64(),
}


def prepare(params: ScrubParams) -> Known:
    """Stops before the first row if the key or the NER model is missing."""
    key(params)
    ner.load(params.ner)
    return NOTHING


class Unsearched(FineryError):
    """A recognizer raised: the name of its exception."""


@dataclass(frozen=True)
class _Searched:
    """A row's texts with what was found in them, carried through the conversation; `group`: what was found in that."""

    slots: list[Slot]
    found: list[tuple[Finding, ...]]
    group: tuple[Finding, ...]
    row: dict[str, Any]
    texts: list[str]
    mentions: list[Mention]

    @property
    def values(self) -> list[Mention]:
        """With those of the group."""
        return self.mentions + [(each.entity, self.row["group"][each.start : each.end]) for each in self.group]


class _Search:
    """Searches the given rows of one batch, all their texts at once; no distinct text of a language twice."""

    def __init__(self, rows: list[dict[str, Any]], params: ScrubParams) -> None:
        languages: dict[str | None, dict[str, None]] = {}
        for row in rows:
            texts = languages.setdefault(language_of(row), {})
            texts.update((slot.text, None) for slot in slots(row))
            if row["group"]:
                texts[row["group"]] = None
        self.known: dict[tuple[str | None, str], tuple[Finding, ...] | Exception] = {}
        for language, several in languages.items():
            found = find_many(list(several), params, language)
            self.known.update(((language, text), each) for text, each in zip(several, found, strict=True))

    def _text(self, language: str | None, text: str) -> tuple[Finding, ...]:
        found = self.known[language, text]
        if isinstance(found, Exception):  # any recognizer, any fault: the row goes, with the reason
            raise Unsearched(type(found).__name__)
        return found

    def row(self, row: dict[str, Any]) -> _Searched | None:
        """None if nothing was found. Raises Unsearched."""
        texts, language = slots(row), language_of(row)
        raw = [clipped(self._text(language, slot.text), slot) for slot in texts]
        in_group = self._text(language, row["group"]) if row["group"] else ()
        if not any(raw) and not in_group:
            return None
        own = [slot.own for slot in texts]
        found = carried(own, raw)
        return _Searched(texts, found, in_group, row, own, mentions(own, found))


def survey(batch: pl.DataFrame, params: ScrubParams, context: Known) -> pl.DataFrame:
    """Per row: whether it has findings (or could not be searched), keyed hashes of them, and facts about persons. Never a value."""
    every = list(batch.iter_rows(named=True))
    search, secret = _Search(every, params), key(params)
    hits: list[bool] = []
    seen: list[list[int]] = []
    facts: list[list[dict[str, Any]]] = []
    for row in every:
        try:
            found = search.row(row)
        except Unsearched:
            hits.append(True)
            seen.append([])
            facts.append([])
            continue
        hits.append(found is not None)
        values = found.values if found else []
        seen.append(sorted({each for entity, value in values for each in hashes_of(entity, value, secret, params.phone_regions)}))
        facts.append(facts_of(values, secret))
    schema = {"hit": pl.Boolean(), "seen": pl.List(pl.UInt64()), "facts": pl.List(FACT)}
    return pl.DataFrame({"hit": hits, "seen": seen, "facts": facts}, schema=schema)


def plan(narrow: pl.DataFrame, params: ScrubParams, context: Known) -> Plan:
    """No drops; the context of `rows`: what all rows hold."""
    seen = narrow["seen"].explode(empty_as_null=False, keep_nulls=False).unique().sort().to_numpy()
    return Plan(context=Known(np.asarray(seen, np.uint64), learnt(narrow["facts"]), narrow["hit"].to_numpy()))


@dataclass
class _Batch:
    """What becomes of the rows of one batch."""

    changed: dict[int, dict[str, Any]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    findings: list[tuple[Any, ...]] = field(default_factory=list)
    values: set[Mention] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=lambda: Counter({"ner": 0, "rows_changed": 0}))


def rows(batch: pl.DataFrame, params: ScrubParams, context: Known) -> Outcome:
    """The rows with their findings replaced, and the tables and counts that say so."""
    hits = [(at, row) for at, row in enumerate(batch.iter_rows(named=True)) if not len(context.hits) or context.hits[row["row"]]]
    search, done = _Search([row for _, row in hits], params), _Batch()
    for at, row in hits:
        try:
            found = search.row(row)
        except Unsearched as error:
            done.failed[at] = f"{error} while this row was searched for personal data."
            continue
        if found is not None:
            _replace(at, found, params, context, done)
    done.counts["ner"] = len(search.known) if params.ner else 0
    kept = _with_changes(batch, done)
    tables = {"findings": pl.DataFrame(done.findings, schema=FINDINGS, orient="row"), "leaklist": _leaks(done.values, params)}
    if params.residual:
        allow = frozenset(each.strip().casefold() for each in params.allow)
        counts, tables["residual"] = residual.residual(kept, allow, done.made)
        done.counts.update(counts)
    added = 0
    if params.canaries and batch.height and batch["row"][0] == 0:
        tables["canaries"] = canaries.canaries(params.canaries, key(params))
        planted = canaries.as_rows(tables["canaries"])
        added = planted.height
        kept = pl.concat([_beside(planted, kept), kept])
    return Outcome(kept, _failed_rows(batch, done.failed), added=added, counts=done.counts, tables=tables)


def _replace(at: int, found: _Searched, params: ScrubParams, context: Known, done: _Batch) -> None:
    """The row as it goes on, into `done`."""
    row, texts = found.row, found.texts
    replacer = Replacer(params, texts, found.mentions, context)
    new = iter([replace_in(text, each, replacer) for text, each in zip(texts, found.found, strict=True)])
    done.changed[at] = rebuilt(row, lambda _: next(new))
    if found.group:
        done.changed[at]["group"] = group_token(row["group"], params)
    own: list[tuple[Any, ...]] = [
        (slot.field, slot.turn, number, each.entity, each.recognizer, each.score, each.start, each.end)
        for number, (slot, several) in enumerate(zip(found.slots, found.found, strict=True))
        for each in several
    ]
    own += [("group", None, None, each.entity, each.recognizer, each.score, each.start, each.end) for each in found.group]
    done.findings += [(row["id"], row["source"], row["line"], *each) for each in own]
    done.counts.update(f"replaced.{each[3]}" for each in own)
    done.counts.update(f"rows_changed.{entity}" for entity in {each[3] for each in own})
    done.counts["rows_changed"] += 1
    done.values.update(found.values)
    done.made |= replacer.made


def _leaks(values: set[Mention], params: ScrubParams) -> pl.DataFrame:
    """The leak list of these values; empty without a key: hashes without one could be looked up."""
    secret = key(params)
    return leaklist.entries(sorted(values), leaklist.list_key(secret)) if secret else record.empty(leaklist.LEAKS)


def _beside(planted: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Canaries with the columns that a batch has besides the record's."""
    first = (
        kept.select("row", "split")[:1]
        if kept.height
        else pl.DataFrame({"row": [0], "split": [""]}, schema={"row": pl.UInt32, "split": pl.String})
    )
    return planted.with_columns(row=pl.lit(first["row"][0], pl.UInt32), split=pl.lit(first["split"][0], pl.String)).select(kept.columns)


def _with_changes(batch: pl.DataFrame, done: _Batch) -> pl.DataFrame:
    kept = batch.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at")).filter(~pl.col("at").is_in(list(done.failed)))
    if not done.changed:
        return kept.drop("at")
    new = pl.DataFrame([{**row, "at": at} for at, row in done.changed.items()], schema=kept.schema)
    return pl.concat([kept.filter(~pl.col("at").is_in(list(done.changed))), new]).sort("at").drop("at")


def _failed_rows(batch: pl.DataFrame, failed: Mapping[int, str]) -> pl.DataFrame:
    return drop(batch[list(failed)].with_columns(pl.Series("why", list(failed.values()), dtype=pl.String)), "scrub_failed", pl.col("why"))


def finish(out: Path, params: ScrubParams, metrics: Mapping[str, Any]) -> None:
    """`notice.json`: what was not searched for, and why (the report shows it). Tables that were joined over batches are put in order."""
    write_whole(out / "notice.json", orjson.dumps(notice(params), option=orjson.OPT_INDENT_2) + b"\n")
    if (out / "leaklist.parquet").exists():
        leaklist.unite(out / "leaklist.parquet")
    if (out / "residual.parquet").exists():
        write_parquet(residual.shortened(pl.read_parquet(out / "residual.parquet")), out / "residual.parquet")


def notice(params: ScrubParams) -> dict[str, Any]:
    """Entities that this run could not find: `not_searched` were asked for, `not_asked` were left out of scrub.entities."""
    if not params.enabled:
        return {
            "not_searched": list(settings.ENTITIES),
            "why": "scrub.enabled is false: nothing was searched or replaced.",
            "not_asked": [],
        }
    asked = settings.wanted(params)
    can = _searched(params)
    missing = [each for each in settings.ENTITIES if each in asked and each not in can]
    why = ""
    if missing and params.ner is None:
        why = "These need a language model, and scrub.ner is null. Texts may still hold names of places, firms, and of people in no list."
    elif missing:
        why = "The model in scrub.ner has no label for these."
    return {"not_searched": missing, "why": why, "not_asked": [each for each in settings.ENTITIES if each not in asked]}


def _searched(params: ScrubParams) -> frozenset[str]:
    if params.ner is None:  # known without loading anything
        return settings.wanted(params) - (frozenset(settings.NAMES) - {"PERSON"})
    return engine.analyzer(params).entities


STAGE = Stage(
    "scrub",
    Params,
    rows=rows,
    prepare=prepare,
    survey=survey,
    plan=plan,
    planned=lambda params: params.replace == "surrogate",
    finish=finish,
)

if __name__ == "__main__":
    if "--audit" in sys.argv:
        from curate.pii.audit import main as audit

        audit(sys.argv[1:])
    else:
        main(STAGE)
