"""What each system takes: time to the first token, tokens a second, peak memory, batch sizes, size of the adapter.

How it is measured: every batch that a journal asks for is timed, with what it was given and what it made, beside the journal, so that a run
that goes on knows the times of what is done already. The first batch of each process is left out of the rates where there are others: it
loads kernels. Peak memory is what torch held at most on an accelerator, and on a CPU the largest resident set of the whole process, from
the start of the batch. The time to the first token is the median over `PROBED` prompts, each asked alone after one to warm up.

Times differ from run to run: they go into the reports and never into the stage's own files.
"""

import contextlib
import json
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from evaluate.models import Loaded

PROBED = 5
TIMES = ".times"  # behind a journal's name, instead of .jsonl
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # see proc(5), clear_refs
Figures = dict[str, Any]


def begin() -> float:
    """Forget the peak of memory; the time from which seconds are counted."""
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # not Linux, or not allowed: then it is the peak since the process began
            CLEAR.write_text(RESET_PEAK)
    return time.monotonic()


def seconds(began: float) -> float:
    """Seconds since `began`, when all that was started on the accelerator is done."""
    cuda = _cuda()
    if cuda is not None:
        cuda.synchronize()
    return time.monotonic() - began


def peak() -> int | None:
    """Bytes held at most since `begin`; None where the system does not tell."""
    cuda = _cuda()
    if cuda is not None:
        return int(cuda.max_memory_allocated())
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _cuda() -> Any:
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def keep(times: Path, done: int) -> None:
    """Cuts the file of times to those of the first `done` batches; a line that a kill left unfinished goes too."""
    lines = times.read_bytes().splitlines(keepends=True) if times.is_file() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    times.write_bytes(b"".join(line for line in whole if orjson.loads(line)["batch"] < done))


def line(batch: int, cold: bool, rows: int, read: int, made: int, began: float) -> bytes:
    """What one batch took, as a line for the file of times: `read` tokens given, `made` tokens generated."""
    took = seconds(began)
    return orjson.dumps({"batch": batch, "cold": cold, "rows": rows, "read": read, "made": made, "seconds": took, "peak": peak()}) + b"\n"


def probe(loaded: Loaded, prompts: Sequence[np.ndarray], first: Any, out: Path) -> None:
    """Writes what is known of a system while it is in memory, once. `first(prompt)` makes the first token of an answer."""
    if out.is_file():
        return
    shown = [prompt for prompt in prompts if len(prompt) < loaded.limit][: PROBED + 1]
    times = []
    for prompt in shown:
        began = begin()
        first(prompt)
        times.append(seconds(began))
    counted = slice(1, None) if len(shown) > 1 else slice(None)
    about = {
        "first_token_seconds": median(times[counted]) if times else None,
        "first_token_prompt_tokens": median(map(len, shown[counted])) if times else None,
        "weights_bytes": int(loaded.model.get_memory_footprint()),
        "adapter": None if loaded.adapter is None else size_of(loaded.adapter),
    }
    out.write_bytes(orjson.dumps(about))


def size_of(folder: Path) -> dict[str, int]:
    """Bytes and parameters of the weights in a folder, from the heads of its safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    return {"bytes": sum(file.stat().st_size for file in files), "parameters": sum(map(_parameters, files))}


def _parameters(file: Path) -> int:
    with file.open("rb") as opened:
        head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(int(np.prod(tensor["shape"])) for name, tensor in head.items() if name != "__metadata__")


def device() -> str:
    """The accelerator, or the processor with torch's number of threads."""
    import torch

    cuda = _cuda()
    if cuda is not None:
        return str(cuda.get_device_name())
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def of_shelf(journals: Iterable[Path]) -> Figures:
    """The cost of each system, from its journal of answers (`<system>-<key>.answers.jsonl`) and the files beside it."""
    systems: dict[str, Figures] = {}
    for path in sorted(journals):
        place = path.with_name(path.name.removesuffix(".answers.jsonl"))
        about = place.with_suffix(".model.json")
        system = place.name.split("-")[0]
        systems[system] = {
            "generation": of_times(path.with_suffix(TIMES)),
            "scoring": of_times(place.with_suffix(".losses" + TIMES)),
            "first_token_seconds": None, "first_token_prompt_tokens": None, "weights_bytes": None, "adapter": None,
        }  # fmt: skip
        if about.is_file():
            systems[system] |= orjson.loads(about.read_bytes())
        elif systems[system]["generation"] is not None:
            systems[system]["generation"]["peak_bytes"] = None  # the memory of a server is not ours to see
    return {"device": device(), "systems": systems}


def of_times(times: Path) -> Figures | None:
    """Rates, batch sizes and peak of one file of times; None if nothing was asked."""
    batches = [orjson.loads(each) for each in times.read_bytes().splitlines()] if times.is_file() else []
    return of_batches(batches)


def of_batches(batches: Sequence[dict[str, Any]]) -> Figures | None:
    """As `of_times`, of batches as `line` writes them."""
    if not batches:
        return None
    warm = [each for each in batches if not each["cold"]] or batches
    took = max(sum(each["seconds"] for each in warm), 1e-9)
    peaks = [each["peak"] for each in batches if each["peak"] is not None]
    return {
        "rows": sum(each["rows"] for each in batches),
        "seconds": sum(each["seconds"] for each in batches),
        "batches": len(batches),
        "batch_rows_median": median(each["rows"] for each in batches),
        "batch_rows_most": max(each["rows"] for each in batches),
        "rows_per_second": sum(each["rows"] for each in warm) / took,
        "read_tokens_per_second": sum(each["read"] for each in warm) / took,
        "made_tokens_per_second": sum(each["made"] for each in warm) / took,
        "peak_bytes": max(peaks, default=None),
    }
