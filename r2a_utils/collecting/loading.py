"""Problems: questions with, where there is one, their right answer.

This file knows where problems come from (the bundled family, MATH-500, WildBench, a user's own
table) and what each source calls its columns. It knows nothing of prompts or models.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from r2a_utils.paper import TRACED, published, traced_problems
from r2a_utils.runs.folder import json_lines
from r2a_utils.texts.problem import Problem

# The bundled family is endless; the model's card measures this many held-out problems of it.
TINY_PROBLEMS = 1_000
HUB = {
    "math500": {"path": "HuggingFaceH4/MATH-500", "split": "test"},
    "wildbench": {"path": "allenai/WildBench", "name": "v2", "split": "test"},
}
# What a file's columns are called, by the columns that betray its source; the first match counts.
WILDBENCH = {"id": "session_id", "question": "conversation_input"}
MATH500 = {"id": "unique_id", "question": "problem", "answer": "answer"}
LAYOUTS = (
    WILDBENCH,
    MATH500,
    {"id": "id", "question": "question", "answer": "answer"},
    {"id": "id", "question": "question"},
    {"question": "question", "answer": "answer"},
    {"question": "question"},
)
# What published.json says of a tag that the paper leaves out: without a known answer, a judge does
# not grade mathematics.
LEFT_OUT = "left out"


def load_problems(
    name_or_path: str | Path,
    n: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Problems of a named source, or of a local .jsonl, .csv or .parquet file.

    Names: "tiny" (held out from the bundled model's training), "math500" and "wildbench" (from
    the Hugging Face hub), "R1-Qwen-1.5B" and "R1-Qwen-7B" (the MATH-500 problems of which the
    authors' data, in R2A_PAPER_DATA, have that model's trace). `n` draws that many, by `seed`, in
    the source's order; without it all come (1,000 of "tiny"). `columns` says which columns of a
    file hold the id, the question and the answer, as in {"question": "text", "answer": "label"};
    without it the layouts of MATH-500, WildBench, and plain id, question, answer are recognised. A
    file without an id column numbers its rows. A WildBench question is the first user turn, as in
    the paper.

    Raises ValueError, naming the row, for a missing or empty question, a duplicate id, an empty
    file, a column that is not there, an unknown name, or more problems asked than there are.
    """
    if n is not None and n < 1:
        raise ValueError(f"n={n}: ask for at least one problem")
    if str(name_or_path) == "tiny":
        from r2a_utils.tiny.world import held_out_problems

        return held_out_problems(TINY_PROBLEMS if n is None else n, seed)
    rows, source = _read(str(name_or_path))
    problems = _problems(rows, source, columns)
    if n is None:
        return problems
    if n > len(problems):
        raise ValueError(f"{source} has {len(problems)} problems, not {n}: ask for fewer")
    chosen = sorted(random.Random(seed).sample(range(len(problems)), n))
    return [problems[i] for i in chosen]


def column_names(columns: Sequence[str] | None) -> dict[str, str] | None:
    """The names of `load_problems(columns=…)` from texts such as "question=text"."""
    for column in columns or ():
        if "=" not in column:
            raise ValueError(f"columns takes texts such as question=text, not {column!r}")
    return dict(column.split("=", 1) for column in columns) if columns else None


def _read(name: str) -> tuple[list[dict], str]:
    """The rows of a named source or file, and what to call it in an error."""
    if name in HUB:
        return _read_hub(name), name
    if name in TRACED:
        return traced_problems(name), name
    path = Path(name).expanduser()
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        known = ["tiny", *HUB, *TRACED]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no problems are called {name!r}: {hint}known are {', '.join(known)}, "
            f"or give a file that ends in {', '.join(readers)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: check the path (from {Path.cwd()})")
    rows = readers[path.suffix](path)
    if isinstance(rows, pd.DataFrame):
        rows = rows.to_dict("records")
    if not rows:
        raise ValueError(f"{path} holds no rows: nothing to ask")
    return rows, str(path)


def _read_jsonl(path: Path) -> list[dict]:
    return json_lines(path.read_text(encoding="utf-8"), path)


def _read_csv(path: Path) -> pd.DataFrame:
    # Everything as text: "007" is an id, and an answer "1e3" is to be compared as it was written.
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _read_hub(name: str) -> list[dict]:
    import datasets

    try:
        return datasets.load_dataset(**HUB[name]).to_list()
    except (ConnectionError, OSError) as error:
        raise ConnectionError(
            f"{name} comes from the Hugging Face hub ({HUB[name]['path']}), which cannot be "
            f"reached ({error}): connect, or give the path of a local copy instead of the name"
        ) from error


def _problems(rows: list[dict], source: str, columns: Mapping[str, str] | None) -> list[Problem]:
    mapping = _mapping(rows[0], source, columns)
    problems: dict[str, Problem] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        problem_id = _text(row.get(mapping["id"])) if "id" in mapping else f"row-{number}"
        if not problem_id:
            raise ValueError(f"{where}: no id in the column {mapping['id']!r}")
        if problem_id in problems:
            raise ValueError(f"{where}: the id {problem_id!r} stands in an earlier row already")
        if mapping == WILDBENCH:
            problem = _wildbench_problem(problem_id, row, where)
        else:
            problem = _plain_problem(problem_id, row, mapping)
        if problem is None:
            continue
        if not problem.question:
            raise ValueError(f"{where}: no question in the column {mapping['question']!r}")
        problems[problem_id] = problem
    if not problems:
        raise ValueError(f"{source}: every row has a tag that the paper leaves out")
    return list(problems.values())


def _mapping(row: dict, source: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Which column holds the id, the question and the answer."""
    if columns is None:
        for layout in LAYOUTS:
            if set(layout.values()) <= set(row):
                return layout
        raise ValueError(
            f"{source} has the columns {list(row)}: say which hold what, for example "
            'columns={"id": …, "question": …, "answer": …}'
        )
    unknown = set(columns) - {"id", "question", "answer"}
    if unknown or "question" not in columns:
        raise ValueError(
            f"columns={dict(columns)}: the keys are question (needed), id and answer, "
            "the values are names of columns"
        )
    for column in columns.values():
        if column not in row:
            near = difflib.get_close_matches(column, [str(c) for c in row], n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{source} has no column {column!r}{hint} It has {list(row)}")
    return dict(columns)


def _plain_problem(problem_id: str, row: dict, mapping: Mapping[str, str]) -> Problem:
    """One row of a file that is not WildBench."""
    kept = ("subject", "level") if mapping == MATH500 else row.keys() - set(mapping.values())
    meta = {column: _plain(row[column]) for column in row if column in kept}
    answer = _text(row.get(mapping["answer"])) if "answer" in mapping else ""
    return Problem(problem_id, _text(row.get(mapping["question"])), answer or None, meta)


def _wildbench_problem(problem_id: str, row: dict, where: str) -> Problem | None:
    """One row of WildBench v2; None for a tag that is left out."""
    tag = _text(row.get("primary_tag"))
    area_of_tag = published()["stage1_wildbench"]["area_of_tag"]
    if tag not in area_of_tag:
        raise ValueError(f"{where}: the paper has no area for the primary tag {tag!r}")
    if area_of_tag[tag] == LEFT_OUT:
        return None
    turns = [turn for turn in _items(row["conversation_input"]) if turn.get("role") == "user"]
    meta = {
        "area": area_of_tag[tag],
        "tag": tag,
        "checklist": [str(item) for item in _items(row.get("checklist"))],
        "turns": len(turns),
    }
    return Problem(problem_id, _text(turns[0].get("content")) if turns else "", None, meta)


def _items(value: object) -> list:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else []


def _text(value: object) -> str:
    """A cell as text; what is missing (None, NaN) is empty."""
    return "" if value is None or (np.isscalar(value) and pd.isna(value)) else str(value).strip()


def _plain(value: object) -> object:
    """A cell as plain Python, so that it can be written as JSON; what is missing is None."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if np.isscalar(value) and pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
