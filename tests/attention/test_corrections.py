"""Which of two values is read after a correction, by a head picked on other traces."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from r2a_utils.attention.corrections import (
    FEWEST_TRACES,
    corrected_values,
    restated_digits,
    value_shares,
)
from r2a_utils.attention.weights import attention_rows
from r2a_utils.tiny import review


def digits(masses: dict[str, np.ndarray]) -> xr.DataArray:
    """Masses [trace, head] of one layer, by token set."""
    values = np.stack([masses[name] for name in ("corrected", "wrong", "denied")], axis=-1)
    return xr.DataArray(
        values[:, None].astype(np.float32),
        dims=("trace", "layer", "head", "token_set"),
        coords={
            "trace": [f"p{i:02}" for i in range(len(values))],
            "layer": [0],
            "head": range(values.shape[1]),
            "token_set": ["corrected", "wrong", "denied"],
        },
    )


def test_a_head_is_picked_on_one_half_and_reported_on_the_other():
    n = 12
    own = np.arange(n) % 2 == 0
    # head 0 is best on the half it is picked on, and reads the wrong value on the other
    corrected = np.stack([np.where(own, 0.9, 0.1), np.full(n, 0.5)], axis=1)
    wrong = np.stack([np.where(own, 0.0, 0.3), np.full(n, 0.25)], axis=1)
    found = corrected_values(
        digits({"corrected": corrected, "wrong": wrong, "denied": np.full((n, 2), 0.1)}), [(0, 1)]
    )
    assert (found.n, found.traces, found.reported_on, found.head) == (n, n, 6, "L0.H0")
    assert found.mass == pytest.approx(0.1)
    assert found.share == pytest.approx(0.25) and found.share_against_later == pytest.approx(0.5)
    assert found.rfhs_share == pytest.approx(2 / 3)
    assert found.all_weighted == pytest.approx((0.5 + 0.5) / (0.5 + 0.5 + 0.15 + 0.25))
    assert (found.n_heads, list(found.readers), found.readers_low) == (2, [], None)


def test_heads_that_give_the_corrected_digit_most_of_their_attention_are_named():
    corrected = np.tile([0.6, 0.2, 0.9], (FEWEST_TRACES, 1))
    rest = np.full_like(corrected, 0.05)
    found = corrected_values(
        digits({"corrected": corrected, "wrong": rest, "denied": rest}), [(0, 0)]
    )
    assert (found.n_heads, found.readers) == (3, ["L0.H2", "L0.H0"])
    assert (found.readers_low, found.readers_high) == pytest.approx((0.6, 0.9))


def test_too_few_traces_have_counts_and_nothing_else():
    ones = np.ones((FEWEST_TRACES - 1, 2))
    found = corrected_values(
        digits(dict.fromkeys(("corrected", "wrong", "denied"), ones)), [(0, 0)]
    )
    assert (found.n, found.traces, found.head, found.share) == (7, 7, None, None)
    assert corrected_values(None, [(0, 0)]).n == 0


def test_the_three_digits_are_those_that_the_restating_query_reads(tiny, world_traces):
    restated = [r for t in world_traces for r in review.restatements(t)]
    found = restated_digits(tiny, world_traces)
    assert found.sizes["trace"] == len(restated) > 0
    first = restated[0]
    row = attention_rows(tiny, first.trace, [(3, 2)], slice(first.query, first.query + 1))
    read = found.isel(trace=0).sel(layer=3, head=2, token_set="corrected")
    assert float(read) == pytest.approx(float(row[0, 0, first.corrected]), abs=1e-6)
    assert value_shares(found)["share"].between(0, 1).all()
    assert restated_digits(tiny, []) is None
