"""Heads that look by distance alone have no excess; a head that follows the borders has one."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.attention.head_tests import distance_test


def traces(n: int = 40):
    """Segments of traces with BOS, a prompt, a reasoning and an answer of various lengths."""
    generator = np.random.default_rng(0)
    for _ in range(n):
        borders = np.cumsum([1, *generator.integers((20, 15, 8), (40, 60, 30))])
        names = ("prompt", "reasoning", "answer")
        yield {
            name: slice(int(a), int(b))
            for name, a, b in zip(names, borders, borders[1:], strict=False)
        }


def weights(kind: str, i: int, places) -> np.ndarray:
    """One row [key] of a head of this kind; a fifth of it rests on BOS."""
    row, back = np.zeros(places["answer"].stop), i - np.arange(places["answer"].stop)
    if kind == "offset":
        row[i - 12] = 1
    elif kind == "decay":
        row[back >= 0] = np.exp(-back[back >= 0] / 10)
    elif kind == "borders":
        row[places["reasoning"]] = 1
    else:
        row[places["prompt"]] = 1
    row[0] = 0
    return 0.8 * row / row.sum() + 0.2 * (np.arange(len(row)) == 0)


KINDS = ("offset", "decay", "borders", "prompt")


@pytest.fixture(scope="module")
def table():
    segments = list(traces())
    rows = [
        np.array(
            [[weights(k, i, places) for i in range(*places["answer"].indices(999))] for k in KINDS]
        )
        for places in segments
    ]
    return distance_test(rows, segments).set_axis(KINDS)


def test_a_head_that_looks_by_distance_has_no_excess(table):
    assert table.loc["offset", "excess"] == pytest.approx(0, abs=1e-12)
    assert table.loc["decay", "excess"] == pytest.approx(0, abs=0.01)
    assert table.loc["offset", "share"] > 0.4  # it reads the reasoning all the same


def test_a_head_that_follows_the_borders_has_one(table):
    assert table.loc["borders", "share"] == pytest.approx(1)
    assert table.loc["borders", "ci_low"] > 0.1
    assert table.loc["prompt", "share"] == 0 and table.loc["prompt", "ci_high"] < 0
