"""Endpoint and judge against `transformers serve`, a server that is not ours, with a tiny model: skipped where it cannot start."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import orjson
import polars as pl
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evaluate.evaluate import build
from tests.test_evaluate import byte_tokenizer, formatted, lora, params, save_base, save_format, tiny

pytest.importorskip("openai", reason="transformers serve asks for it")
TEMPLATE = "{% for each in messages %}{{ each.content }}{% endfor %} Answer: "


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base, an adapter that changes what it says, and items: the answers of the base are for the server to give again."""
    root = tmp_path_factory.mktemp("served")
    tokenizer = byte_tokenizer()
    base = save_base(root / "base", tiny(len(tokenizer), positions=4096), tokenizer)
    rows = [formatted((f"Q: number {at}? A:", f"Reply {at}.", None), at, tokenizer) for at in range(12)]
    save_format(root / "format", rows[:2], rows[2:])
    adapted = lora(LlamaForCausalLM.from_pretrained(base / "model"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    adapted.save_pretrained(root / "train" / "adapter")
    shutil.copytree(base / "model", root / "served")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base / "tokenizer")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(root / "served")
    return root


@pytest.fixture(scope="module")
def url(world):
    """The address of `transformers serve`, as soon as it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(world / "served"), "--device", "cpu"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    with (world / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=offline)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None or time.monotonic() > until:
                    pytest.skip(f"transformers serve did not start: {(world / 'log').read_text()[-300:]}")
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def test_a_served_model_answers_as_the_same_model_here_and_judges(world, url, tmp_path):
    server = f"{{url: '{url}', model: '{world / 'served'}', timeout_s: 60, parallel: 2}}"
    judge = f"judge={{server: {server}, max_tokens: 16}}"
    build(world / "format", world / "base", world / "train", tmp_path / "out", params(tmp_path / "reports", f"endpoint={server}", judge))
    answers = pl.read_parquet(tmp_path / "out" / "items.parquet")
    said = {name: answers.filter(pl.col("system") == name)["output"].to_list() for name in ("base", "tuned", "endpoint")}
    assert said["endpoint"] == said["base"] != said["tuned"]
    figures = orjson.loads((tmp_path / "reports" / "evaluation.json").read_bytes())
    assert figures["systems"]["endpoint"]["generated"] == 10 and figures["systems"]["endpoint"]["metrics"]["loss"]["n"] == 0
    judged = figures["judge"]
    assert (judged["items"], judged["asked"], judged["unanswered"]) == (10, 20, 0)
    assert judged["unreadable"] == 20 and judged["against"]["base"]["ties"] == 10  # a random model names no winner: counted, not dropped
    kept = [orjson.loads(line) for line in (tmp_path / "out" / "judge.jsonl").read_bytes().splitlines()]
    assert len(kept) == 20 and all(each["answer"] and each["request"]["max_tokens"] == 16 for each in kept)
    assert "What the judge says" in (tmp_path / "reports" / "evaluation.html").read_text()
