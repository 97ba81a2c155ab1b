"""Runs a model's Python in a process of its own with little time, little memory, few files, and no network where the kernel lets us.

What it holds back: seconds of processor and wall time, address space, size and number of files, further processes (where the user is not
root, whom Linux does not limit), the environment (no variable of ours is passed on), the working folder (an empty one, removed
afterwards), and the network, through a namespace of its own where unprivileged ones are allowed. It is no jail against an attacker: the
files that this user can read can be read. For models that you do not trust, run training in a container.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

SECONDS = 5  # processor time of one test; wall time is twice that
MEMORY = 512 << 20  # bytes of address space
FILE_SIZE = 1 << 20  # bytes
FILES = 32
PROCESSES = 0  # further ones
NEWNET = 0x40000000  # CLONE_NEWNET
NEWUSER = 0x10000000  # CLONE_NEWUSER
AT_ONCE = min(4, os.cpu_count() or 1)

# Runs in the child before the program: limits first, then a network namespace without an interface, then the program itself.
LAUNCHER = f"""
import ctypes, resource, sys
for what, most in ((resource.RLIMIT_CPU, {SECONDS}), (resource.RLIMIT_AS, {MEMORY}), (resource.RLIMIT_FSIZE, {FILE_SIZE}),
                   (resource.RLIMIT_NOFILE, {FILES}), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(what, (most, most))
try:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare({NEWNET}) != 0:
        libc.unshare({NEWUSER} | {NEWNET})
except (OSError, AttributeError):
    pass
try:
    resource.setrlimit(resource.RLIMIT_NPROC, ({PROCESSES}, {PROCESSES}))
except (OSError, ValueError):
    pass
word = sys.stdin.readline()
exec(compile(sys.stdin.read(), "<answer>", "exec"), {{"__name__": "__main__"}})
sys.__stdout__.write(word)
"""


def passes(programs: Sequence[str]) -> list[bool]:
    """Whether each program ends without an error within the limits. One that leaves early (`exit(0)`) has not run its tests to the end
    and does not pass."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_passes, programs))


def _passes(program: str) -> bool:
    word = secrets.token_hex(16) + "\n"  # printed last: an answer that prints a fixed word and leaves would pass
    with tempfile.TemporaryDirectory(prefix="answer-") as folder, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": "/nowhere", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        try:
            process.communicate((word + program).encode(errors="replace"), timeout=2 * SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # whatever it may have started
            process.wait()
        said.seek(0)
        return process.returncode == 0 and said.read().endswith(word.encode())


def isolates_network() -> bool:
    """Whether the kernel gives an unprivileged process a network of its own here."""
    return passes(
        ["import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError as e:\n    assert e.errno == 101"]
    )[0]
