"""How attention divides over segments: the controls know length and sink, and the sums are kept."""

from __future__ import annotations

import numpy as np
import pytest
from toy_masses import attention_masses

from r2a_utils.attention import (
    answer_by_segment,
    head_scores,
    lift_by_head,
    segment_controls,
    segment_mass,
    summarise_segments,
    uniform_mass,
)
from r2a_utils.texts.trace import SEGMENTS

LENGTHS = np.array([[1, 9, 1, 20, 1, 7], [1, 12, 1, 45, 1, 10], [1, 6, 1, 11, 1, 8]])


def keen(layer, head, segment, query, key):
    """Head (2, 1) prefers reasoning keys nine times over; all others are uniform."""
    return np.where(segment == 3, 9 if (layer, head) == (2, 1) else 1, 1)


@pytest.fixture(scope="module")
def mass():
    return attention_masses(keen, LENGTHS)


def test_the_answer_s_shares_add_up_in_the_order_of_the_text(mass):
    turned = mass.transpose("to_segment", "head", "trace", "from_segment", "layer")
    shares = answer_by_segment(turned)
    assert shares.dims == ("trace", "to_segment") and list(shares.to_segment) == list(SEGMENTS)
    np.testing.assert_allclose(shares.sum("to_segment"), 1)


def test_uniform_heads_have_lift_one_in_every_segment():
    flat = attention_masses(lambda layer, head, s, q, k: np.ones_like(q), LENGTHS)
    controls = segment_controls(flat)
    assert list(controls) == ["mass", "sink-free", "uniform null", "lift"]
    np.testing.assert_allclose(controls["lift"], 1)
    np.testing.assert_allclose(lift_by_head(flat), 1)
    assert controls["sink-free"]["bos"] == 0 and controls["sink-free"].sum() == pytest.approx(1)


def test_the_summary_finds_the_keen_head_and_its_layer(mass):
    flat = attention_masses(lambda layer, head, s, q, k: np.ones_like(q), LENGTHS)
    summary = summarise_segments(mass, flat)
    assert (summary.n, summary.n_layers, summary.n_heads) == (3, 4, 12)
    assert summary.top_layer == 2 and summary.heads_above_uniform == 1
    assert summary.largest_head == pytest.approx(head_scores(mass)["mass"][0])
    assert summary.prefilled == pytest.approx(float(uniform_mass(flat).mean()))
    assert summary.lift_reasoning > 1 and sum(summary.answer.values()) == pytest.approx(1)


def test_one_trace_is_enough(tiny, world_traces):
    (trace,) = world_traces[:1]
    summary = summarise_segments(segment_mass(tiny, [trace]), segment_mass(tiny, [trace]))
    assert summary.n == 1 and 0 < summary.largest_head < 1


def test_masses_without_borders_are_refused(mass):
    with pytest.raises(ValueError, match="segment_start"):
        segment_controls(mass.drop_vars("segment_start"))
