"""Every token format is found in prose, JSON, a URL and code; hashes, ids and pictures are not. Tokens are drawn at run time."""

import base64
import hashlib
import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.pii import engine
from curate.pii.settings import ScrubParams
from curate.pii.tokens import TOKENS
from tests.helpers import section

SECRETS: ScrubParams = section("scrub", ScrubParams, "entities=[SECRET]")
PLACES = ("It is {} now.", '{{"note": "{}"}}', "https://example.com/open?x={}&y=1", "client.login('{}')  # later")


@pytest.mark.parametrize(("pattern"), [token[2] for token in TOKENS], ids=[token[0] for token in TOKENS])
def test_each_token_is_found_in_prose_json_url_and_code(pattern: str) -> None:
    # a look-around that only guards the edges is no part of the token's own text
    @settings(max_examples=2, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern, fullmatch=True, alphabet=st.characters(codec="ascii")).map(str.strip))
    def check(token: str) -> None:
        texts = [place.format(token) for place in PLACES]
        for text, found in zip(texts, engine.find_many(texts, SECRETS), strict=True):
            assert not isinstance(found, Exception)
            start = text.index(token)
            assert any(each.start <= start and start + len(token) <= each.end for each in found), text

    check()


def test_there_are_more_than_forty_formats() -> None:
    assert len(TOKENS) >= 40 and len({token[0] for token in TOKENS}) == len(TOKENS)


def test_hashes_ids_and_pictures_are_no_secrets() -> None:
    digest = hashlib.sha256(b"finery")
    texts = [
        f"commit {hashlib.sha1(b'a', usedforsecurity=False).hexdigest()}",
        f"sha256:{digest.hexdigest()} and md5 {digest.hexdigest()[:32]}",
        f"id {uuid.UUID(bytes=digest.digest()[:16])}",
        f"![x](data:image/png;base64,{base64.b64encode(digest.digest() * 40).decode()})",
        "A" * 140,
        json.dumps({"integrity": f"sha512-{base64.b64encode(digest.digest() * 2).decode()}"}),
    ]
    assert engine.find_many(texts, SECRETS) == [()] * len(texts)
