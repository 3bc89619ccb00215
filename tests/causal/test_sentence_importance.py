"""Many traces by their sentences: single measures again, and sums by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from r2a_utils.attention.weights import attention_rows
from r2a_utils.causal.sentence_importance import (
    CORRELATED,
    FEWEST_SENTENCES,
    LAST_COSTS_MOST,
    NEEDED,
    NOISE,
    ManyTraces,
    agreement,
    example_of,
    needed_share,
    over_many_traces,
    read_by_sentence,
    summarised_sentences,
)
from r2a_utils.causal.sentences import forced_answers, sentence_knockouts, shortened
from r2a_utils.stats import wilson_interval
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode, sentences
from r2a_utils.tiny.world import contrast_problems, write_text

HEADS = ((0, 1), (2, 3))


@pytest.fixture(scope="module")
def model(make_random_model):
    return make_random_model("llama-wide-heads", seed=2)


@pytest.fixture(scope="module")
def traces(tokenizer):
    texts = ["We take 3. Now 4. Both are 7. So 7. Wait. It is 7.", "Seven. Yes."]
    return [
        Trace.from_text(
            f"{tokenizer.bos_token}3 plus 4?<think>\n{text}\n</think>It is \\boxed{{7}}.",
            tokenizer,
            problem_id=f"p{i}",
        )
        for i, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def many(model, traces):
    return over_many_traces(model, traces, HEADS, seed=1)


RESAMPLED = pd.DataFrame({"share": [0.1, 0.5], "n": [30, 30], "unfinished": [3, 0]})


def test_the_example_has_nearly_as_many_sentences_as_a_page_shows(traces):
    assert example_of(traces[::-1]) is traces[0]


def test_what_a_sentence_is_read_is_the_sum_over_its_tokens(model, traces):
    read = read_by_sentence(model, traces[0], HEADS)
    rows = attention_rows(model, traces[0], HEADS).mean(("head", "query"))
    parts = sentences(traces[0])
    assert len(read) == len(parts)
    assert read[1] == pytest.approx(float(rows[parts[1]].sum()))
    assert 0 < sum(read) < 1


def test_costs_are_those_of_the_knockouts_and_are_ranked_where_they_are_no_noise(
    model, traces, many
):
    for trace, cost in zip(traces, many.costs, strict=True):
        expected = -sentence_knockouts(model, trace, spans=1)["change"]
        np.testing.assert_allclose(cost, expected, atol=1e-4)
    ranked = [c for c in many.dear if len(c) >= FEWEST_SENTENCES]
    assert len(many.agreements) == len(ranked)


def test_agreement_is_spearman_s_correlation(model, traces):
    cost = np.arange(len(sentences(traces[0])), dtype=float)[::-1].copy()
    found = agreement(model, traces[0], HEADS, knockouts(traces[0], cost))
    assert list(found) == list(CORRELATED)
    assert found["place"] == pytest.approx(-1)
    read = read_by_sentence(model, traces[0], HEADS)
    assert found["read"] == pytest.approx(spearmanr(read, cost)[0])
    assert np.isnan(found["place_taken_away"])  # the place says it all


def knockouts(trace, cost, random=np.nan) -> pd.DataFrame:
    """What `sentence_knockouts` would tell if its sentences had this cost and random spans that."""
    ends = [(span.start, span.stop) for span in sentences(trace)]
    table = pd.DataFrame(ends, columns=["start", "stop"])
    return table.assign(change=-np.asarray(cost), random_mean=-np.asarray(random))


def test_what_long_sentences_cost_for_their_length_alone_goes_with_the_length(model, traces):
    """Each costs as much as a random span of its length, but for one that costs more."""
    length = np.array([span.stop - span.start for span in sentences(traces[0])], dtype=float)
    read = np.array(read_by_sentence(model, traces[0], HEADS))
    per_token = read / length
    more = 0.1 * per_token.argsort().argsort()
    found = agreement(model, traces[0], HEADS, knockouts(traces[0], length + more, length))
    assert found["length_taken_away"] == pytest.approx(1)
    found = agreement(model, traces[0], HEADS, knockouts(traces[0], length - more, length))
    assert found["length_taken_away"] == pytest.approx(-1)
    found = agreement(model, traces[0], HEADS, knockouts(traces[0], length))
    assert np.isnan(found["length_taken_away"])  # no random span fits
    assert found["read"] == pytest.approx(spearmanr(read, length)[0])


def test_a_trace_that_no_random_span_fits_is_counted_without_it():
    rows = [(0.5, 0.4, 0.3, 0.2, 0.1), (0.7, 0.4, 0.3, 0.2, np.nan)]
    told = hand_made([[0.0, 1.0]] * 2, agreements=rows).correlations()
    assert (told["read"]["n"], told["length_taken_away"]["n"]) == (2, 1)
    assert told["length_taken_away"]["mean"] == 0.1 and told["length_taken_away"]["low"] is None


def test_an_answer_that_is_never_written_needs_no_share(model, traces):
    written = forced_answers(model, traces[0])["written"]
    assert not written.iloc[-1] and np.isnan(needed_share(model, traces[0]))


def test_the_needed_share_is_the_area_over_the_curve(tiny):
    problem = contrast_problems(1)[0][0]
    ids = render_prompt(tiny.tokenizer, problem.question)
    ids += encode(tiny.tokenizer, write_text(problem, "with_reasoning"))
    trace = shortened(Trace.from_ids(ids, tiny.tokenizer, problem_id="a"), tiny.tokenizer)
    written = forced_answers(tiny, trace)["written"].to_numpy(float)
    assert written[-1] == 1
    steps = 1 / (len(written) - 1)
    area = 1 - sum((a + b) / 2 * steps for a, b in pairwise(written))
    assert needed_share(tiny, trace) == pytest.approx(area)


def hand_made(costs, needed=(), agreements=()) -> ManyTraces:
    frame = pd.DataFrame(list(agreements), columns=list(CORRELATED) if agreements else None)
    return ManyTraces(np.array(needed, dtype=float), [np.array(c) for c in costs], frame, 0)


def test_the_last_sentence_counts_among_dear_traces_only():
    found = hand_made([[0.0, 1.0], [2.0, 1.0], [0.0, NOISE / 2], [0.0, 0.0, 3.0]], needed=[0.5, 1])
    assert len(found.dear) == 3 and found.last == 2
    table = found.table()
    assert table.loc[NEEDED, ["mean", "traces"]].tolist() == [0.75, 2]
    assert table.loc[LAST_COSTS_MOST].tolist() == pytest.approx([2 / 3, *wilson_interval(2, 3), 3])
    told = summarised_sentences(found, RESAMPLED, 256)
    assert (told.n, told.dear_n, told.needed) == (4, 3, 0.75)
    assert (told.first_share, told.last_share, told.samples) == (0.1, 0.5, 30)
    assert told.unfinished == 0.05 and told.agreement == {}


def test_one_trace_has_a_correlation_and_no_interval():
    found = hand_made([[0.0, 1.0]], agreements=[(0.5, 0.4, 0.3, 0.2, 0.1)])
    told = summarised_sentences(found, RESAMPLED, 256)
    assert told.agreement["read"] == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_nothing_is_told_where_no_trace_says_anything():
    found = hand_made([[0.0, 0.01]])
    told = summarised_sentences(found, RESAMPLED, 256)
    assert told.needed is None and told.last_strongest is None and told.dear_n == 0
    assert found.table().index.tolist() == [NEEDED]
