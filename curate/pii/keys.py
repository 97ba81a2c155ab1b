"""The secret behind surrogates and leak list: from the environment, or from a file that is not part of the project."""

import hashlib
import hmac
import os
from pathlib import Path

from curate.pii.settings import ScrubParams
from curate.record import ParamsError

SHORTEST = 16  # characters: what a person can guess or remember is no key


def key(params: ScrubParams) -> bytes:
    """The secret; empty if there is none and none is needed.

    Raises ParamsError if surrogates are asked for and it is missing, or if it is short, lies in the project or can be read by others.
    """
    found = os.environ.get(params.key_env, "").strip()
    if params.key_file is not None:
        held = _of_file(Path(params.key_file).expanduser())
        if found and found != held:
            raise ParamsError(f"scrub.key_file and the environment variable {params.key_env} hold different keys. Unset one of them.")
        found = held
    if not found and params.replace == "surrogate":
        raise ParamsError(
            f"scrub.replace = 'surrogate' needs a secret in the environment variable {params.key_env} (scrub.key_env), which is not set, "
            f"or in a file (scrub.key_file). Make one (`export {params.key_env}=$(openssl rand -hex 32)`), keep it, and use it again for "
            "the same surrogates; or set scrub.replace to placeholder."
        )
    if found and len(found) < SHORTEST:
        raise ParamsError(f"the scrub key has {len(found)} characters, fewer than {SHORTEST}. Make a longer one: `openssl rand -hex 32`.")
    return found.encode()


def _of_file(path: Path) -> str:
    where = f"scrub.key_file = '{path}'"
    root = _project(Path.cwd().resolve())
    if path.resolve().is_relative_to(root):
        raise ParamsError(f"{where}: lies in the project ({root}), where git, DVC or a copy would take it along. Keep it elsewhere.")
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'}). Name a text file.") from None
    if mode & 0o077:
        raise ParamsError(f"{where}: can be read by others (mode {mode & 0o777:o}). Run `chmod 600 {path}`.")
    if not text.strip():
        raise ParamsError(f"{where}: is empty. Fill it: `openssl rand -hex 32 > {path}`.")
    return text.strip()


def _project(here: Path) -> Path:
    return next((folder for folder in (here, *here.parents) if any((folder / name).exists() for name in (".git", ".dvc"))), here)


def keyed(secret: bytes, *parts: str) -> bytes:
    """HMAC-SHA256 of `parts`, 32 bytes. The first part says what for, so that one use tells nothing about another."""
    return hmac.new(secret, "\x1f".join(parts).encode(), hashlib.sha256).digest()


def keyed64(secret: bytes, *parts: str) -> int:
    """The first 64 bits of `keyed`."""
    return int.from_bytes(keyed(secret, *parts)[:8], "big")
