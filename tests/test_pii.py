"""What is found, what is left alone, and that screens lose nothing."""

import importlib
import itertools
import json
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import Leniency, PhoneNumberMatcher

from curate.pii import context, conversation, engine, ids, name_lists, name_words, names, patterns, screen
from curate.pii.presidio import no_tokens
from curate.pii.settings import ENTITIES, SECRETS, ScrubParams
from curate.record import ParamsError
from tests.helpers import SHARED, section

PARAMS: ScrubParams = section("scrub", ScrubParams)
LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zAbCdEfGhIjKlMnOpQrStUvWxYz0123456789"

FOUND = [
    ("EMAIL_ADDRESS", "maria.lopez@example.com"),
    ("EMAIL_ADDRESS", "office+broadband@pellmoor.example"),
    ("PHONE_NUMBER", "020 7946 0123"),
    ("PHONE_NUMBER", "07700 900123"),
    ("PHONE_NUMBER", "07700900123"),
    ("PHONE_NUMBER", "01632 960123"),
    ("PHONE_NUMBER", "+44 20 7946 0958"),
    ("PHONE_NUMBER", "+44 (0)20 7946 0958"),
    ("PHONE_NUMBER", "(617) 555-0143"),
    ("PHONE_NUMBER", "212-555-0199"),
    ("PHONE_NUMBER", "+1 212 555 0100"),
    ("CREDIT_CARD", "4242 4242 4242 4242"),
    ("CREDIT_CARD", "5555555555554444"),
    ("CREDIT_CARD", "3782-822463-10005"),
    ("CREDIT_CARD", "2223003122003222"),
    ("IBAN_CODE", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN_CODE", "DE89370400440532013000"),
    ("IP_ADDRESS", "203.0.113.77"),
    ("IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
    ("MAC_ADDRESS", "00:1B:44:11:3A:B7"),
    ("MAC_ADDRESS", "3c-52-82-6f-10-e9"),
    ("CRYPTO", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ("URL", "https://camera:Kx81mQ@cam.example.net/live"),
    ("URL", "https://example.com/cb?state=1&access_token=abcdef123456"),
    ("US_SSN", "536-90-4399"),
    ("US_SSN", "123-45-6789"),
    ("US_ITIN", "912-78-1234"),
    ("UK_NINO", "AB 12 34 56 C"),
    ("UK_NINO", "QQ123456C"),
    ("UK_DRIVING_LICENCE", "MORGA657054SM9IJ"),
    ("SECRET_AWS_KEY", "AKIAIOSFODNN7EXAMPLE"),
    ("SECRET_GITHUB_TOKEN", "ghp_" + LETTERS[:36]),
    ("SECRET_GITHUB_TOKEN", "github_pat_" + LETTERS[:40]),
    ("SECRET_GITLAB_TOKEN", "glpat-" + LETTERS[:20]),
    ("SECRET_SLACK_TOKEN", "xoxb-123456789012-123456789012-" + LETTERS[:24]),
    ("SECRET_SLACK_TOKEN", "https://hooks.slack.com/services/T0123ABCD/B0123ABCD/" + LETTERS[:24]),
    ("SECRET_STRIPE_KEY", "sk_live_" + LETTERS[:24]),
    ("SECRET_OPENAI_KEY", "sk-proj-" + LETTERS[:48]),
    ("SECRET_ANTHROPIC_KEY", "sk-ant-api03-" + LETTERS[:48]),
    ("SECRET_GOOGLE_KEY", "AIza" + LETTERS[:35]),
    ("SECRET_HUGGINGFACE_TOKEN", "hf_" + LETTERS[:34]),
    ("SECRET_NPM_TOKEN", "npm_" + LETTERS[:36]),
    ("SECRET_PYPI_TOKEN", "pypi-" + LETTERS),
    ("SECRET_SENDGRID_KEY", f"SG.{LETTERS[:22]}.{LETTERS[:43]}"),
    ("SECRET_TWILIO_KEY", "SK" + "0123456789abcdef" * 2),
    ("SECRET_TELEGRAM_TOKEN", "123456789:AA" + LETTERS[:33]),
    ("SECRET_DIGITALOCEAN_TOKEN", "dop_v1_" + "0123456789abcdef" * 4),
    ("SECRET_JWT", f"eyJ{LETTERS[:33]}.eyJ{LETTERS[:40]}.{LETTERS[:43]}"),
    ("SECRET_CONNECTION_STRING", "postgres://shop:s3cret@db.example.com:5432/orders"),
    ("SECRET_CONNECTION_STRING", "mongodb+srv://app:p%40ss@cluster0.example.net/x?y=1"),
]
PLACES = {
    "sentence": "Hello, it is {} if you need it again.",
    "json": '{{"note": "{}", "n": 3}}',
    "code": "x = 1\nif flag:\n    value = '{}'\n    send(value)  # later\n",
    "list": "- first\n- {}\n- last",
}
IN_CONTEXT = [  # (text, entity, value)
    ("my passport AB1234567 has expired", "UK_PASSPORT", "AB1234567"),
    ("US passport number C01234567.", "US_PASSPORT", "C01234567"),
    ("account number 12345678, sort code 20-00-00", "US_BANK_NUMBER", "12345678"),
    ("driver's license D1234567 was shown", "US_DRIVER_LICENSE", "D1234567"),
    ("NHS number 943 476 5919", "UK_NHS", "943 476 5919"),
    ("my postcode is LS1 4AB now", "UK_POSTCODE", "LS1 4AB"),
    ("her SSN is 536904399", "US_SSN", "536904399"),
    ("my phone is 2125550123", "PHONE_NUMBER", "2125550123"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "SECRET_AWS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("Endpoint=x;AccountKey=" + LETTERS + LETTERS[:19] + "==;", "SECRET_AZURE_KEY", LETTERS + LETTERS[:19] + "=="),
    ("curl -H 'Authorization: Bearer abc123def456'", "SECRET_AUTHORIZATION", "abc123def456"),
    ("password: hunter2", "SECRET_PASSWORD", "hunter2"),
    ("DB_PASSWORD=Tr0ub4dor&3", "SECRET_PASSWORD", "Tr0ub4dor&3"),
    ('{"password": "swordfish"}', "SECRET_PASSWORD", "swordfish"),
    ("the wifi password is BlueKettle9.", "SECRET_PASSWORD", "BlueKettle9"),
    ("pwd: 9Xk!2", "SECRET_PASSWORD", "9Xk!2"),
    ("API_KEY=9f86d081884c7d659a2f", "SECRET_API_KEY", "9f86d081884c7d659a2f"),
]
LEFT_ALONE = [
    "The hub is at 192.168.1.254, the DHCP range ends at 192.168.1.253, mask 255.255.255.0, and 127.0.0.1 is you.",
    "Our resolvers are 8.8.8.8 and ::1 and fe80::1.",
    "git clone git@github.com:finery/finery.git",
    "See https://help.pellmoor.example/wifi?page=2#top for more.",
    "She sold 24 + 12 = 36 clips, then 48000/12 = 4000, and 1 234 567 890 in all.",
    "12/05/2024 10:30:15, 3.14159265358979, 2024-11-03T10:15:00Z, v1.2.3",
    "password = getpass()\npwd = os.environ['PWD']\npassword: str = args.password\npassword: <your password>",
    "Password: at least eight characters. The password is required. Forgot your password? Password: ********",
    "token = tokenizer.next_token_value()\nkey: value_of_the_setting_name",
    "std::vector<int> a; dead::beef(); A @ B.T; x@y",
    "order 123456789012, ticket 40018273, serial AB1234567",
    "A normal sentence without anything in it.",
    "",
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("entity", "value"), FOUND, ids=[f"{entity}-{value[:12]}" for entity, value in FOUND])
def test_each_entity_is_found_whole_in_each_place(entity: str, value: str, place: str) -> None:
    text = PLACES[place].format(value)
    found = [(each.entity, text[each.start : each.end]) for each in engine.find(text, PARAMS)]
    assert found == [(entity, value)]


@pytest.mark.parametrize(("text", "entity", "value"), IN_CONTEXT)
def test_found_beside_the_word_that_says_what_it_is(text: str, entity: str, value: str) -> None:
    assert (entity, value) in [(each.entity, text[each.start : each.end]) for each in engine.find(text, PARAMS)]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_left_alone(text: str) -> None:
    assert [text[each.start : each.end] for each in engine.find(text, PARAMS)] == []


def test_a_private_key_goes_as_a_whole_block_even_when_it_is_cut_off() -> None:
    lines = "\n".join([LETTERS[:64]] * 3)
    whole = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{lines}\nAbC=\n-----END OPENSSH PRIVATE KEY-----"
    assert conversation.scrubbed([f"Key:\n{whole}\nThanks"], PARAMS) == ["Key:\n<SECRET_PRIVATE_KEY_1>\nThanks"]
    cut = f"-----BEGIN RSA PRIVATE KEY-----\n{lines}"
    assert conversation.scrubbed([f"Key: {cut}\nThanks for the help"], PARAMS) == ["Key: <SECRET_PRIVATE_KEY_1>\nThanks for the help"]
    escaped = json.dumps({"private_key": whole})
    assert LETTERS[:20] not in conversation.scrubbed([escaped], PARAMS)[0]


def test_public_addresses_are_kept_apart_from_private_ones() -> None:
    text = "from 192.168.1.7 to 203.0.113.5"
    assert conversation.scrubbed([text], PARAMS) == ["from 192.168.1.7 to <IP_ADDRESS_1>"]
    both = section("scrub", ScrubParams, "keep_private_ips=false")
    assert conversation.scrubbed([text], both) == ["from <IP_ADDRESS_1> to <IP_ADDRESS_2>"]


def test_allowed_values_stay_in_any_spelling() -> None:
    params = section("scrub", ScrubParams, "allow=['+44 20 7946 0001', Help@example.com]")
    text = "Call 020 7946 0001, write to help@example.com or to eve@example.com."
    assert conversation.scrubbed([text], params) == ["Call 020 7946 0001, write to help@example.com or to <EMAIL_ADDRESS_1>."]


def test_only_the_entities_asked_for() -> None:
    params = section("scrub", ScrubParams, "entities=[SECRET_PASSWORD]")
    assert conversation.scrubbed(["eve@example.com password: hunter2"], params) == ["eve@example.com password: <SECRET_PASSWORD_1>"]
    assert set(engine.analyzer(section("scrub", ScrubParams, "entities=[SECRET]")).entities) == set(SECRETS)


def test_unknown_entity_or_region_stops_with_what_is_allowed() -> None:
    with pytest.raises(ParamsError, match=r"scrub\.entities.*E_MAIL.*EMAIL_ADDRESS"):
        section("scrub", ScrubParams, "entities=[E_MAIL]")
    with pytest.raises(ParamsError, match=r"scrub\.phone_regions.*UK"):
        section("scrub", ScrubParams, "phone_regions=[UK]")


def _plain(text: str) -> set[tuple[int, int, str, float]]:
    """What Presidio finds when every recognizer reads the text, tokenised by the blank pipeline."""
    results = engine.analyzer(PARAMS).engine.analyze(text, "en")
    return {(each.start, each.end, each.entity_type, round(each.score, 2)) for each in results}


def _screened(texts: list[str]) -> list[set[tuple[int, int, str, float]]]:
    found = engine.analyze(texts, engine.analyzer(PARAMS))
    assert not [each for each in found if isinstance(each, Exception)]
    return [{(one.start, one.end, one.entity, one.score) for one in each} for each in found if not isinstance(each, Exception)]


def test_screens_lose_nothing_on_examples() -> None:
    texts = [place.format(value) for place in PLACES.values() for _, value in FOUND] + [each[0] for each in IN_CONTEXT] + LEFT_ALONE
    texts += [text.upper() for text in texts] + [text.lower() for text in texts]
    assert [text for text, found in zip(texts, _screened(texts), strict=True) if _plain(text) != found] == []


@pytest.mark.skipif(not (SHARED / "pii_generated.json").exists(), reason="shared data is absent")
def test_screens_lose_nothing_on_generated_sentences() -> None:
    texts = [each["full_text"] for each in json.loads((SHARED / "pii_generated.json").read_text())[:400]]
    assert [text for text, found in zip(texts, _screened(texts), strict=True) if _plain(text) != found] == []


PIECES = [value for _, value in FOUND] + [
    "passport ",
    "ssn ",
    "password=",
    " ",
    "\n",
    ".",
    "-",
    "1",
    "@",
    "12",
    "a",
    "AB",
    ":",
    '"',
    "٣",
    "İ",
    "ſ",
]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join))
def test_screens_lose_nothing_and_findings_never_overlap(text: str) -> None:
    assert [_plain(text)] == _screened([text]) and _screened([text] * 20) == [_plain(text)] * 20  # few texts and many are searched apart
    found = engine.find(text, PARAMS)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert all(each.entity in ENTITIES and 0 <= each.start < each.end <= len(text) for each in found)
    covered = {at for each in found for at in range(each.start, each.end)}
    allowed = {value.casefold() for value in PARAMS.allow}
    assert all(set(range(start, end)) <= covered for start, end, *_ in _plain(text) if text[start:end].casefold() not in allowed), (
        "a part of a finding was left standing"
    )


NAMED = [
    "Anna",
    "Martin",
    "Will",
    "José",
    "Jose\u0301",
    "Marie-Anne",
    "O'Brien",
    "McDonald",
    "Kowalska",
    "KOWALSKA",
    "anna",
    "J.",
    "Café",
    "Street",
    "Owen",
    "Dan",
]
BESIDE = [
    " and ",
    " i ",
    " y ",
    ", ",
    " ",
    " van ",
    "Dear ",
    "my name is ",
    "\nRegards,\n",
    "Name: ",
    "Mr. ",
    "Hello ",
    "!",
    "\n",
    "x",
    "\u0301",
    "(",
    ".",
    "you are right, ",
    ", I am",
    " krijgt het van u",
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from(NAMED) | st.sampled_from(BESIDE), min_size=1, max_size=8).map("".join), min_size=2, max_size=12))
def test_names_are_the_same_in_many_texts_as_in_each(texts: list[str]) -> None:
    finder = names.PersonNames()
    each = [[(one.start, one.end, one.score) for one in finder.analyze(text, ["PERSON"])] for text in texts]
    assert [[(one.start, one.end, one.score) for one in several] for several in finder.analyze_many(texts)] == each


SHAPED = [  # values of each shape of the recognizers whose patterns have screens of their own, and what stands around them
    "12 Long Acre Road", "Flat 3, 12b N. High Street, Leeds, LS1 4AP", "12 bis rue de la Paix", "4, rue Victor Hugo",
    "Hauptstraße 12 b", "Rua das Flores 7", "C/ Mayor n.º 3", "ul. Długa 5/7", "5 Kossuth Lajos u. 3", "P.O. Box 77", "PO Box 9",
    "she lives at Long Acre 7", "Address: 7 Long Acre", "ship it to\n9 Elm ", "(212) 555-0143", "212.555.0143", "0044 20 7946 0958",
    "+44 (0)20 7946 0958", "020 7946 0123", "(020) 7946 0123", "(01632)960123", "Tel: 7946 0958 22", "\nM 7700 900 123",
    "|P. (7)123456", "555 0143 office", "7946 0958 / fax", "born ", "dob: ", "3/4/1981", "1981-04-03", "the 3rd of April 1981",
    "3 Apr. 81", "April 3rd, 1981", "May 3 1981", "RSSMRA85T10A562S", "rssmraurtmlaruns", "\u0664", "İ", "ſt", "\n", " ", ", ", "x",
    "7", "-", "Place ", "the ", "Éa\u0301 ",
]  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from(SHAPED) | st.sampled_from(SHAPED).map(str.upper), max_size=6).map("".join), min_size=2, max_size=12)
)
def test_patterns_with_screens_of_their_own_find_the_same(texts: list[str]) -> None:
    screened = [each for each in engine.analyzer(PARAMS).finders if each.many]
    assert [type(each.recognizer).__name__ for each in screened] == ["GroupedPhone", "StreetAddress", "BirthDate", "PersonNames"]
    for finder in screened:
        assert finder.many is not None
        alone = [
            [(one.start, one.end, one.score) for one in finder.recognizer.analyze(text, [finder.entity], no_tokens())] for text in texts
        ]
        passed = [bool(each) for each in screen.passing(texts, [finder])]
        assert all(known for found, known in zip(alone, passed, strict=True) if found and finder.entity != "DATE_OF_BIRTH"), (
            "lost by the screen"
        )
        assert [[(one.start, one.end, one.score) for one in each] for each in finder.many(texts)] == alone


FISCAL = next(each for each in ids.finders() if each.entity == "IT_FISCAL_CODE")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.from_regex(re.compile(FISCAL.recognizer.patterns[0].regex), fullmatch=True))  # type: ignore[attr-defined]
def test_no_fiscal_code_is_lost_by_its_screen(code: str) -> None:
    """Nor those in which letters stand for all digits."""
    assert screen.passing([code, "nothing"] * 6, [FISCAL]) == [[0], []] * 6


NAME_PARTS = [
    *" ,.-'’&\n\x1c²_1aiıſZÉéŁłßǅ—",
    "Anna",
    "Lopez",
    "Łukasz",
    "Zoë",
    "O’Brien",
    "McDonald",
    "LoRA",
    ", ",
    " and ",
    " et ",
    " van ",
    "A.",
]


@given(st.lists(st.sampled_from(NAME_PARTS), max_size=40))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_names_of_latin_texts_are_what_the_general_patterns_find(pieces: list[str]) -> None:
    text = "".join(pieces)
    for several in (names._RUN, names._PIECES, names._SERIES, name_words.PARTS):
        general = [match.span() for match in several[name_words.OTHER].finditer(text)]
        assert [match.span() for match in several[name_words.script(text)].finditer(text)] == general


@given(
    st.lists(
        st.sampled_from([*"+0 -./()xa\n", "020", "7946 0958", "00", "44", "212-736-5000", "(0)", "736", "5000", "2020", "12"]), max_size=40
    )
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_phone_numbers_are_those_of_the_matcher_without_a_memory(pieces: list[str]) -> None:
    text = "".join(pieces)
    for region in ("GB", "US"):
        ours, stock = (
            [(each.start, each.end, each.number) for each in matcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1)]
            for matcher in (patterns._Matcher, PhoneNumberMatcher)
        )
        assert ours == stock


@pytest.mark.parametrize("name", ["backup code", "signing key", "TOTP seed", "credentials", "activation"])
def test_a_random_string_is_found_beside_each_of_its_words(name: str) -> None:
    assert next(iter(engine.find(f"the {name}: kQ9vX2mZ7pL4wR8tB1nC", PARAMS))).entity.startswith("SECRET_")


PHRASES = ("tel", "call", "call me", "a a a", "phone number", "number of a", "née le")


@given(
    st.lists(st.sampled_from([*" _-\n.aé1", "tel", "Call", "me", "phone", "number", "of", "née", "le", "x" * 50]), max_size=80),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 12)), min_size=1, max_size=4),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_context_near_findings_is_that_of_the_whole_text(pieces: list[str], places: list[tuple[int, int]]) -> None:
    text = "".join(pieces)
    findings = [(min(start, len(text)), min(start + size, len(text))) for start, size in places]
    whole = [match.span() for match in context.words(PHRASES).finditer(text)]
    near = context.spans_near(text, PHRASES, findings)
    for start, end in findings:
        assert context._near(near, start, end) == context._near(whole, start, end)
    if whole:
        assert pl.Series([text]).str.contains(context.context_screen(PHRASES))[0]


def test_a_series_that_ends_before_a_mark_is_found_in_many_texts_too() -> None:
    texts = ["They met Anna and Jose\u0301 Kowalska.", "nothing"]
    assert [each.end for each in names.PersonNames().analyze_many(texts)[0]] == [
        each.end for each in names.PersonNames().analyze(texts[0], ["PERSON"])
    ]


@pytest.mark.skipif(not (SHARED / "gsm8k_train.jsonl").exists(), reason="shared data is absent")
def test_sums_are_no_personal_data() -> None:
    """Their people have names: those are allowed here."""
    params = section("scrub", ScrubParams, f"entities={json.dumps([each for each in PARAMS.entities if each != 'PERSON'])}")
    texts = [json.loads(line) for line in (SHARED / "gsm8k_train.jsonl").read_text().splitlines()[:1000]]
    assert [row for row in texts if any(engine.find_many([row["question"], row["answer"]], params))] == []


def _entities(text: str, *overrides: str, language: str | None = None) -> list[tuple[str, str]]:
    found = engine.find(text, section("scrub", ScrubParams, *overrides), language)
    return [(each.entity, text[each.start : each.end]) for each in found]


@pytest.mark.parametrize(
    ("text", "entity", "value"),
    [
        ("write to eve at example dot com", "EMAIL_ADDRESS", "eve at example dot com"),
        ("write to eve [at] example [dot] com", "EMAIL_ADDRESS", "eve [at] example [dot] com"),
        ("write to e\u200bve@exam\u200bple.com", "EMAIL_ADDRESS", "e\u200bve@exam\u200bple.com"),
        ("Date of birth: 12/05/1980", "DATE_OF_BIRTH", "12/05/1980"),
        ("PESEL: 44051401359", "PL_PESEL", "44051401359"),
        ("at lat: 40.7128, lng: -74.0060", "COORDINATES", "lat: 40.7128, lng: -74.0060"),
        ("it is Rua das Flores 12 now", "STREET_ADDRESS", "Rua das Flores 12"),
        ("see https://www.linkedin.com/in/anna-k", "URL", "https://www.linkedin.com/in/anna-k"),
        ("open /home/annak/notes", "USERNAME", "annak"),
        ("Dear Ms. Kowalska,", "PERSON", "Kowalska"),
        ("Regards,\nXyloph Brannt", "PERSON", "Xyloph Brannt"),
        ("I met Natalia yesterday", "PERSON", "Natalia"),
        ("and Will Kowalski laughed", "PERSON", "Will Kowalski"),
        ("Do I lose it?\n\nBest,\nOwen", "PERSON", "Owen"),
        ("Do I lose it?\n\nThanks!\n\nXyloph\n", "PERSON", "Xyloph"),
        ("Do I lose it?\nThank you\nOwen\nLine 3", "PERSON", "Owen"),
        ("Wann?\n\nDanke,\nOwen", "PERSON", "Owen"),
        ("What would you do in my shoes?\n\nOwen", "PERSON", "Owen"),
        ("What would you do in my shoes?\r\n\r\n- Grace Young\r\n", "PERSON", "Grace Young"),
        ("Many thanks for looking into it\nWill x", "PERSON", "Will"),
        ("Do I lose it?\n\nYours in hope,\nXyloph", "PERSON", "Xyloph"),
        ("You are clear of the minimum term, Owen. It ended in May.", "PERSON", "Owen"),
        ("Sure, Mark, your line is live.", "PERSON", "Mark"),
        ("The second colleague had it right, Grant, and I apologise.", "PERSON", "Grant"),
        ("Rose, I have sent a new hub.", "PERSON", "Rose"),
        ("The second colleague had it right, Alasdair, and I apologise.", "PERSON", "Alasdair"),
        ("We saw that Les Kowalski was here", "PERSON", "Les Kowalski"),
        ("I think that Dan has it, and so does the other.", "PERSON", "Dan"),
    ],
)
def test_people_places_and_spelt_addresses(text: str, entity: str, value: str) -> None:
    assert _entities(text) == [(entity, value)]


@pytest.mark.parametrize(
    "text",
    [
        "Will you come in May to Paris?",
        "Grace and Hope are virtues.",
        "The HomeGuard Hub 3 from Pellmoor",
        "x = os.Martin(1); Anna.run()",
        "call me at noon dot",
        "Bitte sagen Sie uns mindestens 14 Tage vorher Bescheid.",
        "Dann haben Sie zwei Tage Zeit. Einer kommt mit.",
        "good\nbetter\nBest\nAverage\nWorst",
        "Thank you,\nCustomer Care",
        "Which do you like best?\n\nThanks",
        "Which of these do you like best?\n\nHope",
        "Where did they meet the other two?\nParis",
        "One of these cities:\nDallas\nAustin",
        "It is about the Ford and not the other.\nGrant Application",
        "- a bill of the month\n- Grant",
        "What is it about?\nsome of the money\nGRANT",
        "Dear customer services,\nXyloph",
        "You live in Werburgh Street, Chester. It is old.",
        "Will you be in the house, Grant Road, when we come?",
        "They wandered for years until Grace, of all, spoke.",
        "Les frais de départ anticipé sont de 12 livres par mois.",
        "Les frais",
        "Dan krijgt u een nieuwe hub van ons.",
        "Elke maand betaalt u het bedrag van de factuur.",
        "Mia madre non ha ricevuto la fattura.",
        "Otto giorni dopo la richiesta il tecnico è venuto.",
        "Sean cuales sean los cargos, no los pago.",
        "Una factura y el cargo de la línea.",
        "Von uns erhalten Sie eine neue Rechnung.",
        "Sem isso não é possível ativar o serviço.",
        "Ale nie jest to do zwrotu.",
    ],
)
def test_words_products_and_code_are_no_names(text: str) -> None:
    assert _entities(text) == []


def test_a_name_signed_once_is_known_where_it_is_spoken_to() -> None:
    turns = ["Do I lose it?\n\nBest,\nOwen", "You are clear of the minimum term, Owen. It ended in May."]
    assert conversation.replaced(turns, conversation.carried(turns, [engine.find(each, PARAMS) for each in turns]), PARAMS) == [
        "Do I lose it?\n\nBest,\n<PERSON_1>",
        "You are clear of the minimum term, <PERSON_1>. It ended in May.",
    ]


def test_words_of_the_lists_of_names_are_where_they_work() -> None:
    first, _ = name_words.listed()
    assert first >= name_lists.GIVEN and name_lists.AMBIGUOUS >= name_lists.GIVEN and not name_lists.GIVEN & name_lists.NOT_NAMES
    assert first >= name_lists.ELSEWHERE.keys() and not name_lists.AMBIGUOUS & name_lists.ELSEWHERE.keys()
    assert all(each in name_lists.TELLS for several in name_lists.ELSEWHERE.values() for each in several)
    lists = [importlib.import_module(f"faker.providers.person.{each}").Provider.first_names for each in ("en_GB", "en_US")]
    assert not {*itertools.chain(*lists)} & {*name_lists.MORE}


def spoken_again(found: str, text: str) -> str:
    """`text` replaced behind a turn in which `found` is found."""
    turns = [found, text]
    return conversation.replaced(turns, conversation.carried(turns, [engine.find(each, PARAMS) for each in turns]), PARAMS)[1]


def test_a_name_found_once_does_not_make_names_of_identifiers() -> None:
    signed = "My name is Zarko Qwertzui."
    for code in ("post_process_qwertzui(x)", "ta_qwertzui = 1", "model.qwertzui", "qwertzui.fit(x)", "qwertzui[0]", "def qwertzui(a):"):
        assert spoken_again(signed, code) == code
    for told in (
        "ask qwertzui about it",
        "zarko_qwertzui wrote",
        "zarko.qwertzui wrote",
        "it was qwertzui.",
        "see Qwertzui.fit",
        "a:qwertzui",
    ):
        assert "qwertzui" not in spoken_again(signed, told).lower(), told
    assert "anna" not in spoken_again("My name is Anna Qwertzui.", "it is in cv_anna.pdf")  # a listed name is one in a file's name too


def test_the_last_digits_of_a_number_are_not_looked_for_in_decimals() -> None:
    called = "Call me on +44 20 7946 0958."
    for number in ("1.0958 metres", "0958.25 metres", "sums of 12.0958, 3.5"):
        assert spoken_again(called, number) == number
    for told in ("it ends in 0958.", "0958, they said", "(0958)"):
        assert "0958" not in spoken_again(called, told), told


@pytest.mark.parametrize(
    "text",
    [
        "Bertrand's postulate is proven.",
        "the Ricci tensor and the Pauli matrices",
        "Kaiser Window parameters",
        "a Mel Spectrogram of it",
        "Fatima’s lemma",
    ],
)
def test_theorems_are_nobody(text: str) -> None:
    assert not [each for each in engine.find(text, PARAMS) if each.entity == "PERSON"]
    assert [each for each in engine.find("Bertrand's number is known, and so is Fatima.", PARAMS) if each.entity == "PERSON"]


def test_thresholds_deny_and_language() -> None:
    assert _entities("I met Natalia; ask Ms Brannt", "thresholds={PERSON: 0.8}") == [("PERSON", "Brannt")]
    assert _entities("The Bluebird plan", "deny=[bluebird]") == [("DENIED", "Bluebird")]
    german = "Es ist 03012345678"
    assert _entities(german, "phone_regions=[US]") == [] and _entities(german, "phone_regions=[US]", language="de") == [
        ("PHONE_NUMBER", "03012345678")
    ]
    with pytest.raises(ParamsError, match=r"scrub\.thresholds.*PERSONS"):
        section("scrub", ScrubParams, "thresholds={PERSONS: 0.5}")


def test_a_lone_last_name_counts_only_where_asked_for() -> None:
    assert _entities("then Kowalski laughed") == []
    assert _entities("then Kowalski laughed", "thresholds={PERSON: 0.35}") == [("PERSON", "Kowalski")]
    assert _entities("PATRICK = 3", "thresholds={PERSON: 0.35}") == []  # a constant
