"""Every test runs offline, on one thread, without telemetry."""

import os

for name, value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_LOGGING_LEVEL": "ERROR",
}.items():
    os.environ.setdefault(name, value)
