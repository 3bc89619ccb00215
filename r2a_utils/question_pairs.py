"""Contextual comparisons in plain language: two questions of one form, with opposite answers.

160 pairs of our own writing over ten domains, in `comparison_questions.csv`: "Considering weight,
which is heavier: the elephant or the cheetah?" and the same with speed. The context alone decides,
so that whatever carries the answer must differ between the two. The paper's pairs have this form
too; `paper.load_question_pairs` reads those.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from r2a_utils.problems import Problem

_FORM = re.compile(r"(Considering .+), which is .+: (?:the )?(.+) or (?:the )?(.+)\?")


def load_question_pairs() -> pd.DataFrame:
    """The pairs, one a row: domain, question_a, answer_a, question_b, answer_b, explanation."""
    return pd.read_csv(Path(__file__).with_name("comparison_questions.csv"), dtype=str)


def question_problems(n: int, seed: int = 0) -> list[tuple[Problem, Problem]]:
    """`n` pairs as problems, drawn without replacement; ValueError where there are not so many."""
    pairs = load_question_pairs()
    if n > len(pairs):
        raise ValueError(f"{n} pairs asked, and {len(pairs)} are written: choose fewer")
    return [_problems(row) for row in pairs.sample(n, random_state=seed).itertuples()]


def write_comparison(problem: Problem, condition: str) -> str:
    """A completion of our own for such a problem: both facts, then the answer; for teacher forcing.

    Only the first words, the context, and the conclusion differ within a pair.
    """
    answer = f"The answer is \\boxed{{{problem.answer}}}."
    if condition == "without_reasoning":
        return answer
    context, *candidates = _FORM.fullmatch(problem.question).groups()
    return (
        f"{context}, I compare {' and '.join(candidates)}. {problem.meta['explanation']} "
        f"So it must be {problem.answer}.\n</think>\n\n{answer}"
    )


def _problems(row) -> tuple[Problem, Problem]:
    meta = {"family": "question", "domain": row.domain, "explanation": row.explanation}
    return (
        Problem(f"question-{row.Index}-a", row.question_a, row.answer_a, meta),
        Problem(f"question-{row.Index}-b", row.question_b, row.answer_b, meta),
    )
