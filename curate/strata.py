"""Groups of rows dealt out to splits, so that every label keeps the ratios and no group is cut.

Every stratum has a target for each split, by largest remainder. Greedy: pinned groups first, then groups of several rows or labels from
the largest down, then single rows. A group goes to a split that still needs all of its rows, drawn with chances that follow the need (by
a hash, so the draw is the same every time); if none does, to the one that it overfills least. Single rows then fill what is needed; where
pinned rows have overfilled a split, the others share what there is so that the largest lack shrinks first. A label with as many groups
as there are splits is kept in each of them. At last, groups of several labels are moved where that brings labels closer to their
targets. The result depends on the set of groups and not on their order.

Why every split of a label ends within one group (its largest, g rows) of its share, for groups of one label: the needs always sum to
the rows that are left. The first group of s rows that fits nowhere finds all needs below s; from then on needs only shrink, so no split
ends with a lack of s or more, and none is overfilled by more than s - 1. Being kept in every split costs more than that only where a
split's share is less than one group: such a split gets one all the same, and the largest split gives it up.
"""

import math

import numpy as np
import polars as pl
import xxhash

BETWEEN = "\x1e"  # joins the values of a stratum
PASSES = 10  # in practice three or four are enough for nothing to move


def targets(rows: int, ratios: tuple[float, ...], key: int, each: bool) -> list[int]:
    """Rows of one label for each split, by largest remainder; ties are broken by `key`. `each`: at least one wherever ratio > 0.

    >>> targets(10, (0.8, 0.1, 0.1), 0, True), targets(4, (0.8, 0.1, 0.1), 0, True)
    ([8, 1, 1], [2, 1, 1])
    """
    whole = [math.floor(rows * ratio + 1e-9) for ratio in ratios]
    order = sorted(range(len(ratios)), key=lambda at: (-round(rows * ratios[at] - whole[at], 9), (at + key) % len(ratios)))
    for at in order[: rows - sum(whole)]:
        whole[at] += 1
    for at, ratio in enumerate(ratios):
        if each and ratio > 0 and whole[at] == 0:
            whole[whole.index(max(whole))] -= 1
            whole[at] = 1
    return whole


def draw(seed: int, name: str) -> int:
    """63 random bits that belong to a name under a seed."""
    return xxhash.xxh3_64_intdigest(f"{seed}\x1f{name}".encode()) >> 1


class Dealer:
    """What every split still needs of every stratum while groups are dealt. Strata and groups are numbered from 0."""

    def __init__(self, counts: pl.DataFrame, names: list[str], ratios: tuple[float, ...], seed: int) -> None:
        """`counts`: group, stratum, rows (every pair once). `names`: the stratum's names, for draws."""
        self.ratios, self.open = ratios, [at for at, ratio in enumerate(ratios) if ratio > 0]
        of_stratum = counts.group_by("stratum").agg(pl.col("rows").sum(), pl.len().alias("groups")).sort("stratum")
        self.left = of_stratum["groups"].to_list()  # groups not dealt yet
        self.spread = [groups >= len(self.open) for groups in self.left]  # can be in every split
        sizes = of_stratum["rows"].to_list()
        self.need = [targets(rows, ratios, draw(seed, name), spread) for rows, name, spread in zip(sizes, names, self.spread, strict=True)]
        self.groups = [[0] * len(ratios) for _ in names]  # groups of a stratum in each split

    def put(self, members: list[tuple[int, int]], split: int) -> None:
        """Deal a group of (stratum, rows) to a split."""
        for stratum, rows in members:
            self.need[stratum][split] -= rows
            self.groups[stratum][split] += 1
            self.left[stratum] -= 1

    def move(self, members: list[tuple[int, int]], old: int, to: int) -> None:
        """Deal a group of (stratum, rows) anew."""
        for stratum, rows in members:
            self.groups[stratum][old] -= 1
            self.groups[stratum][to] += 1
            self.need[stratum][old] += rows
            self.need[stratum][to] -= rows

    def spares(self, strata: list[int], split: int) -> bool:
        """Whether no stratum that can be in every split would miss a group of this one."""
        return all(self.groups[stratum][split] > 1 or not self.spread[stratum] for stratum in strata)

    def gain(self, members: list[tuple[int, int]], old: int, to: int) -> int:
        """How a move would change half the sum of squared needs; below 0 is better."""
        if old == to:
            return 0
        return sum(rows * (self.need[stratum][old] - self.need[stratum][to] + rows) for stratum, rows in members)

    def choose(self, members: list[tuple[int, int]], key: int) -> int:
        """The split for a group that is free to go anywhere."""
        allowed = self._allowed(members)
        fits = [at for at in allowed if all(self.need[stratum][at] >= rows for stratum, rows in members)]
        if fits:
            weight = [sum(self.need[stratum][at] for stratum, _ in members) for at in fits]
            point = key % sum(weight)
            for at, each in zip(fits, weight, strict=True):
                point -= each
                if point < 0:
                    return at
        return min(allowed, key=lambda at: (self._over(members, at), -sum(self.need[stratum][at] for stratum, _ in members), at))

    def _over(self, members: list[tuple[int, int]], split: int) -> int:
        return sum(max(0, rows - max(0, self.need[stratum][split])) for stratum, rows in members)

    def _allowed(self, members: list[tuple[int, int]]) -> list[int]:
        """Splits that leave enough groups for those in which a label is still missing."""
        allowed = self.open
        for stratum, _ in members:
            missing = [at for at in self.open if not self.groups[stratum][at]]
            if self.spread[stratum] and self.left[stratum] <= len(missing):
                allowed = [at for at in allowed if at in missing] or allowed
        return allowed


def deal(
    counts: pl.DataFrame, names: list[str], keys: list[str], fixed: dict[int, int], ratios: tuple[float, ...], seed: int
) -> np.ndarray:
    """The split (place in `ratios`) of every group, i64.

    `counts` has group, stratum, rows; `keys` a name for each group that its members have in every order (the smallest id); `fixed`
    the groups whose split is given.
    """
    dealer = Dealer(counts, names, ratios, seed)
    split = np.full(len(keys), -1, dtype=np.int64)
    by_group = (
        counts.sort("group", "stratum").group_by("group", maintain_order=True).agg("stratum", "rows", pl.col("rows").sum().alias("size"))
    )
    alone = (pl.col("size") == 1) & ~pl.col("group").is_in(list(fixed))
    several = by_group.filter(~alone).rows()
    draws = {group: draw(seed, keys[group]) for group, *_ in several}
    for group, strata, rows, _ in sorted(several, key=lambda each: (each[0] not in fixed, -each[3], draws[each[0]], keys[each[0]])):
        members = list(zip(strata, rows, strict=True))
        split[group] = fixed[group] if group in fixed else dealer.choose(members, draws[group])
        dealer.put(members, int(split[group]))
    singles = by_group.filter(alone).select("group", pl.col("stratum").list.first())
    _deal_singles(dealer, split, singles, keys, seed)
    free = by_group.filter(~pl.col("group").is_in(list(fixed)))
    free = free.with_columns(pl.Series("key", [keys[group] for group in free["group"].to_list()], dtype=pl.String))
    _mend(dealer, split, free)
    _improve(dealer, split, free.filter(pl.col("stratum").list.len() > 1))
    return split


def _deal_singles(dealer: Dealer, split: np.ndarray, singles: pl.DataFrame, keys: list[str], seed: int) -> None:
    group, stratum = singles["group"].to_numpy(), singles["stratum"].to_numpy()
    names = [keys[each] for each in group.tolist()]
    order = pl.DataFrame({"stratum": stratum, "draw": [draw(seed, name) for name in names], "key": names, "group": group})
    for (each,), members in order.sort("stratum", "draw", "key").group_by("stratum", maintain_order=True):
        at = int(each)  # type: ignore[call-overload]
        quota = _quota(dealer, at, members.height)
        split[members["group"].to_numpy()] = np.repeat(np.arange(len(quota)), quota)
        dealer.need[at] = [need - given for need, given in zip(dealer.need[at], quota, strict=True)]
        dealer.groups[at] = [before + given for before, given in zip(dealer.groups[at], quota, strict=True)]


def _quota(dealer: Dealer, stratum: int, rows: int) -> list[int]:
    """How many of a stratum's single rows each split gets: what it needs; if others were overfilled, what evens out the lacks."""
    need, missing = dealer.need[stratum], [at for at in dealer.open if not dealer.groups[stratum][at]] if dealer.spread[stratum] else []
    first = sorted(missing, key=lambda at: (-need[at], at))[:rows]  # pinned rows can leave too few for all of them
    return evened(need, [int(at in first) for at in range(len(need))], rows)


def evened(need: list[int], least: list[int], rows: int) -> list[int]:
    """Shares of `rows`, each at least `least`, such that the largest lack (need less share) is as small as can be; ties to the first.

    `rows` is the sum of `need`, or more than that where splits need less than nothing; sum(least) is at most `rows`.

    >>> evened([50, 40, -10], [0, 0, 0], 80), evened([50, 40, -70], [0, 0, 0], 20), evened([2, 0, 0], [0, 1, 1], 2)
    ([45, 35, 0], [15, 5, 0], [0, 1, 1])
    """
    quota = list(least)
    lacks = [each - low for each, low in zip(need, least, strict=True)]
    left = rows - sum(least)
    low, high = min(lacks) - left - 1, max(lacks)  # the level that lacks are cut down to: the lowest that `left` rows can pay for
    while low < high:
        middle = (low + high) // 2
        if sum(max(0, lack - middle) for lack in lacks) <= left:
            high = middle
        else:
            low = middle + 1
    quota = [have + max(0, lack - low) for have, lack in zip(quota, lacks, strict=True)]
    for at in sorted(range(len(need)), key=lambda at: -min(lacks[at], low))[: rows - sum(quota)]:
        quota[at] += 1
    return quota


def _mend(dealer: Dealer, split: np.ndarray, groups: pl.DataFrame) -> None:
    """Groups with several labels can leave a label out of a split: move the smallest group that no other label misses."""
    missing = [(at, to) for at, spread in enumerate(dealer.spread) if spread for to in dealer.open if not dealer.groups[at][to]]
    for stratum, to in missing:
        if dealer.groups[stratum][to]:
            continue  # an earlier move brought it
        for group, strata, rows, *_ in groups.filter(pl.col("stratum").list.contains(stratum)).sort("size", "key").iter_rows():
            old = int(split[group])
            if old != to and dealer.spares(strata, old):
                dealer.move(list(zip(strata, rows, strict=True)), old, to)
                split[group] = to
                break


def _improve(dealer: Dealer, split: np.ndarray, groups: pl.DataFrame) -> None:
    """Greedy choices for groups with several labels can leave one label far off for another's sake: move such groups for as long as the
    squared needs of all labels shrink, at most `PASSES` times round."""
    members = [
        (group, list(zip(strata, rows, strict=True)))
        for group, strata, rows, *_ in groups.sort("size", "key", descending=[True, False]).iter_rows()
    ]
    for _ in range(PASSES):
        moved = False
        for group, each in members:
            old = int(split[group])
            if not dealer.spares([stratum for stratum, _ in each], old):
                continue
            gain, to = min((dealer.gain(each, old, to), to) for to in dealer.open)
            if gain < 0:
                dealer.move(each, old, to)
                split[group], moved = to, True
        if not moved:
            return


def coarsened(rows: pl.DataFrame, columns: list[str], enough: int) -> pl.Series:
    """The stratum of each row: its values in `columns`, joined. A stratum of fewer than `enough` groups joins the other rare ones that
    agree with it in all columns but the last, and so on up to the first column; one that is rare even there stays as it is.

    `rows` has group and `columns` (no nulls).
    """
    names = rows.select(pl.concat_str(columns, separator=BETWEEN).alias("name"), "group", *columns)
    for count in range(len(columns) - 1, 0, -1):
        rare = pl.col("group").n_unique().over("name") < enough
        names = names.with_columns(
            pl.when(rare).then(pl.concat_str([*columns[:count], pl.lit("")], separator=BETWEEN)).otherwise("name").alias("name")
        )
    return names["name"]


def by_time(groups: pl.DataFrame, ratios: tuple[float, ...]) -> np.ndarray:
    """The split (place in `ratios`) of each group (rows, moment), i64: the oldest to the first split, the newest to the last.

    All groups of one moment go together, so each cut is at the moment that is nearest to the ratio, and every open split gets at least
    one. Raises ValueError if there are fewer moments than splits with a ratio above 0.
    """
    opened = [at for at, ratio in enumerate(ratios) if ratio > 0]
    moments = groups.group_by("moment").agg(pl.col("rows").sum()).sort("moment")
    count = moments.height
    if count < len(opened):
        raise ValueError(f"{count} different moments for {len(opened)} splits")
    reached = np.cumsum(moments["rows"].to_numpy())
    cuts, before, share = [], 0, 0.0
    for number, at in enumerate(opened[:-1]):
        share += ratios[at]
        last = count - (len(opened) - 1 - number)  # leaves a moment for each split that follows
        before += 1 + int(np.argmin(np.abs(reached[before:last] - share * reached[-1])))
        cuts.append(before)
    place = np.searchsorted(np.array(cuts, dtype=np.int64), np.arange(count), side="right")
    split = moments.select("moment", pl.Series("split", np.array(opened, dtype=np.int64)[place]))
    found: np.ndarray = groups.join(split, on="moment", how="left", maintain_order="left")["split"].to_numpy()
    return found
