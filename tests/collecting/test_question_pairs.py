"""The question pairs of our own: enough, different, and each decided by its context alone."""

from __future__ import annotations

import pytest

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.collecting.question_pairs import (
    load_question_pairs,
    paper_question_problems,
    question_problems,
    write_comparison,
)
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, answer_span, encode


@pytest.fixture(scope="module")
def pairs():
    return load_question_pairs()


def candidates(question: str) -> str:
    return question.rpartition(": ")[2]


def test_there_are_enough_over_ten_domains(pairs):
    counts = pairs.domain.value_counts()
    assert len(pairs) >= 150
    assert len(counts) == 10
    assert counts.min() >= 10
    assert (pairs.map(len) > 0).all().all()


def test_no_question_and_no_two_candidates_stand_twice(pairs):
    questions = [*pairs.question_a, *pairs.question_b]
    assert len(set(questions)) == len(questions)
    named = [frozenset(pair) for pair in zip(pairs.answer_a, pairs.answer_b, strict=True)]
    assert len(set(named)) == len(named)


def test_the_context_alone_differs_and_turns_the_answer_over(pairs):
    for row in pairs.itertuples():
        assert row.answer_a != row.answer_b
        assert candidates(row.question_a) == candidates(row.question_b)
        named = {
            name.removeprefix("the ") for name in candidates(row.question_a)[:-1].split(" or ")
        }
        assert named == {row.answer_a, row.answer_b}
        for question in (row.question_a, row.question_b):
            assert question.startswith("Considering ") and ", which is " in question


def test_the_answer_is_named_first_as_often_as_second(pairs):
    first = [
        candidates(q).removeprefix("the ").startswith(a)
        for q, a in zip(pairs.question_a, pairs.answer_a, strict=True)
    ]
    assert sum(first) == len(pairs) // 2


def test_problems_are_drawn_by_seed_without_repetition():
    drawn = question_problems(20, seed=3)
    assert drawn == question_problems(20, seed=3) != question_problems(20, seed=4)
    assert len({problem.id for pair in drawn for problem in pair}) == 40
    with pytest.raises(ValueError, match="choose fewer"):
        question_problems(10_000)


def test_a_written_pair_is_a_contrast_pair_that_states_its_answer_in_the_reasoning(tokenizer):
    clean, corrupted = question_problems(1, seed=0)[0]
    traces = []
    for problem in (clean, corrupted):
        prompt = render_prompt(tokenizer, problem.question, "with_reasoning")
        ids = prompt + encode(tokenizer, write_comparison(problem, "with_reasoning"))
        traces.append(Trace.from_ids(ids, tokenizer))
        assert "".join(traces[-1].tokens[answer_span(traces[-1])]) == problem.answer
    assert clean.meta["explanation"] in traces[0].reasoning_text
    assert corrupted.answer in traces[1].reasoning_text.splitlines()[-1]
    assert write_comparison(clean, "without_reasoning") == traces[0].answer_text.strip()
    assert ContrastPair.from_traces(traces[0], traces[1]).answers


def test_a_written_text_names_the_candidates_as_the_question_does(pairs):
    for clean, corrupted in question_problems(len(pairs)):
        named = candidates(clean.question)[:-1].split(" or ")
        for problem in (clean, corrupted):
            text = write_comparison(problem, "with_reasoning")
            assert f"I compare {named[0]} and {named[1]}." in text
            stated = problem.meta["article"] + problem.answer
            assert stated in named
            assert f"So it must be {stated}.\n</think>" in text


def test_the_authors_pairs_can_be_asked_and_written(paper_data):
    problems = paper_question_problems(197, folder=paper_data)
    for pair in problems:
        for problem in pair:
            text = write_comparison(problem, "with_reasoning")
            assert f"So it must be {problem.answer}." in text
            assert problem.meta["explanation"].isascii()
    assert len({problem.id for pair in problems for problem in pair}) == 2 * 197
    with pytest.raises(FileNotFoundError, match="is not there"):
        paper_question_problems(3, folder="nowhere")
