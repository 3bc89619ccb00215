"""Table files: the rows of a CSV, TSV, JSON, JSON Lines or Parquet file, as dictionaries.

This file knows formats, encodings and what a damaged file looks like. What the columns mean is the
business of `loading.py`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

from r2a_utils.runs.folder import json_lines

# A cell longer than Python's own bound (131,072 characters) is a long text, not a damaged file.
_LONGEST_CELL = 2**31 - 1
_DELIMITERS = ",;\t"
# How pandas names an index that has no name where it writes it to Parquet.
_UNNAMED_INDEX = "__index_level_"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


def read_rows(path: Path) -> list[dict]:
    """The rows of a table file, whose kind its name's ending says (see `SUFFIXES`).

    Cells of a CSV file are texts: "007" is an id, and "1e3" is to be compared as it was written; an
    empty one is None. Raises ValueError, naming the row or line and what to do, for a file that is
    damaged, in another encoding than UTF-8 (or UTF-16 with its mark), or whose rows have more
    cells than its header. Stages 00 to 02 read their problems so.
    """
    kind = suffix(path)
    if kind == ".parquet":
        return _parquet_rows(path)
    text = _text_of(path)
    if kind in (".csv", ".tsv"):
        return _csv_rows(text, path, kind)
    return json_lines(text, path) if kind == ".jsonl" else _json_rows(text, path)


SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""The endings of files that can be read, in any case; all but Parquet also with `.gz` behind."""


def suffix(path: Path) -> str | None:
    """Which of `SUFFIXES` a file has, or None."""
    name = path.name.lower().removesuffix(".gz")
    found = next((known for known in SUFFIXES if name.endswith(known)), None)
    return None if found == ".parquet" and path.name.lower().endswith(".gz") else found


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is no whole gzip file ({error}): copy it again") from error
    encoding = next((e for mark, e in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line} is not UTF-8 (byte 0x{content[error.start]:02x}): save the file "
            "as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def _csv_rows(text: str, path: Path, kind: str) -> list[dict]:
    """Rows of delimited text; the delimiter of a `.csv` is the one that its header has most of."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = "\t" if kind == ".tsv" else max(_DELIMITERS, key=first.count)
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [cells for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num} is no CSV ({error}): close its quotes, and double "
            "those inside a cell"
        ) from error
    if not lines:
        return []
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    for name in header:
        if name and header.count(name) > 1:
            raise ValueError(f"{path} has two columns {name!r}: rename one of them")
    for number, cells in enumerate(rows, start=1):
        if len(cells) > len(header):
            raise ValueError(
                f"{path}, row {number} has {len(cells)} cells, and the header {len(header)}: put "
                f"quotes around a cell that holds {delimiter!r}, and end no row with one"
            )
        if "" in header and any(c for n, c in zip(header, cells, strict=False) if not n):
            raise ValueError(f"{path}, row {number} has a cell in a column without a name")
    columns = [(i, name) for i, name in enumerate(header) if name]
    return [
        {name: (cells[i] if i < len(cells) else "") or None for i, name in columns}
        for cells in rows
    ]


def _json_rows(text: str, path: Path) -> list[dict]:
    """A list of objects, or the one such list that a JSON object holds (a log's samples)."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    lists = [content]
    if isinstance(content, dict):
        lists = [v for v in content.values() if v and _is_table(v)]
    if len(lists) != 1 or not _is_table(lists[0]):
        raise ValueError(
            f"{path} does not hold one list of objects, a problem each: write one object a line "
            "into a .jsonl file"
        )
    return lists[0]


def _is_table(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _parquet_rows(path: Path) -> list[dict]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is no whole Parquet file ({reason}): write it again") from error
    kept = [name for name in table.column_names if not name.startswith(_UNNAMED_INDEX)]
    return table.select(kept).to_pylist()
