"""Contextual comparisons in plain language: two questions of one form, with opposite answers.

160 pairs of our own writing over ten domains, in `comparison_questions.csv`: "Considering weight,
which is heavier: the elephant or the cheetah?" and the same with speed. The context alone decides,
so that whatever carries the answer must differ between the two. The paper's pairs have this form
too, and are read from the authors' data where the folder is given.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from r2a_utils import paper
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS

# The context, and the two candidates with their articles.
_FORM = re.compile(r"(Considering .+), which .+: (.+) or (.+)\?")
# Characters outside ASCII are lost in the authors' file: "2?+?2 equals?4", "Brazil\ufffds".
_LOST = str.maketrans({"?": " ", "\ufffd": "'"})


def load_question_pairs() -> pd.DataFrame:
    """The pairs, one a row: domain, question_a, answer_a, question_b, answer_b, explanation."""
    return pd.read_csv(Path(__file__).with_name("comparison_questions.csv"), dtype=str)


def question_problems(n: int, seed: int = 0) -> list[tuple[Problem, Problem]]:
    """`n` pairs as problems, drawn without replacement; ValueError where there are not so many."""
    return _drawn(load_question_pairs(), n, seed)


def paper_question_problems(
    n: int, seed: int = 0, folder: str | Path | None = None
) -> list[tuple[Problem, Problem]]:
    """`n` of the authors' 197 pairs likewise; FileNotFoundError where their folder is not given."""
    pairs = paper.load_question_pairs(folder)
    pairs["explanation"] = pairs["explanation"].str.translate(_LOST)
    return _drawn(pairs.rename(columns={"query_a": "question_a", "query_b": "question_b"}), n, seed)


def write_comparison(problem: Problem, condition: str) -> str:
    """A completion of our own for such a problem: both facts, then the answer; for teacher forcing.

    Only the first words, the context, and the conclusion differ within a pair.
    """
    answer = f"The answer is \\boxed{{{problem.answer}}}."
    if condition == "without_reasoning":
        return answer
    context, one, other = _FORM.fullmatch(problem.question).groups()
    return (
        f"{context}, I compare {one} and {other}. {problem.meta['explanation']} "
        f"So it must be {problem.meta['article']}{problem.answer}."
        f"{R1_TAGS.before_close}{R1_TAGS.close}{R1_TAGS.after_close}{answer}"
    )


def _drawn(pairs: pd.DataFrame, n: int, seed: int) -> list[tuple[Problem, Problem]]:
    if n > len(pairs):
        raise ValueError(f"{n} pairs asked, and {len(pairs)} are written: choose fewer")
    return [
        (
            _problem(f"question-{row.Index}-a", row.question_a, row.answer_a, row),
            _problem(f"question-{row.Index}-b", row.question_b, row.answer_b, row),
        )
        for row in pairs.sample(n, random_state=seed).itertuples()
    ]


def _problem(name: str, question: str, answer: str, row) -> Problem:
    article = "the " if f"the {answer}" in _FORM.fullmatch(question).groups() else ""
    meta = {"family": "question", "domain": row.domain, "explanation": row.explanation}
    return Problem(name, question, answer, meta | {"article": article})
