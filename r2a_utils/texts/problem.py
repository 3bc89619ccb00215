"""Problems: questions with, where there is one, their right answer; and the table that keeps them.

Where problems come from is the business of `collecting/loading.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Problem:
    """One question.

    `answer` is None for an open question, which only a judge can score. `meta` holds what the
    source says beyond that, and what results may be sliced by: tiny: family, steps; math500:
    subject, level; wildbench: area, tag, checklist, turns; other files: their other columns.
    """

    id: str
    question: str
    answer: str | None = None
    meta: dict = field(default_factory=dict)


def problems_table(problems: list[Problem]) -> pd.DataFrame:
    """Problems as a table to keep: columns id, question, answer, and meta as JSON."""
    rows = [(p.id, p.question, p.answer, json.dumps(p.meta)) for p in problems]
    return pd.DataFrame(rows, columns=["id", "question", "answer", "meta"])


def problems_from_table(table: pd.DataFrame) -> list[Problem]:
    """The problems of a table that `problems_table` made."""
    answers = table["answer"].astype(object).where(table["answer"].notna(), None)
    columns = (table["id"], table["question"], answers, table["meta"].map(json.loads))
    return [Problem(*row) for row in zip(*columns, strict=True)]
