"""Names by a model that the user has. Nothing is downloaded unasked; what cannot be loaded is an error that says how to get it.

Texts go to the model in batches. Importing this module imports nothing heavy, so that torch can be loaded before Presidio, which would
otherwise not see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from curate.pii.settings import NAMES, Ner
from curate.record import ParamsError

BATCH = 32  # texts
SCORE = 0.85  # what Presidio gives spaCy's entities, which carry no score of their own
WINDOW = 2000  # characters that a token model gets at once
LIMITLESS = (
    1 << 20
)  # tokens: a model that says it reads more does not say how many it reads; others read a longer piece in overlapping parts

MAPPING = {
    "PER": "PERSON",
    "PERSON": "PERSON",
    "LOC": "LOCATION",
    "LOCATION": "LOCATION",
    "GPE": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "ORGANIZATION": "ORGANIZATION",
    "NORP": "NRP",
    "NRP": "NRP",
}
GLINER_LABELS = {"person": "PERSON", "location": "LOCATION", "organization": "ORGANIZATION", "nationality or religious group": "NRP"}


Span = tuple[int, int, str, float]  # start and end in characters, entity, score


@dataclass(frozen=True)
class Model:
    """A loaded model. `spans` gives for each text its names."""

    name: str
    finds: tuple[str, ...]  # those of `NAMES` that it can find
    spans: Callable[[Sequence[str]], list[list[Span]]]

    def find_many(self, texts: Sequence[str]) -> list[list[Any]]:
        """For each text its findings."""
        from curate.pii.engine import Finding

        return [
            [Finding(start, end, entity, self.name, round(score, 2)) for start, end, entity, score in found] for found in self.spans(texts)
        ]


@lru_cache(maxsize=4)
def load(ner: Ner | None) -> Model | None:
    """The model asked for. Raises ParamsError, with what to do, if it cannot be loaded or finds no names."""
    if ner is None:
        return None
    return {"spacy": _spacy, "transformers": _transformers, "gliner": _gliner}[ner.engine](ner.model)


def _missing(model: str, error: Exception, help: str) -> ParamsError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return ParamsError(f"scrub.ner.model = {model!r}: cannot be loaded ({first}). {help}, or set scrub.ner to null.")


def _nameless(model: str, labels: Sequence[str]) -> ParamsError:
    return ParamsError(
        f"scrub.ner.model = {model!r}: finds none of {', '.join(NAMES)} (its labels: {', '.join(labels) or 'none'}). "
        "Give a model with a named-entity part, or set scrub.ner to null."
    )


def _finds(labels: Sequence[str]) -> tuple[str, ...]:
    found = {MAPPING[label] for label in labels if label in MAPPING}
    return tuple(name for name in NAMES if name in found)


def _spacy(model: str) -> Model:
    import spacy

    try:
        loaded = spacy.load(model)
    except (OSError, ImportError, ValueError) as error:
        raise _missing(
            model,
            error,
            f"Install it (`pip install {model}` or its wheel from github.com/explosion/spacy-models), or give the path of a spaCy model folder",
        ) from None
    parts = [part for part in ("ner", "entity_ruler", "beam_ner") if part in loaded.pipe_names]
    labels = sorted({label for part in parts for label in loaded.get_pipe(part).labels})  # type: ignore[attr-defined]
    finds = _finds(labels)
    if not finds:
        raise _nameless(model, labels)

    def spans(texts: Sequence[str]) -> list[list[Span]]:
        loaded.max_length = max([loaded.max_length, *map(len, texts)])
        return [
            [(each.start_char, each.end_char, MAPPING[each.label_], SCORE) for each in read.ents if each.label_ in MAPPING]
            for read in loaded.pipe(texts, batch_size=BATCH)
        ]

    return Model("SpacyModel", finds, spans)


def _transformers(model: str) -> Model:
    try:
        from transformers import AutoModelForTokenClassification, AutoTokenizer
        from transformers import pipeline as make

        network, tokenizer = AutoModelForTokenClassification.from_pretrained(model), AutoTokenizer.from_pretrained(model)
        limited = tokenizer.is_fast and tokenizer.model_max_length < LIMITLESS  # then it reads long texts in overlapping parts by itself
        overlap: dict[str, Any] = {"stride": int(tokenizer.model_max_length) // 4} if limited else {}
        reader: Any = make("token-classification", model=network, tokenizer=tokenizer, aggregation_strategy="simple", **overlap)
    except (OSError, ImportError, ValueError) as error:
        raise _missing(
            model, error, f"Give a folder with a token-classification model, or fetch it first (`hf download {model}`)"
        ) from None
    labels = sorted({str(label).removeprefix("B-").removeprefix("I-") for label in network.config.id2label.values()} - {"O"})
    finds = _finds(labels)
    if not finds:
        raise _nameless(model, labels)

    def spans(texts: Sequence[str]) -> list[list[Span]]:
        pieces = [
            (at, start, text if limited else text[start : start + WINDOW])
            for at, text in enumerate(texts)
            for start in range(0, min(len(text), 1) if limited else len(text), WINDOW // 2)
        ]
        found: list[set[Span]] = [set() for _ in texts]
        read = reader([piece for _, _, piece in pieces], batch_size=BATCH) if pieces else []
        for (at, start, _), entities in zip(pieces, read, strict=True):
            for each in entities:
                entity = MAPPING.get(each["entity_group"])
                if entity and each["end"] > each["start"]:
                    found[at].add((start + each["start"], start + each["end"], entity, float(each["score"])))
        return [sorted(each) for each in found]

    return Model("TransformersModel", finds, spans)


def _gliner(model: str) -> Model:
    try:
        from gliner import GLiNER  # type: ignore[import-not-found]
    except ImportError as error:
        raise _missing(model, error, "Install the library (`pip install gliner`)") from None
    try:
        loaded = GLiNER.from_pretrained(model)
    except Exception as error:  # the library raises whatever its loader does
        raise _missing(model, error, f"Give a folder with a GLiNER model, or fetch it first (`hf download {model}`)") from None

    def spans(texts: Sequence[str]) -> list[list[Span]]:
        found: list[list[Span]] = []
        for start in range(0, len(texts), BATCH):
            for entities in loaded.batch_predict_entities(list(texts[start : start + BATCH]), list(GLINER_LABELS), threshold=0.3):
                found.append([(each["start"], each["end"], GLINER_LABELS[each["label"]], float(each["score"])) for each in entities])
        return found

    return Model("GlinerModel", NAMES, spans)


def blank() -> Any:
    """Presidio's spaCy engine over a blank pipeline: its own `load` would download a model."""
    import spacy

    from curate.pii.presidio import NerModelConfiguration, SpacyNlpEngine

    engine: Any = SpacyNlpEngine(ner_model_configuration=NerModelConfiguration())
    engine.nlp = {"en": spacy.blank("en")}
    return engine
