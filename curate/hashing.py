"""sha256 of files and folders: what an adapter's provenance and an approval know a dataset by.

The hash of a folder is the sha256 over its files in order of their relative names: name, NUL, sha256 of the content. It depends on names
and contents alone, so the same folder has the same hash on every machine.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from curate import store


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path, files: Iterable[Path]) -> str:
    """One hash for several files below `folder`."""
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        whole.update(name.encode() + b"\0" + bytes.fromhex(file_sha256(path)))
    return whole.hexdigest()


def dataset_sha256(data: Path) -> str:
    """Hash of the parts of train and validation of a formatted dataset: of all that training sees. Raises InputError if it holds none."""
    kept = data / "kept" if (data / "kept").is_dir() else data
    return folder_sha256(kept, [part.path for part in store.parts(data) if part.split in ("train", "validation")])
