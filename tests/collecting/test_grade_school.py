"""The word problems of our own: each answer found in two ways, each number accounted for."""

from __future__ import annotations

import operator
import re
from collections import Counter
from fractions import Fraction

import pytest
import sympy

from r2a_utils.causal.pairs import ContrastPair, under_protocol
from r2a_utils.collecting.grade_school import grade_school_pairs, read_file
from r2a_utils.collecting.loading import load_problems
from r2a_utils.collecting.solutions import write_solution
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
# The numbers that words of a question stand for.
WORDS = {
    "one": 1, "half": 2, "halved": 2, "twice": 2, "double": 2, "doubles": 2, "two": 2, "both": 2,
    "back": 2, "again": 2, "rectangle": 2, "third": 3, "three": 3, "quarter": 4, "four": 4,
    "fifth": 5, "fifths": 5, "week": 7, "weeks": 7, "nine": 9, "tenth": 10, "dozen": 12,
    "twelve": 12, "hour": 60, "hours": 60,
}  # fmt: skip
DIGITS = re.compile(r"\d+")

ROWS = read_file()
PAIRS = [(row, row["twin"]) for row in ROWS if "twin" in row]
# Every problem and every twin.
ALL = [*ROWS, *(row | twin | {"id": f"{row['id']}-twin"} for row, twin in PAIRS)]


def results(row: dict) -> list[Fraction]:
    """The result of each expression."""
    parts = [expression.split() for expression in row["expressions"]]
    return [OPERATIONS[sign](Fraction(left), Fraction(right)) for left, sign, right in parts]


def wrong(holds) -> list[str]:
    """The ids of the problems of which something does not hold."""
    return [row["id"] for row in ALL if not holds(row)]


def test_there_are_enough_of_each_length_and_no_story_stands_twice():
    counts = Counter(row["steps"] for row in ROWS)
    assert sorted(counts) == [1, 2, 3, 4, 5]
    assert min(counts.values()) >= 30
    assert len({DIGITS.sub("", row["question"]) for row in ROWS}) == len(ROWS) >= 200
    assert len({row["id"] for row in ALL}) == len(ALL)
    assert len(PAIRS) >= 200


def test_the_steps_lead_to_the_answer():
    def holds(row):
        found = results(row)
        whole = all(result.denominator == 1 and result > 0 for result in found)
        return whole and len(found) == row["steps"] and str(found[-1]) == row["answer"]

    assert wrong(holds) == []


def test_the_answer_alone_solves_the_equation():
    def holds(row):
        left, right = (sympy.sympify(side) for side in row["equation"].split("="))
        return sympy.solve(left - right) == [int(row["answer"])]

    assert wrong(holds) == []


def test_every_number_of_a_step_is_told_or_found_before_and_every_number_told_is_used():
    def holds(row):
        said = re.findall(r"[a-z]+", row["question"].lower())
        told = set(DIGITS.findall(row["question"]))
        known = told | {str(WORDS[word]) for word in said if word in WORDS}
        for expression, result in zip(row["expressions"], results(row), strict=True):
            if not set(DIGITS.findall(expression)) <= known:
                return False
            known.add(str(result))
        return told <= set(DIGITS.findall(" ".join(row["expressions"])))

    assert wrong(holds) == []


def test_every_step_but_the_last_is_used_later():
    def holds(row):
        later = [DIGITS.findall(" ".join(row["expressions"][i + 1 :])) for i in range(row["steps"])]
        return all(str(r) in rest for r, rest in zip(results(row)[:-1], later[:-1], strict=True))

    assert wrong(holds) == []


def test_the_reasoning_states_every_step_in_order_and_ends_with_the_answer():
    def holds(row):
        steps = zip(row["expressions"], results(row), strict=True)
        stated = [f"{step} = {result}".replace("*", "×") for step, result in steps]
        *_, conclusion = row["reasoning"].split(". ")
        in_order = re.search(".*".join(map(re.escape, stated)), row["reasoning"])
        return in_order and row["answer"] in DIGITS.findall(conclusion) and conclusion[-1] == "."

    assert wrong(holds) == []


def test_a_twin_differs_in_one_number_and_has_another_answer_of_the_same_length():
    for row, twin in PAIRS:
        words = zip(row["question"].split(), twin["question"].split(), strict=True)
        changed = [pair for pair in words if pair[0] != pair[1]]
        assert len(changed) == 1, row["id"]
        assert row["answer"][0] != twin["answer"][0], row["id"]
        for column in ("question", "reasoning", "answer"):
            shapes = {re.sub(r"\d", "#", side[column]) for side in (row, twin)}
            assert len(shapes) == 1, row["id"]


def test_the_problems_can_be_asked_by_name():
    problems = load_problems("grade_school")
    assert [problem.id for problem in problems] == [row["id"] for row in ROWS]
    assert {problem.meta["steps"] for problem in problems[:20]} == {1, 2, 3, 4, 5}
    assert load_problems("grade_school", n=12, seed=1) != load_problems("grade_school", n=12)


def test_pairs_are_drawn_by_seed_without_repetition():
    drawn = grade_school_pairs(20, seed=3)
    assert drawn == grade_school_pairs(20, seed=3) != grade_school_pairs(20, seed=4)
    assert len({problem.id for pair in drawn for problem in pair}) == 40
    with pytest.raises(ValueError, match="choose fewer"):
        grade_school_pairs(10_000)


@pytest.mark.parametrize("protocol", ["own", "probe", "boxed_probe"])
def test_pairs_align_token_by_token_in_r1s_tokenizer(r1_tokenizer, protocol):
    for pair in grade_school_pairs(len(PAIRS)):
        traces = []
        for problem in pair:
            prompt = render_prompt(r1_tokenizer, problem.question, "with_reasoning")
            ids = prompt + encode(r1_tokenizer, write_solution(problem, "with_reasoning"))
            trace = Trace.from_ids(ids, r1_tokenizer, prompt_length=len(prompt))
            traces.append(under_protocol(trace, r1_tokenizer, problem, protocol))
        found = ContrastPair.from_traces(*traces)
        assert len(found.alignment) == len(found.clean_ids) == len(found.corrupted_ids)
        assert found.flipping_position is not None
        assert write_solution(pair[0], "without_reasoning") in traces[0].text or protocol != "own"
