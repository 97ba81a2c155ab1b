"""What conversations tell about persons beyond their names, gathered over all rows: so that a fake does not depend on the conversation.

`akowalska@…` is Anna Kowalska's address where she is named beside it, and must get the same fake where she is not; `Ms Kim Lee` says of
every Kim Lee what the lists of names do not.
"""

from typing import Any

import polars as pl

from curate.pii.faker_names import gender_of
from curate.pii.persons import People, person_of_mail
from curate.pii.replace import Mention
from curate.pii.surrogates import NOTHING, Root, mail_seed, root_of

FACT = pl.Struct({"key": pl.UInt64, "seed": pl.UInt64, "locale": pl.String, "gender": pl.String})


def facts_of(values: list[Mention], secret: bytes) -> list[dict[str, Any]]:
    """Facts of one conversation: keyed hash of a person or an address, and what its fake is to be drawn from."""
    if not any(entity == "PERSON" for entity, _ in values):
        return []
    people = People(values)
    found = {}
    for person in people.full.values():
        root = root_of(person, secret, NOTHING)
        if person.gender and not gender_of(person.first):
            found[root.seed] = root
    for address, owner in people.mails.items():
        if owner is not None and getattr(person_of_mail(address), "key", "") != owner.key:
            found[mail_seed(address, secret)] = root_of(owner, secret, NOTHING)
    return [{"key": each, "seed": root.seed, "locale": root.locale, "gender": root.gender} for each, root in sorted(found.items())]


def learnt(facts: pl.Series) -> dict[int, Root]:
    """The facts of all rows by key. Where rows disagree, the most frequent wins, then the smallest."""
    flat = facts.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    best = (
        flat.group_by("key", "seed", "locale", "gender")
        .len()
        .sort("key", "len", "seed", "locale", "gender", descending=[False, True, False, False, False])
        .unique("key", keep="first", maintain_order=True)
    )
    roots = {key: Root(seed, locale, gender) for key, seed, locale, gender, _ in best.rows()}
    return {key: roots.get(root.seed, root) for key, root in roots.items()}  # an address follows what is known of its person
