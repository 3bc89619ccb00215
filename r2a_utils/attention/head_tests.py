"""May a ranking of heads be trusted: tests of it against nulls, and what they come to.

Against turned borders, against an even spread over the layers, and against other lists of heads; a
head's own profile by distance is in `distance.py`, the ranking itself in `heads.py`. This file runs
no model. Shown in stage 04.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from r2a_utils.attention.heads import Head, Masses, answer_mass
from r2a_utils.figures.style import head_name
from r2a_utils.stats import (
    LEVEL,
    Reliability,
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
    nothing of borders, passes (`distance_test` of `distance.py` is for that). Where the reasoning
    fills nearly all of the ring the spans overlap it and the test can find little.
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
    largest = np.nanmax((null - expected).reshape(len(null), -1), axis=1)
    rows = []
    for at in zip(
        *np.nonzero(~np.isnan(observed)), strict=True
    ):  # layers without attention have no heads
        p = empirical_p(observed[at], null[:, *at])
        p_familywise = empirical_p(observed[at] - expected[at], largest)
        rows.append((*at, observed[at], expected[at], p, p_familywise))
    table = pd.DataFrame(rows, columns=["layer", "head", "mass", "null", "p", "p_familywise"])
    return table.sort_values("mass", ascending=False, ignore_index=True)


@dataclass(frozen=True)
class DepthTest:
    """Where in the model a set of heads sits, against as many heads drawn blindly.

    mean_depth: 0 for the first layer, 1 for the last. in_middle: how many sit in the middle third
    of the layers; expected_in_middle by chance; p_middle that as many or more sit there by chance.
    p_central: that a blind draw sits as near to the middle layer on average.
    """

    mean_depth: float
    in_middle: int
    expected_in_middle: float
    p_middle: float
    p_central: float


def middle_layers(n_layers: int) -> Bool[np.ndarray, " layer"]:
    """Which layers are the middle third; a layer is placed by its middle."""
    thirds = (np.arange(n_layers) + 0.5) / n_layers
    return (thirds > 1 / 3) & (thirds < 2 / 3)


def depth_test(
    heads: Iterable[Head],
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    *,
    attending: Sequence[int] | None = None,
    seed: int = 0,
    draws: int = 10_000,
) -> DepthTest:
    """Are these heads mid-layer? Against an even spread over all heads of n_layers layers.

    Heads that share keys and values read alike, so a blind draw moves them together: it keeps how
    many heads each key/value group holds, and puts the groups anywhere. Only layers that are
    `attending` (None: all) have heads.
    """
    held = _held(heads, n_heads, n_kv_heads)
    places, counts = np.array(list(held)), np.array(list(held.values()))
    there = np.arange(n_layers) if attending is None else np.array(attending)
    middle = middle_layers(n_layers)
    distance = np.abs(np.arange(n_layers) - (n_layers - 1) / 2)
    n, layers = counts.sum(), places // n_kv_heads
    blind = _blind_places(len(places), len(there) * n_kv_heads, draws, seed) // n_kv_heads
    blind = there[blind]
    in_middle, drawn = int(middle[layers] @ counts), middle[blind] @ counts
    return DepthTest(
        mean_depth=float(layers @ counts / n / max(n_layers - 1, 1)),
        in_middle=in_middle,
        expected_in_middle=float(n * middle[there].mean()),
        p_middle=empirical_p(in_middle, drawn),
        p_central=empirical_p(
            distance[layers] @ counts / n, distance[blind] @ counts / n, alternative="less"
        ),
    )


def _held(heads: Iterable[Head], n_heads: int, n_kv_heads: int) -> Counter[int]:
    """How many of these heads each key/value group holds; groups are counted through the model."""
    size = n_heads // n_kv_heads
    return Counter(layer * n_kv_heads + head // size for layer, head in set(map(tuple, heads)))


def _blind_places(n: int, n_all: int, draws: int, seed: int) -> Int[np.ndarray, "draw place"]:
    """n of n_all places, each draw without repeating one."""
    order = np.random.default_rng(seed).random((draws, n_all))
    return np.argpartition(order, n - 1, axis=1)[:, :n]


@dataclass(frozen=True)
class RankingSummary:
    """What stage 04 says of the top k of n_heads heads.

    top: the strongest, as L3.H1, with its mass and lift. reliability: split-half Spearman of all
    heads, None for fewer than `FEWEST_IN_HALVES` traces. above_null: heads of the top k that pass
    `border_test` at `stats.LEVEL`, family-wise. beyond_distance: heads that exceed their own
    distance profile, each by its own 95 % interval, over distance_n traces, where distance_share
    and by_distance (None for a single trace) are means over the k. The rest is of `DepthTest`;
    expected_shared: heads that two blind choices of k would share.
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
    by_distance: float | None
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
        distance_share=float(recency["share"].mean()),
        by_distance=None if recency["by_distance"].isna().all() else recency["by_distance"].mean(),
        mean_depth=depth.mean_depth,
        in_middle=depth.in_middle,
        expected_in_middle=depth.expected_in_middle,
        p_central=depth.p_central,
        expected_shared=k * k / len(null),
    )


def head_overlap(
    lists: dict[str, Sequence[Sequence[int]]],
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    *,
    attending: Sequence[int] | None = None,
    seed: int = 0,
    draws: int = 10_000,
) -> pd.DataFrame:
    """How many heads each two lists share, and the chance of as many or more by a blind draw.

    lists: name → (layer, head) pairs, in layers that are `attending` (None: all). Columns first,
    second, shared, p (of a draw of heads, exact), p_groups (of a draw that keeps the heads of one
    key/value group together, as in `depth_test`), heads (the shared ones).
    """
    rows, there = [], range(n_layers) if attending is None else list(attending)
    found = {
        name: {(there.index(layer), head) for layer, head in heads} for name, heads in lists.items()
    }
    for first, second in itertools.combinations(lists, 2):
        a, b = found[first], found[second]
        blind = _blind_overlap(a, b, len(there), n_heads, n_kv_heads, draws, seed)
        rows.append(
            {
                "first": first,
                "second": second,
                "shared": len(a & b),
                "p": overlap_p(len(a & b), len(a), len(b), len(there) * n_heads),
                "p_groups": empirical_p(len(a & b), blind),
                "heads": sorted((there[layer], head) for layer, head in a & b),
            }
        )
    return pd.DataFrame(rows)


def _blind_overlap(
    a: set[Head], b: set[Head], n_layers: int, n_heads: int, n_kv_heads: int, draws: int, seed: int
) -> Int[np.ndarray, " draw"]:
    """Heads that a shares with b, each group of b put anywhere, its heads in any order."""
    size = n_heads // n_kv_heads
    in_group = np.zeros(n_layers * n_kv_heads, dtype=int)
    for group, n in _held(a, n_heads, n_kv_heads).items():
        in_group[group] = n
    counts = np.array(list(_held(b, n_heads, n_kv_heads).values()), dtype=int)
    if not len(counts):
        return np.zeros(draws, dtype=int)
    met = in_group[_blind_places(len(counts), len(in_group), draws, seed)]
    generator = np.random.default_rng(seed + 1)
    return generator.hypergeometric(met, size - met, counts).sum(axis=1)
