"""Table files are read whole, whatever wrote them; a damaged one is named with row and remedy."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from r2a_utils.collecting.tables import read_rows

ROWS = [
    {"id": "007", "question": "What is 1, and 2; or é?", "answer": "1e3"},
    {"id": "b", "question": 'A "quote"\nand a line\u2028?', "answer": None},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def delimited(mark: str) -> str:
    return pd.DataFrame(ROWS).to_csv(index=False, sep=mark)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", delimited(",").encode()),
        ("rows.CSV", delimited(";").encode()),
        ("rows.csv", delimited("\t").encode()),
        ("rows.tsv", delimited("\t").encode()),
        ("bom.csv", delimited(",").encode("utf-8-sig")),
        ("wide.csv", delimited(",").encode("utf-16")),
        ("crlf.csv", delimited(",").replace("\n", "\r\n").replace('quote""\r', 'quote""').encode()),
        ("rows.jsonl", LINES.encode()),
        ("bom.jsonl", LINES.encode("utf-8-sig")),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.csv.gz", gzip.compress(delimited(",").encode(), mtime=0)),
        ("rows.json", json.dumps(ROWS).encode()),
        ("log.json", json.dumps({"version": 2, "samples": ROWS, "tags": []}).encode()),
    ],
)
def test_the_same_rows_come_from_every_format(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert read_rows(path) == ROWS


def test_parquet_keeps_whole_numbers_beside_missing_ones(tmp_path):
    frame = pd.DataFrame({"n": pd.array([2**60 + 1, None], dtype="Int64")}, index=["x", "y"])
    frame.to_parquet(tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet") == [{"n": 2**60 + 1}, {"n": None}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", b"id,question,answer\na,A?,1\nb,One, two?,3\n", r"row 2 has 4 cells.*quotes"),
        ("r.csv", b"id,question,answer\na,A?,1,\n", "row 1 has 4 cells"),
        ("r.csv", b"id,question,answer,\na,One, two?,3\n", "row 1 has a cell in a column without"),
        ("r.csv", b'id,question\na,"A?\n', "is no CSV"),
        ("r.csv", b"id,id\na,b\n", "two columns 'id'"),
        (
            "r.csv",
            "id,question\na,é?\n".encode("latin-1"),
            r"line 2 is not UTF-8 \(byte 0xe9\).*iconv",
        ),
        ("r.jsonl", b'{"id": 1}\n{"id"', "line 2 is no JSON"),
        ("r.jsonl", b'{"id": ' + b"9" * 5000 + b"}\n", "line 1 is no JSON"),
        ("r.json", b'{"a": 1}', "one list of objects"),
        ("r.json", b"[1]", "one list of objects"),
        ("r.json", b"[" * 100_000, "is no JSON"),
        ("r.jsonl.gz", b"no gzip", "no whole gzip"),
        ("r.parquet", b"no parquet", "no whole Parquet"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_rows(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_short_row_lacks_its_last_cells_and_a_nameless_empty_column_is_none(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,question,answer,\na,A?\n\nb,B?,2,\n")
    assert read_rows(path) == [
        {"id": "a", "question": "A?", "answer": None},
        {"id": "b", "question": "B?", "answer": "2"},
    ]
