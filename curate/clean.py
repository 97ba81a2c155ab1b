"""Lets through rows fit for training, their texts repaired; stays behind: rows without content, out of order, cut off, refused, foreign.

First every text of a row is repaired (`curate/repairs.py`), then the filters look at the row in the order of `_filters`; the first one
that objects names the reason. Ids stay those of the content as ingested. Every knob is described in docs/cleaning.md.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import polars as pl
from pydantic import Field

from curate import language, record, repairs, rules
from curate.params import params_class
from curate.repairs import RepairName
from curate.stage import Outcome, Stage, drop, main

MAX_ROUNDS = 8  # nothing real needs more than three; the limit only keeps a freak text from going round for ever
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


@params_class
class Chars:
    """Limits in characters; null for none."""

    answer: Count | None
    whole: Count | None


@params_class
class Repetition:
    """When a text repeats itself."""

    min_words: Count
    repeated_share: Share | None
    compressed_share: Share | None


@params_class
class Language:
    """When a text is surely in another language."""

    min_letters: Count
    max_probability: Share
    mixed: Literal["keep", "drop"]


@params_class
class Params:
    """`params.yaml: clean`. A filter that is null (or false) is off."""

    enabled: bool
    repairs: tuple[RepairName, ...]
    role_order: bool
    empty: bool
    too_short: Chars | None
    too_long: Chars | None
    no_preference: bool
    refusal_max_words: Count | None
    answer_copies_prompt: Annotated[float, Field(gt=0.5, le=1)] | None
    repetition: Repetition | None
    cut_off_min_words: Count | None
    languages: tuple[str, ...] | None
    language: Language

    def __post_init__(self) -> None:
        if self.languages is not None and not self.languages:
            raise ValueError("languages is an empty list; name at least one (`[en]`), or write null to keep every language")
        for name in ("answer", "whole"):
            low, high = getattr(self.too_short, name, None), getattr(self.too_long, name, None)
            if low is not None and high is not None and low > high:
                raise ValueError(f"too_short.{name} = {low} is above too_long.{name} = {high}; no row could pass")


def prepare(params: Params) -> None:
    """Checks that the model knows the languages asked for. Raises ParamsError naming the one that it does not."""
    unsure = [name for name in params.languages or () if name != "en"]  # which needs no look at the model, and that saves loading it here
    if unsure:
        known = language.known_languages()
        for name in unsure:
            if name not in known:
                raise record.ParamsError(f"clean.languages: unknown language '{name}'. Known here (ISO 639): {', '.join(known)}.")


def rows(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    """The batch with its texts repaired, and without the rows that a filter objects to."""
    repaired, changed = repair(batch, params)
    seen = rules.facts(repaired)
    left, hits = seen, list[tuple[str, rules.Hit]]()
    for reason, find in _filters(params):
        found = find(left)
        hits += [(reason, hit) for hit in found]
        left = left.filter(~pl.col("at").is_in([hit.at for hit in found])) if found else left
    counts = {f"repaired_{name}": len(at) for name, at in changed.items()}
    return Outcome(repaired[left["at"]], _as_dropped(repaired, hits), counts=counts, tables={"repaired": _repaired(batch, changed)})


def _repaired(batch: pl.DataFrame, changed: dict[str, list[int]]) -> pl.DataFrame:
    """The table `repaired`: a row for each row and repair that changed it, dropped rows too."""
    each = [batch[at].select("id", "source", "line", pl.lit(name).alias("repair")) for name, at in changed.items()]
    return pl.concat([batch.head(0).select("id", "source", "line", pl.lit("").alias("repair")), *each])


def repair(batch: pl.DataFrame, params: Params) -> tuple[pl.DataFrame, dict[str, list[int]]]:
    """Every text repaired in the order of `repairs.REPAIRS`, and by name the positions of the rows that each one changed.

    One repair can uncover work for another (`&amp;nbsp;`, or mojibake with a zero-width space inside), so texts that changed go round
    again until they do not.
    """
    flat = record.texts(batch)
    row, content = flat["at"], flat["content"]
    chosen = [each for each in repairs.REPAIRS if each.name in params.repairs]
    rows_changed: dict[str, set[int]] = {each.name: set() for each in chosen}
    active = pl.int_range(flat.height, dtype=pl.UInt32, eager=True)
    for _ in range(MAX_ROUNDS):
        before, odd = content, None
        for each in chosen:
            among = active
            if each.name == "html":
                among = _no_markup_rows(row, content, active, each.needed)
            elif each.odd:
                odd = among = repairs.where(content, active, repairs.ODD) if odd is None else odd
            content, changed = repairs.apply(content, each, among)
            rows_changed[each.name].update(row.gather(changed))
        active = active.filter(before.gather(active).ne_missing(content.gather(active)))
        if not len(active):
            break
    repaired = record.with_texts(batch, flat.with_columns(content.alias("content"))) if any(rows_changed.values()) else batch
    return repaired, {name: sorted(at) for name, at in rows_changed.items()}


def _no_markup_rows(row: pl.Series, content: pl.Series, active: pl.Series, needed: pl.Expr) -> pl.Series:
    """The messages of `active` with tags whose row, in no message, speaks of markup or holds a page: there tags are content."""
    tagged = repairs.where(content, active, needed)
    suspects = row.is_in(row.gather(tagged).unique().implode()).arg_true()
    speaking = repairs.where(content, suspects, repairs.TEXT.str.contains(repairs.ABOUT_MARKUP))
    return tagged.filter(~row.gather(tagged).is_in(row.gather(speaking).unique().implode()))


def _filters(params: Params) -> tuple[tuple[str, Callable[[pl.DataFrame], list[rules.Hit]]], ...]:
    """The filters that are on, as (reason, function), cheap and sure ones first."""
    p, short, long, repeats = params, params.too_short, params.too_long, params.repetition
    every: tuple[tuple[str, bool, Callable[[pl.DataFrame], list[rules.Hit]]], ...] = (
        ("role_order", p.role_order, rules.role_order),
        ("empty", p.empty, rules.empty),
        ("too_short", short is not None, lambda seen: rules.too_short(seen, short.answer, short.whole)),  # type: ignore[union-attr]
        ("too_long", long is not None, lambda seen: rules.too_long(seen, long.answer, long.whole)),  # type: ignore[union-attr]
        ("no_preference", p.no_preference, rules.no_preference),
        ("refusal", p.refusal_max_words is not None, lambda seen: rules.refusal(seen, p.refusal_max_words or 0)),
        (
            "answer_copies_prompt",
            p.answer_copies_prompt is not None,
            lambda seen: rules.answer_copies_prompt(seen, p.answer_copies_prompt or 1.0),
        ),
        (
            "repetition",
            repeats is not None,
            lambda seen: rules.repetition(seen, repeats.min_words, repeats.repeated_share, repeats.compressed_share),  # type: ignore[union-attr]
        ),
        ("cut_off", p.cut_off_min_words is not None, lambda seen: rules.cut_off(seen, p.cut_off_min_words or 0)),
        (
            "wrong_language",
            p.languages is not None,
            lambda seen: rules.wrong_language(
                seen, p.languages or (), p.language.min_letters, p.language.max_probability, p.language.mixed
            ),
        ),
    )
    return tuple((reason, find) for reason, on, find in every if on)


def _as_dropped(batch: pl.DataFrame, hits: list[tuple[str, rules.Hit]]) -> pl.DataFrame:
    """Dropped rows in the order of the batch."""
    if not hits:
        return record.empty(record.DROPPED)
    ordered = sorted(hits, key=lambda each: each[1].at)
    said = pl.DataFrame(
        [(reason, hit.detail, rules.as_json(hit.evidence)) for reason, hit in ordered],
        schema=["reason", "detail", "evidence"],
        orient="row",
    )
    found = batch["id", "source", "line"][[hit.at for _, hit in ordered]]
    return drop(pl.concat([found, said], how="horizontal"), pl.col("reason"), pl.col("detail"), pl.col("evidence"))


STAGE = Stage("clean", Params, rows=rows, prepare=prepare, private=True)

if __name__ == "__main__":
    main(STAGE)
