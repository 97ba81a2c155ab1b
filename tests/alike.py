"""Near-duplicates in plain Python: what the compiled search is held against."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curate.preference import Compare, sides
from curate.record import prompt_and_answer
from curate.sets import CHARACTERS_MORE, REST
from curate.shingle import spelled
from tests.helpers import frame

Grains = tuple[set[str], set[str]]


def variants(count: int, seed: int) -> list[str]:
    """Sentences in families that differ by a few words, from 3 words to 120, so that every similarity from 0 to 1 occurs."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(400)]
    texts: list[str] = []
    while len(texts) < count:
        base = draw.choices(words, k=draw.randint(3, 60) * draw.choice((1, 1, 2)))
        for _ in range(draw.randint(1, 12)):
            changed = [draw.choice(words) if draw.random() < 0.02 else word for word in base]
            texts.append(" ".join(changed))
    return texts[:count]


def jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


@dataclass
class Reference:
    """The similarity of texts, given as (prompt, answer)."""

    texts: list[tuple[str, str]]
    boilerplate: int | None = None
    grains: list[Grains] = field(init=False)
    own: list[Grains] = field(init=False)  # what counts of each when boilerplate does not

    def __post_init__(self) -> None:
        self.grains = [spelled(*text) for text in self.texts]
        self.own = self.grains
        if self.boilerplate is not None:
            frequent = [Counter(each for grains in self.grains for each in grains[at]) for at in (0, 1)]
            limits = (self.boilerplate * CHARACTERS_MORE, self.boilerplate)
            common = [{each for each, rows in frequent[at].items() if rows > limits[at]} for at in (0, 1)]
            self.own = [(self._rest(grains[0], common[0]), self._rest(grains[1], common[1])) for grains in self.grains]

    @staticmethod
    def _rest(some: set[str], common: set[str]) -> set[str]:
        return some - common if len(some - common) * REST >= len(some) else some

    @staticmethod
    def of(rows: list[dict[str, Any]], compare: Compare = "both", boilerplate: int | None = None) -> "Reference":
        batch = frame(rows)
        prompts, answers = sides(batch, prompt_and_answer(batch), compare)
        return Reference(list(zip(prompts.to_list(), answers.to_list(), strict=True)), boilerplate)

    def similarity(self, a: int, b: int) -> float:
        return max(self.both(a, b, grain)[0] for grain in (0, 1))

    def both(self, a: int, b: int, grain: int) -> tuple[float, float]:
        """(similarity, similarity of the answers alone) by characters or by words; (0, 0) where one has no such shingles."""
        one, two = self.grains[a][grain], self.grains[b][grain]
        if not one or not two:
            return 0.0, 0.0
        answers = [{each for each in some if each.startswith("answer")} for some in (one, two)]
        alone = jaccard(*answers) if answers[0] | answers[1] else 1.0
        return min(jaccard(one, two), jaccard(self.own[a][grain], self.own[b][grain])), alone

    def duplicates(self, a: int, b: int, threshold: float, answers: float) -> bool:
        whole = [self.both(a, b, grain) for grain in (0, 1)]
        best = max(whole)
        return best[0] >= threshold and best[1] >= answers
