"""The model card with the verdict in it: a copy of the adapter's card, which stays as train left it."""

from typing import Any

import pytest

from evaluate import card
from tests.test_evaluate import bytes_world, parts, run  # noqa: F401

TITLES = {"base": "Base", "tuned": "Tuned"}
HEAD: dict[str, Any] = {"items": 1234, "verdict": "better", "reason": "It is right more often."}


@pytest.mark.parametrize("own", ["# Mine\n\nFacts.\n\n## Settings\n\nrank 8\n", "# Mine\n\nFacts.\n", None])
def test_the_verdict_stands_before_the_other_sections_and_once(own, tmp_path):
    if own is not None:
        (tmp_path / "README.md").write_text(own)
    made = card.of(tmp_path, HEAD, TITLES)
    assert "Verdict on 1,234 hold-out items: **better**. It is right more often." in made
    if own is not None:
        assert made.replace("\n## Evaluation\n\nVerdict on 1,234 hold-out items: **better**. It is right more often.\n", "") == own
    (tmp_path / "README.md").write_text(made)
    worse = card.of(tmp_path, HEAD | {"verdict": "worse"}, TITLES)
    assert worse == made.replace("**better**", "**worse**")


def test_evaluate_writes_the_card_and_leaves_the_adapter_as_it_is(parts, tmp_path):  # noqa: F811
    readme = parts["train"] / "adapter" / "README.md"
    before = readme.read_bytes() if readme.exists() else None
    run(parts, tmp_path, "few_shot=0", "robustness=null", "generate_items=3")
    text = (tmp_path / "reports" / "model-card.md").read_text()
    assert "hold-out items: **" in text and "|  | Base | Tuned | Tuned against base |" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table[-10:]}) == 1
    assert (readme.read_bytes() if readme.exists() else None) == before
