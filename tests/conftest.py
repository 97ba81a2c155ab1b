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

import shutil  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tests.workspace import copy_project, start_build  # noqa: E402

LAST = ("test_determinism.py", "test_pipeline.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: whoever broke something small should not wait for the whole pipeline."""
    items.sort(key=lambda item: LAST.index(item.path.name) if item.path.name in LAST else -1)


@pytest.fixture(scope="session", autouse=True)
def building(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, subprocess.Popen[bytes]] | None]:
    """The pipeline's workspace, being built while the other tests run; None where no test needs it."""
    if not any("built" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = copy_project(tmp_path_factory.mktemp("finery"))
    process = start_build(folder)
    yield folder, process
    process.kill()
    process.wait()


# In CI every run tries the same examples; elsewhere each run looks for new ones.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; tests that need it are skipped where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on the PATH")
    with playwright.sync_playwright() as run:
        found = run.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def reviewable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset as it stands before the review: tests/reviewing.py. For reading; `reviewing.fresh` copies it."""
    from tests.reviewing import build

    return build(tmp_path_factory.mktemp("reviewable"))
