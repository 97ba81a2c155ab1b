"""What the report shows of replaced values, of benchmark spans and for `dvc plots`, made by the stages themselves."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
import yaml

from curate import clean, decontaminate, scrub
from curate.pii.settings import ScrubParams
from curate.record import ParamsError
from curate.reporting import datamap, gather, plots, repaired, replaced, spans
from tests.helpers import ROOT, chat, frame, run_stage, section, write_input

PERSONAL = "Write to anna.kowalska@example.org or ring +1 212 555 0143 today, says Anna Kowalska of the bureau."


@pytest.mark.parametrize("batch", [gather.BATCH, 2])
def test_replaced_values_are_shown_masked_and_nothing_beside_them_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(gather, "BATCH", batch)
    write_input(
        frame([chat(f"{at} {PERSONAL}", "Yes.", line=at) for at in range(9)] + [chat("Nothing here", "No.", line=9)]), tmp_path / "clean"
    )
    run_stage(scrub.STAGE, tmp_path / "clean", tmp_path / "scrub")
    found = {name: gather.Stage(name, tmp_path / name, {}) for name in ("clean", "scrub")}
    shown = replaced.masked_samples(found)
    assert {"EMAIL_ADDRESS", "PHONE_NUMBER", "PERSON"} <= set(shown)
    assert all(len({place["line"] for place in places}) == replaced.SHOWN for places in shown.values()), "of different rows"
    [mail, *_] = shown["EMAIL_ADDRESS"]
    assert mail["mask"] == "xxxx.xxxxxxxx@xxxxxxx.xxx" and mail["before"].endswith("Write to ")
    assert mail["after"].startswith(" or ring [PHONE_NUMBER] today, says [PERSON]")
    assert not any(value in str(shown) for value in ("anna", "Anna", "Kowalska", "212", "0143"))
    assert replaced.masked_samples({"scrub": found["scrub"]}) == {}, "the rows before scrub are gone"


@pytest.mark.parametrize("batch", [gather.BATCH, 2])
def test_repairs_are_shown_before_and_after_but_never_beside_a_personal_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(gather, "BATCH", batch)
    rows = [
        chat("The cafÃ© is closed, isnâ€™t it, on every single Sunday of the year?", "Yes.", line=1),
        chat("My pass\u200bport is re\ufefffused by every single machine at the gate.", "Try again.", line=2),
        chat(f"\u200b{PERSONAL}", "Yes.", line=3),
        chat("Nothing is wrong with this one, as far as anybody could tell.", "No.", line=4),
    ]
    write_input(frame(rows), tmp_path / "ingest")
    found = {"ingest": gather.Stage("ingest", tmp_path / "ingest", {})}
    for before, each in (("ingest", clean.STAGE), ("clean", scrub.STAGE)):
        metrics = run_stage(each, tmp_path / before, tmp_path / each.name)
        found[each.name] = gather.Stage(each.name, tmp_path / each.name, metrics)
    kinds = {kind["name"]: kind for kind in (repaired.section(found, section("scrub", ScrubParams)) or {})["kinds"]}
    assert {name: kind["rows"] for name, kind in kinds.items()} == {"encoding": 1, "invisible": 2}
    [place] = kinds["invisible"]["places"]
    assert place.line == 2 and "⟨U+200B⟩" in place.before and "⟨U+" not in place.after
    [place] = kinds["encoding"]["places"]
    assert "Ã©" in place.before and "<ins>é" in place.after
    assert "Kowalska" not in str(kinds) and "anna" not in str(kinds)


def test_what_clean_took_out_with_the_markup_is_not_shown_in_clear(tmp_path: Path) -> None:
    rows = [
        chat('<p>Please <a href="mailto:anna.kowalska@example.org">write to us</a>.</p><!-- Anna -->', "They answer soon.", line=1),
        chat('<b>Call</b> the <a title="anna&#64;example.org 4111">bureau</a> once more.', "They answer late.", line=2),
    ]
    write_input(frame(rows), tmp_path / "ingest")
    found = {"ingest": gather.Stage("ingest", tmp_path / "ingest", {})}
    for before, each in (("ingest", clean.STAGE), ("clean", scrub.STAGE)):
        found[each.name] = gather.Stage(each.name, tmp_path / each.name, run_stage(each, tmp_path / before, tmp_path / each.name))
    assert pl.read_parquet(tmp_path / "scrub" / "findings.parquet").is_empty(), "scrub never saw what clean had taken out"
    [kind] = (repaired.section(found, section("scrub", ScrubParams)) or {})["kinds"]
    assert kind["rows"] == 2 and [place.line for place in kind["places"]] == [2], "an address in the text before keeps a row away"
    assert "&lt;b&gt;" in kind["places"][0].before and "xxxx&amp;#00;xxxxxxx.xxx 0000" in kind["places"][0].before
    assert "anna" not in str(kind).lower() and "4111" not in str(kind)


def test_only_what_a_repair_changed_is_marked() -> None:
    before, after = repaired.marked("My pass\u200bport is re\ufefffused.", "My passport is refused.")
    assert before == "My pass<del>⟨U+200B⟩</del>port is re<del>⟨U+FEFF⟩</del>fused." and after == "My passport is refused."
    assert repaired.marked("End. \n", "End.") == ("End.<del>·↵\n</del>", "End.")
    before, after = repaired.marked("a" * 900 + "\r\n" + "b" * 900, "a" * 900 + "\n" + "b" * 900)
    assert before == "…" + "a" * 60 + "<del>⟨U+000D⟩</del>\n" + "b" * 59 + "…" and "<del>" not in after


@pytest.mark.parametrize("batch", [gather.BATCH, 2])
def test_spans_of_benchmarks_are_cut_out_of_both_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(gather, "BATCH", batch)
    item = "How many litres of paint does a wall of forty square metres need when one litre covers eight?"
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "exam.jsonl").write_bytes(orjson.dumps({"id": "e-1", "question": item, "answer": "5"}))
    rows = [
        chat(f"Please help me with this at once, dear machine: {item} I have no time.", "It is 5.", line=7, source="a.jsonl"),
        chat("A cat?", "A cat.", line=8),
        *(chat(f"{item} Sum {at} and {at}.", "No.", line=20 + at) for at in range(spans.SHOWN - 1)),
    ]
    write_input(frame(rows), tmp_path / "scrub")
    run_stage(decontaminate.STAGE, tmp_path / "scrub", tmp_path / "decontaminate", f"benchmarks={tmp_path / 'sets'}")
    found = {name: gather.Stage(name, tmp_path / name, {}) for name in ("scrub", "decontaminate")}
    places = spans.benchmark_spans(found, tmp_path / "sets")
    assert len(places) == spans.SHOWN and [each["score"] for each in places] == sorted(each["score"] for each in places)
    [place] = [each for each in places if each["line"] == 7]
    assert (place["set"], place["item_id"], place["flagged"]) == ("exam.jsonl", "e-1", False)
    before, span, after = place["row"]
    assert before == "Please help me with this at once, dear machine: " and span in item and after.endswith(" I have no time.")
    assert "".join(place["theirs"]) == item


def test_a_neighbour_in_meaning_is_shown_with_its_whole_prompt() -> None:
    row = {
        "set": "s",
        "item": 1,
        "item_id": None,
        "source": "f",
        "line": 3,
        "tier": "meaning",
        "overlap": "question",
        "score": 0.9,
        "flagged": True,
    }
    row |= {"span": {"field": "prompt", "turn": None, "start": 0, "end": 5}, "item_span": {"field": "question", "start": 0, "end": 4}}
    place = spans._place(row, {("f", 3): {"prompt": "Where", "messages": []}}, {("s", 1): {"question": "Who?", "answer": ""}})
    assert (place["row"], place["theirs"]) == (("", "Where", ""), ("", "Who?", ""))


def test_long_spans_are_cut() -> None:
    before, span, after = spans.around("a" * 100 + "b" * 1000 + "c" * 100, 100, 1100)
    assert (len(before), len(after)) == (spans.AROUND + 1, spans.AROUND + 1)
    assert span == "b" * spans.LONGEST + " … (600 more characters)"


def test_the_plots_of_dvc_yaml_find_their_columns() -> None:
    asked = [next(iter(plot.values())) for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]]
    numbers = orjson.loads((ROOT / "reports" / "curation.json").read_bytes())
    made = plots.tables(numbers)
    for plot in asked:
        for axis in (plot["x"], plot["y"]):
            for file, column in axis.items() if isinstance(axis, dict) else ():
                if file.startswith("reports/plots/"):
                    assert column in made[Path(file).stem].columns, file
    assert made["stages"]["kept"].to_list() == [step["kept"] for step in numbers["waterfall"]]
    splits = ["train", "validation", "test"]
    rows = made["labels"].select(splits).sum_horizontal().sum()
    assert rows == numbers["rows"]["final"] == made["lengths"].select(splits).sum_horizontal().sum() + numbers["token_histogram"]["beyond"]


def test_a_report_of_few_stages_has_fewer_plots() -> None:
    made = plots.tables({"waterfall": [{"stage": "ingest", "kept": 1, "dropped": 0}], "labels": {}, "duplicates": {"what_if": {}}})
    assert made["stages"].rows() == [("ingest", 1, 0)] and list(made) == ["stages"]


def test_a_map_by_umap_needs_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ParamsError, match=r"report\.map: `umap` needs umap-learn.*pip install umap-learn"):
        datamap.load_umap()


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_places_like_rows_together() -> None:
    random = np.random.default_rng(5)
    held = np.concatenate([random.normal(centre, 0.1, (40, 8)) for centre in (0, 3)])
    held = held[np.arange(80).reshape(2, 40).T.ravel()]
    places = datamap.neighbours(held, kept=60)
    assert places.shape == (80, 2) and places.min() >= 0 and places.max() <= 1
    near, far = np.linalg.norm(places[0:60:2] - places[0], axis=1), np.linalg.norm(places[1:60:2] - places[0], axis=1)
    assert near.mean() < far.mean() / 3
    assert np.array_equal(places, datamap.neighbours(held, kept=60))
