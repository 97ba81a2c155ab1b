"""Forms that are filled in, against Jinja, for every shipped template."""

import random
from pathlib import Path
from typing import Any

import jinja2
import pytest

from curate import forms, template
from train.tiny import make_tokenizer

CONTENTS = [
    None, "", " ", "\n\n", "Hi", " Hi", "Hi \n", "\tnaïve 日本 🙂\u00a0", "\0", "\0000", " \0 1 \0 ", "{{ x }}", "{% raw %}", "<b>&amp;'\"",
    "a\r\nb", "\x1c x", "Hi Hi", "False", "0", "\u2028",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    made = make_tokenizer(["Hold the pin."] * 5, 300, 512)
    made.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    made.save_pretrained(path)
    return path


def conversation(chosen: random.Random) -> list[dict[str, Any]]:
    roles = ["system"] * chosen.randrange(2) + [("user", "assistant")[at % 2] for at in range(chosen.randrange(6))]
    if chosen.random() < 0.3:
        roles.insert(chosen.randrange(len(roles) + 1), chosen.choice(["tool", "system", "user", "assistant", "narrator", "\0"]))
    turns: list[dict[str, Any]] = [{"role": role, "content": chosen.choice(CONTENTS)} for role in roles]
    if turns and chosen.random() < 0.2:
        call = {"type": "function", "function": {"name": "look", "arguments": {"line": "7"}}}
        turns[-1] |= chosen.choice([{"name": "Ann"}, {"tool_calls": [call]}])
    return turns


def outcome(render: Any) -> str:
    try:
        return str(render())
    except (jinja2.TemplateError, TypeError) as error:
        return f"refused: {error}"


@pytest.mark.parametrize("name", template.BUILT_IN)
def test_a_filled_form_is_what_jinja_renders(folder: Path, name: str) -> None:
    coded = template.codec(folder, template.load_template(name, folder))
    assert coded.forms is not None
    chosen = random.Random(name)
    for _ in range(1500):
        turns, prompt = conversation(chosen), chosen.random() < 0.5
        filled = outcome(lambda turns=turns, prompt=prompt: forms.render([turns], coded, prompt)[0])
        assert filled == outcome(lambda turns=turns, prompt=prompt: template.render(turns, coded.template, prompt, coded.special_tokens)), (
            turns
        )
    assert 20 < len(coded.forms) < 1500


def test_other_templates_are_run_for_every_conversation(folder: Path) -> None:
    coded = template.codec(folder, "{% for m in messages %}{{ m.content | upper | replace('\0', '?') }}</s>{% endfor %}")
    assert coded.forms is None
    assert forms.render([[{"role": "user", "content": " hi\0"}]], coded, False) == [" HI?</s>"]


def test_forms_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "MOST", 2)
    coded = template.codec(folder, template.load_template("phi4", folder))
    assert coded.forms is not None
    coded.forms.clear()
    rows = [[{"role": "user", "content": " " * at + "Hi"}] for at in range(5)]
    assert forms.render(rows, coded, True) == [template.render(row, coded.template, True, coded.special_tokens) for row in rows]
    assert len(coded.forms) == 2
