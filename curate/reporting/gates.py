"""The gates and the verdict: what a reviewer with one minute reads."""

from typing import Annotated, Any, Literal

from pydantic import Field

from curate.params import params_class
from curate.reporting.gather import NO_LABEL

FAMILIES = {  # of train.method: what of `train_rows` holds for it
    "sft": "sft", "pretrain": "pretrain", "grpo": "grpo", "classify": "classify",
    "dpo": "preference", "orpo": "preference", "kto": "preference", "reward": "preference",
}  # fmt: skip
SECTIONS = {  # where the page shows more of what a gate counts
    "Every row accounted for": "funnel", "Rows lost": "funnel", "Rows lost in one file": "by-file", "Rows lost in one label": "by-label",
    "Duplicates": "duplicates", "Conflicts": "suspicious", "Leakage": "leakage", "Kept together": "labels",
    "Synthetic rows": "augmentation", "Training rows": "labels", "Rarest label": "labels",
    "Personal data": "personal", "Personal data left": "personal",
    "Truncated rows": "formatted", "Rows that train nothing": "formatted", "Planted defects": "truth", "Clean rows dropped": "truth",
}  # fmt: skip
Share = Annotated[float, Field(ge=0, le=1)]
Rows = Annotated[int, Field(ge=0)]
State = Literal["pass", "warn", "fail"]


@params_class
class Sizes:
    """`params.yaml: report.gates.train_rows`: rows of train that teach a method enough to be worth the GPU hours, as a rule of thumb."""

    sft: Rows
    pretrain: Rows
    preference: Rows  # pairs: dpo, orpo, kto, reward
    grpo: Rows
    classify: Rows  # rows with a label


@params_class
class Limits:
    """`params.yaml: report.gates`: shares from 0 to 1, rows from 0."""

    lost_share: Share  # of all raw rows, in all stages; warns above
    lost_share_source: Share  # of one raw file; warns above
    lost_share_label: Share  # of the rows of one label; warns above
    duplicate_share: Share  # of all raw rows; warns above
    conflict_share: Share  # of the dataset's rows: the prompt of another row, another answer; warns above
    truncated_share: Share  # of formatted rows; warns above
    synthetic_share: Share  # of train; fails above
    label_rows: Rows  # of the rarest label in train; warns below
    train_rows: Sizes  # of the training split, by method; warns below
    residual: Rows  # places of which a second search says that they look like personal data; warns above


def check(numbers: dict[str, Any], limits: Limits, method: str) -> list[dict[str, Any]]:
    """Every gate with its value, limit, state and one sentence. `method` is `train.method`, whose kind of rows is counted."""
    steps = {step["stage"]: step for step in numbers["waterfall"]}
    raw, final = numbers["rows"]["raw"], numbers["rows"]["final"]
    lost = sum(step["dropped"] for name, step in steps.items() if name != "format")
    twice = sum(steps[name]["dropped"] for name in ("dedup_exact", "dedup_near", "dedup_semantic") if name in steps)
    worst: dict[str, Any] = max(numbers["sources"], key=lambda source: source["lost_share"], default={"source": "-", "lost_share": 0.0})
    many = sum(source["lost_share"] > limits.lost_share_source for source in numbers["sources"])
    whole = sum(source["lost_share"] == 1 for source in numbers["sources"])
    gone = f"{whole} of {len(numbers['sources'])} files lost every row. " if whole else ""
    conflicts = numbers["suspicious"]["kinds"]["conflict"]
    accounted = raw + sum(step["added"] for name, step in steps.items() if name != "format") - lost == final
    return [
        _gate(
            "Every row accounted for",
            "yes" if accounted else "no",
            "yes",
            "pass" if accounted else "fail",
            "Rows read + added = kept + dropped.",
        ),
        _over("Rows lost", lost / max(raw, 1), limits.lost_share, "warn", f"{lost:,} of {raw:,} raw rows were dropped."),
        _over(
            "Rows lost in one file",
            worst["lost_share"],
            limits.lost_share_source,
            "warn",
            f"{gone}{worst['source']} lost most; {many} of {len(numbers['sources'])} files are over the limit.",
        ),
        *_label_losses(numbers, limits),
        _over("Duplicates", twice / max(raw, 1), limits.duplicate_share, "warn", f"{twice:,} rows repeat another, exactly or nearly."),
        _over(
            "Conflicts",
            conflicts["found"] / max(final, 1),
            limits.conflict_share,
            "warn",
            f"{conflicts['found']:,} rows have the prompt of another row and another answer{beside(conflicts)}. None was dropped for it.",
        ),
        *_split_gates(numbers, steps, limits, method),
        *_privacy_gates(numbers, limits),
        *_format_gates(steps, limits),
        *_truth_gates(numbers),
    ]


def verdict(gates: list[dict[str, Any]]) -> dict[str, str]:
    """The worst state of all gates, and a sentence that names them."""
    for state, opening in (("fail", "Do not train on this yet"), ("warn", "Fit to train on once these are understood")):
        named = [gate["name"].lower() for gate in gates if gate["state"] == state]
        if named:
            return {"state": state, "sentence": f"{opening}: {', '.join(named)}."}
    return {"state": "pass", "sentence": "Every gate passes."}


def beside(kind: dict[str, Any]) -> str:
    """The two files whose rows of a suspicious kind stand beside each other most often, if half of them do; else nothing."""
    if "beside" not in kind or 2 * kind["beside"]["rows"] < kind["found"]:
        return ""
    files, rows = kind["beside"]["files"], kind["beside"]["rows"]
    return f" ({'all' if rows == kind['found'] else f'{rows:,}'} {'within' if len(files) == 1 else 'between'} {' and '.join(files)})"


def _gate(name: str, value: str, limit: str, state: State, sentence: str) -> dict[str, Any]:
    return {"name": name, "value": value, "limit": limit, "state": state, "sentence": sentence, "section": SECTIONS[name]}


def _over(name: str, value: float, limit: float, state: State, sentence: str) -> dict[str, Any]:
    return _gate(name, f"{value:.1%}", f"at most {limit:.1%}", state if value > limit else "pass", sentence)


def _label_losses(numbers: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    named = [each for each in numbers["label_losses"] if each["label"] != NO_LABEL]
    if not named:
        return []
    worst, many = max(named, key=lambda each: each["lost_share"]), sum(each["lost_share"] > limits.lost_share_label for each in named)
    told = f"'{worst['label']}' lost most; {many} of {len(named)} labels are over the limit. Rows without a label do not count."
    return [_over("Rows lost in one label", worst["lost_share"], limits.lost_share_label, "warn", told)]


def _split_gates(numbers: dict[str, Any], steps: dict[str, Any], limits: Limits, method: str) -> list[dict[str, Any]]:
    found = []
    if "leakage" in steps:
        pairs, kinds = sum(cell["rows"] for cell in numbers["leakage"]), len(numbers["leakage"])
        told = f"{kinds} cells of the matrix below, after augmentation."
        found.append(_gate("Leakage", f"{pairs:,} rows", "0 rows", "fail" if pairs else "pass", told))
    if "splits" in numbers:
        crossing: int = sum(numbers["splits"]["crossing"].values())
        told = "Groups, clusters of near-duplicates and equal rows that stand in more than one split."
        found.append(_gate("Kept together", f"{crossing:,} crossing", "0 crossing", "fail" if crossing else "pass", told))
        rows = sum(splits["train"] for splits in numbers["labels"].values())
        if "augmentation" in numbers:
            rows, made = numbers["augmentation"]["train"], numbers["augmentation"]["rows"]
            found.append(
                _over(
                    "Synthetic rows", made / max(rows, 1), limits.synthetic_share, "fail", f"{made:,} of {rows:,} training rows were made."
                )
            )
        found.append(_size(numbers, limits.train_rows, method, rows))
    labelled = {label: splits for label, splits in numbers["labels"].items() if label != NO_LABEL}
    if labelled and "split" in steps:
        rarest = min(labelled, key=lambda label: (labelled[label]["train"], label))
        rows = labelled[rarest]["train"]
        as_rare = sum(splits["train"] == rows for splits in labelled.values()) - 1
        found.append(
            _gate(
                "Rarest label",
                f"{rows:,} rows",
                f"at least {limits.label_rows:,}",
                "warn" if rows < limits.label_rows else "pass",
                f"'{rarest}'{f' and {as_rare} more' if as_rare else ''} in train, synthetic rows included.",
            )
        )
    return found


def _size(numbers: dict[str, Any], least: Sizes, method: str, rows: int) -> dict[str, Any]:
    """The gate for the rows that the method can learn from; all of train where format has not told its pairs."""
    family, what = FAMILIES[method], "rows"
    if family == "preference":
        what = "pairs"
        rows = numbers["formatted"]["splits"]["train"]["pairs"] if "formatted" in numbers else rows
    elif family == "classify":
        what, rows = "labelled rows", sum(splits["train"] for label, splits in numbers["labels"].items() if label != NO_LABEL)
    wanted: int = getattr(least, family)
    few: State = "warn" if rows < wanted else "pass"
    return _gate("Training rows", f"{rows:,} {what}", f"at least {wanted:,}", few, f"Fewer seldom teach a task by {method}.")


def _privacy_gates(numbers: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    personal = numbers["personal"]
    missing, left = personal.get("not_searched", []), sum(personal["residual"].values())
    replaced = sum(entity["values"] for entity in personal["entities"])
    why = f"{replaced:,} places replaced. Not searched for: {', '.join(missing)}." if missing else f"{replaced:,} places replaced."
    found = [_gate("Personal data", "partly searched" if missing else "searched", "searched", "warn" if missing else "pass", why)]
    if personal["residual_searched"]:
        over = left > limits.residual
        told = "By a second, independent search for patterns and listed names. 0 is no proof: names in no list look like words."
        found.append(_gate("Personal data left", f"{left:,} found", f"at most {limits.residual:,}", "warn" if over else "pass", told))
    return found


def _format_gates(steps: dict[str, Any], limits: Limits) -> list[dict[str, Any]]:
    if "format" not in steps:
        return []
    counts, rows = steps["format"]["counts"], max(steps["format"]["rows_in"], 1)
    cut = sum(count for name, count in counts.items() if name.endswith("_truncated"))
    silent = steps["format"]["reasons"].get("zero_loss", {}).get("rows", 0)
    return [
        _over("Truncated rows", cut / rows, limits.truncated_share, "warn", f"{cut:,} rows are longer than the context and were cut."),
        _gate(
            "Rows that train nothing",
            f"{silent:,} rows",
            "0 rows",
            "warn" if silent else "pass",
            "Rows without a trained token were dropped.",
        ),
    ]


def _truth_gates(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    if "truth" not in numbers:
        return []
    kinds = numbers["truth"]["defects"].values()
    planted, found = sum(kind["planted"] for kind in kinds), sum(kind["found"] for kind in kinds)
    lost = len(numbers["truth"]["clean_rows_dropped"])
    return [
        _gate(
            "Planted defects",
            f"{found:,} of {planted:,} found",
            "all",
            "pass" if found == planted else "warn",
            "Counted against the truth file.",
        ),
        _gate("Clean rows dropped", f"{lost:,} rows", "0 rows", "warn" if lost else "pass", "Rows that nobody planted a defect in."),
    ]
