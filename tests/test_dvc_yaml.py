"""DVC does not follow imports: each stage must list the project files that its module loads, no more and no less.

When this fails, the message holds the list to put into dvc.yaml; `python -m tests.test_dvc_yaml` puts it there.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers import ROOT
from tests.test_layout import own

DVC_YAML = ROOT / "dvc.yaml"
CODE = ("curate/", "train/", "evaluate/")


def stages() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(DVC_YAML.read_text())["stages"]
    return loaded


def files_of(module: str) -> set[Path]:
    """The file or package of a dotted name, and the __init__ of every package above it that holds code."""
    parts = module.split(".")
    path = ROOT.joinpath(*parts)
    found = {path.with_suffix(".py")} if path.with_suffix(".py").exists() else set()
    packages = [ROOT.joinpath(*parts[:count]) / "__init__.py" for count in range(1, len(parts) + 1)]
    return found | {init for init in packages if init.exists() and init.read_text().strip()}


def code_of(module: str) -> set[str]:
    """Every project file that importing `module` loads, and what those read: templates beside them by name, or all code."""
    seen: set[Path] = set()
    waiting = [*files_of(module)]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(file for name in own(path) for file in files_of(name))
    beside = {other for path in seen for other in _read_by(path)}
    return {str(path.relative_to(ROOT)) for path in seen | beside}


def _read_by(path: Path) -> set[Path]:
    text = path.read_text(encoding="utf-8")
    others = [other for other in path.parent.rglob("*") if other.suffix in (".jinja", ".css", ".js", ".html", ".json", ".txt")]
    named = {other for other in others if f'"{other.name}"' in text or f'"{other.parent.name}"' in text}
    return named | set(path.parent.rglob("*.py") if 'HERE.rglob("*.py")' in text else [])


@pytest.mark.parametrize("stage", list(stages()))
def test_deps_are_exactly_what_the_module_imports(stage: str) -> None:
    spec = stages()[stage]
    module = spec["cmd"].split()[2]
    listed = {dep for dep in spec["deps"] if dep.startswith(CODE)}
    assert listed == code_of(module), "run `python -m tests.test_dvc_yaml` to mend dvc.yaml"


@pytest.mark.parametrize("stage", list(stages()))
def test_every_folder_that_the_command_reads_is_a_dep_and_the_one_it_writes_an_out(stage: str) -> None:
    spec = stages()[stage]
    folders = spec["cmd"].split()[3:]
    outs = [out if isinstance(out, str) else next(iter(out)) for key in ("outs", "metrics") for out in spec.get(key, [])]
    assert any(out == folders[-1] or out.startswith(f"{folders[-1]}/") for out in outs)
    for folder in folders[:-1]:
        assert any(dep == folder or dep.startswith(f"{folder}/") for dep in spec["deps"])


def mend() -> None:
    """Write the code deps of every stage into dvc.yaml."""
    spec = yaml.safe_load(DVC_YAML.read_text())
    for stage in spec["stages"].values():
        data = [dep for dep in stage["deps"] if not dep.startswith(CODE)]
        stage["deps"] = data + sorted(code_of(stage["cmd"].split()[2]))
    head = "".join(line for line in DVC_YAML.read_text().splitlines(keepends=True) if line.startswith("#"))
    DVC_YAML.write_text(head + yaml.safe_dump(spec, sort_keys=False, width=140))


if __name__ == "__main__":
    mend()
