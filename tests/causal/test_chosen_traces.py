"""Which right traces are intervened on, and that none of them stops the stage."""

from __future__ import annotations

import pandas as pd
import pytest

from r2a_utils.answers.graded import grade_completions
from r2a_utils.causal.chosen_traces import FEWEST, choose_traces
from r2a_utils.texts.completions import Completion
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import STEM, Trace, answer_span


def written(tokenizer, name, answer="\\boxed{7}", sample=0) -> Trace:
    text = f"{tokenizer.bos_token}3 plus 4?<think>\nIt is 7.\n</think>So {answer}."
    return Trace.from_text(text, tokenizer, problem_id=name, sample=sample)


def graded(traces, wrong=()) -> pd.DataFrame:
    rows = [(t.problem_id, t.sample, t.problem_id not in wrong) for t in traces]
    return pd.DataFrame(rows, columns=["problem_id", "sample", "correct"])


def test_fresh_traces_come_first_and_each_problem_once(tiny):
    traces = [written(tiny.tokenizer, name, sample=i) for name in "abcdef" for i in (0, 1)]
    chosen = choose_traces(tiny, traces, graded(traces, wrong="b"), ranked={"a", "d"}, n=2)
    assert [t.problem_id for t in chosen.traces] == ["c", "e"]
    assert [t.problem_id for t in chosen.others] == ["f", "a"]
    assert chosen.n_fresh == 2
    assert {t.answer_text for t in chosen.traces} == {STEM + "7}"}


def test_few_traces_are_halved_so_that_a_pool_is_left(tiny):
    traces = [written(tiny.tokenizer, name) for name in "abcde"]
    chosen = choose_traces(tiny, traces, graded(traces), ranked=set("a"), n=24)
    assert [t.problem_id for t in chosen.traces] == ["b", "c", "d"]
    assert [t.problem_id for t in chosen.others] == ["e", "a"]


def test_too_few_right_traces_are_counted_with_what_can_be_done(tiny):
    traces = [written(tiny.tokenizer, name) for name in "abc"]
    match = rf"need {FEWEST} right traces .*, have 2: --set n_problems="
    with pytest.raises(ValueError, match=match):
        choose_traces(tiny, traces, graded(traces, wrong="a"), set(), n=4)


@pytest.mark.parametrize(
    "answer",
    [
        "\\boxed{7}",
        "\\boxed {7}",
        "\\fbox{7}",
        "\\fbox {7}",
        "\\boxed{ 7 }",
        "\\boxed{\\text{7}}",
        "\\boxed{\\boxed{7}}",
        "\\boxed{8} no, \\boxed{7}",
        "\\boxed{7} = \\boxed{}",
    ],
)
def test_a_trace_that_is_graded_right_can_be_intervened_on(tiny, answer):
    """Whatever the grader takes for a box, the answer's tokens are found in it."""
    problem = Problem("a", "3 plus 4?", "7")
    trace = written(tiny.tokenizer, "a", answer)
    ids, stop = trace.token_ids, trace.segments["reasoning"].start
    text = "".join(trace.tokens[stop:])
    completion = Completion(
        problem_id="a",
        condition="with_reasoning",
        sample=0,
        model="r2a-tiny",
        settings="",
        prompt_ids=ids[:stop],
        completion_ids=ids[stop:],
        text=text,
        finished=True,
    )
    answers = grade_completions([completion], [problem])
    assert answers["correct"].tolist() == [True]
    traces = [trace, *(written(tiny.tokenizer, name) for name in "bc")]
    everything = pd.concat([answers, graded(traces[1:])])
    chosen = choose_traces(tiny, traces, everything, set(), n=2).traces[0]
    assert "7" in "".join(chosen.tokens[answer_span(chosen)])
