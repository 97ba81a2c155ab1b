"""Does an adapter belong to the data and the base that lie here? Says what differs; exit code 0 if nothing does, 1 if something does.

`python -m train.verify data/train/adapter [--data data/format] [--base data/base] [--lock dvc.lock]`. Reads only. Also for merged folders.
"""

import argparse
from pathlib import Path
from typing import Any

import orjson

from curate.record import InputError
from curate.stage import guarded, say
from train import provenance


def problems(adapter: Path, data: Path, base: Path, lock: Path) -> list[str]:
    """One sentence for each thing that is not as the adapter's provenance.json says; empty if all is.

    Raises InputError if a folder or the record is missing or unreadable.
    """
    record = read(adapter)
    found = _weights(record["weights"], provenance.weights(adapter))
    now = provenance.dataset(data)
    found += _compare(f"the dataset in {data}", record["dataset"]["sha256"], now["sha256"])
    if record["dataset"]["template_sha256"] and now["template_sha256"]:
        found += _compare(f"the chat template in {data}", record["dataset"]["template_sha256"], now["template_sha256"])
    found += _compare(f"the base in {base}", record["base"]["sha256"], provenance.base(base)["sha256"])
    then, locked = record.get("dvc_lock_sha256"), provenance.lock_sha256(lock)
    if then and locked:
        found += _compare(f"what {lock} says of the stages before training", then, locked)
    commit = (record.get("code") or {}).get("commit")
    if commit and provenance.code(Path.cwd())["commit"] and not provenance.knows_commit(Path.cwd(), commit):
        found.append(f"the commit it was made at, {commit[:12]}…, is not in this repository.")
    return found


def read(adapter: Path) -> dict[str, Any]:
    path = adapter / provenance.FILE
    try:
        record = orjson.loads(path.read_bytes())
        for section in ("weights", "dataset", "base"):
            record[section].items()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file. Give the folder of an adapter that Finery trained (data/train/adapter).") from None
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not a provenance record ({error!r}). Take the adapter from where it was trained again.") from None
    return dict(record)


def _weights(then: dict[str, str], now: dict[str, str]) -> list[str]:
    missing = [f"{name} is missing." for name in sorted(then.keys() - now.keys())]
    extra = [f"{name} was not there when the adapter was made." for name in sorted(now.keys() - then.keys())]
    changed = [
        f"{name} was changed: recorded {then[name][:12]}…, now {now[name][:12]}…"
        for name in sorted(then)
        if now.get(name, then[name]) != then[name]
    ]
    return missing + changed + extra


def _compare(what: str, then: str, now: str) -> list[str]:
    return [] if then == now else [f"{what} is not what the adapter was trained with: recorded {then[:12]}…, now {now[:12]}…"]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.verify", description="Checks an adapter against the data and base it was made from."
    )
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("--data", type=Path, default=Path("data/format"), metavar="DIR")
    parser.add_argument("--base", type=Path, default=Path("data/base"), metavar="DIR")
    parser.add_argument("--lock", type=Path, default=Path("dvc.lock"), metavar="FILE")
    options = parser.parse_args(arguments)
    found: list[str] = []
    guarded("verify", lambda: found.extend(problems(options.adapter, options.data, options.base, options.lock)))
    for problem in found:
        say(f"verify: {problem}")
    if found:
        raise SystemExit(1)
    say(f"verify: {options.adapter}: weights, dataset and base are as recorded.")
    if (read(options.adapter).get("code") or {}).get("clean") is False:
        say("verify: note: the code had changes that were not committed when it was made.")


if __name__ == "__main__":
    main()
