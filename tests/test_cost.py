"""What a system costs: times of batches beside the journal, peak memory, sizes, and the table of the page."""

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import save_file

from evaluate import asides, cost, journal
from evaluate.models import Loaded

BATCHES = [[0, 1, 2], [3, 4], [5]]


def asked(batch):
    return [{"tokens": 4, "prompt_tokens": 10} for _ in batch]


def test_each_batch_is_timed_and_a_resumed_run_keeps_the_times(tmp_path):
    path = tmp_path / "base-1.answers.jsonl"

    def break_off(batch):
        if batch == [5]:
            raise KeyboardInterrupt
        return asked(batch)

    with pytest.raises(KeyboardInterrupt):
        journal.run(path, "test", BATCHES, break_off)
    times = path.with_suffix(cost.TIMES)
    before = times.read_bytes()
    times.write_bytes(before + b'{"batch": 2, "ro')  # a line that the kill cut short
    journal.run(path, "test", BATCHES, asked)
    lines = [orjson.loads(line) for line in times.read_bytes().splitlines()]
    assert times.read_bytes().startswith(before) and [line["batch"] for line in lines] == [0, 1, 2]
    assert [(line["rows"], line["read"], line["made"], line["cold"]) for line in lines] == [
        (3, 30, 12, True), (2, 20, 8, False), (1, 10, 4, True),
    ]  # fmt: skip


def test_rates_are_those_of_warm_batches():
    batches = [
        {"batch": 0, "cold": True, "rows": 8, "read": 800, "made": 80, "seconds": 10.0, "peak": 500},
        {"batch": 1, "cold": False, "rows": 4, "read": 200, "made": 40, "seconds": 2.0, "peak": 300},
        {"batch": 2, "cold": False, "rows": 2, "read": 100, "made": 20, "seconds": 1.0, "peak": None},
    ]
    found = cost.of_batches(batches)
    assert found is not None
    assert (found["made_tokens_per_second"], found["read_tokens_per_second"], found["rows_per_second"]) == (20.0, 100.0, 2.0)
    assert (found["rows"], found["seconds"], found["batch_rows_median"], found["batch_rows_most"], found["peak_bytes"]) == (
        14,
        13.0,
        4,
        8,
        500,
    )
    alone = cost.of_batches(batches[:1])
    assert alone is not None and alone["made_tokens_per_second"] == 8.0
    assert cost.of_batches([]) is None


@pytest.mark.skipif(not cost.CLEAR.exists() or torch.cuda.is_available(), reason="needs /proc and no accelerator")
def test_the_peak_is_forgotten_between_batches():
    cost.begin()
    held = np.ones(40_000_000)  # 320 MB
    large = cost.peak()
    del held
    cost.begin()
    small = cost.peak()
    assert large is not None and small is not None and large - small > 200_000_000


def test_size_of_an_adapter_is_that_of_its_tensors(tmp_path):
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, str(tmp_path / "adapter_model.safetensors"), {"format": "pt"})
    assert cost.size_of(tmp_path) == {"bytes": (tmp_path / "adapter_model.safetensors").stat().st_size, "parameters": 22}


class Model:
    def get_memory_footprint(self) -> int:
        return 1234


def test_the_first_token_is_timed_alone_after_a_warm_up(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(cost.time, "monotonic", lambda: float(next(clock)))
    shown = []
    prompts = [np.arange(size) for size in (4, 900, 5, 6, 7, 8, 9, 10)]
    out = tmp_path / "base-1.model.json"
    cost.probe(Loaded(Model(), None, 100, ()), prompts, lambda prompt: shown.append(len(prompt)), out)
    assert shown == [4, 5, 6, 7, 8, 9]  # none that the model cannot see whole, and `PROBED` after the first
    about = orjson.loads(out.read_bytes())
    assert about == {"first_token_seconds": 1.0, "first_token_prompt_tokens": 7, "weights_bytes": 1234, "adapter": None}
    cost.probe(Loaded(Model(), None, 100, ()), prompts, lambda prompt: shown.append(len(prompt)), out)
    assert len(shown) == 6  # known already


def test_a_server_has_no_peak_of_ours_and_the_page_shows_what_is_known(tmp_path):
    for system in ("base", "endpoint"):
        journal.run(tmp_path / f"{system}-1.answers.jsonl", "test", BATCHES, asked)
    (tmp_path / "base-1.model.json").write_bytes(
        orjson.dumps({"first_token_seconds": 0.0125, "first_token_prompt_tokens": 7, "weights_bytes": 2_500_000,
                      "adapter": {"bytes": 1_000_000, "parameters": 250_000}})
    )  # fmt: skip
    found = cost.of_shelf(tmp_path.glob("*.answers.jsonl"))
    assert found["systems"]["endpoint"]["generation"]["peak_bytes"] is None and found["systems"]["endpoint"]["scoring"] is None
    table = asides.cost({"cost": found}, {"base": "Base", "endpoint": "Endpoint"})
    assert table is not None and table["systems"] == ["Base", "Endpoint"]
    cells = {row["title"]: [(cell["value"], cell["note"]) for cell in row["cells"]] for row in table["rows"]}
    assert cells["Time to first token, a prompt alone"] == [("12.5 ms", "prompt of 7 tokens"), ("–", "")]
    assert cells["Adapter on disk"] == [("1.00 MB", "250,000 parameters"), ("–", "")]
    assert cells["Answers: rows in a batch"][0] == ("2", "at most 3; 3 batches")
    assert "Losses: tokens/s" not in cells  # nobody was asked
