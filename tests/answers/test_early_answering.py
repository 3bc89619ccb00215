"""The reasoning cut short, and what is answered then."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from r2a_utils.answers import early_answering
from r2a_utils.answers.early_answering import (
    area_over_curve,
    early_answers,
    early_curve,
    early_summary,
)
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_completions
from r2a_utils.collecting.loading import load_problems
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import STEM, Trace, encode, forced_ids, sentences


@pytest.fixture(scope="module")
def problems():
    return load_problems("tiny", n=8, seed=5)


@pytest.fixture(scope="module")
def traces(tiny, problems):
    written = collect_completions(tiny, problems, sampling=Sampling(300))
    return [c.to_trace(tiny.tokenizer) for c in written if c.finished][:5]


@pytest.fixture(scope="module")
def early(tiny, traces, problems):
    return early_answers(tiny, traces, problems, [0.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def half(tokenizer):
    """A trace of two sentences whose answer is one half."""
    text = f"{tokenizer.bos_token}1/2?<think>\nIt is half. So 1/2.</think>\n\n\\boxed{{1/2}}"
    return Trace.from_text(text, tokenizer, problem_id="half")


def test_the_answer_after_all_of_it_is_what_generate_of_transformers_writes(
    tiny, traces, early, problems
):
    gold = {p.id: p.answer for p in problems}
    full = early[early.fraction == 1.0].set_index("problem_id")
    for trace in traces:
        ids = torch.tensor([forced_ids(trace, tiny.tokenizer, len(sentences(trace)))])
        out = tiny.hf.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        answer = extract_answer(STEM + tiny.tokenizer.decode(out))
        assert full.answer[trace.problem_id] == answer is not None
        assert full.correct[trace.problem_id] == (answer == gold[trace.problem_id])


def test_each_trace_has_a_row_a_fraction_and_agrees_with_itself_at_the_end(traces, early):
    assert len(early) == 3 * len(traces)
    for trace, (_, rows) in zip(traces, early.groupby("problem_id", sort=False), strict=True):
        n = len(sentences(trace))
        assert rows.problem_id.iloc[0] == trace.problem_id
        assert rows.kept.tolist() == [0, int(n / 2 + 0.5), n]
        assert rows.same_as_full.iloc[-1]
        same = rows.answer == rows.answer.iloc[-1]  # the bundled world's answers need no algebra
        assert rows.same_as_full.tolist() == same.tolist()


def test_fractions_do_not_change_each_other(tiny, traces, early, problems):
    alone = early_answers(tiny, traces, problems, [0.5], batch_size=1)
    pd.testing.assert_frame_equal(alone, early[early.fraction == 0.5].reset_index(drop=True))


@pytest.mark.parametrize(
    ("written", "answer", "correct"),
    [
        ("\\frac{1}{2}}. Or \\boxed{9}", "\\frac{1}{2}", True),
        ("0.5}", "0.5", True),
        ("9}, no: \\boxed{1/2}", "9", False),
        ("\\frac{1}{2", None, False),
        ("", None, False),
    ],
)
def test_the_first_box_that_closes_is_the_answer(tiny, half, monkeypatch, written, answer, correct):
    def decode(model, prompts, sampling, batch_size):
        for index in range(len(prompts)):
            yield index, encode(model.tokenizer, written), True

    monkeypatch.setattr(early_answering, "decode", decode)
    frame = early_answers(tiny, [half], [Problem("half", "1/2?", "1/2")])
    assert set(frame.answer) == {answer}
    assert set(frame.correct) == {correct}
    assert set(frame.same_as_full) == {answer is not None}


def test_a_cut_outside_the_reasoning_or_an_unknown_problem_is_refused(tiny, half):
    problem = Problem("half", "1/2?", "1/2")
    with pytest.raises(ValueError, match="share of the sentences, 0 to 1"):
        early_answers(tiny, [half], [problem], [0.5, 1.2])
    for known in ([], [Problem("half", "1/2?")]):
        with pytest.raises(ValueError, match="no known answer for trace 'half'"):
            early_answers(tiny, [half], known)


def forced(**same: list[bool]) -> pd.DataFrame:
    rows = [
        {"problem_id": name, "fraction": fraction, "correct": value, "same_as_full": value}
        for name, values in same.items()
        for fraction, value in zip((0.0, 0.5, 1.0), values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_area_says_how_much_of_the_reasoning_is_needed():
    frame = forced(at_once=[True] * 3, late=[False, False, True], early=[False, True, True])
    areas = area_over_curve(frame)
    assert areas.to_dict() == {"at_once": 0.0, "late": 0.75, "early": 0.25}
    curve = early_curve(frame)
    curve = curve[curve.series == "same as after all of it"]
    assert areas.mean() == pytest.approx(1 - np.trapezoid(curve.value, curve.fraction))
    assert curve.value.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert (curve.ci_low.iloc[0], curve.ci_high.iloc[0]) == wilson_interval(1, 3)
    with pytest.raises(ValueError, match="needs the fractions 0 and 1"):
        area_over_curve(frame[frame.fraction > 0])


def test_the_summary_is_of_problems_and_of_their_own_answers():
    shares = {"a": [False, False, True, True], "b": [True, True, True, True]}
    rows = [
        {"problem_id": name, "sample": sample, "fraction": fraction, "correct": value}
        | {"same_as_full": value}
        for name, values in shares.items()
        for sample in (0, 1)
        for fraction, value in zip((0.0, 0.5, 0.8, 1.0), values, strict=True)
    ]
    own = [
        {"problem_id": name, "sample": sample, "condition": "with_reasoning", "correct": right}
        for name, sample, right in (("a", 0, True), ("a", 1, False), ("b", 0, True), ("b", 1, True))
    ]
    early = pd.DataFrame(rows)
    found = early_summary(early, pd.DataFrame(own))
    assert (found.n, found.right_at_0, found.right_at_80, found.right_at_100) == (2, 0.5, 1, 1)
    assert found.right_unforced == 0.75
    assert found.area == pytest.approx((0.5 + 0.3 / 2) / 2)
    assert found.most == pytest.approx(0.9)
    one = early_summary(early[early.problem_id == "b"], pd.DataFrame(own))
    assert (one.n, one.area, one.ci_low) == (1, 0, None)


def test_without_traces_there_is_an_empty_table_and_nothing_to_draw(tiny):
    early = early_answers(tiny, [], [])
    assert len(early) == 0 and "same_as_full" in early
    found = early_summary(early, pd.DataFrame())
    assert (found.n, found.area, found.right_at_0) == (0, None, None)
    with pytest.raises(ValueError, match="needs 1 finished trace with reasoning, has 0"):
        early_curve(early)
