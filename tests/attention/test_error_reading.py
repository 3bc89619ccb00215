"""Readings by sentence, and hits on the first error against chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from r2a_utils.attention.error_reading import (
    answer_contribution,
    answer_read,
    debugging_table,
    error_hits,
    nearest_right,
    sentence_reading,
    top_sentences,
)
from r2a_utils.attention.mass import attention_rows
from r2a_utils.texts.trace import Trace, answer_span, sentences
from r2a_utils.tiny import review

REASONING = "We take three. That makes nine. So it is eight. Let us stop here."


@pytest.fixture(scope="module")
def make_trace(tokenizer):
    def make(answer: str = "It is \\boxed{8}.", **fields) -> Trace:
        text = f"{tokenizer.bos_token}How many? <think>\n{REASONING}\n</think>\n\n{answer}"
        return Trace.from_text(text, tokenizer, **fields)

    return make


def on(trace: Trace, sentence: int) -> np.ndarray:
    """A reader of one sentence alone, and of the prompt."""
    read = np.zeros(len(trace))
    read[sentences(trace)[sentence]] = 0.1
    read[trace.segments["prompt"]] = 5.0
    return read


def test_a_reading_is_summed_by_sentence(make_trace):
    trace = make_trace()
    table = sentence_reading(trace, on(trace, 2))
    assert [t for t in table["text"] if t] == [s + "." for s in REASONING.rstrip(".").split(". ")]
    assert table["share"].tolist() == [0, 0, 1, 0]
    length = table["stop"] - table["start"]
    assert length.sum() == trace.segments["reasoning"].stop - trace.segments["reasoning"].start
    assert table["mass"][2] == pytest.approx(0.1 * length[2])


def test_hits_are_counted_against_exact_chance(make_trace):
    traces = [make_trace() for _ in range(6)]
    errors = [sentences(t)[1] for t in traces]
    readers = {
        "right": [on(t, 1) for t in traces],
        "wrong": [on(t, 3) for t in traces],
        "half": [on(t, 1 if i < 3 else 0) for i, t in enumerate(traces)],
    }
    table = error_hits(traces, errors, readers).set_index("reader")
    assert table["hits"].tolist() == [6, 0, 3] and (table["chance"] == 0.25).all()
    np.testing.assert_allclose(table["p"], binom.sf([5, -1, 2], 6, 0.25))
    assert table.loc["right", "ci_low"] > 0.5 > table.loc["wrong", "ci_high"]


def test_the_answer_s_reading_is_that_of_the_query_before_the_box(make_random_model, make_trace):
    model, trace = make_random_model("qwen2"), make_trace()
    write = answer_span(trace).start
    assert trace.tokens[write].strip().startswith("8")
    rows = attention_rows(model, trace, [(0, 1), (2, 3)], slice(write - 1, write)).values
    read = answer_read(model, trace, [(0, 1), (2, 3)])
    np.testing.assert_allclose(read, rows[:, 0].mean(axis=0), rtol=1e-6)
    assert read.sum() == pytest.approx(1, abs=1e-5)


def test_the_right_trace_beside_it_is_of_its_kind_and_nearest_in_length(make_trace):
    kind = {"family": "arithmetic", "steps": 3}
    wrong = make_trace(meta=kind)
    near = make_trace("Well, it is \\boxed{8}.", problem_id="near", meta=kind)
    far = make_trace("Well, we think that it is \\boxed{8}.", problem_id="far", meta=kind)
    other = make_trace(problem_id="other", meta={"family": "comparison", "steps": 3})
    assert nearest_right(wrong, [far, other, near]).problem_id == "near"
    assert nearest_right(wrong, [other]).problem_id == "other"
    with pytest.raises(ValueError, match="no right trace"):
        nearest_right(wrong, [])


def test_readings_that_do_not_fit_are_refused(make_trace):
    trace = make_trace(problem_id="toy")
    with pytest.raises(ValueError, match=r"trace toy: \d+ tokens, but read"):
        sentence_reading(trace, np.ones(3))
    with pytest.raises(ValueError, match="need one error a trace"):
        error_hits([trace], [], {"a": [on(trace, 0)]})


def test_a_trace_without_a_box_is_refused(make_random_model, make_trace):
    with pytest.raises(ValueError, match=r"no \\boxed"):
        answer_read(make_random_model("qwen2"), make_trace("It is 8."), [(0, 0)])


def test_a_trace_is_debugged_sentence_by_sentence(make_trace):
    trace = make_trace()
    table = debugging_table(trace, on(trace, 2), on(trace, 0), sentences(trace)[1])
    assert list(table) == ["text", "mass", "share", "contribution", "note"]
    assert table["share"].tolist() == [0, 0, 1, 0]
    assert table["note"].tolist() == ["", "first error", "", ""]
    assert table["contribution"][0] > 0 == table["contribution"][2]
    assert (debugging_table(trace, on(trace, 2), on(trace, 0), None)["note"] == "").all()
    assert "contribution" not in debugging_table(trace, on(trace, 2), None, None)


def test_the_top_sentences_are_looked_up_in_the_world_s_own_review(world_traces):
    last, first = (
        top_sentences(world_traces, [on(t, place) for t in world_traces]) for place in (-1, 0)
    )
    assert (last.at_end, last.earlier_n, last.earlier_wrong) == (1, 0, None)
    earlier = [[not s.right for s in review.review(t)][:-2] for t in world_traces]
    earlier = [wrong for wrong in earlier if wrong]
    assert first.at_end < 1 and first.earlier_n == len(earlier)
    assert first.earlier_wrong == np.mean([wrong[0] for wrong in earlier])
    assert first.earlier_by_chance == np.mean([np.mean(wrong) for wrong in earlier]) > 0


def test_contributions_add_up_to_the_heads_own(tiny, world_traces):
    heads = [(0, 1), (3, 2)]
    both = answer_contribution(tiny, world_traces[0], heads)
    alone = [answer_contribution(tiny, world_traces[0], [head]) for head in heads]
    np.testing.assert_allclose(both, np.sum(alone, axis=0), atol=1e-5)
