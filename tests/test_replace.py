"""Who is one person, what takes a value's place, and that nothing of the value is left in its row."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.pii import keys, surrogates
from curate.pii.checks import luhn
from curate.pii.conversation import carried, mentions, replaced
from curate.pii.engine import Finding
from curate.pii.faker_names import STARTERS, SUFFIXES, TITLES, WORDS
from curate.pii.identity import identity, tokens
from curate.pii.linking import facts_of, learnt
from curate.pii.persons import People
from curate.pii.replace import Replacer
from curate.pii.settings import ENTITIES, ScrubParams
from curate.record import ParamsError
from tests.helpers import section

SECRET = b"a secret for the tests"
PLACEHOLDER: ScrubParams = section("scrub", ScrubParams)
SURROGATE: ScrubParams = section("scrub", ScrubParams, "replace=surrogate")
PERSON = [("PERSON", "Anna Kowalska"), ("PERSON", "Ms Kowalska"), ("PERSON", "Anna")]
MAILS = ["anna.kowalska@acme.pl", "akowalska@acme.pl", "anna_k@acme.pl", "kowalska.anna@acme.pl", "anna@acme.pl"]


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINERY_SCRUB_KEY", SECRET.decode())


def _found(text: str, *values: tuple[str, str]) -> tuple[Finding, ...]:
    """The first place of each (entity, value), as a recognizer would tell it."""
    places = [(text.index(value), entity, value) for entity, value in values]
    return tuple(Finding(at, at + len(value), entity, "test", 0.9) for at, entity, value in sorted(places))


def _scrubbed(texts: list[str], found: list[tuple[Finding, ...]], params: ScrubParams) -> list[str]:
    return replaced(texts, carried(texts, found), params)


# --- linked identities ----------------------------------------------------------------------------------------------------------------


def test_one_person_in_a_conversation_is_one_fake_person() -> None:
    said = [*PERSON, *(("EMAIL_ADDRESS", mail) for mail in MAILS)]
    replacer = Replacer(SURROGATE, [], said)
    full, titled, first = (replacer(*each) for each in PERSON)
    fake_first, _, fake_last = full.partition(" ")
    assert titled == f"Ms {fake_last}" and first == fake_first and not {fake_first, fake_last} & {"Anna", "Kowalska"}
    made = [replacer("EMAIL_ADDRESS", mail) for mail in MAILS]
    stem = f"{surrogates._latin(fake_first)}.{surrogates._latin(fake_last)}"
    assert made[0] == f"{stem}@example.com"
    assert all(mail.startswith(stem) and mail.endswith("@example.com") for mail in made)


def test_one_person_has_one_number() -> None:
    texts = ["Anna Kowalska rang. Ms Kowalska is waiting, says ANNA KOWALSKA's son.", "Tell Anna that Piotr Nowak and Kowalska agree."]
    found = [_found(texts[0], ("PERSON", "Anna Kowalska"), ("PERSON", "Ms Kowalska")), _found(texts[1], ("PERSON", "Piotr Nowak"))]
    assert _scrubbed(texts, found, PLACEHOLDER) == [
        "<PERSON_1> rang. Ms <PERSON_1> is waiting, says <PERSON_1>'s son.",
        "Tell <PERSON_1> that <PERSON_2> and <PERSON_1> agree.",
    ]


def test_a_full_name_is_the_same_fake_in_every_conversation_and_strangers_stay_strangers() -> None:
    alone = Replacer(SURROGATE, [], [("PERSON", "Anna Kowalska")])("PERSON", "Anna Kowalska")
    beside = Replacer(SURROGATE, [], [("PERSON", "Mr Nowak"), *PERSON])
    assert beside("PERSON", "Anna Kowalska") == alone
    assert beside("PERSON", "KOWALSKA, Anna").casefold() == ", ".join(reversed(alone.casefold().split(" ")))
    assert beside("PERSON", "Mr Nowak").removeprefix("Mr ") not in alone
    assert beside("PERSON", "A. Kowalska") == f"{alone[0]}. {alone.split()[1]}"


@pytest.mark.parametrize(
    ("value", "gender"), [("Ms Kim Zork", "female"), ("Mr Zorka Zork", "male"), ("Frau Zorka Zork", "female"), ("Jennifer Zork", "female")]
)
def test_gender_follows_the_first_name_or_the_title(value: str, gender: str) -> None:
    assert People([("PERSON", value)]).of(value).gender == gender


@pytest.mark.parametrize(
    ("value", "locale"),
    [("Heinz Müller", "de_DE"), ("Анна Каренина", "ru_RU"), ("Jan Kowalski", "pl_PL"), ("田中陽子", "zh_CN")],
)
def test_fakes_come_in_the_names_own_language(value: str, locale: str) -> None:
    person = People([("PERSON", value)]).of(value)
    assert surrogates.root_of(person, SECRET, surrogates.NOTHING).locale == locale
    assert surrogates.fake_person(value, person, SECRET, surrogates.NOTHING) != value


def test_an_address_that_only_one_conversation_explains_is_the_same_everywhere() -> None:
    import polars as pl

    from curate.pii.linking import FACT

    mail = ("EMAIL_ADDRESS", "akowalska@acme.pl")
    told = pl.Series([facts_of([*PERSON, mail], SECRET), facts_of([mail], SECRET)], dtype=pl.List(FACT))
    known = surrogates.Known(roots=learnt(told))
    inside, outside = (Replacer(SURROGATE, [], said, known)(*mail) for said in ([*PERSON, mail], [mail]))
    assert inside == outside
    assert Replacer(SURROGATE, [], [mail])(*mail) != outside, "without the first pass nobody knows"


# --- fakes ----------------------------------------------------------------------------------------------------------------------------

SHAPES = [
    ("PHONE_NUMBER", "+49 30 901820-11", r"\+49 30 23125\d{3}|\+49 .*30.*23125.*"),
    ("PHONE_NUMBER", "+33 6 12 34 56 78", r"\+33 6 39 98 \d\d \d\d"),
    ("PHONE_NUMBER", "+48 601 234 567", r"\+99 9\d\d \d{3} \d{3}"),
    ("DATE_OF_BIRTH", "12/05/1984", r"(0[1-9]|1[0-2])/(0[1-9]|1[0-2])/(19[4-9]\d|200[0-3])"),
    ("DATE_OF_BIRTH", "3 March 1984", r"([1-9]|1[0-2]) [A-Z][a-z]+ (19|20)\d\d"),
    ("UK_POSTCODE", "LS1 4AB", r"ZZ\d \d[A-Z]{2}"),
    ("DE_TAX_ID", "12 345 678 901", r"\d\d \d{3} \d{3} \d{3}"),
    ("SECRET_SOMETHING_NEW", "tok_9f86d081884c7d659a2f", r"<SECRET_SOMETHING_NEW_[0-9a-f]{8}>"),
    ("STREET_ADDRESS", "12 Baker Lane, Leeds, LS1 4AB", r"\d+ [\w' ]+, [\w' -]+, [A-Z]{2}\d \d[A-Z]{2}"),
    ("COORDINATES", "53.80121, -1.54912", r"\d+\.\d{5}, \d+\.\d{5}"),
]


@pytest.mark.parametrize(("entity", "value", "shape"), SHAPES)
def test_a_fake_has_the_form_of_its_value(entity: str, value: str, shape: str) -> None:
    import regex

    made = surrogates.surrogate(entity, value, SECRET, ("GB", "US"), surrogates.NOTHING)
    assert regex.fullmatch(shape, made), made
    assert made == surrogates.surrogate(entity, value, SECRET, ("GB", "US"), surrogates.NOTHING)
    assert made != surrogates.surrogate(entity, value, b"another secret for the tests", ("GB", "US"), surrogates.NOTHING) or "23125" in made


def test_no_fake_is_a_value_of_the_data() -> None:
    """Every fake that is made is declared real, again and again: until only what cannot be real is left."""
    real: list[int] = []
    made: list[str] = []
    for entity, value in [
        ("IP_ADDRESS", "81.2.69.142"),
        ("PHONE_NUMBER", "07911 123456"),
        ("EMAIL_ADDRESS", "a@b.co"),
        ("PERSON", "Anna Kowalska"),
    ]:
        for _ in range(60):
            known = surrogates.Known(np.array(sorted(real), np.uint64))
            made.append(Replacer(SURROGATE, [], [(entity, value)], known)(entity, value))
            hashes = surrogates.hashes_of(entity, made[-1], SECRET, SURROGATE.phone_regions)
            assert made[-1].startswith("<") or not set(hashes) & set(real)
            real += [] if made[-1].startswith("<") else sorted(set(hashes) - set(real))
    assert len(set(made)) > 200


# --- nothing is left ------------------------------------------------------------------------------------------------------------------

_LETTERS = st.sampled_from("abcdefghijklmnoprstuvwz")
_OF_ENTITIES = {word for entity in ENTITIES for word in entity.lower().split("_")}  # stand in placeholders: `<SECRET_API_KEY_1>`
_NAME = (
    st.text(_LETTERS, min_size=3, max_size=9)
    .map(str.capitalize)
    .filter(lambda name: name.lower() not in STARTERS | WORDS | SUFFIXES | set(TITLES) | _OF_ENTITIES)
)
_DIGITS = st.text(st.sampled_from("123456789"), min_size=4, max_size=4).filter(lambda group: not group.startswith(("19", "20")))


@st.composite
def _values(draw: st.DrawFn) -> tuple[str, str]:
    kind = draw(st.sampled_from(["PERSON", "EMAIL_ADDRESS", "CREDIT_CARD", "US_BANK_NUMBER", "SECRET_API_KEY", "SECRET_CONNECTION_STRING"]))
    if kind == "PERSON":
        return kind, draw(st.sampled_from(["", "Ms ", "Dr. "])) + " ".join(draw(st.lists(_NAME, min_size=2, max_size=3)))
    if kind == "EMAIL_ADDRESS":
        names = draw(st.sampled_from([("Olivia", "Kowalska"), ("Tamara", "Smith"), ("heinz", "schneider")]))
        return kind, f"{draw(st.sampled_from(['.', '_', '-'])).join(names)}{draw(st.sampled_from(['', '1234', '.5678']))}@a.co"
    if kind in ("CREDIT_CARD", "US_BANK_NUMBER"):
        return kind, draw(st.sampled_from([" ", "-"])).join(draw(st.lists(_DIGITS, min_size=3, max_size=4)))
    if kind == "SECRET_API_KEY":
        return kind, f"{draw(_NAME)}{draw(_DIGITS)}{draw(_NAME)}{draw(_DIGITS)}"
    return kind, f"postgres://x:{draw(_NAME)}{draw(_DIGITS)}@db/y"


@settings(max_examples=150, deadline=None)
@given(values=st.lists(_values(), min_size=1, max_size=4), data=st.data())
@pytest.mark.parametrize("params", [PLACEHOLDER, SURROGATE], ids=["placeholder", "surrogate"])
def test_no_word_of_a_value_is_left_in_its_row(params: ScrubParams, values: list[tuple[str, str]], data: st.DataObject) -> None:
    """Each value stands once as it is found, and then every telling word of it stands alone, in another turn."""
    first = "; ".join(value for _, value in values)
    words = [word for _, value in values for word in _telling(value)]
    second = " and ".join(data.draw(st.permutations(words)))
    at, spans = 0, []
    for entity, value in values:
        spans.append(Finding(at, at + len(value), entity, "test", 0.9))
        at += len(value) + 2
    texts, found = [first, f"so it was {second} as ever"], [tuple(spans), ()]
    again = carried(texts, found)
    said = mentions(texts, again)
    seen = {each for entity, value in said for each in surrogates.hashes_of(entity, value, SECRET, params.phone_regions)}
    replacer = Replacer(params, texts, said, surrogates.Known(np.array(sorted(seen), np.uint64)))
    from curate.pii.conversation import replace_in

    left = tokens(" ".join(replace_in(text, each, replacer) for text, each in zip(texts, again, strict=True)))
    assert [word for word in words if len(word) >= 4 and word.lower() in left] == []


def _telling(value: str) -> list[str]:
    """The words of four characters and more, but for what says nothing about anybody: the scheme of a URL."""
    return [value[value.lower().index(word) :][: len(word)] for word in tokens(value) if len(word) >= 4 and word != "postgres"]


def test_words_that_are_names_too_stay_words() -> None:
    texts = ["Will Young called.", "Will you call back? I will. A young man, says Will. Ms Young agrees."]
    found = [_found(texts[0], ("PERSON", "Will Young")), ()]
    assert _scrubbed(texts, found, PLACEHOLDER)[1] == "Will you call back? I will. A young man, says <PERSON_1>. Ms <PERSON_1> agrees."


def test_the_last_four_digits_follow_their_card(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Card 4242 4242 4242 1881, please.", "The one ending in 1881? Order 2019 was another."]
    found = [_found(texts[0], ("CREDIT_CARD", "4242 4242 4242 1881")), ()]
    assert _scrubbed(texts, found, PLACEHOLDER)[1] == "The one ending in <CREDIT_CARD_1>? Order 2019 was another."
    card, ending = _scrubbed(texts, found, SURROGATE)
    digits = "".join(each for each in card if each.isdigit())
    assert f"ending in {digits[-4:]}?" in ending and digits[-4:] != "1881" and not luhn(int(each) for each in digits)


def test_a_password_of_a_url_is_one_without_the_url_too() -> None:
    texts = ["postgres://shop:s3cretPw@db.example.com/orders", "the password s3cretPw, not S3CRETPW"]
    found = [_found(texts[0], ("SECRET_CONNECTION_STRING", texts[0])), ()]
    assert "s3cretPw" not in _scrubbed(texts, found, PLACEHOLDER)[1]


def test_many_values_in_a_long_text_take_time_in_proportion() -> None:
    import time

    names = [f"user{at}x@mail.example" for at in range(3000)]
    text = " ".join(names)
    at, spans = 0, []
    for name in names:
        spans.append(Finding(at, at + len(name), "EMAIL_ADDRESS", "test", 1.0))
        at += len(name) + 1
    long = "word " * 200_000 + names[7]
    start = time.process_time()
    again = carried([text, long], [tuple(spans), ()])
    assert [(each.start, each.end) for each in again[1]] == [(len(long) - len(names[7]), len(long))]
    assert time.process_time() - start < 8, "1 MB and 3 000 values: about a second here"


def test_invisible_characters_do_not_make_another_value() -> None:
    assert identity("EMAIL_ADDRESS", "eve\u200b@exa\u00admple.org", ()) == "eve@example.org"
    made = surrogates.surrogate("US_BANK_NUMBER", "1234\u200b5678", SECRET, (), surrogates.NOTHING)
    assert made == surrogates.surrogate("US_BANK_NUMBER", "12345678", SECRET, (), surrogates.NOTHING)


# --- the key --------------------------------------------------------------------------------------------------------------------------


def test_a_key_file_must_be_private_and_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scrub.key"
    path.write_text("0123456789abcdef0123\n")

    def read(**values: str) -> bytes:
        return keys.key(section("scrub", ScrubParams, "replace=surrogate", *(f"{name}={value}" for name, value in values.items())))

    monkeypatch.delenv("FINERY_SCRUB_KEY")
    path.chmod(0o644)
    with pytest.raises(ParamsError, match="chmod 600"):
        read(key_file=str(path))
    path.chmod(0o600)
    assert read(key_file=str(path)) == b"0123456789abcdef0123"
    monkeypatch.setenv("FINERY_SCRUB_KEY", "quite another key, and long")
    with pytest.raises(ParamsError, match="different keys"):
        read(key_file=str(path))
    monkeypatch.delenv("FINERY_SCRUB_KEY")
    with pytest.raises(ParamsError, match="cannot be read"):
        read(key_file=str(tmp_path / "nowhere"))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / ".git").mkdir()
    (tmp_path / "inside" / "key").write_text("0123456789abcdef0123")
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(ParamsError, match="lies in the project"):
        read(key_file="key")
    monkeypatch.setenv("FINERY_SCRUB_KEY", "short")
    with pytest.raises(ParamsError, match="fewer than 16"):
        read()
