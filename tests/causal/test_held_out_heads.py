"""The second design for sets of heads: ranked on one half, cut on the other, and its floor."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.attention.weights import attention_rows
from r2a_utils.causal.held_out_heads import ALL, BESIDE, heads_where_written, held_out_heads
from r2a_utils.causal.interventions import Knockout, knockout_heads, measure
from r2a_utils.causal.random_sets import n_possible_sets, random_head_sets
from r2a_utils.causal.sentences import shortened
from r2a_utils.texts.trace import answer_span

RFHS = ((3, 0), (3, 1), (4, 2))


@pytest.fixture(scope="module")
def traces(tiny, world_traces):
    return [shortened(trace, tiny.tokenizer, tiny.tags) for trace in world_traces[:6]]


@pytest.fixture(scope="module")
def lost(tiny, traces):
    return [-np.asarray(knockout_heads(tiny, trace)) for trace in traces]


@pytest.fixture(scope="module")
def found(tiny, traces, lost):
    return held_out_heads(tiny, traces, lost, RFHS, n_sets=40)


def test_the_heads_are_those_that_the_writing_token_reads_with(tiny, traces):
    every = [(layer, head) for layer in range(tiny.n_layers) for head in range(tiny.n_heads)]
    mass = np.zeros(len(every))
    for trace in traces:
        span = answer_span(trace)
        rows = attention_rows(tiny, trace, every, slice(span.start - 1, span.stop - 1))
        mass += rows.values[:, :, trace.segments["reasoning"]].sum(-1).mean(-1)
    by_hand = [every[i] for i in np.argsort(-mass)[:5]]
    assert list(heads_where_written(tiny, traces, 5)) == by_hand


def test_one_half_ranks_and_the_other_is_cut(tiny, traces, lost, found):
    assert (found.n_ranked, found.n_cut, found.k) == (3, 3, 3)
    heads = heads_where_written(tiny, traces[::2], 3)
    changes = [measure(tiny, t, [Knockout(heads=heads)])["change"][0] for t in traces[1::2]]
    first = found.questions[0]
    assert first.question == ALL
    assert first.mean["rfh"] == pytest.approx(np.mean(changes), abs=1e-4)
    assert first.median["rfh"] == pytest.approx(np.median(changes), abs=1e-4)
    others = [trace for i, trace in enumerate(traces) if i % 2 == 0]
    swapped = held_out_heads(tiny, others, lost[::2], RFHS, n_sets=5)
    assert (swapped.n_ranked, swapped.n_cut) == (2, 1)


def test_beside_the_dominating_head_no_set_holds_it_and_the_floor_is_free(found):
    beside = found.questions[-1]
    assert beside.question == BESIDE
    assert beside.n_heads == found.k - found.holds
    assert beside.floor == pytest.approx(2 / 41)
    assert all(question.p >= question.floor or not found.holds for question in found.questions)


def test_no_random_set_holds_a_head_that_is_left_out():
    heads = [(0, 1), (0, 2), (2, 0)]
    for drawn in random_head_sets(heads, 4, 60, without=(0, 3)):
        assert (0, 3) not in drawn
        assert [layer for layer, _ in drawn] == [0, 0, 2]
    assert n_possible_sets(heads, 4) == 6 * 4
    assert n_possible_sets(heads, 4, (0, 3)) == 3 * 4


def test_one_trace_has_no_halves(tiny, traces, lost):
    with pytest.raises(ValueError, match="two halves"):
        held_out_heads(tiny, traces[:1], lost[:1], RFHS)
