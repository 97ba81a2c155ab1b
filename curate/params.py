"""params.yaml: read, overridden from the command line, checked against the dataclass of a stage.

Each stage declares a frozen pydantic dataclass without defaults: values live in params.yaml and nowhere else.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

import orjson
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from curate.record import ParamsError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML was built with it
STRICT = ConfigDict(extra="forbid", strict=True)
P = TypeVar("P")


@dataclass_transform(frozen_default=True)
def params_class(cls: type[P]) -> type[P]:
    """Decorator for a stage's `Params`: frozen, strict types, no unknown keys."""
    made: type[P] = dataclass(frozen=True, config=STRICT)(cls)  # type: ignore[assignment]
    return made


def read_params(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """All sections of a params file, with `section.key=value` overrides (values are YAML) applied.

    Raises ParamsError if the file is missing or no mapping, or an override names no existing key.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file. Run from the project's root, or give --params FILE.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {str(error).splitlines()[0]} (mend the file).") from None
    if not isinstance(loaded, dict):
        raise ParamsError(f"{path}: expected one section per stage, found {type(loaded).__name__}.")
    for override in overrides:
        _override(loaded, override, path)
    return loaded


def _override(sections: dict[str, Any], override: str, path: Path) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ParamsError(f"-S {override}: expected section.key=value.")
    *parents, last = key.split(".")
    place: Any = sections
    for at, name in enumerate([*parents, last]):
        if not isinstance(place, dict) or name not in place:
            known = list(place) if isinstance(place, dict) else []
            raise ParamsError(f"-S {override}: {path} has no key '{'.'.join(key.split('.')[: at + 1])}'{_nearest(name, known)}")
        if at < len(parents):
            place = place[name]
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ParamsError(f"-S {override}: '{value}' is not a YAML value; put quotes around text with special characters.") from None


def check_section(sections: dict[str, Any], name: str, cls: type[P], path: Path) -> P:
    """The section `name` as an instance of `cls`.

    Raises ParamsError that names the file, the key, the value found, what is allowed and the nearest spelling.
    """
    if name not in sections:
        raise ParamsError(f"{path}: section '{name}' is missing{_nearest(name, list(sections))}")
    section = sections[name] if sections[name] is not None else {}
    if not isinstance(section, dict):
        raise ParamsError(f"{path}: {name}: expected keys and values, found {section!r}.")
    try:
        return TypeAdapter(cls).validate_json(orjson.dumps(section, option=orjson.OPT_NON_STR_KEYS))
    except ValidationError as error:
        problems = [_explain(problem, name, _known_at(cls, problem["loc"][:-1])) for problem in error.errors()]
        raise ParamsError(f"{path}: " + "\n  ".join(problems)) from None
    except (TypeError, orjson.JSONEncodeError) as error:
        raise ParamsError(f"{path}: {name}: {error}; write plain YAML values (quote dates).") from None


def _known_at(cls: Any, path: Sequence[str | int]) -> list[str]:
    """The keys of the params class that `path` leads to, through tuples, mappings and optional values."""
    for part in path:
        cls = _class_in(get_type_hints(cls).get(str(part))) or cls
    return list(getattr(cls, "__dataclass_fields__", {}))


def _class_in(hint: Any) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return hint
    return next((found for each in get_args(hint) if (found := _class_in(each)) is not None), None)


def _explain(problem: Any, section: str, known: list[str]) -> str:
    if not problem["loc"] and problem["type"] == "value_error":  # several keys that do not go together: the whole section would be noise
        return f"{section}: {problem['ctx']['error']}."
    key = ".".join([section, *(str(part) for part in problem["loc"])])
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{key}'{_nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] in ("missing", "missing_argument"):
        return f"key '{key}' is missing. Add it (the shipped params.yaml has every key)."
    return f"{key} = {problem['input']!r}: {problem['msg']}."


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f".{hint} Known here: {', '.join(known)}."
