"""Files of every container, whole and broken: every row is kept or dropped with the right file, line and reason."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import containers, ingest, read_raw, record, store, tables
from curate.record import InputError
from tests.helpers import SHARED, dropped, run_stage

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "n": n} for n in range(5)]
Write = Callable[..., Path]


@pytest.fixture
def raw(tmp_path: Path) -> Write:
    """Writes files into a raw folder and returns the folder."""

    def write(**files: bytes | str) -> Path:
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            path = folder / name.replace("__", ".").replace("_in_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write


def ingested(folder: Path, *overrides: str, workers: int = 1) -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    """(kept rows, (source, line, reason) of dropped rows); the accounting is checked."""
    out = folder.parent / "out"
    metrics = run_stage(ingest.STAGE, folder, out, *overrides, workers=workers)
    kept = store.read_rows(out).to_dicts()
    gone = [(row["source"], row["line"], row["reason"]) for row in dropped(out)]
    assert metrics["rows_in"] == len(kept) + len(gone) == metrics["kept"] + metrics["dropped"]
    return kept, gone


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table(rows), sink)
    return bytes(sink.getvalue())


def as_arrow(rows: list[dict[str, Any]], stream: bool) -> bytes:
    sink, data = pa.BufferOutputStream(), table(rows)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=2)
    return bytes(sink.getvalue())


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


CONTAINERS: dict[str, bytes] = {
    "a__jsonl": lines(ROWS).encode(),
    "a__ndjson": b"\xef\xbb\xbf" + lines(ROWS).replace("\n", "\r\n\n").encode(),
    "a__json": json.dumps(ROWS, indent=2).encode(),
    "lines__json": lines(ROWS).encode(),
    "a__csv": as_csv(ROWS),
    "bom__csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "semicolon__csv": as_csv(ROWS, ";"),
    "a__tsv": as_csv(ROWS, "\t"),
    "a__parquet": as_parquet(ROWS),
    "a__feather": as_arrow(ROWS, stream=False),
    "a__arrow": as_arrow(ROWS, stream=True),
}


@pytest.mark.parametrize("compression", ["", "gz", "zst"])
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(raw: Write, tmp_path: Path, name: str, compression: str) -> None:
    content = CONTAINERS[name]
    if compression:
        packed = tmp_path / "packed"
        with pa.OSFile(str(packed), "wb") as file, pa.CompressedOutputStream(file, {"gz": "gzip", "zst": "zstd"}[compression]) as stream:
            stream.write(content)
        name, content = f"{name}__{compression}", packed.read_bytes()
    kept, gone = ingested(raw(**{name: content}))
    assert gone == []
    assert [row["messages"][0]["content"] for row in kept] == [row["question"] for row in ROWS]
    assert [row["messages"][1]["content"] for row in kept] == [row["answer"] for row in ROWS]
    assert len({row["id"] for row in kept}) == 5
    assert kept[0]["id"] == record.content_id("chat", kept[0]["messages"], None, None)


def test_line_is_the_line_of_the_file_or_the_row(raw: Write) -> None:
    folder = raw(
        a__jsonl='\n{"text": "one"}\n\n \r\n{"text": "two"}',
        b__csv='text\n"a\nlong\none"\n\nshort\n',
        c__json='[{"text": "x"},\n\n\n{"text": "y"}]',
        d__md="# Title\r\n\r\nText\n",
    )
    kept, gone = ingested(folder)
    assert gone == []
    assert [(row["source"], row["line"]) for row in kept] == [
        ("a.jsonl", 2),
        ("a.jsonl", 5),
        ("b.csv", 2),
        ("b.csv", 6),
        ("c.json", 1),
        ("c.json", 2),
        ("d.md", 1),
    ]
    assert [kept[at]["messages"][0]["content"] for at in (2, 6)] == ["a\nlong\none", "# Title\n\nText\n"]


def test_files_come_in_the_order_of_their_paths_and_hidden_ones_not_at_all(raw: Write) -> None:
    folder = raw(b__txt="b", a_in_z__txt="z", B__txt="B", __hidden="x", __git_in_x__txt="x", big__jsonl__dvc="md5: 1")
    kept, _ = ingested(folder)
    assert [row["source"] for row in kept] == ["B.txt", "a/z.txt", "b.txt"]


BAD_JSONL = b"\n".join(
    [
        b'{"text": "good"}',
        b'{"text": "cut',
        b'{"text": "\xff\xfe"}',
        b'{"text": "a\x00b"}',
        b'{"text": "a\\u0000b"}',
        b'{"text": "a\\\\u0000b"}',
        b"[1]",
        b'{"messages": "Hi"}',
        b'{"foo": 1}',
        b'{"text": ""}',
        b'{"text": NaN}',
        b'{"text": "' + b"x" * 300 + b'"}',
        b'{"text": "a", "deep": ' + b"[" * 400 + b"]" * 400 + b"}",
        b'{"text": "\\ud800"}',
        b'{"text": "last"}',
    ]
)


def test_broken_lines_of_jsonl(raw: Write) -> None:
    kept, gone = ingested(raw(a__jsonl=BAD_JSONL), "max_row_bytes=1000")
    assert [row["line"] for row in kept] == [1, 6, 12, 15]
    assert [(line, reason) for _, line, reason in gone] == [
        (2, "invalid_json"),
        (3, "invalid_utf8"),
        (4, "nul_byte"),
        (5, "nul_byte"),
        (7, "wrong_type"),
        (8, "wrong_type"),
        (9, "missing_field"),
        (10, "empty"),
        (11, "invalid_json"),
        (13, "invalid_json"),
        (14, "invalid_json"),
    ]
    _, gone = ingested(raw(a__jsonl=BAD_JSONL), "max_row_bytes=200")
    assert ("a.jsonl", 12, "row_too_large") in gone


def test_details_hold_no_text_of_the_row(raw: Write) -> None:
    folder = raw(a__jsonl=b'{"text": "jane@mail.example\n{"jane@mail.example": 1}\njane@mail.example\n', b__csv=b"jane doe,x\njane,1\n")
    ingested(folder)
    rows = dropped(folder.parent / "out")
    assert len(rows) == 4
    assert "jane" not in json.dumps(rows)


def test_a_broken_csv_loses_only_its_broken_rows(raw: Write) -> None:
    folder = raw(
        a__csv=b'text,label\nfine,x\nonly one\n"quoted, ""well""",y\ntoo,many,cells\n"open,z\nnext,x\nbad\xff,x\n"a"b,x\nnul\0,x\nlast,x\n'
    )
    kept, gone = ingested(folder)
    assert [(row["line"], row["messages"][0]["content"]) for row in kept] == [(2, "fine"), (4, 'quoted, "well"'), (7, "next"), (11, "last")]
    assert [(line, reason) for _, line, reason in gone] == [
        (3, "wrong_columns"),
        (5, "wrong_columns"),
        (6, "bad_quotes"),
        (8, "invalid_utf8"),
        (9, "bad_quotes"),
        (10, "nul_byte"),
    ]


def test_csv_headers(raw: Write) -> None:
    folder = raw(twice__csv="text,label,text\na,b,c\nd,e,f\n", blank__csv=",text\n0,a\n", only__csv="text\n", none__csv="")
    kept, gone = ingested(folder)
    assert [(row["source"], orjson.loads(row["meta"])) for row in kept] == [("blank.csv", {"column_1": "0"})]
    assert gone == [("twice.csv", 2, "duplicate_header"), ("twice.csv", 3, "duplicate_header")]


def test_a_large_csv_record_is_passed_over(raw: Write) -> None:
    big = b'"' + b"line\n" * 100 + b'"'
    kept, gone = ingested(raw(a__csv=b"text,label\na,x\n" + big + b",x\nb,x\n" + b"y" * 300 + b",x\nc,x\n"), "max_row_bytes=200")
    assert [row["line"] for row in kept] == [2, 104, 106]
    assert gone == [("a.csv", 3, "row_too_large"), ("a.csv", 105, "row_too_large")]


def test_a_tsv_need_not_quote(raw: Write) -> None:
    kept, gone = ingested(raw(a__tsv='text\tlabel\n"Hi" she said\tx\n5" pipe\ty\n'))
    assert [row["messages"][0]["content"] for row in kept] == ['"Hi" she said', '5" pipe']
    assert gone == []


@pytest.mark.parametrize(
    ("content", "kept_lines", "gone"),
    [
        (b'[{"text": "a"}, {"text": "b"', [1], [(2, "truncated_file")]),
        (b'[{"text": "a"}, {"text": "b"}', [1, 2], [(3, "truncated_file")]),
        (b'[{"text": "a"},', [1], [(2, "truncated_file")]),
        (b'[{"text": "a"}, {"text": 1,}, {"text": "c"}]', [1, 3], [(2, "invalid_json")]),
        (
            b'[{"text": "a"}, 5, "x]", {"text": "\xff"}, {"text": "c"}] ',
            [1, 5],
            [(2, "wrong_type"), (3, "wrong_type"), (4, "invalid_utf8")],
        ),
        (b'[{"text": "a"}] rubbish', [1], [(2, "invalid_json")]),
        (b'{"text": "a"}', [1], []),
        (b'{"text": "a"', [], [(1, "invalid_json")]),
        (b"rubbish", [], [(1, "invalid_json")]),
        (b"[]", [], []),
        (b'[{"text": "a"}, {"text": "' + b"x" * 500 + b'"}, {"text": "c"}]', [1, 3], [(2, "row_too_large")]),
    ],
)
def test_broken_json_files(raw: Write, content: bytes, kept_lines: list[int], gone: list[tuple[int, str]]) -> None:
    kept, found = ingested(raw(a__json=content), "max_row_bytes=100")
    assert ([row["line"] for row in kept], [(line, reason) for _, line, reason in found]) == (kept_lines, gone)


def packed(content: bytes, tmp_path: Path, codec: str) -> bytes:
    path = tmp_path / "packed"
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, codec) as stream:
        stream.write(content)
    return path.read_bytes()


@pytest.mark.parametrize(("ending", "codec"), [("gz", "gzip"), ("zst", "zstd")])
@pytest.mark.parametrize("container", ["jsonl", "csv", "json"])
def test_a_cut_file_keeps_the_rows_before_the_cut(raw: Write, tmp_path: Path, ending: str, codec: str, container: str) -> None:
    random.seed(1)
    rows = [{"prompt": random.randbytes(20).hex(), "completion": "x"} for _ in range(12_000)]
    whole = {"jsonl": lines(rows).encode(), "csv": as_csv(rows), "json": json.dumps(rows).encode()}[container]
    content = packed(whole, tmp_path, codec)
    kept, gone = ingested(raw(**{f"a__{container}__{ending}": content[: len(content) // 2]}))
    assert 2_000 < len(kept) < 9_000
    assert [reason for _, _, reason in gone] == ["truncated_file"]
    assert gone[0][1] == kept[-1]["line"] + 1
    assert [row["messages"][0]["content"] for row in kept] == [row["prompt"] for row in rows[: len(kept)]]


def test_unreadable_files_are_one_dropped_row(raw: Write, tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(lines(ROWS * 200).encode(), mtime=0))
    damaged[-8:] = b"checksum"
    folder = raw(
        a__parquet=b"PAR1 no", b__arrow=b"ARROW1 no", c__jsonl__gz=b"no gzip", d__jsonl__zst=b"no zst", e__txt=b"bad \xff",
        f__csv="a,b".encode("utf-16"),
        g__parquet__gz=b"no", h__arrow=b"", i__parquet=as_parquet(ROWS)[:-4],
    )  # fmt: skip
    kept, gone = ingested(folder)
    assert kept == []
    assert gone == [
        ("a.parquet", 0, "unreadable_file"),
        ("b.arrow", 0, "unreadable_file"),
        ("c.jsonl.gz", 1, "unreadable_file"),
        ("d.jsonl.zst", 1, "unreadable_file"),
        ("e.txt", 1, "invalid_utf8"),
        ("f.csv", 1, "invalid_utf8"),
        ("g.parquet.gz", 0, "unreadable_file"),
        ("h.arrow", 0, "unreadable_file"),
        ("i.parquet", 0, "unreadable_file"),
    ]
    (folder / "z.jsonl.gz").write_bytes(damaged)
    _, gone = ingested(folder)
    assert gone[-1] == ("z.jsonl.gz", 1001, "unreadable_file")


def test_values_that_json_lacks(raw: Write) -> None:
    rows = pa.table(
        {
            "text": pa.array([b"good", b"bad \xff", b"also"], pa.binary()),
            "label": pa.array([1.0, 2.0, 3.0]),
            "when": pa.array([0, 1, 2], pa.timestamp("ns")),
            "cost": pa.array([1, 2, 3]).cast(pa.decimal128(22, 2)),
            "share": pa.array([float("nan"), 0.5, None]),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    kept, gone = ingested(raw(a__parquet=bytes(sink.getvalue())))
    assert gone == [("a.parquet", 2, "invalid_utf8")]
    assert [(row["messages"][0]["content"], row["label"]) for row in kept] == [("good", "1"), ("also", "3")]
    meta = orjson.loads(kept[0]["meta"])
    assert (meta["cost"], meta["share"], meta["when"][:10]) == ("1.00", None, "1970-01-01")


def test_text_columns_with_bytes_that_are_no_text(raw: Write) -> None:
    text = pa.StringArray.from_buffers(2, pa.py_buffer(pa.array([0, 2, 4], pa.int32()).buffers()[1]), pa.py_buffer(b"ok\xff\xff"))
    data = pa.table({"text": text})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, data.schema) as writer:
        writer.write_table(data)
    kept, gone = ingested(raw(a__arrow=bytes(sink.getvalue())))
    assert [row["line"] for row in kept] == [1]
    assert gone == [("a.arrow", 2, "invalid_utf8")]


def test_saved_datasets_and_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["card", "loan"])})
    saved = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    saved.save_to_disk(str(tmp_path / "raw" / "one"), num_shards=2)
    datasets.DatasetDict({"train": saved}).save_to_disk(str(tmp_path / "raw" / "two"))
    saved.to_parquet(str(tmp_path / "raw" / "three.parquet"))
    kept, gone = ingested(tmp_path / "raw")
    assert gone == []
    assert [row["label"] for row in kept] == ["loan", "card", "loan"] * 3
    (tmp_path / "raw" / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="data-00001-of-00002"):
        ingested(tmp_path / "raw")


@pytest.mark.parametrize("files", [{}, {"__hidden": "x"}])
def test_an_empty_raw_folder_says_what_to_do(raw: Write, files: dict[str, str]) -> None:
    with pytest.raises(InputError, match="Put files there"):
        ingested(raw(**files))


def test_a_missing_raw_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Make it and put your files there"):
        ingested(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="the folder it lies in"):
        ingested(tmp_path / "file")


@pytest.mark.parametrize("name", ["README", "data__xlsx", "a__jsonl__bz2", "b__gz"])
def test_an_unknown_ending_names_the_file_and_the_ways_out(raw: Write, name: str) -> None:
    folder = raw(good__txt="x", **{name: "x"})
    with pytest.raises(InputError) as raised:
        ingested(folder)
    assert all(word in str(raised.value) for word in (name.replace("__", "."), "Rename", "remove", "skip"))
    kept, _ = ingested(folder, f"sources={{'{name.replace('__', '.')}': {{skip: true}}}}")
    assert [row["source"] for row in kept] == ["good.txt"]


def test_sources_map_columns_by_glob(raw: Write, capsys: pytest.CaptureFixture[str]) -> None:
    folder = raw(t_in_a__csv="body,reply,topic\nHelp,Sure,cards\n", b__csv="text\nplain\n")
    kept, gone = ingested(folder, 'sources={"t/*.csv": {prompt: body, answer: reply, label: topic}, "nothing*": {text: x}}')
    assert gone == []
    assert [(row["kind"], row["label"]) for row in kept] == [("text", None), ("chat", "cards")]
    assert "'nothing*'" in capsys.readouterr().err


def test_one_and_two_workers_write_the_same_bytes(raw: Write, tmp_path: Path) -> None:
    folder = raw(a__jsonl=lines(ROWS * 1000) + '{"bad"\n', b__csv=as_csv(ROWS * 1000).decode() + "ragged\n", c__md="Text")
    for workers in (1, 2):
        run_stage(ingest.STAGE, folder, tmp_path / str(workers), workers=workers)
    names = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(names) >= 3
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_batches_are_bounded_and_rows_numbered(raw: Write) -> None:
    folder = raw(a__jsonl=lines(ROWS * 1000), b__txt="x", c__jsonl=lines([{"text": "y" * (5 << 20)}] * 5))
    found = list(read_raw.batches(read_raw.files(folder), 6 << 20))
    assert all(batch.height <= 4096 for batch in found)
    assert all(sum(len(each or b"") for each in batch["raw"]) < 22 << 20 for batch in found)
    assert pl.concat(found)["row"].to_list() == list(range(5006))


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text('ab"\\{}[],: \n\u00e9', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON_VALUES, max_size=5), st.integers(1, 40), st.sampled_from([None, 2]), st.booleans())
def test_lists_are_cut_into_their_elements_wherever_chunks_end(values: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    found = list(containers.json_list(pieces(content, size), 1 << 20))
    assert [json.loads(element or b"") for _, element, _, _ in found] == values
    assert [line for line, _, _, _ in found] == list(range(1, len(values) + 1))
    small = list(containers.json_list(pieces(content, size), 5))
    assert [raw is None for _, raw, _, _ in small] == [len(element or b"") > 5 for _, element, _, _ in found]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text('ab",\n\r;\té', max_size=6)] * 2), max_size=6), st.integers(1, 30), st.sampled_from(["\n", "\r\n"]))
def test_csv_gives_back_what_was_written_wherever_chunks_end(cells: list[tuple[str, str]], size: int, end: str) -> None:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("x", "y"), *cells])
    found = list(tables.delimited(pieces(sink.getvalue().encode(), size), 1 << 20, ","))
    assert [tuple(orjson.loads(row or b"").values()) for _, row, _, _ in found] == cells


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab\r\x00é", max_size=8)), st.integers(1, 9), st.integers(1, 12))
def test_lines_are_numbered_wherever_chunks_end(texts: list[str], size: int, limit: int) -> None:
    content = "\n".join(texts).encode()
    want = [(at, line) for at, line in enumerate(content.split(b"\n"), 1) if line.strip() or len(line) > limit]
    found = [(at, line) for at, line, _, _ in containers.jsonl(pieces(content, size), limit)]
    assert found == [(at, line if len(line) <= limit else None) for at, line in want]


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    return SHARED / name


def test_gsm8k_comes_through_unchanged(tmp_path: Path) -> None:
    source = shared("gsm8k_test.jsonl")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / source.name).write_bytes(source.read_bytes())
    kept, gone = ingested(tmp_path / "raw")
    want = [json.loads(line) for line in source.read_text().splitlines()]
    assert gone == []
    assert [[turn["content"] for turn in row["messages"]] for row in kept] == [[row["question"], row["answer"]] for row in want]


def test_banking77_rows_carry_their_intent(tmp_path: Path) -> None:
    source = shared("banking77_test.csv")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / source.name).write_bytes(source.read_bytes())
    kept, gone = ingested(tmp_path / "raw")
    assert (len(kept), gone, len({row["label"] for row in kept})) == (3080, [], 77)
