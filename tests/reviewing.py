"""A small dataset as it stands before the review, a server over it, and a browser for the tests."""

import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from curate import decontaminate, dedup_near, dedup_semantic, scrub
from curate.pii.settings import ScrubParams
from flows.reviewing.api import Review, Settings
from flows.reviewing.server import Server
from tests.helpers import chat, frame, preference, run_stage, section, write_input
from tests.serving import in_thread

PLANS = ("red", "blue", "green", "black", "white", "amber", "violet", "silver")
LONG = "The hub has a green port on its back and a white socket on its side, and the lead goes from one to the other until it clicks. "
HOSTILE = (
    '<script>alert(1)</script><img src=x onerror="alert(2)"><svg onload=alert(3)><a href="javascript:alert(4)">x</a>',
    "{{ 7 * 7 }} ${7*7} <%= 7 %> [x](javascript:alert(5)) ![i](http://evil.invalid/p.png) </textarea></dialog></main>",
    '"><style>body{display:none}</style><link rel=stylesheet href=http://evil.invalid/c.css> \u202e\u2066gnihton\u2069 \u200b\u00ad',
    "x" * 1_000_000,
)
ROWS = [
    *(chat(f"What does the {name} plan cost?", f"The {name} plan is {at + 20} pounds.", label="price") for at, name in enumerate(PLANS)),
    chat("How do I plug it in?", LONG * 3, label="setup"),
    chat("How do I plug it in?", LONG * 3 + "It is done.", label="setup"),
    chat("How many legs do nine spiders have together?", "Nine spiders have seventy two legs together.", label="sums"),
    chat("Is this safe?", *HOSTILE[:1], HOSTILE[1], HOSTILE[2], label=HOSTILE[0], group=HOSTILE[2]),
    chat("And this?", HOSTILE[3], label="price"),
    preference("Which is the better plan?", "The one that you need.", "The dearest."),
]  # fmt: skip
ITEM = {"question": "How many legs do nine spiders have together?", "answer": "Seventy two."}


def build(folder: Path) -> Path:
    """The outputs of the stages around the review, in `folder`; returns it."""
    write_input(frame(ROWS), folder / "ingest")
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks/sums.jsonl").write_bytes(orjson.dumps(ITEM) + b"\n")
    run_stage(scrub.STAGE, folder / "ingest", folder / "scrub")
    run_stage(dedup_near.STAGE, folder / "scrub", folder / "dedup_near")
    run_stage(dedup_semantic.STAGE, folder / "dedup_near", folder / "dedup_semantic")
    run_stage(decontaminate.STAGE, folder / "dedup_semantic", folder / "decontaminate", f"benchmarks={folder / 'benchmarks'}")
    return folder


def settings(data: Path, **more: Any) -> Settings:
    """As the command line would make them, with the project's params."""
    scrubbed = section("scrub", ScrubParams)
    threshold = section("dedup_near", dedup_near.Params).threshold
    made = Settings(data, data / "decisions.jsonl", data / "benchmarks", "anna", 5, 17, threshold, scrubbed)
    return replace(made, **more)


def serving(data: Path, **more: Any) -> AbstractContextManager[Server]:
    """A server over `data` on a free port, until the end of the block."""
    return in_thread(Server(Review(settings(data, **more)), 0))


def fresh(built: Path, folder: Path) -> Path:
    """A copy of a built dataset without decisions."""
    shutil.copytree(built, folder)
    (folder / "decisions.jsonl").write_bytes(b"")
    return folder
