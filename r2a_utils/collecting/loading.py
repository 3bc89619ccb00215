"""Problems: questions with, where there is one, their right answer.

This file knows where problems come from (the bundled family, our word problems, MATH-500,
WildBench, a user's own table) and what each source calls its columns. It knows nothing of prompts
or models.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from r2a_utils.collecting.grade_school import grade_school_rows
from r2a_utils.collecting.tables import SUFFIXES, read_rows, suffix
from r2a_utils.paper import TRACED, published, traced_problems
from r2a_utils.texts.problem import Problem

# The bundled family is endless; the model's card measures this many held-out problems of it.
TINY_PROBLEMS, TOLD_PROBLEMS = 1_000, 400
HUB = {
    "math500": {"path": "HuggingFaceH4/MATH-500", "split": "test"},
    "wildbench": {"path": "allenai/WildBench", "name": "v2", "split": "test"},
}
# What a file's columns are called, by the columns that betray its source; the first match counts.
# A dot leads into a nested cell. Exports of other tools: lm-eval (samples), lighteval (details),
# inspect (logs and data sets), vLLM (batch inputs), verl and OpenThoughts (training data).
WILDBENCH = {"id": "session_id", "question": "conversation_input"}
MATH500 = {"id": "unique_id", "question": "problem", "answer": "answer"}
LAYOUTS = (
    WILDBENCH,
    MATH500,
    {"id": "id", "question": "question", "answer": "answer"},
    {"id": "id", "question": "question"},
    {"question": "question", "answer": "answer"},
    {"question": "question"},
    {"id": "doc_id", "question": "doc.problem", "answer": "target"},
    {"id": "doc_id", "question": "doc.question", "answer": "target"},
    {"id": "doc.id", "question": "doc.query", "answer": "doc.choices"},
    {"id": "id", "question": "input", "answer": "target"},
    {"question": "input", "answer": "target"},
    {"id": "custom_id", "question": "body.messages"},
    {"question": "prompt", "answer": "reward_model.ground_truth"},
    {"id": "id", "question": "problem", "answer": "answer"},
    {"question": "problem", "answer": "answer"},
    {"question": "problem", "answer": "ground_truth_solution"},
    {"question": "conversations"},
    {"question": "messages"},
)
# Who asks in a chat, in the words of the two ways to store one.
_ASKERS = ("user", "human")
# What published.json says of a tag that the paper leaves out: without a known answer, a judge does
# not grade mathematics.
LEFT_OUT = "left out"
NAMES = ("tiny", "told", "grade_school", *HUB, *TRACED)


def load_problems(
    name_or_path: str | Path,
    n: int | None = None,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Problems of a named source, or of a local file (`SUFFIXES` of `tables.py`).

    Names: "tiny" (held out from the bundled model's training), "told" (its comparisons, with a note
    that says the answer), "grade_school" (word problems of our own), "math500" and "wildbench"
    (from the Hugging Face hub), "R1-Qwen-1.5B" and "R1-Qwen-7B" (the MATH-500 problems of which the
    authors' data, in R2A_PAPER_DATA, have that model's trace). `n` draws that many, by `seed`, in
    the source's order; without it all come (1,000 of "tiny", 400 of "told").
    `columns` says which columns of a file hold the id, the question, the answer and, for teacher
    forcing, the reasoning, as in {"question": "text", "answer": "label"}; without it the layouts in
    `LAYOUTS` are recognised. A dot leads into a nested cell ("doc.problem"); of a chat the last
    user turn is asked, of a list its single element. A row without an id is named by a digest of
    its question, so that other rows do not rename it. A WildBench question is the first user turn,
    as in the paper. All other columns become `meta`: numbers, truth values or texts; a column of
    anything else, or of several kinds, is text.

    Raises ValueError, naming the row, for a missing or empty question, a cell with no one meaning,
    a duplicate id, an empty file, a column that is not there, an unknown name, or more problems
    asked than there are; FileNotFoundError for a file that is not there, ConnectionError where the
    hub cannot be reached. Stages 00 to 02 use it.
    """
    if n is not None and n < 1:
        raise ValueError(f"n={n}: ask for at least one problem")
    if str(name_or_path) == "tiny":
        from r2a_utils.tiny.world import held_out_problems

        return held_out_problems(TINY_PROBLEMS if n is None else n, seed)
    if str(name_or_path) == "told":
        from r2a_utils.tiny.organisms import organism_problems

        return organism_problems("r2a-ignorer", TOLD_PROBLEMS if n is None else n, seed)
    rows, source = _read(str(name_or_path))
    problems = _problems(rows, source, columns)
    if n is None:
        return problems
    if n > len(problems):
        raise ValueError(f"{source} has {len(problems)} problems, not {n}: ask for fewer")
    chosen = sorted(random.Random(seed).sample(range(len(problems)), n))
    return [problems[i] for i in chosen]


def column_names(columns: Sequence[str] | None) -> dict[str, str] | None:
    """The names of `load_problems(columns=…)` from texts such as "question=text".

    None for none. Raises ValueError for a text without an equals sign. Stages 00 to 02.
    """
    for column in columns or ():
        if "=" not in column:
            raise ValueError(f"columns takes texts such as question=text, not {column!r}")
    return dict(column.split("=", 1) for column in columns) if columns else None


def _read(name: str) -> tuple[list[dict], str]:
    """The rows of a named source or file, and what to call it in an error."""
    if name == "grade_school":
        return grade_school_rows(), name
    if name in HUB:
        return _read_hub(name), name
    if name in TRACED:
        return traced_problems(name), name
    path = Path(name).expanduser()
    if suffix(path) is None:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"no problems are called {name!r}: {hint}known are {', '.join(NAMES)}, "
            f"or give a file that ends in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: check the path (from {Path.cwd()})")
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} holds no rows: nothing to ask")
    return rows, str(path)


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
    mapping = _mapping(rows, source, columns)
    kept = ("subject", "level") if mapping == MATH500 else _other_columns(rows, mapping)
    metas = _metas(rows, () if mapping == WILDBENCH else kept)
    problems: dict[str, Problem] = {}
    for number, (row, meta) in enumerate(zip(rows, metas, strict=True), start=1):
        where = f"{source}, row {number}"
        if mapping == WILDBENCH:
            problem = _wildbench_problem(row, where)
        else:
            cells = {key: _cell(row, column, where) for key, column in mapping.items()}
            solved = {"reasoning": cells["reasoning"]} if "reasoning" in cells else {}
            problem = Problem(
                cells.get("id", ""), cells["question"], cells.get("answer") or None, meta | solved
            )
        if "id" in mapping and not _cell(row, mapping["id"], where):
            raise ValueError(f"{where}: no id in the column {mapping['id']!r}")
        if problem is None:
            continue
        if not problem.question:
            raise ValueError(f"{where}: no question in the column {mapping['question']!r}")
        if "id" not in mapping:
            problem = replace(problem, id=_content_id(problem.question, problems))
        if problem.id in problems:
            raise ValueError(f"{where}: the id {problem.id!r} stands in an earlier row already")
        problems[problem.id] = problem
    if not problems:
        raise ValueError(f"{source}: every row has a tag that the paper leaves out")
    return list(problems.values())


def _content_id(question: str, taken: Mapping[str, Problem]) -> str:
    """An id that is the question's own; one that is asked again is counted."""
    name = "q-" + hashlib.sha256(question.encode()).hexdigest()[:10]
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}-{count}"
    return candidate


def _mapping(rows: list[dict], source: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Which column holds the id, the question and the answer; any row may have it."""
    there = list(dict.fromkeys(column for row in rows for column in row))
    if columns is None:
        for layout in LAYOUTS:
            if all(_has(rows, column) for column in layout.values()):
                return layout
        raise ValueError(
            f"{source} has the columns {there}: say which hold what, for example "
            'columns={"id": …, "question": …, "answer": …}'
        )
    unknown = set(columns) - {"id", "question", "answer", "reasoning"}
    if unknown or "question" not in columns:
        raise ValueError(
            f"columns={dict(columns)}: the keys are question (needed), id, answer and reasoning, "
            "the values are names of columns"
        )
    for column in columns.values():
        if not _has(rows, column):
            near = difflib.get_close_matches(column, [str(c) for c in there], n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{source} has no column {column!r}{hint} It has {there}")
    return dict(columns)


def _has(rows: list[dict], column: str) -> bool:
    return any(_at(row, column) is not _ABSENT for row in rows)


_ABSENT = object()


def _at(row: object, column: str) -> object:
    """What stands in a column, or where a dotted path leads."""
    if isinstance(row, dict):
        if column in row:
            return row[column]
        outer, dot, inner = column.partition(".")
        if dot and outer in row:
            return _at(row[outer], inner)
    return _ABSENT


def _cell(row: dict, column: str, where: str) -> str:
    """The text of a cell: what is missing is empty; what has no one meaning is refused."""
    value = _at(row, column)
    text = _meaning(None if value is _ABSENT else value)
    if text is None:
        raise ValueError(
            f"{where}: the column {column!r} holds {_described(value)}, which is not one text: "
            "write a column that holds the text, or name a path into it with dots"
        )
    if text != _clean(text):
        raise ValueError(
            f"{where}: the column {column!r} holds half a character (a lone surrogate): mend it"
        )
    return text.strip()


def _meaning(value: object) -> str | None:
    """The one text that a cell means; None where it could mean several."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, list):
        if value and all(isinstance(turn, dict) for turn in value):
            asked = [turn for turn in value if _speaker(turn) in _ASKERS]
            return _turn_text(asked[-1]) if asked else None
        return _meaning(value[0]) if len(value) == 1 else ("" if not value else None)
    if isinstance(value, dict):
        return _turn_text(value) if _speaker(value) in _ASKERS else None
    return "" if _is_missing(value) else str(value)


def _speaker(turn: dict) -> object:
    return turn.get("role", turn.get("from"))


def _turn_text(turn: dict) -> str | None:
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):  # parts, of which all must be text
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(parts) if all(isinstance(part, str) for part in parts) else None
    return _meaning(content)


def _described(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, value))}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"{type(value).__name__}"


def _other_columns(rows: list[dict], mapping: Mapping[str, str]) -> list[str]:
    """Columns that the mapping does not name, and that hold nothing that it names."""
    taken = set(mapping.values()) | {column.partition(".")[0] for column in mapping.values()}
    return [c for c in dict.fromkeys(c for row in rows for c in row) if c not in taken]


def _metas(rows: list[dict], kept: Sequence[str]) -> list[dict]:
    """The `meta` of each row: columns of one plain kind as they are, all others as text."""
    plain = {c: _is_plain([row[c] for row in rows if not _is_missing(row.get(c))]) for c in kept}
    return [
        {
            _clean(str(c)): _kept(row[c], plain[c])
            for c in kept
            if c in row
        }
        for row in rows
    ]  # fmt: skip


def _is_plain(values: list) -> bool:
    """Whether a column can be kept as it is: of one kind, and within what a table can hold."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return all(abs(v) < 2**63 if isinstance(v, int) else math.isfinite(v) for v in values)
    return kinds <= {bool} or kinds <= {str}


def _kept(value: object, plain: bool) -> object:
    if _is_missing(value):
        return None
    if plain:
        return _clean(value) if isinstance(value, str) else value
    if isinstance(value, list | dict):
        return _clean(json.dumps(value, ensure_ascii=False, default=str))
    return _clean(str(value))


def _clean(text: str) -> str:
    """A text that UTF-8 can hold: halves of characters become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _wildbench_problem(row: dict, where: str) -> Problem | None:
    """One row of WildBench v2; None for a tag that is left out."""
    tag = _cell(row, "primary_tag", where)
    area_of_tag = published()["stage1_wildbench"]["area_of_tag"]
    if tag not in area_of_tag:
        raise ValueError(f"{where}: the paper has no area for the primary tag {tag!r}")
    if area_of_tag[tag] == LEFT_OUT:
        return None
    chat = row.get("conversation_input")
    if not isinstance(chat, list) or not all(isinstance(turn, dict) for turn in chat):
        raise ValueError(f"{where}: the column 'conversation_input' holds no list of turns")
    turns = [turn for turn in chat if turn.get("role") == "user"]
    meta = {
        "area": area_of_tag[tag],
        "tag": tag,
        "checklist": [_clean(str(item)) for item in row.get("checklist") or []],
        "turns": len(turns),
    }
    question = _cell(turns[0], "content", where) if turns else ""
    return Problem(_cell(row, "session_id", where), question, None, meta)
