"""What the README and the docs tell people to type exists, and everything they link to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
MODULES = sorted(
    {match for text in TEXTS.values() for match in re.findall(r"python -m ((?:curate|train|evaluate|flows|bench|tests)[\w.]*)", text)}
)
TARGETS = sorted(
    {match for text in TEXTS.values() for match in re.findall(r"\bmake (\w+)\b(?=[`\s])", text)}
    & {"setup", "repro", "test", "check", "lock", "bench"}
)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_named_can_be_asked_for_help(module: str) -> None:
    if module == "tests.test_dvc_yaml":
        return  # writes dvc.yaml; it has no options
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout


def test_the_make_targets_exist() -> None:
    assert {"repro", "test", "check", "lock", "bench"} <= set(TARGETS)
    for target in TARGETS:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_params_key_that_is_named_exists() -> None:
    import yaml

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for text in TEXTS.values():
        for section, key in re.findall(r"(?:-S |`)(" + "|".join(params) + r")\.(\w+)", text):
            assert key in params[section] or key in ("parquet", "py", "json", "jsonl", "md"), f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
