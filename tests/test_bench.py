"""The benchmark's own logic: rows, truth, measuring, tables. The peers themselves are not run here."""

import itertools
import random
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import data, environments, near_dup, truth, whole_way
from bench.environments import Environment, Peer, find_python, prepare, why
from bench.measure import Measured, measure
from bench.peers.setting import WORDS, shingles
from curate import store
from curate.record import SCHEMA, prompt_and_answer
from tests.helpers import ROOT

TEXTS = [f"row {at}: " + " ".join(f"w{at * 7 % 31 + step}" for step in range(40)) + "\n\tthe end" for at in range(50)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> data.Inputs:
    return data.make("small", data.enlarged(TEXTS, 120), 120, tmp_path_factory.mktemp("bench"))


def test_enlargement_is_seeded_and_a_row_does_not_depend_on_how_many_are_asked_for() -> None:
    some, more = list(data.enlarged(TEXTS, 120)), list(data.enlarged(TEXTS, 200))
    assert some == more[:120] and len(more) == 200
    assert some[:50] == TEXTS
    assert list(data.enlarged(TEXTS, 20)) == TEXTS[:20]
    assert list(data.enlarged(TEXTS, 120, seed=18))[50:] != some[50:]


def test_a_fifth_of_the_words_of_a_copy_is_swapped_for_words_of_the_corpus_and_its_gaps_stay() -> None:
    corpus = {word for text in TEXTS for word in text.split()}
    for text, copy in zip(TEXTS, list(data.enlarged(TEXTS, 100))[50:], strict=True):
        before, after = text.split(), copy.split()
        changed = sum(one != other for one, other in zip(before, after, strict=True))
        assert changed <= round(0.2 * len(before)) and changed > 0.1 * len(before)  # a word may be swapped for itself
        assert set(after) <= corpus
        assert copy.count("\n\t") == 1
    assert list(data.enlarged(TEXTS, 150))[100:] != list(data.enlarged(TEXTS, 150))[50:100], "two copies of a row differ"


def test_both_shapes_hold_the_same_rows(inputs: data.Inputs) -> None:
    rows = inputs.texts()
    assert rows["text"].to_list() == list(data.enlarged(TEXTS, 120))
    assert rows["id"].n_unique() == 120
    assert len(list(inputs.peers.glob("*.parquet"))) == data.PARTS
    record = store.read_rows(inputs.finery)
    assert dict(record.schema) == SCHEMA
    assert record["id"].to_list() == rows["id"].to_list() == [data.row_id(row) for row in range(120)]
    assert prompt_and_answer(record)["answer"].to_list() == rows["text"].to_list()
    assert record["line"].to_list() == list(range(1, 121))


def test_inputs_are_made_once_and_again_when_something_changed(tmp_path: Path) -> None:
    made = data.make("x", iter(TEXTS), 30, tmp_path)
    assert data.make("x", iter(["never read"]), 30, tmp_path).texts()["text"].to_list() == TEXTS[:30]
    (made.folder / "made.json").unlink()  # as a killed run leaves it
    assert data.make("x", iter(TEXTS[10:]), 30, tmp_path).texts()["text"].to_list() == TEXTS[10:40]


def test_short_texts_are_one_shingle() -> None:
    assert shingles("One two") == ["one two"]
    assert shingles("") == [""]
    assert len(shingles("a b c d e")) == 5 - WORDS + 1


def test_truth_is_what_sets_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "BLOCK", 7)  # several blocks
    draw = random.Random(3)
    texts = [" ".join(draw.choice("abc") for _ in range(draw.randint(1, 30))) for _ in range(60)]
    texts += [texts[0], texts[5] + " z", texts[9].upper(), ""]
    sets = [set(shingles(text)) for text in texts]
    wanted = {}
    for a, b in itertools.combinations(range(len(texts)), 2):
        similarity = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        if similarity >= 0.3:
            wanted[a, b] = similarity
    found = truth.exact_pairs(texts, 0.3)
    assert {(a, b) for a, b, _ in found.iter_rows()} == set(wanted)
    assert all(similarity == pytest.approx(wanted[a, b]) for a, b, similarity in found.iter_rows())
    assert len(wanted) > 20 and (0, 60) in wanted and (9, 62) in wanted
    assert truth.exact_pairs([]).height == 0


def test_judge_counts_what_was_missed_and_what_was_lost() -> None:
    # 0 ~ 1 ~ 2 at .9, 3 ~ 4 at exactly .8, 5 ~ 6 at .75, 7 alone
    pairs = pl.DataFrame({"a": [0, 1, 3, 5], "b": [1, 2, 4, 6], "similarity": [0.9, 0.9, 0.8, 0.75]}, schema=truth.PAIRS)

    def judged(kept: set[int]) -> truth.Judged:
        return truth.judge(pairs, np.array([row in kept for row in range(8)]), 0.8)

    assert judged({0, 2, 3, 5, 6, 7}) == truth.Judged(0, 0, 0, 0)
    assert judged(set(range(8))) == truth.Judged(left=3, kept_with_twin=5, unfounded=0, unfounded_floor=0)
    assert judged({0, 3, 5, 7}) == truth.Judged(0, 0, unfounded=2, unfounded_floor=1), (
        "2 was chained to 0; 6 is near 5, but under the threshold"
    )
    assert judged({0, 2, 3, 5, 6}).unfounded_floor == 1, "7 is like nothing"
    assert judged(set()) == truth.Judged(0, 0, 8, 8)


def test_measure_sees_children_and_tells_errors_and_late_runs() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; x = bytearray(150_000_000); time.sleep(.3)'])"
    fine = measure([sys.executable, "-c", child])
    assert fine.error == "" and fine.peak > 150e6 and fine.seconds > 0.3
    talkative = measure([sys.executable, "-c", "import sys; sys.stderr.write('x' * 1_000_000); sys.exit('no such thing')"])
    assert talkative.error.endswith("no such thing")
    assert measure([sys.executable, "-c", "raise SystemExit(3)"]).error == "exit code 3"
    late = measure([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2)
    assert late.error == "not done after 0 s" and late.seconds < 10


def test_a_tool_may_only_keep_rows_that_it_got(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    pl.DataFrame({"id": [data.row_id(3), data.row_id(0)]}).write_parquet(out)
    assert near_dup.kept_rows(out, 5).tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match="not in the input"):
        near_dup.kept_rows(out, 3)
    pl.DataFrame({"id": [data.row_id(3)] * 2}).write_parquet(out)
    with pytest.raises(ValueError, match="more than once"):
        near_dup.kept_rows(out, 5)


def test_a_peer_without_its_python_or_with_requirements_that_do_not_install_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements-odd.txt").write_text(str(tmp_path / "no-such-1.0-py3-none-any.whl"))
    assert prepare(Peer("odd", "Odd", "", python=(4, 0), scripts=tmp_path), tmp_path) == Environment(
        None, "needs Python 4.0 or later, and there is none on PATH"
    )
    told = prepare(Peer("odd", "Odd", "", scripts=tmp_path), tmp_path)
    assert told.python is None and told.reason.startswith("did not install: ") and "no-such" in told.reason
    assert str(tmp_path) not in told.reason
    assert not (tmp_path / "odd").exists(), "a half-made environment would pass for a whole one"
    monkeypatch.setattr(environments, "NEWEST", 11)
    assert find_python((3, 99)) is None


def test_reasons_name_no_addresses_and_no_folders() -> None:
    said = "Looking in https://some.host/simple\nERROR: No matching distribution found for x==1 (from -r /a/b/c.txt (line 2))\nbye"
    assert why(said) == "No matching distribution found for x==1 (from -r c.txt (line 2))"
    assert why("Traceback\n  File …\nValueError: a | b\n") == "ValueError: a / b"
    assert why("") == "no message"


def test_a_tool_that_does_not_work_is_reported_and_the_others_run(
    inputs: data.Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = "import shutil, sys, pathlib\nshutil.copy(sorted(pathlib.Path(sys.argv[1]).glob('*'))[0], sys.argv[2])\n"
    (tmp_path / "peer_half.py").write_text(copy)
    (tmp_path / "peer_broken.py").write_text("raise RuntimeError('out of luck')\n")
    monkeypatch.setattr(
        near_dup,
        "prepare",
        lambda peer: Environment(None, "did not install: no") if peer.name == "gone" else Environment(Path(sys.executable)),
    )
    peers = [Peer(name, name.title(), f"set {name}", scripts=tmp_path) for name in ("half", "gone", "broken")]
    results = near_dup.compete(peers, inputs, inputs, repeat=2, limit=60)
    half, gone, broken = results
    assert len(half.runs) == 2 and half.kept is not None and half.kept.sum() == 60
    assert gone.failure == "did not install: no"
    assert broken.failure == "failed: RuntimeError: out of luck"
    assert not list(inputs.folder.glob("tmp*")), "scratch is gone"
    text = near_dup.section("t0", results, inputs, truth.exact_pairs(inputs.texts()["text"]), 2)
    assert "| Half |" in text and "- Gone: did not install: no" in text and "- Half: set half" in text and "set gone" not in text
    assert str(ROOT) not in text and str(tmp_path) not in text


def test_the_table_has_medians_and_ratios() -> None:
    kept = np.array([True, True, False, False])
    finery = near_dup.Result(near_dup.FINERY, [Measured(each, 100_000_000, "") for each in (2.0, 9.0, 1.0)], kept)
    other = near_dup.Result(Peer("x", "X", ""), [Measured(each, 250_000_000, "") for each in (5.0, 5.0, 3.0)], kept)
    pairs = pl.DataFrame({"a": [0, 1], "b": [1, 2], "similarity": [0.9, 0.75]}, schema=truth.PAIRS)
    lines = near_dup.table([finery, other], pairs).splitlines()
    assert lines[2] == "| Finery | 2.00 (1.00 to 9.00) | 2 | 1.00 | 100 | 2 | 1 | 2 | 2 | 1 |"
    assert lines[3].startswith("| X | 5.00 (3.00 to 5.00) | 1 | 2.50 | 250 | 2 |")
    assert len({line.count("|") for line in lines}) == 1
    assert near_dup.table([other], None).splitlines()[2] == "| X | 5.00 (3.00 to 5.00) | 1 | – | 250 | 2 |"


def test_sections_are_written_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- near_dup t0 -->\nold\n<!-- end near_dup t0 -->\nb\n<!-- near_dup 500k -->\nstays\n<!-- end near_dup 500k -->\n"
    )
    near_dup.write_section(page, "t0", "new\nlines")
    near_dup.write_section(page, "t0", "newer")
    assert page.read_text() == (
        "a\n<!-- near_dup t0 -->\nnewer\n<!-- end near_dup t0 -->\nb\n<!-- near_dup 500k -->\nstays\n<!-- end near_dup 500k -->\n"
    )
    with pytest.raises(SystemExit, match="markers"):
        near_dup.write_section(page, "1m", "x")
    for name in near_dup.SETS:
        assert f"<!-- end near_dup {name} -->" in near_dup.PAGE.read_text()


@pytest.mark.parametrize("peer", environments.PEERS, ids=lambda peer: peer.name)
def test_every_peer_has_its_script_and_exact_versions(peer: Peer) -> None:
    assert peer.script.exists()
    pins = [line for line in peer.requirements.read_text().splitlines() if not line.startswith("#")]
    assert pins and all("==" in pin for pin in pins)
    name, version = peer.title.lower().split()
    assert f"{name.replace('data-juicer', 'py-data-juicer')}=={version}" in pins


@pytest.mark.parametrize("wrong", [["--only", "finery,nobody"], ["--rows", "many"], ["--rows", "0"], ["--repeat", "0"]])
def test_mistakes_on_the_command_line_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        near_dup.main(wrong)
    assert stopped.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_the_whole_way_runs_all_stages_with_settings_that_exist_and_counts_what_the_last_one_keeps(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    twice = ["Where does the amber cable of the hub go, and who pays for it?", "What is a kettle for, other than to boil water in it?"] * 2
    answers = ["It goes to the desk, and we pay for it.", "For tea. Write to jo@example.org."] * 2
    pl.DataFrame({"prompt": twice, "completion": answers}).write_parquet(raw / "rows.parquet")
    run, seconds, kept = whole_way.finery(raw, tmp_path, whole_way.COMPARABLE, 60)
    assert run.error == "" and kept == 2
    assert len(seconds) == len(whole_way.STAGES) and run.seconds == pytest.approx(sum(seconds))
    assert "jo@example.org" not in str(pl.read_parquet(tmp_path / "dedup_near" / "kept" / "*.parquet").to_dicts())
    run, seconds, kept = whole_way.finery(tmp_path / "nothing", tmp_path / "out", (), 60)
    assert "no such folder" in run.error and (len(seconds), kept) == (1, 0)


def test_the_table_of_the_whole_way_sets_the_peer_s_time_against_each_and_tells_what_failed() -> None:
    peer, same, everything = (whole_way.Course(way) for way in whole_way.WAYS)
    peer.runs = [Measured(40.0, 10**9, ""), Measured(60.0, 10**9, ""), Measured(50.0, 10**9, "")]
    same.runs, same.stages = [Measured(5.0, 10**8, ""), Measured(10.0, 10**8, ""), Measured(5.0, 10**8, "")], [[1.0] * 5] * 3
    everything.failure = "failed: no memory"
    text = whole_way.table([peer, same, everything], 1000)
    assert "| Finery, the same recipe | 5.0 (5.0 to 10.0) | 200 | 8.0 | 100 | 0 |" in text
    assert f"- {everything.way.title}: failed: no memory" in text
    peer.failure = "did not install"
    assert "| Finery, the same recipe | 5.0 (5.0 to 10.0) | 200 | – |" in whole_way.table([peer, same], 1000)


def test_the_gpu_benchmark_runs_in_miniature(tmp_path: Path) -> None:
    from bench import gpu

    gpu.make_base(tmp_path / "base", gpu.SHAPES["miniature"], "float32")
    gpu.make_data(tmp_path / "data", gpu.SHAPES["miniature"])
    found = [gpu.measure("miniature", who, quantize, tmp_path) for quantize in ("none", "nf4") for who in ("stock", "finery")]
    assert [(each.who, each.quantize) for each in found] == [(w, q) for q in ("none", "nf4") for w in ("stock", "finery")]
    assert all(each.tokens_per_second > 0 and each.planned > 0 and 0 < each.loss < 10 for each in found)
    assert [each.checkpointing for each in found] == [True, False, True, False]
    assert gpu.report(found).count("\n") == 7
