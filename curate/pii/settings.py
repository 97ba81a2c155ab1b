"""What scrub can look for, and its params. Nothing heavy is imported here."""

from typing import Annotated, Literal

import phonenumbers
from pydantic import AfterValidator, Field

from curate.params import params_class

SECRET = "SECRET"  # in `scrub.entities`: every kind below
SECRETS = (
    "SECRET_PRIVATE_KEY",
    "SECRET_CONNECTION_STRING",
    "SECRET_JWT",
    "SECRET_AWS_KEY",
    "SECRET_AZURE_KEY",
    "SECRET_GOOGLE_KEY",
    "SECRET_GITHUB_TOKEN",
    "SECRET_GITLAB_TOKEN",
    "SECRET_SLACK_TOKEN",
    "SECRET_STRIPE_KEY",
    "SECRET_OPENAI_KEY",
    "SECRET_ANTHROPIC_KEY",
    "SECRET_HUGGINGFACE_TOKEN",
    "SECRET_NPM_TOKEN",
    "SECRET_PYPI_TOKEN",
    "SECRET_SENDGRID_KEY",
    "SECRET_TWILIO_KEY",
    "SECRET_TELEGRAM_TOKEN",
    "SECRET_DIGITALOCEAN_TOKEN",
    "SECRET_AUTHORIZATION",  # from here on kinds that go by the name before the value: where both fit, the kinds above win
    "SECRET_PASSWORD",
    "SECRET_API_KEY",
)
PATTERNS = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "CRYPTO",
    "URL",  # only a URL that carries a password or a token
    "US_ITIN",  # before US_SSN, whose shape it has
    "US_SSN",
    "US_PASSPORT",
    "US_DRIVER_LICENSE",
    "US_BANK_NUMBER",
    "UK_NINO",
    "UK_NHS",
    "UK_PASSPORT",
    "UK_DRIVING_LICENCE",
    "UK_POSTCODE",
)
NAMES = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")  # found by a language model only: `scrub.ner`
ENTITIES = (*PATTERNS, *SECRETS, *NAMES)


def _known_entities(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in (*ENTITIES, SECRET)]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}. Allowed: {', '.join(ENTITIES)}, and {SECRET} for every SECRET_ kind")
    return names


def _known_regions(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}. Allowed: two-letter country codes in capitals, such as GB, US, DE")
    return names


@params_class
class Ner:
    """`params.yaml: scrub.ner`: the language model that finds names."""

    engine: Literal["spacy"]
    model: Annotated[str, Field(min_length=1)]  # an installed package or a folder


@params_class
class ScrubParams:
    """`params.yaml: scrub`."""

    enabled: bool
    entities: Annotated[tuple[str, ...], AfterValidator(_known_entities)]
    min_score: Annotated[float, Field(ge=0, le=1)]
    phone_regions: Annotated[tuple[str, ...], AfterValidator(_known_regions)]
    keep_private_ips: bool
    allow: tuple[str, ...]
    replace: Literal["placeholder", "surrogate"]
    key_env: Annotated[str, Field(min_length=1)]
    ner: Ner | None


def wanted(params: ScrubParams) -> frozenset[str]:
    """The entities asked for, `SECRET` spelt out."""
    return frozenset(params.entities) | (frozenset(SECRETS) if SECRET in params.entities else frozenset())
