"""The audit finds a planted value in any kind of file, and nothing elsewhere; the second search finds what the first left."""

import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from curate import scrub
from curate.pii import audit, leaklist, residual
from curate.pii.audit_kernel import sip
from curate.pii.settings import ScrubParams
from curate.pii.siphash import siphash
from curate.record import InputError, ParamsError
from tests.helpers import chat, frame, row, run_stage, section, write_input

KEY = "a secret for the tests"
PARAMS: ScrubParams = section("scrub", ScrubParams)
MAIL, CARD, NUMBER = "Rosalind.Achterberg@mail.example", "4242 4242 4242 4242", "12345678"
ROWS = [
    chat(f"I am {MAIL}", "Hello", "account number 12345678", "Thanks"),
    row("chat", chat("hi", "ho")["messages"], meta={"card": CARD, "note": {"b": "password: swordfish"}}, group="eve@example.org"),
    chat("Nothing here", "Indeed."),
]


@pytest.fixture(params=["key", "no key"])
def auditor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> audit.Auditor:
    monkeypatch.delenv("FINERY_SCRUB_KEY", raising=False)
    if request.param == "key":
        monkeypatch.setenv("FINERY_SCRUB_KEY", KEY)
    source = write_input(frame(ROWS), tmp_path / "in")
    run_stage(scrub.STAGE, source, tmp_path / "scrub")
    assert pl.read_parquet(tmp_path / "scrub/leaklist.parquet").height == (5 if request.param == "key" else 0)
    originals = tmp_path / "gone" if request.param == "key" else source
    return audit.auditor_of(tmp_path / "scrub", originals, PARAMS, tmp_path)


def _gz(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def _table(path: Path, text: str) -> None:
    pl.DataFrame({"messages": [[{"role": "user", "content": "x"}], [{"role": "user", "content": text}]]}).write_parquet(path)


def _meta(path: Path, text: str) -> None:
    pl.DataFrame({"meta": [json.dumps({"a": [{"b": text}]})]}).write_parquet(path)


def _arrow(path: Path, text: str) -> None:
    table = pa.table({"a": ["left", text, "right"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _sqlite(path: Path, text: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table t (a text)")
        database.execute("insert into t values (?)", (f"logged {text}",))


KINDS: dict[str, Callable[[Path, str], Any]] = {
    "a.log": lambda path, text: path.write_text(f"one\ntwo: {text}!\n"),
    "a.json": lambda path, text: path.write_text(json.dumps({"x": f"ż {text}\n"})),
    "a.jsonl": lambda path, text: path.write_text('{}\n{"q": "' + text.replace("e", "\\u0065") + '"}\n'),
    "a.csv": lambda path, text: path.write_text(f"a,b\n1,{text}\n"),
    "a.html": lambda path, text: path.write_text(f"<p>x <ins>{text[:5]}</ins>{text[5:].replace('@', '&#64;')}</p>"),
    "a.md": lambda path, text: path.write_text(f"# Model card\nby **{text}**"),
    "dvc.lock": lambda path, text: path.write_text(f"cmd: --for '{text}'"),
    "url.txt": lambda path, text: path.write_text("q=" + text.replace("@", "%40").replace(" ", "%20")),
    "a.txt.gz": _gz,
    "a.parquet": _table,
    "meta.parquet": _meta,
    "a.arrow": _arrow,
    "a.db": _sqlite,
    "a.safetensors": lambda path, text: path.write_bytes(b"\0\xff\x00" * 50 + text.encode() + b"\0\xfe"),
    "utf16.txt": lambda path, text: path.write_text(text, encoding="utf-16"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_planted_value_is_found_in_any_file_and_never_quoted(auditor: audit.Auditor, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "down"
    folder.mkdir()
    KINDS[name](folder / name, "nothing to see")
    assert list(audit.audit([folder], auditor)) == []
    for value, entity in [(MAIL, "EMAIL_ADDRESS"), (MAIL.upper(), "EMAIL_ADDRESS"), (CARD.replace(" ", "-"), "CREDIT_CARD")]:
        (folder / name).unlink()
        KINDS[name](folder / name, value)
        leaks = list(audit.audit([folder], auditor))
        assert {(leak.path.name, leak.entity) for leak in leaks} == {(name, entity)}
        assert value not in str(leaks)
    if name == "a.log":
        assert leaks[0].place == "line 2"
    if name == "a.parquet":
        assert leaks[0].place == "row 2, messages.content"


def test_scrubs_own_output_is_clean_and_words_that_say_nothing_are_not_listed(auditor: audit.Auditor, tmp_path: Path) -> None:
    assert list(audit.audit([tmp_path / "scrub"], auditor)) == []
    assert len(auditor.hashes) == 4, "mail, card, account number and group; `swordfish` is one word of letters"
    (tmp_path / "fine.txt").write_text("swordfish, 123456789, 2345678, rosalind, 4242 4242 4242 4243")
    assert list(audit.audit([tmp_path / "fine.txt"], auditor)) == []
    (tmp_path / "copy.txt").write_text(f"{NUMBER}\n")
    (tmp_path / "copy2.txt").write_text(f"{NUMBER}\n")
    assert len(list(audit.audit([tmp_path / "copy.txt", tmp_path / "copy2.txt"], auditor))) == 2


@pytest.mark.parametrize(
    ("text", "leaks"),
    [("ask a case handler", 0), ("ask the Case Handler", 1), ("anna kowalska", 1), ("Anna\nKowalska", 1), ("ANNA-KOWALSKA", 1)],
)
def test_words_that_spell_a_name_are_not_the_name(text: str, leaks: int, tmp_path: Path) -> None:
    made = b"0123456789abcdef"
    auditor = audit.Auditor(leaklist.entries([("PERSON", "CASE HANDLER"), ("PERSON", "Anna Kowalska")], made), made)
    (tmp_path / "a.txt").write_text(f"Please {text}, they say.")
    assert len(list(audit.audit([tmp_path / "a.txt"], auditor))) == leaks


def test_tokenised_rows_are_read(auditor: audit.Auditor, tmp_path: Path) -> None:
    class Letters:
        def decode_batch(self, rows: list[list[int]]) -> list[str]:
            return ["".join(map(chr, each)) for each in rows]

    pl.DataFrame({"input_ids": [[65], [ord(each) for each in f"to {MAIL}."]]}).write_parquet(tmp_path / "t.parquet")
    auditor.tokenizer = Letters()
    assert [leak.place for leak in audit.audit([tmp_path / "t.parquet"], auditor)] == ["row 2, input_ids"]


def test_the_command_says_where_and_exits_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FINERY_SCRUB_KEY", raising=False)
    source = write_input(frame(ROWS), tmp_path / "in")
    run_stage(scrub.STAGE, source, tmp_path / "scrub")
    places = ["--scrub", str(tmp_path / "scrub"), "--originals", str(source)]
    audit.main(["--audit", str(tmp_path / "scrub"), *places])
    with pytest.raises(SystemExit) as ended:
        audit.main(["--audit", str(source), *places])
    told = capsys.readouterr()
    assert ended.value.code == 1 and "part-00000.parquet: row 1, messages.content: EMAIL_ADDRESS" in told.out
    assert MAIL not in told.out + told.err and "found in" in told.err


def test_a_wrong_key_or_a_missing_list_is_no_clean_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINERY_SCRUB_KEY", KEY)
    run_stage(scrub.STAGE, write_input(frame(ROWS), tmp_path / "in"), tmp_path / "scrub")
    monkeypatch.setenv("FINERY_SCRUB_KEY", "another secret for the tests")
    with pytest.raises(ParamsError, match="another key"):
        audit.auditor_of(tmp_path / "scrub", tmp_path / "in", PARAMS, tmp_path)
    monkeypatch.delenv("FINERY_SCRUB_KEY")
    with pytest.raises(InputError, match="--originals"):
        audit.auditor_of(tmp_path / "scrub", tmp_path / "nowhere", PARAMS, tmp_path)
    with pytest.raises(InputError, match="Run scrub first"):
        audit.auditor_of(tmp_path, tmp_path / "in", PARAMS, tmp_path)


def test_a_file_that_cannot_be_read_does_not_count_as_clean(auditor: audit.Auditor, tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"broken\.parquet"):
        list(audit.audit([tmp_path / "broken.parquet"], auditor))


def test_the_compiled_hash_is_siphash() -> None:
    key = bytes(range(16))
    k0, k1 = (np.uint64(int.from_bytes(key[at : at + 8], "little")) for at in (0, 8))
    for size in range(40):
        data = np.arange(size, dtype=np.uint8)
        assert int(sip(data, size, k0, k1)) == siphash(key, data.tobytes())


def test_the_list_tells_nothing_without_its_key() -> None:
    one, other = (leaklist.entries([("EMAIL_ADDRESS", MAIL)], leaklist.list_key(key)) for key in (b"one key", b"other key"))
    assert not set(one["hash"]) & set(other["hash"]) and set(one.columns) == {"entity", "length", "hash"}


# --- the second search ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("write to tom@acme.co.uk now", "EMAIL_ADDRESS"),
        ("card 4539 5787 6362 1486.", "CREDIT_CARD"),
        ("DE89 3704 0044 0532 0130 00 is it", "IBAN_CODE"),
        ("ring +48 601 234 567 or", "PHONE_NUMBER"),
        ("SSN 536-90-4399", "US_SSN"),
        ("from 81.2.69.142.", "IP_ADDRESS"),
        ("key wJ4lrXUtn8EMIkK7MD3NGabPxRf9CYqq", "SECRET"),
        ("Dear Olivia Smith, hello", "PERSON"),
    ],
)
def test_what_is_left_is_counted_and_masked(text: str, entity: str) -> None:
    counts, table = residual.residual(frame([chat("hello", text)]), frozenset(), frozenset())
    assert counts[f"residual.{entity}"] == 1 and table["entity"][0] == entity and table["turn"][0] == 1
    assert not any(word in table["mask"][0] for word in text.split() if len(word) > 3 and word[0].isalnum())


def test_known_good_is_not_counted() -> None:
    fine = (
        "<EMAIL_ADDRESS_1> eve@example.com 07700 900123 555-01 (212) 555-0143 192.168.1.4 203.0.113.9 tom@acme.co 2024-01-02 "
        "d3b07384d113edec49eaa6238ad5ff00 123e4567-e89b-12d3-a456-426614174000 1 234 567 890 123 456 New York"
    )
    counts, table = residual.residual(frame([chat(fine, "Olivia Smith")]), frozenset({"tom@acme.co"}), frozenset({"Olivia Smith"}))
    assert not counts and table.height == 0
    counts, _ = residual.residual(
        frame([chat("<SECRET_SENDGRID_KEY_1a2b3c4d> and 4150 0948 7318 7885", "x")]), frozenset(), frozenset({"4150 0948 7318 7885"})
    )
    assert not counts


# --- canaries, and what is written ----------------------------------------------------------------------------------------------------


def test_canaries_are_added_and_listed(tmp_path: Path) -> None:
    source = write_input(frame(ROWS), tmp_path / "in")
    metrics = run_stage(scrub.STAGE, source, tmp_path / "out", "canaries=7")
    kept, listed = pl.read_parquet(tmp_path / "out/kept/part-00000.parquet"), pl.read_parquet(tmp_path / "out/canaries.parquet")
    assert (metrics["rows_in"], metrics["added"], metrics["kept"]) == (3, 7, 10)
    assert kept["source"].to_list() == ["canary"] * 7 + ["t.jsonl"] * 3 and kept["id"].n_unique() == 10
    for place, (secret, each) in enumerate(zip(listed["secret"], listed["id"], strict=True)):
        assert kept["id"][place] == each and secret in kept["messages"][place][1]["content"].lower()


def test_surrogates_do_not_depend_on_workers_or_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINERY_SCRUB_KEY", KEY)
    rows = [chat(f"Row {at}", f"Answer {at}") for at in range(4200)]
    for at in range(0, 4200, 60):
        rows[at] = chat(f"Row {at} of eve{at % 7}@acme.example", f"Call 07911 1234{at % 80:02d}", "or 07700 900123", group="C-1")
    source = write_input(frame(rows), tmp_path / "in")
    outs = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        metrics = run_stage(scrub.STAGE, source, out, "replace=surrogate", "canaries=2", workers=workers)
        assert metrics["counts"]["rows_changed"] == 70
        outs.append({path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()})
    assert outs[0] == outs[1]
    run_stage(scrub.STAGE, source, tmp_path / "cut", "replace=surrogate", "canaries=2", part_rows=300)
    whole, cut = (pl.concat([pl.read_parquet(path) for path in sorted((tmp_path / each / "kept").glob("*"))]) for each in ("out1", "cut"))
    assert whole.equals(cut)
    texts = " ".join(message["content"] for messages in whole["messages"] for message in messages)
    assert "07700 900123" not in texts and "acme" not in texts
