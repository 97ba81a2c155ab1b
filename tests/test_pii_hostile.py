"""Texts made to leak or to hang the search: values inside values, hidden characters, a megabyte in one line, repetition that backtracks."""

import time
from collections.abc import Callable

import pytest

from curate.pii import conversation, engine
from curate.pii.settings import ScrubParams
from tests.helpers import section

PARAMS: ScrubParams = section("scrub", ScrubParams)


def scrubbed(text: str) -> str:
    return conversation.scrubbed([text], PARAMS)[0]


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("https://eve:pa55word@203.0.113.7/?mail=bob@acme.co", ["eve", "pa55word", "203.0.113.7", "bob"]),
        ("Mr Anna.Kowalska@acme.co Nowak", ["Anna", "Kowalska", "acme"]),
        ("card 4242 4242 4242 4242 020 7946 0123", ["4242", "7946"]),
        ("password='call +44 20 7946 0123 or eve@acme.co'", ["7946", "eve@"]),
        ("eve@acme.co,bob@acme.co;eve@acme.co|zed@acme.co", ["eve", "bob", "zed", "@"]),
        ("<EMAIL_ADDRESS_1> eve@acme.co <<eve@acme.co>>", ["eve"]),
        ('{"a": "{\\"mail\\": \\"eve@acme.co\\"}"}', ["eve"]),
        ("DE89 3704 0044 0532 0130 00 4242424242424242", ["3704", "4242"]),
    ],
)
def test_nested_and_overlapping_values_leave_nothing(text: str, gone: list[str]) -> None:
    assert [each for each in gone if each in scrubbed(text)] == []


@pytest.mark.parametrize("hidden", ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u200e"])
@pytest.mark.parametrize("value", ["eve.adams@acme.co", "4242424242424242", "DE89370400440532013000", "203.0.113.77"])
def test_characters_without_width_hide_nothing(hidden: str, value: str) -> None:
    for every in (1, 3):
        written = hidden.join(value[at : at + every] for at in range(0, len(value), every))
        left = scrubbed(f"so it is {written} now")
        assert left.startswith("so it is <") and left.endswith("> now"), left


# One pattern of characters each, repeated without a line break: what e-mail, phone, name, address, key and URL patterns begin to read.
REPEATED = [
    "a", "a.", "a@", "@", "a-", "1", "1 ", "1-", "(1", "+1", "0.", "1.1.", ":", "a:", "::", "A", "A ",
    "Anna ", "Anna, ", "Mr ", "12 Main ", "é", "http://", "https://a:", "/users/", "/~", "eyJ", "eyJa.",
    "password:", "key=", "Bearer ", "-----BEGIN PRIVATE KEY-----", "sk-", "DE89 ", "the ", "a at b dot ",
    "born ", "passport 1", "ssn ", "lat: 1.2345 ", "call 1 ", "\\n", '"', "<", "\u200b", "Rua de ", "0x",
    "x=1;", "and A, ", "m:l ",
]  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    """Processor time: other work on the machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize("piece", REPEATED)
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    """Twice the text takes about twice the time; 4 times and a tenth of a second are allowed. Quadratic growth over 8 times would be 64."""
    engine.find("warm", PARAMS)
    small, large = (piece * (size // len(piece)) for size in (2_000, 16_000))
    least = min(seconds(lambda: engine.find(small, PARAMS)) for _ in range(2))
    assert seconds(lambda: engine.find(large, PARAMS)) < 8 * 3 * least + 0.3


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        ("prose", "The meeting begins at nine and everybody brings a cup of tea, 12 or 13 of them. "),
        ("json", '{"id": 10482, "tags": ["a", "b"], "at": "2024-03-01T10:00:00", "x": 0.4375}, '),
        ("base64", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODk"),
        ("digits", "31415926535897932384626433832795"),
    ],
)
def test_a_megabyte_in_one_line_is_searched(kind: str, piece: str) -> None:
    """What stands in its middle is found, in seconds."""
    half = piece * (500_000 // len(piece))
    text = f"{half} eve@acme.co {half}"
    assert len(text) > 990_000
    started = time.process_time()
    left = scrubbed(text)
    took = time.process_time() - started
    assert "eve@" not in left and took < 20, f"{kind}: {took:.1f} s of the processor"
