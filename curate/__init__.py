"""Raw files to a formatted dataset."""

import gc
import os

os.environ.setdefault("MIMALLOC_PURGE_DELAY", "-1")  # Arrow keeps the memory of one batch for the next: a seventh less processor time
gc.set_threshold(50_000)  # a start makes many objects that stay: looking through them again and again was a tenth of it
