"""A second set of texts whose personal values are known: made from templates of our own (`pii_templates.txt`) that nothing was tuned on.

Chats, tickets, letters, forms, logs, code comments and texts with nothing personal in them, in nine languages; values from Faker in 17
locales, and a fifth of the names from a list of our own that no name list of Finery was made from. The same seed gives the same texts.
`python -m bench.pii_text` prints a few.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faker import Faker

TEMPLATES = Path(__file__).with_name("pii_templates.txt")
SEED = 20_251_125
LANGUAGES = {
    "en": ("en_US", "en_US", "en_GB", "en_IN", "en_AU", "en_NG"), "de": ("de_DE",), "fr": ("fr_FR",), "es": ("es_ES", "es_MX"),
    "it": ("it_IT",), "nl": ("nl_NL",), "pl": ("pl_PL",), "pt": ("pt_BR",), "sv": ("sv_SE",), "cs": ("cs_CZ",),
}  # fmt: skip
MORE = ("da_DK", "fi_FI", "ro_RO")  # only in templates for all
OWN_SHARE = 0.2  # persons from the names below
FIRST = (
    "Ayodele Thanh Makana Siobhan Bjarni Ximena Tariq Anjali Wanjiru Giedre Oisin Leilani Dmitri Hamza Yuki Saoirse Kwame Ines Rafferty "
    "Zuzana Tomasz Marguerite Eamon Nomvula Pilar Casimir Farah Jung Ottilie Ravindra Beatrix Lachlan Soledad Idris Marit Chidi Roswitha "
    "Emeka Niamh Valentin Halima Kirsten Gustavo Thandiwe Alasdair Mirela Joaquin Philippa Keanu Svetlana"
).split()
LAST = (
    "Adeyinka Nguyen Kealoha Gallagher Sigurdsson Villanueva Hashemi Deshpande Kamau Petrauskas Whelan Kahale Sorokin Siddiqui Tanaka "
    "Mbeki Boateng Carvalho Ashdown Horakova Zielinski Delacroix Fitzpatrick Dlamini Echeverria Wolniewicz Haddad Park Lindqvist "
    "Pillai Featherstone MacIntyre Ibarra Osei Halvorsen Okonkwo Steinbach Eze O'Riordan Kovalenko Traore Vandenberg Montoya "
    "Khumalo Drummond Ionescu Zapata Thistlewood Kaleo Antonova"
).split()
COMPANIES = (
    "Northwind",
    "Acme Corp",
    "Globex",
    "Initech",
    "Umbrella Logistics",
    "Siemens",
    "Toyota",
    "Blue River Foods",
    "Vodafone",
    "Lidl",
)
PRODUCTS = ("Galaxy S21", "coffee maker", "ThinkPad X1", "office chair", "PlayStation 5", "router", "Model 3", "washing machine", "Kindle")
CITIES = (
    "Paris", "Austin", "Madison", "Charlotte", "Berlin", "Leeds", "Florence", "Sydney", "Houston", "Nairobi", "Lyon", "Jackson", "Gdansk",
    "Victoria", "Valencia", "Ghent", "Mumbai", "Lincoln",
)  # fmt: skip
MONTHS = ("January", "March", "April", "May", "June", "August", "October")
DAYS = ("Monday", "Tuesday", "Wednesday", "Friday", "Sunday")
SLOT = re.compile(r"\{\{([a-z_]+)(\d?)\}\}")
ENTITIES = {
    "person": "PERSON", "upper_person": "PERSON", "first": "PERSON", "last": "PERSON", "phone": "PHONE_NUMBER", "email": "EMAIL_ADDRESS",
    "card": "CREDIT_CARD", "iban": "IBAN_CODE", "ip": "IP_ADDRESS", "url": "URL", "domain": "DOMAIN_NAME", "ssn": "US_SSN",
    "street": "ADDRESS", "dob": "DATE_OF_BIRTH", "mac": "MAC_ADDRESS",
}  # fmt: skip


@dataclass(frozen=True)
class Gold:
    """A personal value at text[start:end]."""

    entity: str
    start: int
    end: int


@dataclass(frozen=True)
class Sample:
    """A text, its personal values in order, and the template's number."""

    text: str
    spans: tuple[Gold, ...]
    template: int


def templates() -> list[tuple[str, str]]:
    """Language (`*` for all) and text of each template."""
    lines = [line for line in TEMPLATES.read_text(encoding="utf-8").splitlines() if not line.startswith("# ") or "{{" in line]
    return [(language[1:-1], body) for language, _, body in (each.partition("\n") for each in "\n".join(lines).split("\n---\n"))]


def make(count: int, seed: int = SEED) -> list[Sample]:
    """`count` texts, each template about equally often."""
    chosen, random_ = templates(), random.Random(seed)
    fakers = {locale: Faker(locale) for locale in {*MORE, *(each for locales in LANGUAGES.values() for each in locales)}}
    for at, locale in enumerate(sorted(fakers)):
        fakers[locale].seed_instance(seed + at)
    samples = []
    for at in range(count):
        language, body = chosen[at % len(chosen)]
        locales = LANGUAGES.get(language) or (*(each for more in LANGUAGES.values() for each in more), *MORE)
        samples.append(_filled(body, at % len(chosen), fakers[random_.choice(locales)], random_))
    return samples


def _filled(body: str, template: int, faker: Faker, random_: random.Random) -> Sample:
    people: dict[str, tuple[str, str]] = {}
    pieces: list[str] = []
    spans, length, last = [], 0, 0
    for slot in SLOT.finditer(body):
        kind, number = slot.groups()
        if number not in people:
            people[number] = _person(faker, random_)
        value = " ".join(_value(kind, people[number], faker, random_).split())
        before = body[last : slot.start()]
        pieces += [before, value]
        start, last = length + len(before), slot.end()
        length = start + len(value)
        if kind in ENTITIES:
            spans.append(Gold(ENTITIES[kind], start, length))
    return Sample("".join([*pieces, body[last:]]), tuple(spans), template)


def _person(faker: Faker, random_: random.Random) -> tuple[str, str]:
    if random_.random() < OWN_SHARE:
        return random_.choice(FIRST), random_.choice(LAST)
    return faker.first_name(), faker.last_name()


def _value(kind: str, who: tuple[str, str], faker: Faker, random_: random.Random) -> str:
    """What a slot holds. Raises KeyError for a slot that is unknown."""
    names: dict[str, Callable[[], str]] = {
        "person": lambda: f"{who[0]} {who[1]}",
        "upper_person": f"{who[0]} {who[1]}".upper,
        "first": lambda: who[0],
        "last": lambda: who[1],
        "user": lambda: re.sub(r"\W", "", f"{who[0][0]}{who[1]}").lower(),
    }
    return (names | _personal(faker, random_) | _other(faker, random_))[kind]()


def _personal(faker: Faker, random_: random.Random) -> dict[str, Callable[[], str]]:
    return {
        "phone": faker.phone_number,
        "email": random_.choice((faker.email, faker.company_email, faker.free_email)),
        "card": lambda: _card(faker, random_),
        "iban": lambda: _grouped(_iban(faker), random_, (" ", "", "")),
        "ip": lambda: faker.ipv6() if random_.random() < 0.2 else faker.ipv4(),
        "url": lambda: random_.choice(
            (
                faker.uri(),
                f"https://www.linkedin.com/in/{faker.user_name()}",
                f"{faker.url()}~{faker.user_name()}/",
                f"www.{faker.domain_name()}",
            )
        ),
        "domain": faker.domain_name,
        "ssn": lambda: f"{random_.randint(1, 665):03d}-{random_.randint(1, 99):02d}-{random_.randint(1, 9999):04d}",
        "street": faker.street_address,
        "dob": lambda: faker.date_of_birth(minimum_age=18, maximum_age=90).strftime(
            random_.choice(("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%B %d, %Y", "%d %B %Y"))
        ),
        "mac": faker.mac_address,
    }


def _other(faker: Faker, random_: random.Random) -> dict[str, Callable[[], str]]:
    return {
        "order": lambda: random_.choice(
            (faker.bothify("??-######").upper(), faker.numerify("#########"), faker.numerify("%###-%#####-##"))
        ),
        "date": lambda: faker.date(random_.choice(("%Y-%m-%d", "%d/%m/%Y", "%d %B %Y"))),
        "time": lambda: faker.time("%H:%M"),
        "weekday": lambda: random_.choice(DAYS),
        "month": lambda: random_.choice(MONTHS),
        "year": lambda: str(random_.randint(1950, 2025)),
        "amount": lambda: f"{random_.choice('$€£')}{random_.randint(10, 99_999):,}.{random_.randint(0, 99):02d}",
        "amount_plain": lambda: f"{random_.randint(10, 9_999)}.{random_.randint(0, 99):02d}",
        "version": lambda: f"{random_.randint(0, 12)}.{random_.randint(0, 30)}.{random_.randint(0, 9)}",
        "small": lambda: str(random_.randint(2, 40)),
        "int": lambda: str(random_.randint(100, 9_999)),
        "big": lambda: str(random_.randint(100_000, 9_999_999)),
        "port": lambda: str(random_.randint(1024, 65_535)),
        "hash": lambda: faker.sha1()[: random_.choice((8, 40))],
        "isbn": faker.isbn13,
        "company": lambda: random_.choice(COMPANIES),
        "product": lambda: random_.choice(PRODUCTS),
        "city": lambda: random_.choice(CITIES),
    }


def _card(faker: Faker, random_: random.Random) -> str:
    kind = random_.choice(("visa", "mastercard", "amex"))
    number = str(faker.credit_card_number(kind))
    return number if kind == "amex" else _grouped(number, random_, (" ", "-", "", ""))


def _iban(faker: Faker) -> str:
    """Where Faker knows no national form it makes a British one of the wrong length, which is no IBAN: one digit more."""
    made = str(faker.iban())
    if made.startswith("GB") and len(made) == 21:
        body = made[4:] + faker.numerify("#")
        made = f"GB{98 - int(''.join(str(int(each, 36)) for each in body + 'GB00')) % 97:02d}{body}"
    return made


def _grouped(value: str, random_: random.Random, between: tuple[str, ...]) -> str:
    return random_.choice(between).join(value[at : at + 4] for at in range(0, len(value), 4))


def main() -> None:
    for sample in make(len(templates()))[::5]:
        print(sample.text, *(f"    {span.entity}: {sample.text[span.start : span.end]}" for span in sample.spans), "", sep="\n")


if __name__ == "__main__":
    main()
