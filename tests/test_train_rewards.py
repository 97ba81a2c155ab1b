"""Rewards that can be checked, and the process that a model's code runs in."""

import time
from pathlib import Path

import pytest

from curate import sandbox
from curate.record import InputError
from train import rewards


@pytest.mark.parametrize(
    ("kind", "answer", "reference", "right"),
    [
        ("exact", " Yes,\n it IS ", "yes, it is", 1.0),
        ("exact", "yes", "no", 0.0),
        ("number", "so 3 + 4 = 7.0", "#### 7", 1.0),
        ("number", "about 1,250", "1250", 1.0),
        ("number", "7 or 8", "7", 0.0),
        ("number", "none", "7", 0.0),
        ("regex", " AB-12 ", r"[A-Z]{2}-\d+", 1.0),
        ("regex", "see AB-12", r"[A-Z]{2}-\d+", 0.0),
        ("regex", "a" * 40 + "!", r"(a+)+$", 0.0),
        ("json_schema", '```json\n{"n": 3}\n```', '{"type": "object", "required": ["n"]}', 1.0),
        ("json_schema", '{"m": 3}', '{"type": "object", "required": ["n"]}', 0.0),
        ("json_schema", "not json", "{}", 0.0),
        ("python", "```python\ndef add(a, b):\n    return a + b\n```", "assert add(2, 3) == 5", 1.0),
        ("python", "def add(a, b): return a - b", "assert add(2, 3) == 5", 0.0),
        ("python", "def add(a, b) return", "assert add(2, 3) == 5", 0.0),
    ],
)
def test_an_answer_is_held_against_its_reference(kind: str, answer: str, reference: str, right: float) -> None:
    assert rewards.score(kind, [answer], [reference]) == [right]


@pytest.mark.parametrize(("kind", "reference"), [("number", "none"), ("regex", "("), ("json_schema", "{"), ("json_schema", '{"type": 3}')])
def test_a_reference_that_nothing_can_meet_is_refused(kind: str, reference: str) -> None:
    with pytest.raises(InputError, match=f"train.reward = {kind}"):
        rewards.check_reference(kind, reference)


def test_leaving_early_or_printing_much_is_no_pass() -> None:
    assert sandbox.passes(["import os\nos._exit(0)", "raise SystemExit(0)", "print('passed')", "while True: print('x' * 1000)"]) == [
        False,
        False,
        True,
        False,
    ]


def test_memory_files_and_the_environment_are_held_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINERY_SECRET_OF_THE_TEST", "hush")
    programs = [
        "x = bytearray(2 << 30)",
        "open('big', 'wb').write(b'x' * (4 << 20))",
        "import os\nassert 'FINERY_SECRET_OF_THE_TEST' in os.environ",
        "import os\nassert not os.listdir('.')",
    ]
    assert sandbox.passes(programs) == [False, False, False, True]


def test_time_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)  # wall time is twice that; the processor's limit stands in the launcher
    start = time.monotonic()
    assert sandbox.passes(["import time\ntime.sleep(60)", "while True: pass"]) == [False, False]
    assert time.monotonic() - start < 10


def test_no_network_where_the_kernel_allows_it() -> None:
    if not sandbox.isolates_network():
        pytest.skip("this kernel gives unprivileged processes no network of their own")
    assert sandbox.passes(["import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"]) == [False]
