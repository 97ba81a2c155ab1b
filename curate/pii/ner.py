"""Names by a spaCy model that the user has. Nothing is ever downloaded: without a model there is a blank pipeline, which finds none."""

from functools import lru_cache
from typing import Any

from curate.pii.presidio import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from curate.pii.settings import NAMES, Ner
from curate.record import ParamsError


class LoadedSpacy(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine over a pipeline that is loaded already (its own `load` would download a model)."""

    def __init__(self, pipeline: Any) -> None:
        ignore = [label for label in pipeline_labels(pipeline) if label not in _MAPPING]
        super().__init__(ner_model_configuration=NerModelConfiguration(labels_to_ignore=ignore, model_to_presidio_entity_mapping=_MAPPING))
        self.nlp: Any = {"en": pipeline}


_MAPPING = {
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


@lru_cache
def pipeline(ner: Ner | None) -> Any:
    """The pipeline asked for. Raises ParamsError, with what to do, if it is not installed or finds no names."""
    import spacy

    if ner is None:
        return spacy.blank("en")
    try:
        loaded = spacy.load(ner.model)
    except (OSError, ImportError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ParamsError(
            f"scrub.ner.model = {ner.model!r}: cannot be loaded ({first}). Install it (`pip install {ner.model}` or its wheel from "
            "github.com/explosion/spacy-models), give the path of a spaCy model folder, or set scrub.ner to null."
        ) from None
    if not set(found_by(loaded)):
        raise ParamsError(
            f"scrub.ner.model = {ner.model!r}: finds none of {', '.join(NAMES)} (its labels: "
            f"{', '.join(pipeline_labels(loaded)) or 'none'}). Give a model with a named-entity part, or set scrub.ner to null."
        )
    return loaded


def no_tokens() -> Any:
    """What Presidio is given where no model is to read the text."""
    nothing: Any = []
    return NlpArtifacts(nothing, nothing, nothing, nothing, None, "en")


def pipeline_labels(loaded: Any) -> list[str]:
    """The labels that the pipeline's entity parts can give, sorted."""
    parts = [part for part in ("ner", "entity_ruler", "beam_ner") if part in loaded.pipe_names]
    return sorted({label for part in parts for label in loaded.get_pipe(part).labels})


def found_by(loaded: Any) -> list[str]:
    """Those of `NAMES` that the pipeline can find."""
    found = {_MAPPING[label] for label in pipeline_labels(loaded) if label in _MAPPING}
    return [name for name in NAMES if name in found]
