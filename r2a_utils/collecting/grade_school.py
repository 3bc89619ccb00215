"""Word problems of our own: 241 stories of 1 to 5 steps, for models that can do easy arithmetic.

They stand in `book/data/grade_school.jsonl`; the book's page about its data says what a row holds.
Most have a twin: the same story with one other number, so that the two questions, what is worked
out, and the two answers have the same length, and the answers begin with different digits. Every
problem comes with a worked solution in sentences. This file knows no model.
"""

from __future__ import annotations

import random

from r2a_utils.folders import source_folder
from r2a_utils.runs.folder import json_lines
from r2a_utils.texts.problem import Problem

FILE = source_folder() / "book" / "data" / "grade_school.jsonl"
# What a problem keeps of its row beside id, question and answer.
KEPT = ("steps", "reasoning")


def grade_school_rows() -> list[dict]:
    """The problems, without their twins, as rows: id, question, answer, steps, reasoning."""
    columns = ("id", "question", "answer", *KEPT)
    return [{column: row[column] for column in columns} for row in read_file()]


def grade_school_pairs(n: int, seed: int = 0) -> list[tuple[Problem, Problem]]:
    """`n` problems with their twins, drawn without replacement, for contrast pairs.

    Raises ValueError where fewer have a twin. Stage 05 takes questions from here (`pairs`).
    """
    rows = [row for row in read_file() if "twin" in row]
    if n > len(rows):
        raise ValueError(f"{n} pairs asked, and {len(rows)} problems have a twin: choose fewer")
    return [
        (_problem(row, row["id"]), _problem(row | row["twin"], f"{row['id']}-twin"))
        for row in random.Random(seed).sample(rows, n)
    ]


def read_file() -> list[dict]:
    """The rows of the file as they stand there."""
    return json_lines(FILE.read_text(encoding="utf-8"), FILE)


def _problem(row: dict, name: str) -> Problem:
    return Problem(name, row["question"], row["answer"], {kept: row[kept] for kept in KEPT})
