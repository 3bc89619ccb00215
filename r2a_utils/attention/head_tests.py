"""May a ranking of heads be trusted: tests of it against nulls, and what they come to.

Against turned borders, against each head's own profile by distance, against an even spread over the
layers, and against other lists of heads. The ranking itself is in `heads.py`; this file runs no
model. Shown in stage 04.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from r2a_utils.attention.heads import Head, Masses, answer_mass
from r2a_utils.figures.style import head_name
from r2a_utils.stats import (
    LEVEL,
    Reliability,
    bootstrap_mean_intervals,
    empirical_p,
    overlap_p,
)


def shuffled_borders(
    segments: dict[str, slice], draws: int, seed: int = 0
) -> Bool[np.ndarray, "draw token"]:
    """Spans as long as the reasoning at random places before the answer: bool [draw, token].

    What lies between BOS and the answer is taken as a ring, and the reasoning's borders are turned
    along it by a random number of tokens, never by none. The mass on these token sets is the null
    of `border_test`. It keeps the reasoning's length, and so excludes a head that reads any span
    before the answer alike. It does not exclude recency: the reasoning is the one span of the ring
    that reaches up to the answer, so that a head which looks ten or sixty tokens back, knowing
    nothing of borders, passes (`distance_test` is for that). Where the reasoning fills
    nearly all of the ring the spans overlap it and the test can find little.
    """
    first, last = segments["bos"].stop, segments["answer"].start
    inside = np.zeros(last - first, dtype=bool)
    reasoning = segments["reasoning"]
    inside[reasoning.start - first : reasoning.stop - first] = True
    turns = np.random.default_rng(seed).integers(1, len(inside), size=draws)
    spans = np.zeros((draws, segments["answer"].stop), dtype=bool)
    for draw, turn in enumerate(turns):
        spans[draw, first:last] = np.roll(inside, turn)
    return spans


def turned_reasonings(
    segments: dict[str, slice], draws: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """`shuffled_borders` as token sets for `token_set_mass`: draw → token indices."""
    spans = shuffled_borders(segments, draws, seed=seed)
    return {str(draw): np.flatnonzero(span) for draw, span in enumerate(spans)}


def border_test(mass: Masses, shuffled: Float[xr.DataArray, "_ _ _ _"]) -> pd.DataFrame:
    """Does a head read the reasoning more than equally long spans elsewhere? A row a head.

    A head with a taste for recent text does as well: see `shuffled_borders`.

    shuffled: the answer's mass on `shuffled_borders`, dims (trace, layer, head, token_set).
    Columns layer, head, mass, null (mean), p, p_familywise. p compares the head with its own null;
    p_familywise with the largest excess over the null mean among all heads in each draw, which pays
    for having picked the best of many heads.
    Raises ValueError where the two have other heads.
    """
    observed = answer_mass(mass, "reasoning").mean(axis=0)
    null = shuffled.transpose("token_set", "trace", "layer", "head").values.mean(axis=1)
    if null.shape[1:] != observed.shape:
        raise ValueError(f"the null has heads {null.shape[1:]}, the masses {observed.shape}")
    expected = null.mean(axis=0)
    largest = (null - expected).reshape(len(null), -1).max(axis=1)
    rows = []
    for at in np.ndindex(observed.shape):
        p = empirical_p(observed[at], null[:, *at])
        p_familywise = empirical_p(observed[at] - expected[at], largest)
        rows.append((*at, observed[at], expected[at], p, p_familywise))
    table = pd.DataFrame(rows, columns=["layer", "head", "mass", "null", "p", "p_familywise"])
    return table.sort_values("mass", ascending=False, ignore_index=True)


def distance_test(
    rows: Sequence[np.ndarray], segments: Sequence[Mapping[str, slice]], *, seed: int = 0
) -> pd.DataFrame:
    """How much more of the reasoning each head reads than its distance profile alone would give.

    rows: for each trace the answer's rows [head, query, key]; segments: each trace's. A head's
    profile is its mean attention by distance from the query, over all queries of all traces that
    have a token there; BOS is left out. Looking by distance only is the profile, cut to what a
    query can see and scaled to 1. Columns (a row a head, in the order given) share (of the head's
    attention off BOS, on the reasoning), by_distance (the same if it looked by distance only),
    excess, ci_low, ci_high (95% bootstrap over traces).

    The profile comes from the same queries, so that a head of distance alone has no excess, and one
    that follows the borders keeps only as much as the borders move against the query: the test
    errs on the side of distance.
    """
    n_heads, longest = len(rows[0]), max(row.shape[-1] for row in rows)
    total, seen = np.zeros((n_heads, longest)), np.zeros(longest)
    for row, places in zip(rows, segments, strict=True):
        for query, i in enumerate(range(places["answer"].start, places["answer"].stop)):
            total[:, :i] += row[:, query, i:0:-1]
            seen[:i] += 1
    profile = total / np.maximum(seen, 1)
    up_to = np.concatenate([np.zeros((n_heads, 1)), profile.cumsum(axis=1)], axis=1)
    shares, expected = np.zeros((2, len(rows), n_heads))
    for trace, (row, places) in enumerate(zip(rows, segments, strict=True)):
        span, queries = (
            places["reasoning"],
            np.arange(places["answer"].start, places["answer"].stop),
        )
        off_bos = row[..., 1:].sum(axis=-1)
        shares[trace] = (row[..., span].sum(axis=-1) / off_bos).mean(axis=-1)
        inside = up_to[:, queries - span.start + 1] - up_to[:, queries - span.stop + 1]
        expected[trace] = (inside / up_to[:, queries]).mean(axis=-1)
    low, high = bootstrap_mean_intervals(shares - expected, seed=seed)
    share, by_distance = shares.mean(axis=0), expected.mean(axis=0)
    return pd.DataFrame(
        {
            "share": share,
            "by_distance": by_distance,
            "excess": share - by_distance,
            "ci_low": low,
            "ci_high": high,
        }
    )


@dataclass(frozen=True)
class DepthTest:
    """Where in the model a set of heads sits, against as many heads drawn blindly.

    mean_depth: 0 for the first layer, 1 for the last. in_middle: how many sit in the middle third
    of the layers; expected_in_middle by chance; p_middle that as many or more sit there by chance
    (exact). p_central: that a blind draw sits as near to the middle layer on average.
    """

    mean_depth: float
    in_middle: int
    expected_in_middle: float
    p_middle: float
    p_central: float


def depth_test(
    heads: Iterable[Head], n_layers: int, n_heads: int, *, seed: int = 0, draws: int = 10_000
) -> DepthTest:
    """Are these heads mid-layer? Against an even spread over all n_layers · n_heads heads."""
    layers = np.array([layer for layer, _ in heads])
    thirds = (np.arange(n_layers) + 0.5) / n_layers
    middle = (thirds > 1 / 3) & (thirds < 2 / 3)
    distance = np.abs(np.arange(n_layers) - (n_layers - 1) / 2)
    blind = np.random.default_rng(seed).multivariate_hypergeometric(
        [n_heads] * n_layers, len(layers), size=draws
    )
    n_all, n_middle = n_layers * n_heads, int(middle.sum()) * n_heads
    in_middle = int(middle[layers].sum())
    return DepthTest(
        mean_depth=float(layers.mean() / max(n_layers - 1, 1)),
        in_middle=in_middle,
        expected_in_middle=len(layers) * n_middle / n_all,
        p_middle=overlap_p(in_middle, len(layers), n_middle, n_all),
        p_central=empirical_p(
            distance[layers].mean(), blind @ distance / len(layers), alternative="less"
        ),
    )


@dataclass(frozen=True)
class RankingSummary:
    """What stage 04 says of the top k of n_heads heads.

    top: the strongest, as L3.H1, with its mass and lift. reliability: split-half Spearman of all
    heads, None for fewer than `FEWEST_IN_HALVES` traces. above_null: heads of the top k that pass
    `border_test` at `stats.LEVEL`, family-wise. beyond_distance: heads that exceed their own
    distance profile, each by its own 95 % interval, over distance_n traces, where distance_share
    and by_distance are means over the k. The rest is of `DepthTest`; expected_shared: heads that
    two blind choices of k would share.
    """

    k: int
    n_heads: int
    top: str
    top_mass: float
    top_lift: float
    reliability: float | None
    reliability_low: float | None
    above_null: int
    beyond_distance: int
    distance_n: int
    distance_share: float
    by_distance: float
    mean_depth: float
    in_middle: int
    expected_in_middle: float
    p_central: float
    expected_shared: float


def summarise_ranking(
    ranking: pd.DataFrame,
    reliability: Reliability | None,
    null: pd.DataFrame,
    recency: pd.DataFrame,
    depth: DepthTest,
    distance_n: int,
) -> RankingSummary:
    """Sum up `rank_heads`, `ranking_reliability`, `border_test` (of all heads, in the ranking's
    order), `distance_test` (of the ranked heads over distance_n traces) and `depth_test`.
    """
    k, top = len(ranking), ranking.iloc[0]
    return RankingSummary(
        k=k,
        n_heads=len(null),
        top=head_name(int(top["layer"]), int(top["head"])),
        top_mass=top["mass"],
        top_lift=top["lift"],
        reliability=reliability and reliability.spearman,
        reliability_low=reliability and reliability.low,
        above_null=int((null[:k]["p_familywise"] <= LEVEL).sum()),
        beyond_distance=int((recency["ci_low"] > 0).sum()),
        distance_n=distance_n,
        distance_share=recency["share"].mean(),
        by_distance=recency["by_distance"].mean(),
        mean_depth=depth.mean_depth,
        in_middle=depth.in_middle,
        expected_in_middle=depth.expected_in_middle,
        p_central=depth.p_central,
        expected_shared=k * k / len(null),
    )


def head_overlap(lists: dict[str, Sequence[Sequence[int]]], n_all: int) -> pd.DataFrame:
    """How many heads each two lists share, and the chance of as many or more by a blind draw.

    lists: name → (layer, head) pairs; n_all: heads in the model. Columns first, second, shared, p,
    heads (the shared ones).
    """
    names = list(lists)
    rows = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = set(map(tuple, lists[first])), set(map(tuple, lists[second]))
            p = overlap_p(len(a & b), len(a), len(b), n_all)
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "shared": len(a & b),
                    "p": p,
                    "heads": sorted(a & b),
                }
            )
    return pd.DataFrame(rows)
