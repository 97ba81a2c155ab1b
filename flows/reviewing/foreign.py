"""Rows as tasks for Label Studio and Argilla, and what people said there as answers.

Label Studio: tasks as JSON and a labelling interface as XML; its JSON export comes back (`data`, `annotations` with `result`: the task
format of labelstud.io/guide/task_format). Argilla 2: the list that `dataset.records.from_json` reads and `dataset.records.to_json` writes
(`fields`, `metadata`, `suggestions`, `responses`).

Both ask the same: `decision` (keep, drop, relabel, edit), `label`, `answer` (the new text of the last message) and `note`.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate import decisions
from curate.record import InputError

DECISIONS = ("keep", "drop", "relabel", "edit")
LABELS = 2000  # offered in the labelling interface
Found = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A row to be asked about: the record, why it is asked about, and a label that is suggested."""

    row: Found
    why: str
    suggestion: str | None


@dataclass(frozen=True)
class Answer:
    """What one person said about one row; `person` as the other tool knows them, `time` ISO 8601 where it tells."""

    id: str
    seen: str
    person: str
    time: str | None
    decision: str | None
    label: str | None
    answer: str | None
    note: str | None


def _turns(messages: Sequence[Found] | None) -> list[dict[str, str]]:
    return [{"role": each["role"], "content": each["content"]} for each in messages or ()]


def _last(row: Found) -> str:
    return str(row["messages"][-1]["content"])


# --- Label Studio


def label_studio_tasks(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What Label Studio imports."""
    return [_label_studio_task(each) for each in tasks]


def _label_studio_task(task: Task) -> dict[str, Any]:
    row = task.row
    data = {
        "finery_id": row["id"], "finery_seen": decisions.seen(row), "source": row["source"], "line": row["line"],
        "label": row["label"] or "",
        "why": task.why or f"{row['source']}:{row['line']}", "messages": _turns(row["messages"]), "rejected": _turns(row["rejected"]),
    }  # fmt: skip
    told = {"from_name": "label", "to_name": "row", "type": "choices", "value": {"choices": [task.suggestion]}}
    return {"data": data, "predictions": [{"model_version": "finery", "result": [told]}] if task.suggestion else []}


def label_studio_interface(labels: Sequence[str], pairs: bool) -> str:
    """The labelling interface (XML) for these tasks; `pairs`: some have a worse answer."""
    shown = 'layout="dialogue" nameKey="role" textKey="content"/>'
    worse = ['  <Header value="The worse answer"/>', f'  <Paragraphs name="worse" value="$rejected" {shown}']
    choices = [f'    <Choice value="{html.escape(each)}"/>' for each in labels[:LABELS]]
    return "\n".join(
        [
            "<View>",
            '  <Header value="$why"/>',
            f'  <Paragraphs name="row" value="$messages" {shown}',
            *(worse if pairs else []),
            '  <Choices name="decision" toName="row" choice="single-radio" required="true" showInline="true">',
            *(f'    <Choice value="{each}"/>' for each in DECISIONS),
            "  </Choices>",
            '  <Header value="Label now: $label"/>',
            '  <Choices name="label" toName="row" choice="single" layout="select">',
            *choices,
            "  </Choices>",
            '  <TextArea name="answer" toName="row" maxSubmissions="1" rows="6" editable="true" placeholder="The last message, new"/>',
            '  <TextArea name="note" toName="row" maxSubmissions="1" rows="2" editable="true" placeholder="Note for other reviewers"/>',
            "</View>",
            "",
        ]
    )


def label_studio_answers(found: Any) -> Iterator[Answer]:
    """Everything that was said in a JSON export. Cancelled annotations are passed over. Raises InputError with the task's place."""
    for at, task in enumerate(_list(found, "tasks")):
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict) or not {"finery_id", "finery_seen"} <= data.keys():
            raise InputError(f"task {at + 1} has no finery_id and finery_seen in its 'data': it was not made by `flows.exchange`.")
        for annotation in task.get("annotations") or ():
            if not annotation.get("was_cancelled"):
                said = dict(_said(each) for each in annotation.get("result") or ())
                time = annotation.get("updated_at") or annotation.get("created_at")
                yield _answer(data["finery_id"], data["finery_seen"], _person(annotation.get("completed_by")), time, said)


def _said(result: Found) -> tuple[str, Any]:
    value = result.get("value") or {}
    texts = value.get("choices") or value.get("text")
    return str(result.get("from_name")), "\n".join(texts) if isinstance(texts, list) else texts


def _person(found: Any) -> str:
    if isinstance(found, dict):
        return str(found.get("email") or found.get("username") or found.get("id"))
    return str(found)


# --- Argilla


def argilla_records(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """What `dataset.records.from_json` reads."""
    return [_argilla_record(each) for each in tasks]


def _argilla_record(task: Task) -> dict[str, Any]:
    row = task.row
    fields: dict[str, Any] = {"why": task.why or f"{row['source']}:{row['line']}", "messages": _turns(row["messages"])}
    if row["rejected"]:
        fields["rejected"] = _turns(row["rejected"])
    told = {"answer": _last(row)} | ({"label": task.suggestion} if task.suggestion else {})
    return {
        "id": row["id"],
        "fields": fields,
        "metadata": {"seen": decisions.seen(row), "source": row["source"], "line": row["line"], "label": row["label"] or ""},
        "suggestions": {name: {"value": value, "score": None, "agent": "finery"} for name, value in told.items()},
        "responses": {},
        "vectors": {},
    }


def argilla_answers(found: Any) -> Iterator[Answer]:
    """Everything that was said in records of `dataset.records.to_json`. Raises InputError with the record's place."""
    for at, record in enumerate(_list(found, "records")):
        metadata = record.get("metadata") if isinstance(record, dict) else None
        if not isinstance(metadata, dict) or "seen" not in metadata:
            raise InputError(f"record {at + 1} has no 'seen' in its metadata: it was not made by `flows.exchange`.")
        people: dict[str, dict[str, Any]] = {}
        for name, responses in (record.get("responses") or {}).items():
            for each in responses or ():
                people.setdefault(str(each.get("user_id")), {})[name] = each.get("value")
        for person, said in people.items():
            yield _answer(record.get("id"), metadata["seen"], person, None, said)


# --- both


def _list(found: Any, name: str) -> list[Any]:
    if not isinstance(found, list):
        raise InputError(f"expected a JSON list of {name}, found {type(found).__name__}.")
    return found


def _answer(row: Any, seen: Any, person: str, time: str | None, said: Found) -> Answer:
    texts = {name: str(said[name]) if said.get(name) not in (None, "") else None for name in ("decision", "label", "answer", "note")}
    return Answer(str(row), str(seen), person, time, **texts)


def decided(answer: Answer, row: Found) -> dict[str, Any] | None:
    """The fields of the decision that an answer stands for, but for who and when; None: it says nothing about the row.

    Raises InputError where it contradicts itself.
    """
    label = answer.label if answer.label != row["label"] else None
    edited = answer.answer if answer.answer is not None and answer.answer != _last(row) else None
    action = answer.decision or ("edit" if edited else "relabel" if label else "note" if answer.note else None)
    if action is None:
        return None
    if action not in (*DECISIONS, "note"):
        raise InputError(f"the decision '{action[:40]}' is none of {', '.join(DECISIONS)}.")
    if action == "relabel" and edited:
        action = "edit"
    found: dict[str, Any] = {"action": action}
    if action in ("relabel", "edit") and label:
        found["label"] = label
    if action == "relabel" and not label:
        raise InputError("it says relabel, and the label is the one that the row has.")
    if action == "edit":
        if edited is None:
            raise InputError("it says edit, and the answer is the one that the row has.")
        found["messages"] = [*row["messages"][:-1], row["messages"][-1] | {"content": edited}]
    return found | ({"note": answer.note} if answer.note else {})
