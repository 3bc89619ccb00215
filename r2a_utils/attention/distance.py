"""What a head would read if it looked by distance only: its own profile, found on other traces.

A head that always looks twenty tokens back reads much of the reasoning, and walks along it, without
knowing of it. Its weights by distance are the null of stage 04's ranking and of stage 04b's walks.

A row can only look as far back as the trace begins, so that a mean over rows would give short rows
too much: the profile is the maximum-likelihood one of right-truncated data, in closed form (the
product-limit estimator of Lynden-Bell 1971, Woodroofe 1985). And it is taken from all other traces
(cross-fitted), so that a trace never explains itself.

Where a model rests the attention that it has no use for, its sink (`sinks.find_sink`), is left out
of all of it; of a model without one, as the bundled one, nothing is left out. This file runs no
model, and is told where the sink is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from r2a_utils.stats import bootstrap_mean_intervals

Counts = Float[np.ndarray, "2 *head distance"]
"""Sums over rows: [0] weight on the token so far back, [1] weight up to there, of rows that see it.

The row's own token is at distance 0; the sink is left out.
"""


def reads_by_distance(
    weights: Float[Tensor, "head row token"], first: int, sink: int | None
) -> Float[Tensor, "2 head token"]:
    """`Counts` of rows of attention, of which the first is the row of token `first`.

    `sink` is the token that is left out, None for none.
    """
    rows = torch.arange(first, first + weights.shape[1], device=weights.device)
    keys = rows[:, None] - torch.arange(weights.shape[2], device=weights.device)
    seen = ((keys >= 0) & (keys != (-1 if sink is None else sink))).to(weights)
    by_distance = weights.gather(-1, keys.clamp(min=0).expand(weights.shape)) * seen
    return torch.stack([by_distance.sum(1), (by_distance.cumsum(-1) * seen).sum(1)])


def distance_profile(counts: Counts) -> Float[np.ndarray, "*head distance"]:
    """Share of a head's attention (off the sink) on tokens up to each distance; the last is 1.

    NaN for a head that reads nothing in these rows.
    """
    read, within = counts.astype(np.float64)
    hazard = np.divide(read, within, out=np.zeros_like(read), where=within > 0)
    beyond = np.cumprod((1 - hazard.clip(max=1))[..., ::-1], axis=-1)[..., ::-1]
    up_to = np.concatenate([beyond[..., 1:], np.ones_like(beyond[..., :1])], axis=-1)
    return np.where(within.any(axis=-1, keepdims=True), up_to, np.nan)


def others_profiles(
    counts: Sequence[Float[np.ndarray, "2 *head _"]],
) -> list[Float[np.ndarray, "*head distance"]]:
    """For each trace the `distance_profile` of all others, as long as the longest; NaN for one."""
    longest = max(count.shape[-1] for count in counts)
    padded = [np.pad(c, [(0, 0)] * (c.ndim - 1) + [(0, longest - c.shape[-1])]) for c in counts]
    total = np.sum(padded, axis=0, dtype=np.float64)
    return [distance_profile(total - own) for own in padded]


def share_by_distance(
    up_to: Float[np.ndarray, "*head distance"],
    queries: Int[np.ndarray, " query"],
    span: slice,
    sink: int | None,
) -> Float[np.ndarray, "*head query"]:
    """What each query would give to a span of keys behind it, of all that is not on the sink."""

    def off_sink(start: int, stop: int | Int[np.ndarray, " query"]):
        taken = _at(up_to, queries - start) - _at(up_to, queries - stop)
        if sink is None or not start <= sink < np.min(stop):
            return taken
        return taken - (_at(up_to, queries - sink) - _at(up_to, queries - sink - 1))

    inside, seen = off_sink(span.start, span.stop), off_sink(0, queries + 1)
    return np.divide(inside, seen, out=np.full_like(inside, np.nan), where=seen > 0)


def place_by_distance(
    up_to: Float[np.ndarray, "*head distance"], queries: Int[np.ndarray, " query"], span: slice
) -> Float[np.ndarray, "*head query"]:
    """The mean place within a span of keys that each query would attend to, in tokens.

    NaN where the profile gives the span nothing.
    """
    weight = np.diff(up_to, axis=-1, prepend=0)
    moment = np.cumsum(weight * np.arange(weight.shape[-1]), axis=-1)
    far, near = queries - span.start, queries - span.stop
    inside = _at(up_to, far) - _at(up_to, near)
    back = _at(moment, far) - _at(moment, near)
    # Differences of sums near 1: below the last digits there is nothing but rounding.
    known = inside > 1e-9
    return queries - np.divide(back, inside, out=np.full_like(inside, np.nan), where=known)


def _at(up_to: Float[np.ndarray, "*head distance"], distance: Int[np.ndarray, " query"]):
    """A running sum at distances; 0 in front of it, its end beyond it."""
    padded = np.concatenate([np.zeros_like(up_to[..., :1]), up_to], axis=-1)
    return padded[..., np.clip(distance + 1, 0, up_to.shape[-1])]


def distance_test(
    rows: Sequence[np.ndarray],
    segments: Sequence[Mapping[str, slice]],
    sink: int | None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How much more of the reasoning each head reads than its distance profile alone would give.

    rows: for each trace the answer's rows [head, query, key]; segments: each trace's; sink: the
    model's (`find_sink`), left out of all shares, None for none. Columns (a row a head, in the
    order given) share (of the head's attention off the sink, on the reasoning),
    by_distance (the same if it looked by distance only, as it does in the other traces), excess,
    ci_low, ci_high (95% bootstrap over traces); a single trace has no others, and NaN there.
    Stage 04.
    """
    counts = [
        reads_by_distance(torch.as_tensor(row), places["answer"].start, sink).numpy()
        for row, places in zip(rows, segments, strict=True)
    ]
    shares, expected = [], []
    for row, places, up_to in zip(rows, segments, others_profiles(counts), strict=True):
        queries = np.arange(places["answer"].start, places["answer"].stop)
        off_sink = row if sink is None else np.delete(row, sink, axis=-1)
        total = off_sink.sum(axis=-1)
        shares.append((row[..., places["reasoning"]].sum(axis=-1) / total).mean(axis=-1))
        by_distance = share_by_distance(up_to, queries, places["reasoning"], sink)
        expected.append(by_distance.mean(axis=-1))
    shares, expected = np.array(shares), np.array(expected)
    low, high = np.full((2, shares.shape[1]), np.nan)
    if len(rows) > 1:
        low, high = bootstrap_mean_intervals(shares - expected, seed=seed)
    share, by_distance = shares.mean(axis=0), expected.mean(axis=0)
    excess = share - by_distance
    columns = {"share": share, "by_distance": by_distance, "excess": excess}
    return pd.DataFrame({**columns, "ci_low": low, "ci_high": high})


def places_beyond_distance(profiles: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """`attention_profile`s of traces with one more variable, `beyond` [layer, head, query].

    It is the mean attended place less the one that the head's distance profile gives, in tokens:
    what a walk along the reasoning owes to what stands there, to a hundredth of a token, so that
    rounding is no walk. 0 where the other traces know nothing of that distance. Stage 04b.
    """
    found = []
    counts = [profile["by_distance"].values for profile in profiles]
    for profile, up_to in zip(profiles, others_profiles(counts), strict=True):
        span = slice(profile.attrs["first_key"], profile.attrs["last_key"] + 1)
        expected = place_by_distance(up_to, profile["query"].values, span)
        beyond = profile["mean_position"] - expected
        found.append(profile.assign(beyond=beyond.fillna(0.0).round(2)))
    return found
