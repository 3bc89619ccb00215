"""A solution that somebody has written becomes what a model would have written."""

from __future__ import annotations

import pytest

from r2a_utils.collecting import collect_traces, load_problems, teacher_forced, write_solution
from r2a_utils.texts import Problem

PLAIN = "3 boxes of 4 are 12. Minus 2 is 10."
BOXED = "3 boxes of 4 are 12.\nMinus 2 is 10. So the answer is \\boxed{10} marbles. All fine."
TAGGED = "<think>\nSo 12.\n</think>\n\nIt is \\boxed{10}."


@pytest.mark.parametrize(
    ("reasoning", "written"),
    [
        (PLAIN, f"{PLAIN}\n</think>\n\nThe answer is \\boxed{{10}}."),
        (
            BOXED,
            "3 boxes of 4 are 12.\nMinus 2 is 10.\n</think>\n\n"
            "So the answer is \\boxed{10} marbles. All fine.",
        ),
        ("\\boxed{9}? No. It is \\boxed{10}.", "\\boxed{9}? No.\n</think>\n\nIt is \\boxed{10}."),
        (TAGGED, "So 12.\n</think>\n\nIt is \\boxed{10}."),
        ("[THINK]So 12.[/THINK]It is \\boxed{10}.", "So 12.</think>It is \\boxed{10}."),
    ],
)
def test_the_reasoning_ends_before_the_last_boxed_sentence(reasoning, written):
    problem = Problem("p", "How many?", "10", {"reasoning": reasoning})
    assert write_solution(problem, "with_reasoning") == written
    assert write_solution(problem, "without_reasoning") == "The answer is \\boxed{10}."


def test_a_box_tells_the_answer_where_the_problem_does_not():
    problem = Problem("p", "How many?", None, {"reasoning": BOXED})
    assert write_solution(problem, "without_reasoning") == "The answer is \\boxed{10}."
    with pytest.raises(ValueError, match="'p' has no answer, and its reasoning boxes none"):
        write_solution(Problem("p", "How many?", None, {"reasoning": PLAIN}), "with_reasoning")


@pytest.mark.parametrize("meta", [{}, {"reasoning": None}, {"reasoning": " "}, {"reasoning": 3}])
def test_a_problem_without_a_solution_is_refused(meta):
    with pytest.raises(ValueError, match=r"'p' has no reasoning: .* named in columns"):
        write_solution(Problem("p", "How many?", "10", meta), "with_reasoning")


@pytest.mark.parametrize("column", ["reasoning", "solution"])
def test_a_file_s_own_solutions_are_read(tiny, tmp_path, column):
    path = tmp_path / "own.csv"
    path.write_text(f'question,answer,{column}\nHow many?,10,"{PLAIN}"\n')
    columns = {"question": "question", "answer": "answer", "reasoning": column}
    problems = load_problems(path, columns=columns)
    assert problems[0].meta == {"reasoning": PLAIN}
    [trace] = collect_traces(tiny, problems, backend=teacher_forced(tiny, write_solution))
    assert trace.reasoning_text == f"\n{PLAIN}\n"
    assert trace.answer_text == "\n\nThe answer is \\boxed{10}."
