"""Suspicious rows: flipped labels, strangers, conflicts and odd characters are found, the same ones on any number of threads."""

import csv
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from threadpoolctl import threadpool_limits

from bench.label_errors import flipped, own_judge, vectors_of
from curate.reporting import datamap, gather, label_errors, lookat, outliers, suspicious, wordvectors
from tests.helpers import SHARED, chat, frame, write_input

SETTINGS = suspicious.Settings(rows=50, sample=500, vectors=None)
TOPICS: dict[str, tuple[str, ...]] = {
    "card": ("my card was stolen", "block the card", "the card is broken", "a new card please", "card not accepted"),
    "rate": ("what is the exchange rate", "the rate of the euro", "rate for dollars today", "is the rate fixed", "best rate for pounds"),
    "login": (
        "I cannot log in",
        "login fails with an error",
        "forgot my login password",
        "blank login page",
        "login code never came",
    ),
}
STRANGER = "zyx quorum 8812 plumage vortex"


def rows_of(topics: dict[str, tuple[str, ...]]) -> list[dict[str, object]]:
    return [
        chat(f"{text} {word}", f"Answer about {label} {word}.", label=label)
        for label, texts in topics.items()
        for text in texts
        for word in ("now", "again", "since monday", "abroad")
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 rows in three topics; one has the label of another topic, one is like no other, one holds odd characters."""
    rows = rows_of(TOPICS)
    rows[3] = chat("my card was stolen abroad", "Answer about card abroad.", label="rate")
    rows.append(chat(STRANGER, "Yes.", label="login"))
    rows.append(chat("block the card by pаypal\ufffd", "Done \x07.", label="card"))
    write_input(frame(rows), tmp_path / "leakage")
    return tmp_path / "leakage"


def test_each_kind_is_found_where_it_is(folder: Path) -> None:
    found = suspicious.find(folder, {}, SETTINGS)
    first = {kind: rows.row(0, named=True) for (kind,), rows in found.rows.group_by("kind", maintain_order=True)}
    assert (first["label_error"]["line"], first["label_error"]["label"]) == (4, "rate")
    assert first["label_error"]["suggestion"] == "card"
    assert re.match(r"By its words 'card' is more probable \(\d+ %\) than its own label 'rate' \(\d+ %\)", first["label_error"]["detail"])
    assert found.about["labels"]["agree"] > 0.9 and found.about["labels"]["guessed"] == round(21 / 62, 4)
    assert first["outlier"]["line"] == 61
    assert first["odd_characters"]["line"] == 62 and "3 of its" in first["odd_characters"]["detail"]
    assert found.about["labels"]["judged"] == 3 and found.about["rows"] == 62
    assert STRANGER.encode() not in found.rows.write_csv().encode(), "the table holds no text of a row"


def test_the_same_rows_are_found_on_any_number_of_threads(folder: Path) -> None:
    with threadpool_limits(2):
        one = suspicious.find(folder, {}, SETTINGS)
    assert one.rows.equals(suspicious.find(folder, {}, SETTINGS).rows)


def test_conflicts_and_near_leaks_are_told_with_their_partner(folder: Path, tmp_path: Path) -> None:
    known = pl.read_parquet(folder / "kept" / "*.parquet").select("id", "source", "line")
    (tmp_path / "dedup_exact").mkdir()
    known[[1, 5]].select(pl.lit(7, pl.UInt32).alias("conflict"), "id", "source", "line").write_parquet(
        tmp_path / "dedup_exact" / "conflicts.parquet"
    )
    stages = {"dedup_exact": gather.Stage("dedup_exact", tmp_path / "dedup_exact", {})}
    found = suspicious.find(folder, stages, SETTINGS).rows.filter(pl.col("kind") == "conflict")
    assert set(found["line"]) == {2, 6}
    assert "the same prompt as t.jsonl:6, and" in found.filter(pl.col("line") == 2)["detail"][0]
    assert found.sort("line").select("other_source", "other_line").rows() == [("t.jsonl", 6), ("t.jsonl", 2)]


def test_rows_that_contradict_each_other_are_one_item() -> None:
    def row(line: int, other: int) -> dict[str, object]:
        return {"source": "a", "line": line, "other_source": "a", "other_line": other}

    groups = lookat.conflicts([row(1, 3), row(2, 1), row(3, 1), row(8, 9), row(9, 8), row(4, 2)])
    assert [(first["line"], sorted(line for _, line in others)) for first, others in groups] == [(1, [2, 3, 4]), (8, [9])]
    texts = {("a", line): f"user: Why?\nassistant: Because of {line}." for line in (1, 2, 3, 4)}
    told = dict.fromkeys(("label", "score", "detail", "suggestion"))
    shown = lookat._row(told | row(1, 3), [("a", line) for line in (2, 3, 4, 7, 8)], texts)
    assert [where for _, where in shown.others] == ["a:2", "a:3", "a:4"] and shown.more == 2
    assert "<del>1.</del>" in shown.text and "<ins>3.</ins>" in shown.others[1][0]


def test_what_other_programs_would_run_is_listed(tmp_path: Path) -> None:
    hostile = ["See <script>alert(1)</script> there", "Dear {{ name }},", "=HYPERLINK(1)", "{% raw %} and <img src=x onerror=f()>"]
    plain = ["a < b and b > c", "f(x) = {y}", "total = SUM(1)", "an image of a script"]
    rows = [chat(text, "Yes.", line=at) for at, text in enumerate([*hostile, *plain], 1)]
    write_input(frame(rows), tmp_path / "in")
    found = suspicious.find(tmp_path / "in", {}, suspicious.Settings(rows=50, sample=0, vectors=None))
    listed = found.rows.filter(pl.col("kind") == "active_content")
    assert listed["line"].to_list()[0] == 4 and set(listed["line"]) == {1, 2, 3, 4}


def test_a_dataset_without_labels_or_rows_is_no_error(tmp_path: Path) -> None:
    write_input(frame([chat("hello there", "hi")]), tmp_path / "one")
    found = suspicious.find(tmp_path / "one", {}, SETTINGS)
    assert found.about["labels"]["judged"] == 0 and set(found.rows["kind"]) <= {"longest", "outlier"}
    write_input(frame([]), tmp_path / "none")  # an empty part
    assert suspicious.find(tmp_path / "none", {}, SETTINGS).rows.height == 0


def test_leave_one_out_is_what_training_without_the_row_gives() -> None:
    random = np.random.default_rng(5)
    vectors = random.normal(size=(40, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = random.integers(0, 3, 40)
    sums = label_errors.Sums(6, 3)
    sums.add(vectors, labels)
    scores = sums.solve().scores(vectors, labels, np.ones(40, dtype=bool))
    for row in (0, 17, 39):
        rest = np.arange(40) != row
        without = label_errors.Sums(6, 3)
        without.add(vectors[rest], labels[rest])
        assert scores[row] == pytest.approx(vectors[row] @ without.solve().weights)


def test_flipped_labels_of_made_up_rows_come_first() -> None:
    rows = frame(rows_of(TOPICS))
    texts = pl.Series([row[0]["content"] for row in rows["messages"]])
    labels = rows["label"].rank("dense").cast(pl.Int64).to_numpy() - 1
    given, changed = flipped(labels, 0.05, 1)
    judged = own_judge(vectors_of(texts, "words and letters"), given)
    first = np.argsort(-judged.score)[: len(changed) * 2]
    assert set(changed) <= set(first.tolist())


@pytest.mark.skipif(not (SHARED / "banking77_train.csv").exists(), reason="Banking77 is not here")
def test_most_flipped_labels_of_banking77_are_in_the_first_tenth() -> None:
    with (SHARED / "banking77_train.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts, names = pl.Series([row["text"] for row in rows]), pl.Series([row["category"] for row in rows])
    labels = names.rank("dense").cast(pl.Int64).to_numpy() - 1
    given, changed = flipped(labels, 0.05, 0)
    judged = own_judge(vectors_of(texts, "words and letters"), given)
    first = np.argsort(-judged.score, kind="stable")[: len(labels) // 10]
    assert np.isin(changed, first).mean() >= 0.9


def test_distances_do_not_count_the_row_itself() -> None:
    unit = np.eye(8, dtype=np.float32)[[0, 0, 0, 0, 0, 0, 3]]
    assert outliers.distances(unit).tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_word_vectors_see_a_slip_of_the_pen_as_near() -> None:
    texts = pl.Series(["transfer the money abroad", "tranfser the money abroad", "open the window please", "Ünïcode “quotes” ☃"])
    counted = wordvectors.Frequencies()
    counted.add(texts)
    found = wordvectors.vectors(texts, counted.weights())
    assert found[0] @ found[1] > 0.5
    assert found[0] @ found[2] < 0.2
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)


def test_the_map_keeps_what_is_alike_together() -> None:
    random = np.random.default_rng(3)
    centres = np.eye(5)[:2] * 4
    held = np.concatenate([centre + random.normal(scale=0.1, size=(20, 5)) for centre in centres])
    places, share = datamap.principal(held, 40)
    assert abs(places[:20, 0].mean() - places[20:, 0].mean()) > 0.8 and places[:20, 0].std() < 0.1
    assert 0.9 < share <= 1 and places.min() >= 0 and places.max() <= 1
