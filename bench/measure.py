"""Wall seconds and peak memory of a command and everything it starts."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
EVERY = 0.05  # seconds between two looks at the memory; a look reads the whole process table


@dataclass(frozen=True)
class Measured:
    """One run: start-up to end in seconds, highest sum of resident bytes, and the last lines of stderr where it failed, else nothing."""

    seconds: float
    peak: int
    error: str


def measure(command: list[str], environment: Mapping[str, str] | None = None, limit: float | None = None) -> Measured:
    """Run a command in the project's root, with variables added to the environment, for at most `limit` seconds."""
    start, peak, late = time.monotonic(), 0, False
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would stop a talkative program
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=errors
        ) as process:
            root = psutil.Process(process.pid)
            while process.poll() is None:
                peak = max(peak, resident(root))
                if limit is not None and time.monotonic() - start > limit:
                    late = True
                    _kill(root)
                    break
                time.sleep(EVERY)
            process.wait()
        seconds = time.monotonic() - start
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if late:
        return Measured(seconds, peak, f"not done after {limit:.0f} s")
    return Measured(seconds, peak, (said[-2000:] or f"exit code {process.returncode}") if process.returncode else "")


def resident(root: psutil.Process) -> int:
    """Resident bytes of a process and everything below it; processes that end meanwhile count nothing. Shared pages count for each."""
    total = 0
    for process in _family(root):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(root: psutil.Process) -> None:
    for process in _family(root):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
