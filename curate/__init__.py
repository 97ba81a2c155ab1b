"""Raw files to a formatted dataset."""

import os

os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")  # Arrow keeps the memory of one batch for the next: a seventh less processor time
