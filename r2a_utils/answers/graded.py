"""Graded completions: the answer in each text a model wrote, and whether it is right.

This file knows where in a completion the answer stands, and makes the *answers* frame of it. When
two answers are equal, `equality.py` knows; how good an open answer is, `judging.py` asks a judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from r2a_utils.answers.equality import grade_math
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.tags import R1_TAGS, Tags, answer_part

if TYPE_CHECKING:  # the annotations alone need them
    from transformers import PreTrainedTokenizerBase

    from r2a_utils.texts.completions import Completion
    from r2a_utils.texts.problem import Problem
    from r2a_utils.texts.trace import Trace


def answer_texts(completions: Iterable[Completion], tags: Tags = R1_TAGS) -> pd.DataFrame:
    """One row per completion: problem_id, condition, sample, finished, closed_by_us, well_formed,
    answer_text (missing where it is not well formed), n_tokens.
    """
    return pd.DataFrame([_answer_row(completion, tags) for completion in completions])


def _answer_row(completion: Completion, tags: Tags) -> dict:
    text = answer_part(completion.text, completion.condition, tags)
    return {
        "problem_id": completion.problem_id,
        "condition": completion.condition,
        "sample": completion.sample,
        "finished": completion.finished,
        "closed_by_us": completion.closed_by_us,
        "well_formed": text is not None,
        "answer_text": text,
        "n_tokens": completion.n_tokens,
    }


def find_answers(
    completions: Iterable[Completion], problems: list[Problem], tags: Tags = R1_TAGS
) -> pd.DataFrame:
    """`answer_texts` with answer, a row each, in order, and nothing graded.

    The answer is the boxed one, missing where there is none; of an open question the whole text.
    Raises ValueError for a completion of a problem that is not given.
    """
    return pd.DataFrame([row for _, row in _answered(completions, problems, tags)])


def grade_completions(
    completions: Iterable[Completion], problems: list[Problem], tags: Tags = R1_TAGS
) -> pd.DataFrame:
    """Grade completions: the *answers* frame that `comparison.py` describes, a row each, in order.

    `find_answers` with correct, and what the problems' `meta` say in single values (family, steps,
    subject, level, …). Raises ValueError, besides, for a problem that has no known answer.
    """
    rows = []
    for problem, row in _answered(completions, problems, tags):
        if problem.answer is None:
            raise ValueError(
                f"problem {problem.id!r} has no known answer: it cannot be graded; leave stage 02 "
                "out (--stages 01,03), or give open questions to a judge there (`open_dataset`)"
            )
        correct = row["answer"] is not None and grade_math(row["answer_text"], problem.answer)
        slices = {k: v for k, v in problem.meta.items() if isinstance(v, str | int | float)}
        rows.append(slices | row | {"correct": correct})
    return pd.DataFrame(rows)


def traces_by_grade(
    completions: Sequence[Completion],
    problems: list[Problem],
    tokenizer: PreTrainedTokenizerBase,
    tags: Tags = R1_TAGS,
) -> dict[bool, list[Trace]]:
    """Right (True) and wrong (False) traces; what has no boxed answer is left out.

    Raises ValueError as `grade_completions` does.
    """
    metas = {problem.id: problem.meta for problem in problems}
    found = {True: [], False: []}
    table = grade_completions(completions, problems, tags)
    for completion, row in zip(completions, table.itertuples(), strict=True):
        if row.well_formed and pd.notna(row.answer):
            found[row.correct].append(completion.to_trace(tokenizer, metas[row.problem_id], tags))
    return found


def _answered(
    completions: Iterable[Completion], problems: list[Problem], tags: Tags
) -> Iterator[tuple[Problem, dict]]:
    """Each completion's problem, and its row with the answer."""
    known = {problem.id: problem for problem in problems}
    for row in (_answer_row(completion, tags) for completion in completions):
        if row["problem_id"] not in known:
            raise ValueError(f"problem {row['problem_id']!r} is not among the problems given")
        problem, answer = known[row["problem_id"]], row["answer_text"]
        if answer is not None and problem.answer is not None:
            answer = extract_answer(answer)
        yield problem, row | {"answer": answer}
