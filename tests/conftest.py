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

import pytest  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: whoever broke something small should not wait for the whole pipeline."""
    items.sort(key=lambda item: item.path.name in ("test_pipeline.py", "test_determinism.py"))
