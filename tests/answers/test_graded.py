"""The boxed answer is found, and equal answers count as equal."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from r2a_utils.answers import graded
from r2a_utils.answers.comparison import COLUMNS, funnel
from r2a_utils.answers.graded import (
    find_answers,
    grade_completions,
    grade_math,
    same_answer,
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
    ],
)
def test_boxes_in_one_list_are_one_answer(text, answer):
    assert final_answer(text) == answer


RIGHT = [
    ("5", "5"),
    ("5", "5."),
    ("5", "$5$"),
    ("5", "5.0"),
    ("5", r"\text{ 5 }"),
    ("0.5", ".5"),
    ("10080", "10,080"),
    (r"\frac{448}{15625}", r"\dfrac{2240}{78125}"),
    ("-2, 1", "1,-2"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"90^\circ", "90"),
    (r"\frac{3}{4}", "0.75"),
    (r"\frac{11+9a}{20}", r"\dfrac{9a + 11}{20}"),
    (r"x \in [-2,7]", "[-2, 7]"),
    (r"11\sqrt{2}", r"\sqrt{242}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \frac{\pi}{2})"),
    ("204_5", "204_{5}"),
    (r"\text{(C)}", "C"),
    (r"\text{Evelyn}", "Evelyn"),
    ("Evelyn", r"\text{evelyn}"),
    ("lamp", "lamp"),
    ("lamp", "Lamp."),
    ("lamp", "the lamp"),
    ("lamp", r"\text{The lamp}"),
    ("lamp", "**lamp**"),
    ("no", "No"),
    ("ab", "ba"),
    ("q", "q"),
]
WRONG = [
    ("5", "6"),
    ("5", "-5"),
    ("5", "five hundred"),
    ("5", ""),
    ("", "5"),
    ("", ""),
    (r"\frac{1}{3}", "0.33"),
    ("p - q", "q - p"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"),
    ("204_5", "204_6"),
    ("204_5", "214_5"),
    ("-2,1", "-2"),
    ("lamp", "mug"),
    ("lamp", "palm"),
    ("lamp", "lamps"),
    ("lamp", "not the lamp"),
    ("even", "odd"),
    (r"\text{ellipse}", r"\text{circle}"),
    ("x", "X"),
    ("pen", "5"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_equal_answers_are_right(gold, answer):
    assert grade_math(answer, gold) is True
    assert grade_math(rf"So the answer is $\boxed{{{answer}}}$, as was to be shown.", gold) is True


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_other_answers_are_wrong(gold, answer):
    assert grade_math(answer, gold) is False
    assert grade_math(rf"We get \boxed{{{answer}}}.", gold) is False


def test_answers_are_the_same_both_ways_and_none_is_the_same_as_nothing():
    assert same_answer("1/2", "0.5") and same_answer("0.5", r"\frac12")
    assert not same_answer("5", "6")
    assert not any(same_answer(*pair) for pair in ((None, None), (None, "5"), ("5", None)))


def test_the_last_box_counts_and_not_what_stands_before_it():
    assert grade_math(r"Not \boxed{4}: it is \boxed{5}", "5")
    assert not grade_math(r"Not \boxed{5}: it is \boxed{4}", "5")
    assert grade_math(r"\boxed{1}, \boxed{-2}", "-2,1")


def test_grading_works_outside_the_main_thread():
    pairs = [(rf"\frac{{{2 * i}}}{{{2 * i + 2}}}", f"{i}/{i + 1}") for i in range(1, 9)]
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda p=pair: results.append(grade_math(*p))) for pair in pairs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * len(pairs)


def test_a_comparison_that_hangs_is_wrong_and_the_next_one_is_graded(monkeypatch):
    monkeypatch.setattr(graded, "COMPARISON_LIMIT_S", 0.2)
    with pytest.warns(UserWarning, match=r"counted as wrong.*no result in 0.2 s of computing"):
        assert not grade_math("9^{9^{9^9}}", "7^{7^{7^7}}")
    monkeypatch.undo()
    assert grade_math("3/9", "1/3")


def test_after_an_interrupt_the_next_reply_is_to_the_next_question(monkeypatch):
    assert grade_math("2/4", "1/2")
    process = graded._WORKER._process

    class Interrupted:
        def readline(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(process, "stdout", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        grade_math("4/6", "2/3")
    monkeypatch.undo()
    process.wait(timeout=10)
    assert not grade_math("4/7", "2/3")


def test_a_worker_that_dies_is_an_error_and_not_a_grade(monkeypatch, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(3)")
    worker = graded._Worker()
    monkeypatch.setattr(graded, "WORKER_SCRIPT", script)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="ended with code 3"):
            worker.ask("1", "2")
    worker.stop()


@dataclass(frozen=True)
class Written:
    """What grading reads of a completion."""

    problem_id: str
    condition: str
    text: str
    finished: bool = True
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
