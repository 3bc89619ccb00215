"""Heads that look by distance alone have no excess; a head that follows the borders has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from r2a_utils.attention.distance import (
    distance_profile,
    distance_test,
    place_by_distance,
    reads_by_distance,
    share_by_distance,
)
from r2a_utils.attention.trajectories import best_tracking, tracking_and_beyond


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


def weights(kind: str, i: int, places, sink: int | None = 0) -> np.ndarray:
    """One row [key] of a head of this kind; a fifth of it rests on the sink, if there is one."""
    row, back = np.zeros(places["answer"].stop), i - np.arange(places["answer"].stop)
    if kind == "offset":
        row[i - 12] = 1
    elif kind == "decay":
        row[back >= 0] = np.exp(-back[back >= 0] / 10)
    elif kind == "growing":
        row[back >= 0] = (1 + back[back >= 0]) ** 1.5
    elif kind == "borders":
        row[places["reasoning"]] = 1
    else:
        row[places["prompt"]] = 1
    if sink is None:
        return row / row.sum()
    row[sink] = 0
    return 0.8 * row / row.sum() + 0.2 * (np.arange(len(row)) == sink)


KINDS = ("offset", "decay", "growing", "borders", "prompt")


def rows_of(places, sink: int | None, kinds=KINDS) -> np.ndarray:
    queries = range(*places["answer"].indices(999))
    return np.array([[weights(kind, i, places, sink) for i in queries] for kind in kinds])


@pytest.fixture(scope="module", params=[0, 3, None], ids=lambda sink: f"sink {sink}")
def table(request):
    """With the sink on the first token, on one of the prompt, and with none at all."""
    segments = list(traces())
    rows = [rows_of(places, request.param) for places in segments]
    return distance_test(rows, segments, request.param).set_axis(KINDS)


def test_a_head_that_looks_by_distance_has_no_excess(table):
    assert table.loc["offset", "excess"] == pytest.approx(0, abs=1e-12)
    assert table.loc["decay", "excess"] == pytest.approx(0, abs=0.01)
    assert table.loc["growing", "excess"] == pytest.approx(0, abs=0.01)
    assert table.loc["offset", "share"] > 0.4  # it reads the reasoning all the same


def test_a_head_that_follows_the_borders_has_one(table):
    assert table.loc["borders", "share"] == pytest.approx(1)
    assert table.loc["borders", "ci_low"] > 0.1
    assert table.loc["prompt", "share"] == 0 and table.loc["prompt", "ci_high"] < 0


def test_a_profile_of_truncated_rows_is_the_one_that_they_were_cut_from():
    """Rows of a known profile, cut to what each can see and scaled to 1: the profile comes back."""
    known = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
    rows = np.zeros((1, 5, 6))
    for row, i in enumerate(range(1, 6)):  # row of token i sees the distances 0 to i - 1
        rows[0, row, i:0:-1] = known[:i] / known[:i].sum()
    counts = reads_by_distance(torch.from_numpy(rows), first=1, sink=0).numpy()
    up_to = distance_profile(counts)
    np.testing.assert_allclose(up_to, [[*known.cumsum(), 1.0]], rtol=0, atol=1e-12)


def test_what_rests_on_a_sink_counts_nowhere_and_without_one_all_counts():
    """A row of the third token: half of it on the first, a quarter each on the others."""
    row = torch.tensor([[[0.5, 0.25, 0.25]]])
    read, within = reads_by_distance(row, first=2, sink=None)
    assert (read.tolist(), within.tolist()) == ([[0.25, 0.25, 0.5]], [[0.25, 0.5, 1.0]])
    read, within = reads_by_distance(row, first=2, sink=0)
    assert (read.tolist(), within.tolist()) == ([[0.25, 0.25, 0]], [[0.25, 0.5, 0]])
    read, within = reads_by_distance(row, first=2, sink=1)
    assert (read.tolist(), within.tolist()) == ([[0.25, 0, 0.5]], [[0.25, 0, 0.75]])
    up_to, query, span = np.array([[0.25, 0.5, 1.0]]), np.array([2]), slice(1, 2)
    shares = [share_by_distance(up_to, query, span, sink).item() for sink in (None, 0, 1, 2)]
    assert shares == pytest.approx([0.25, 0.5, 0, 1 / 3])


def test_the_place_by_distance_is_the_mean_of_the_span():
    up_to = np.cumsum([[0.5, 0.25, 0.25, 0, 0]], axis=1)
    # From token 7: distance 1 and 2, that is tokens 6 and 5, lie in the span 3 to 6.
    place = place_by_distance(up_to, np.array([7]), slice(3, 7))
    assert place.item() == pytest.approx(5.5)
    assert np.isnan(place_by_distance(up_to, np.array([9]), slice(3, 7))).all()


def test_a_single_trace_has_no_others():
    segments = next(traces(1))
    table = distance_test([rows_of(segments, 0, ["decay"])], [segments], 0)
    assert table["share"].notna().all() and table["excess"].isna().all()


def profiled(kind: str, places, scale: float) -> xr.Dataset:
    """One head's profile: it looks a fixed way back, or walks `scale` times faster."""
    reasoning, answer = places["reasoning"], places["answer"]
    queries = np.arange(answer.start, answer.stop)
    if kind == "fixed":
        centre = queries - 30.0
    else:
        centre = reasoning.start + scale * (queries - answer.start)
    keys = np.arange(answer.stop)
    rows = np.exp(-0.5 * ((keys - centre[:, None]) / 2) ** 2) * (keys <= queries[:, None])
    rows[:, 0] = 0
    rows = (rows / rows.sum(1, keepdims=True))[None]
    span = rows[..., reasoning]
    place = span @ np.arange(reasoning.start, reasoning.stop) / span.sum(-1)
    counts = reads_by_distance(torch.from_numpy(rows), answer.start, 0).numpy()[:, None]
    return xr.Dataset(
        {
            "mean_position": (("layer", "head", "query"), place[None]),
            "by_distance": (("sum", "layer", "head", "distance"), counts),
        },
        coords={"query": queries},
        attrs={"first_key": reasoning.start, "last_key": reasoning.stop - 1},
    )


@pytest.mark.parametrize(("kind", "walks"), [("fixed", False), ("walk", True)])
def test_a_walk_at_a_fixed_distance_is_none_beyond_it(kind, walks):
    profiles = [profiled(kind, p, scale=2.0) for p in traces(30)]
    table = tracking_and_beyond(profiles, [(0, 0)]).iloc[0]
    assert table["rho"] > 0.9 and table["p_familywise"] < 0.01
    if walks:
        assert table["beyond_low"] > 0.3 and table["beyond_p"] < 0.01
    else:
        assert abs(table["beyond"]) < 0.3 and table["beyond_p"] > 0.05
    best = best_tracking(tracking_and_beyond(profiles, [(0, 0)]))
    assert best.beyond_rfhs == int(walks)
    assert (best.beyond, best.beyond_best) == (table["beyond"], "L0.H0")
