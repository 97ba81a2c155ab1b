"""The endpoint system against a real HTTP server on loopback: well, slow, busy, malformed and dead."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from curate.record import InputError, StageFailure
from evaluate import endpoint, journal
from evaluate.ask import Questions, asked
from evaluate.endpoint import Endpoint
from evaluate.holdout import Item
from tests.serving import serving as served


class Words:
    """A tokenizer whose token 10 reads t10."""

    def decode(self, ids):
        return " ".join(f"t{each}" for each in ids)


def last_word(_path, request):
    """A continuation: the prompt's last word."""
    text = f" {request['prompt'].split()[-1]} "
    return {"choices": [{"text": text, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}


def serving(troubles):
    return served(last_word, lambda request: request["prompt"], troubles)


def questions(shelf: Path, count: int = 6) -> Questions:
    items = [
        Item(f"id{at}", "a.csv", at, "chat", None, "ask", "yes", np.array([1, 10 + at, 9]), np.array([False, False, True]), 2, 3)
        for at in range(count)
    ]
    return Questions(items, range(count), [None] * count, "hash", shelf, set())


def at(server, **more) -> Endpoint:
    return Endpoint(server.url, "m", **({"timeout_s": 0.3, "retries": 2, "wait_s": 0.01, "parallel": 2} | more))


def test_answers_in_spite_of_every_trouble(tmp_path, capsys, monkeypatch):
    troubles = {"t1 t10": ["slow"], "t1 t11": ["429", "503"], "t1 t12": ["html", "surrogate"], "t1 t13": ["drop"], "t1 t14": ["null"] * 9}
    monkeypatch.setenv("FINERY_TEST_KEY", "secret")
    with serving(troubles) as server:
        rows = endpoint.answers(at(server, key_env="FINERY_TEST_KEY"), Words(), questions(tmp_path), 5)
        assert {(path, key) for path, _, key in server.seen} == {("/v1/completions", "Bearer secret")}
        assert len(server.seen) == 2 + 3 + 3 + 2 + 3 + 1
        sent = server.seen[0][1]
    assert [row["output"] for row in rows] == ["t10", "t11", "t12", "t13", None, "t15"]
    assert rows[4]["stop"] == "failed" and rows[0]["stop"] == "end" and rows[0]["loss"] is None
    assert (sent["max_tokens"], sent["temperature"], sent["stop"], sent["model"]) == (5, 0, ["t9"], "m")
    assert rows[2]["asked"] == asked(np.array([1, 12]))
    said = capsys.readouterr().err
    for count in ("1 HTTP 429", "1 HTTP 503", "1 timeouts", "1 broken connections", "5 malformed answers", "1 items given up"):
        assert count in said
    assert "secret" not in said + "".join(path.read_text() for path in tmp_path.iterdir())


def test_a_dead_server_is_told_and_the_next_run_goes_on(tmp_path):
    with serving({}) as server:
        good = at(server)
        first = endpoint.answers(good, Words(), questions(tmp_path), 5)
    path = next(tmp_path.glob("*.answers.jsonl"))  # beside it lie the times
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))  # as if it had died after the first batch
    with pytest.raises(StageFailure, match=r"no server answers at http://127.*run again and it goes on"):
        endpoint.answers(good, Words(), questions(tmp_path), 5)
    assert path.read_bytes() == b"".join(lines[:2]) and len(first) == 6
    assert [row["output"] for row in journal.read(path)] == ["t10", "t11"]


def test_a_refusal_is_not_retried(tmp_path):
    with serving({f"t1 t{10 + at}": ["401"] * 9 for at in range(6)}) as server, pytest.raises(InputError, match=r"refuses \(HTTP 401\)"):
        endpoint.answers(at(server, parallel=1), Words(), questions(tmp_path), 5)
    assert len(server.seen) == 1


def test_a_server_that_fails_mostly_fails_the_evaluation(tmp_path):
    with serving({f"t1 t{10 + at}": ["500"] * 9 for at in range(4)}) as server, pytest.raises(StageFailure, match="4 of 6 answers"):
        endpoint.answers(at(server), Words(), questions(tmp_path), 5)


def test_a_missing_key_and_a_wrong_address_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("FINERY_TEST_KEY", raising=False)
    with serving({}) as server, pytest.raises(InputError, match="FINERY_TEST_KEY is not set"):
        endpoint.post(at(server, key_env="FINERY_TEST_KEY"), "/completions", {}, lambda _: None, Counter())
    with pytest.raises(ValueError, match="must begin with http"):
        Endpoint("localhost:8000", "m")
