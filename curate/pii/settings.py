"""What scrub can look for, and its params. Nothing heavy is imported here."""

from typing import Annotated, Any, Literal

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, Field

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
    "SECRET_TOKEN",  # tokens of other services, each with a prefix of its own
    "SECRET_AUTHORIZATION",  # from here on kinds that go by the name before the value: where both fit, the kinds above win
    "SECRET_PASSWORD",
    "SECRET_API_KEY",
    "SECRET_RANDOM",  # a random string beside a word such as "credential"
)
PATTERNS = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "CRYPTO",
    "URL",  # only a URL that carries a password or a token, or leads to somebody's page
    "USERNAME",  # in a path: /home/NAME, C:\\Users\\NAME
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
    "AU_TFN",
    "AU_ABN",
    "AU_MEDICARE",
    "CA_SIN",
    "DE_TAX_ID",
    "DE_SOCIAL_SECURITY",
    "ES_NIF",
    "ES_NIE",
    "FI_PERSONAL_IDENTITY_CODE",
    "IN_AADHAAR",
    "IN_PAN",
    "IT_FISCAL_CODE",
    "KR_RRN",
    "NG_NIN",
    "PL_PESEL",
    "SE_PERSONNUMMER",
    "SG_NRIC_FIN",
    "TH_TNIN",
    "TR_NATIONAL_ID",
    "US_MBI",
    "ZA_ID_NUMBER",
    "DATE_OF_BIRTH",
    "STREET_ADDRESS",
    "COORDINATES",
    "DOMAIN_NAME",  # any web address or domain; not among the default entities
)
NAMES = ("PERSON", "LOCATION", "ORGANIZATION", "NRP")  # found by a model (`scrub.ner`); PERSON by lists and cues too
DENIED = "DENIED"  # what `scrub.deny` lists
ENTITIES = (DENIED, *PATTERNS, *SECRETS, *NAMES)
ASKABLE = tuple(each for each in (*ENTITIES, SECRET) if each != DENIED)

LANGUAGE_REGIONS = {  # countries whose phone numbers a text in a language may hold without their country code
    "en": (),  # `scrub.phone_regions` says which
    "de": ("DE", "AT", "CH"),
    "fr": ("FR", "BE", "CH"),
    "es": ("ES", "MX"),
    "it": ("IT",),
    "pt": ("PT", "BR"),
    "nl": ("NL", "BE"),
    "pl": ("PL",),
    "sv": ("SE",),
    "da": ("DK",),
    "no": ("NO",),
    "nb": ("NO",),
    "fi": ("FI",),
    "cs": ("CZ",),
    "hu": ("HU",),
    "tr": ("TR",),
    "ru": ("RU",),
    "ja": ("JP",),
    "ko": ("KR",),
    "hi": ("IN",),
}


def _known_entities(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in ASKABLE]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}. Allowed: {', '.join(ASKABLE)} ({SECRET}: every SECRET_ kind)")
    return names


def _known_thresholds(thresholds: Any) -> Any:
    """A mapping as pairs: params are hashed."""
    if isinstance(thresholds, tuple):  # a copy of params
        return thresholds
    if not isinstance(thresholds, dict):
        raise ValueError("expected a mapping such as {PERSON: 0.8}, or {}")
    _known_entities(tuple(map(str, thresholds)))
    return tuple((name, float(score) if isinstance(score, int) else score) for name, score in thresholds.items())


def _long_enough(values: tuple[str, ...]) -> tuple[str, ...]:
    short = [value for value in values if len(value.strip()) < 2]
    if short:
        raise ValueError(f"too short: {', '.join(map(repr, short))}. Each value needs two characters or more")
    return values


def _known_regions(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in phonenumbers.SUPPORTED_REGIONS]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}. Allowed: two-letter country codes in capitals, such as GB, US, DE")
    return names


@params_class
class Ner:
    """`params.yaml: scrub.ner`: the language model that finds names."""

    engine: Literal["spacy", "transformers", "gliner"]
    model: Annotated[str, Field(min_length=1)]  # spaCy: an installed package or a folder; the others: a folder or a name on the hub


@params_class
class ScrubParams:
    """`params.yaml: scrub`."""

    enabled: bool
    entities: Annotated[tuple[str, ...], AfterValidator(_known_entities)]
    min_score: Annotated[float, Field(ge=0, le=1)]
    thresholds: Annotated[tuple[tuple[str, Annotated[float, Field(ge=0, le=1)]], ...], BeforeValidator(_known_thresholds)]
    phone_regions: Annotated[tuple[str, ...], AfterValidator(_known_regions)]
    keep_private_ips: bool
    allow: tuple[str, ...]
    deny: Annotated[tuple[str, ...], AfterValidator(_long_enough)]
    replace: Literal["placeholder", "surrogate"]
    key_env: Annotated[str, Field(min_length=1)]
    key_file: Annotated[str, Field(min_length=1)] | None
    ner: Ner | None
    residual: bool
    canaries: Annotated[int, Field(ge=0, le=10_000)]


def wanted(params: ScrubParams) -> frozenset[str]:
    """The entities asked for, `SECRET` spelt out."""
    return frozenset(params.entities) | (frozenset(SECRETS) if SECRET in params.entities else frozenset())
