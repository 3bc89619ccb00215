"""What random weights show is measured by the same code, and is never taken for the model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_masses import attention_masses

from r2a_utils.attention.mass import segment_mass
from r2a_utils.attention.untrained import (
    Looking,
    beside_untrained,
    following_of,
    heads_beyond,
    looking,
    looking_of,
    ranking_of,
)
from r2a_utils.models import untrained_twin


def test_a_twin_has_the_shapes_of_the_model_and_none_of_its_weights(tiny):
    first, again, other = (untrained_twin(tiny, seed=seed) for seed in (0, 0, 1))
    own = tiny.hf.state_dict()
    for name, weight in first.hf.state_dict().items():
        assert weight.shape == own[name].shape and weight.dtype == own[name].dtype
        assert torch.equal(weight, again.hf.state_dict()[name])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.allclose(first.hf.state_dict()[name], own[name], atol=1e-3)
    assert not torch.equal(first.hf.state_dict()[name], other.hf.state_dict()[name])
    assert first.name == f"untrained {tiny.name}" and first.tokenizer is tiny.tokenizer


def test_beside_stand_the_largest_of_the_twins(tiny, world_traces):
    traces = world_traces[:3]
    own = looking(segment_mass(tiny, traces))
    beside = beside_untrained(tiny, own, looking_of(traces), 2)
    twins = [looking(segment_mass(untrained_twin(tiny, seed=s), traces)) for s in (0, 1)]
    assert beside.untrained["largest_lift"] == max(twin.largest_lift for twin in twins)
    assert beside.untrained["lift"] == pytest.approx(1, abs=0.01)  # they look at all alike
    assert list(beside.table("it").index) == ["it", "largest of 2 untrained"]
    assert beside_untrained(tiny, own, looking_of(traces), 0).untrained == {}


def test_looking_counts_heads_above_a_uniform_one_and_above_a_bound():
    lengths = [[1, 5, 1, 9, 1, 4]] * 2
    mass = attention_masses(lambda la, h, s, q, k: np.where(s == 3, 1 + 2 * (la == 1), 1), lengths)
    found = looking(mass)
    assert found.above_uniform == 3 and found.largest_lift > 1.2
    assert heads_beyond(mass, 1.2) == 3 and heads_beyond(mass, found.largest_lift) == 0
    assert isinstance(found, Looking)


def test_an_untrained_model_ranks_stably_and_passes_the_borders(tiny, world_traces):
    """Why the twins stand there: reliability and borders alone would call them a finding."""
    found = ranking_of(world_traces, k=5, n_shuffles=30, n_watched=6)(untrained_twin(tiny))
    assert found.reliability > 0.7 and found.above_null >= 3


def test_the_walk_of_a_model_is_that_of_its_own_heads(tiny, world_traces):
    long = [t for t in world_traces if t.segments["answer"].stop - t.segments["answer"].start >= 30]
    found = following_of(world_traces[:8], long[:4], [], k=3)(untrained_twin(tiny))
    assert -1 <= found.beyond <= found.rho <= 1 and found.cue_lift is None
