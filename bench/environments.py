"""The peers and their environments: one virtual environment each, made from pinned requirements on first use.

A peer that cannot be installed here is told with the reason, and the others run without it.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measure import ROOT
from bench.peers.setting import BANDS, PERMUTATIONS, THRESHOLD, WORDS

SCRIPTS = ROOT / "bench" / "peers"
CACHE = ROOT / "bench" / ".envs"
NEWEST = 15  # no Python 3.x after this one is looked for


@dataclass(frozen=True)
class Peer:
    """A tool to compare with: `scripts/peer_<name>.py` runs it in the environment of `scripts/requirements-<name>.txt`."""

    name: str
    title: str
    setting: str
    python: tuple[int, int] = (3, 11)  # the lowest version that it runs on
    scripts: Path = SCRIPTS

    @property
    def requirements(self) -> Path:
        return self.scripts / f"requirements-{self.name}.txt"

    @property
    def script(self) -> Path:
        return self.scripts / f"peer_{self.name}.py"


_HASHES = f"{WORDS} words, {PERMUTATIONS} permutations"
PEERS = (
    Peer("rensa", "rensa 0.5.0", f"`add_pairs`, {_HASHES}, {BANDS} bands, {THRESHOLD} estimated"),
    Peer("datasketch", "datasketch 2.0.0", f"`MinHash.generator`, `MinHashLSH`, {_HASHES}, {THRESHOLD}, candidates not checked"),
    Peer("text_dedup", "text-dedup 0.4.1", f"{_HASHES}, {THRESHOLD}, clusters not checked (its default)", python=(3, 12)),
    Peer("datatrove", "datatrove 0.10.1", f"{WORDS} words, {BANDS} buckets of {PERMUTATIONS // BANDS} hashes (it takes no threshold)"),
    Peer("data_juicer", "Data-Juicer 1.6.1", f"`document_minhash_deduplicator`, {_HASHES}, {THRESHOLD}, clusters not checked"),
)


@dataclass(frozen=True)
class Environment:
    """A peer's interpreter, or none and the reason."""

    python: Path | None
    reason: str = ""


def prepare(peer: Peer, cache: Path = CACHE) -> Environment:
    """The environment of `peer` under `cache`, made anew where it is missing, unfinished or of other requirements."""
    folder = cache / peer.name
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(peer.requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return Environment(python)
    base = find_python(peer.python)
    if base is None:
        return Environment(None, f"needs Python {peer.python[0]}.{peer.python[1]} or later, and there is none on PATH")
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", str(peer.requirements)]
    for command in ([str(base), "-m", "venv", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            return Environment(None, f"did not install: {why(done.stderr or done.stdout)}")
    stamp.write_text(wanted)
    return Environment(python)


def why(said: str) -> str:
    """The line of a failed command's output that tells most, fit for a table: no addresses, no folders, no bars, at most 200 characters."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
    line = re.sub(r"\w+://\S+", "…", errors[-1])
    line = re.sub(r"(?<![\w.])/[\w.@+-]+(/[\w.@+-]+)+", lambda found: Path(found[0]).name, line)
    return line.removeprefix("ERROR:").strip().replace("|", "/")[:200]


def find_python(lowest: tuple[int, int]) -> Path | None:
    """An interpreter of at least this version: our own, else the lowest that works on PATH or among pyenv's versions."""
    if sys.version_info[:2] >= lowest:
        return Path(sys._base_executable) if hasattr(sys, "_base_executable") else Path(sys.executable)
    for minor in range(lowest[1], NEWEST + 1):
        for candidate in _candidates(f"python{lowest[0]}.{minor}"):
            works = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
            if works.returncode == 0:  # pyenv's stand-ins on PATH fail for versions that are not switched on
                return Path(candidate)
    return None


def _candidates(name: str) -> Iterator[str]:
    on_path = shutil.which(name)
    if on_path:
        yield on_path
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from (str(path) for path in sorted(versions.glob(f"*/bin/{name}")))
