"""The same borders on another text: what is left belongs to places alone."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.attention.heads import rank_heads
from r2a_utils.attention.mass import segment_mass
from r2a_utils.attention.other_texts import on_other_text
from r2a_utils.attention.prose import PROSE


def test_heads_that_know_no_words_read_any_text_alike(make_random_model, random_trace):
    """Without queries the heads of a layer are uniform, on the traces as on the prose."""
    model = make_random_model("qwen2", seed=2)
    model.hf.model.layers[0].self_attn.q_proj.weight.zero_()
    model.hf.model.layers[0].self_attn.q_proj.bias.zero_()
    traces = [random_trace(seed=i, reasoning=20 + i) for i in range(4)]
    mass = segment_mass(model, traces)
    found = on_other_text(model, mass, traces, PROSE, [(0, 1), (0, 3)])
    assert found.excess == pytest.approx(0, abs=1e-6) and found.n == 4
    assert found.largest > found.mean_mass  # that of a head with queries


def test_what_is_read_more_on_the_traces_is_counted_trace_by_trace(make_random_model, random_trace):
    model = make_random_model("qwen2", seed=1)
    traces = [random_trace(seed=i, reasoning=30) for i in range(3)]
    mass = segment_mass(model, traces)
    heads = list(rank_heads(mass, k=2)[["layer", "head"]].itertuples(index=False, name=None))
    found = on_other_text(model, mass, traces[:2], PROSE, heads)
    more = on_other_text(model, mass + 0.1, traces[:2], PROSE, heads)
    assert found.n == 2 and more.excess == pytest.approx(found.excess + 0.1, abs=1e-6)
    assert found.low <= found.excess <= found.high
    assert np.isclose(more.mean_mass, found.mean_mass)  # of the other text
