"""The boxed answer of each completion, and the frame of answers that is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from r2a_utils.answers.comparison import COLUMNS, funnel
from r2a_utils.answers.graded import (
    find_answers,
    grade_completions,
)
from r2a_utils.texts.boxed import extract_answer, final_answer
from r2a_utils.texts.problem import Problem


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, no: it is \boxed{2}", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed {\text{lamp} }", r"\text{lamp}"),
        (r"\fbox{3}", "3"),
        (r"\boxed{a\\b}", r"a\\b"),
        ("no box, just 5", None),
        (r"put it within \boxed{}", None),
        (r"\boxed{  }", None),
        (r"\boxed{3} and then \boxed{4 + (cut", "3"),
        (r"\boxed{\frac{1}{2}", None),
        ("", None),
    ],
)
def test_the_last_complete_box_is_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"the roots are \boxed{1}, \boxed{-2}", "1, -2"),
        (r"$\boxed{3}$, $\boxed{5}$ and $\boxed{7}$.", "3, 5, 7"),
        (r"\(\boxed{3}\), \(\boxed{5}\), and \(\boxed{7}\)", "3, 5, 7"),
        (r"\boxed{x},\quad\boxed{y}", "x, y"),
        (r"\boxed{1} \text{ and } \boxed{2}", "1, 2"),
        (r"\boxed{1}. So, again: \boxed{2}", "2"),
        (r"\[\boxed{5}\] \[\boxed{5}\]", "5"),
        (r"\boxed{9}, so we have \boxed{1}, \boxed{2}", "1, 2"),
        (r"\boxed{1} or \boxed{2}", "1, 2"),
        (r"\boxed{1} \text{ or } \boxed{2}", "1, 2"),
        (r"$x = \boxed{1}$ or $x = \boxed{2}$", "1, 2"),
        (r"\boxed{9} is not it, but \boxed{1}", "1"),
        (r"\boxed{9} minus \boxed{1}", "1"),
    ],
)
def test_boxes_in_one_list_are_one_answer(text, answer):
    assert final_answer(text) == answer


@dataclass(frozen=True)
class Written:
    """What grading reads of a completion."""

    problem_id: str
    condition: str
    text: str
    finished: bool = True
    closed_by_us: bool = False
    sample: int = 0
    n_tokens: int = 9


def test_completions_become_the_answers_frame():
    problems = [
        Problem("a", "2+2?", "4", {"family": "arithmetic", "steps": 1, "operations": [("add", 2)]}),
        Problem("b", "Which?", "lamp", {"family": "comparison", "steps": 2}),
    ]
    written = [
        Written("a", "with_reasoning", r"2, 4.</think>\boxed{4}"),
        Written("a", "without_reasoning", r"It is \boxed{5}"),
        Written("b", "with_reasoning", r"Hmm</think>\boxed{lamp} and so", finished=False),
        Written("b", "without_reasoning", "The lamp."),
        Written("b", "with_reasoning", "Hmm, is it the", finished=False),
    ]
    frame = grade_completions(written, problems)
    assert set(COLUMNS) <= set(frame)
    assert frame["correct"].tolist() == [True, False, True, False, False]
    assert frame["answer"].tolist()[:3] == ["4", "5", "lamp"]
    assert frame["answer"].isna().tolist() == [False, False, False, True, True]
    assert frame["well_formed"].tolist() == [True, True, True, True, False]
    assert frame["answer_text"].isna().tolist() == [False, False, False, False, True]
    assert frame["finished"].tolist() == [True, True, False, True, False]
    assert frame["steps"].tolist() == [1, 1, 2, 2, 2]
    assert "operations" not in frame


def test_what_cannot_be_graded_is_refused():
    with pytest.raises(ValueError, match="'a' is not among the problems"):
        grade_completions([Written("a", "without_reasoning", "4")], [])
    with pytest.raises(ValueError, match="'a' has no known answer"):
        grade_completions([Written("a", "without_reasoning", "4")], [Problem("a", "Write.")])


def test_an_open_question_s_answer_is_its_whole_text_and_has_no_grade():
    problems = [Problem("a", "Write a poem."), Problem("b", "2 + 2?", "4")]
    written = [
        Written("a", "with_reasoning", "Roses.</think>Red, \\boxed{blue}."),
        Written("b", "with_reasoning", "Easy.</think>\\boxed{4}, of course."),
        Written("a", "without_reasoning", "</think>no"),
    ]
    frame = find_answers(written, problems)
    assert frame["answer"].tolist()[:2] == ["Red, \\boxed{blue}.", "4"]
    assert frame["answer"].isna().tolist() == [False, False, True]
    assert "correct" not in frame
    assert funnel(frame)["count"].tolist() == [2, 2, 2, 2, 1, 1, 0, 0]
