"""What both flows need: Prefect's settings, and running a command so that its log is seen and its own error is kept.

Import this before prefect: it switches telemetry off, and a throw-away server on unless PREFECT_API_URL names a real one.
"""

import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

for _name, _value in {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
}.items():
    os.environ.setdefault(_name, _value)


class _NoTraceback(logging.Filter):
    """Prefect logs a failed run with its traceback; the message says it all to a user who made a mistake."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = None
        return True


def hide_tracebacks() -> None:
    """Keep tracebacks out of the log of this process, unless FINERY_DEBUG=1. Call it after prefect is imported."""
    if os.environ.get("FINERY_DEBUG") != "1":
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(_NoTraceback())


TAIL_LINES = 12  # of a failed command, shown with the error


class CommandFailed(RuntimeError):
    """A stage's command ended with an exit code that is not 0. The message ends with the command's own last lines."""

    def __init__(self, name: str, code: int, tail: Sequence[str]) -> None:
        self.name, self.code, self.tail = name, code, list(tail)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {how}:\n" + "\n".join(f"  {line}" for line in self.tail))

    @property
    def worth_retrying(self) -> bool:
        """A killed process or a busy DVC lock may pass; a stage that says no will say no again."""
        return self.code < 0 or any("Unable to acquire lock" in line or "is busy" in line for line in self.tail)


def run_command(name: str, command: Sequence[str | Path], show: Callable[[str], None] = print) -> None:
    """Run `command` with this Python first on the PATH, show every line as it comes; raises CommandFailed."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            if text:
                tail.append(text)
                show(f"[{name}] {text}")
    if process.returncode:
        raise CommandFailed(name, process.returncode, tail)
