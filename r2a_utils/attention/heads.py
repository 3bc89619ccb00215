"""Which heads read the reasoning while the answer is written, and how far to trust their ranking.

A Reasoning-Focus Head (RFH) is a head among the top k by mean `m(answer→reasoning)`. This file
takes segment masses (of `mass.segment_mass` or of the authors) or rows of attention, and knows no
model. Raw mass
rewards a long reasoning, so every score has a control beside it: the lift over a head that attends
uniformly, the mass without the attention sink, the same reading at matched length, and nulls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int, Real
from scipy import stats

from r2a_utils.figures.style import head_name
from r2a_utils.stats import (
    LEVEL,
    Reliability,
    bootstrap_mean_intervals,
    bootstrap_means,
    empirical_p,
    overlap_p,
    split_half_reliability,
)

Head = tuple[int, int]

Masses = Float[xr.DataArray, "_ _ _ _ _"]
"""Segment masses, dims (trace, layer, head, from_segment, to_segment) in any order."""

FEWEST_IN_HALVES, FEWEST_IN_THIRDS = 4, 6
"""Traces below which halves of them, or thirds, would be single ones."""

# A head that gives the sink all but a millionth has nothing left to share out in float32.
SINK_CEILING = 1 - 1e-6


def uniform_mass(
    mass: xr.DataArray, source: str = "answer", target: str = "reasoning"
) -> Float[xr.DataArray, " trace"]:
    """The mass that a head attending uniformly to all it can see would show; dims (trace).

    `u(S→T) = 1/|S| Σ_{i∈S} |T ∩ [0, i]| / (i + 1)`, exact from the borders of the segments, which
    the array carries as the coordinates `segment_start` and `segment_stop` [trace, to_segment].
    """
    sources, targets = _borders(mass, source), _borders(mass, target)
    null = [_uniform(*borders) for borders in np.concatenate([sources, targets], axis=1).tolist()]
    return xr.DataArray(null, dims="trace", coords={"trace": mass.coords["trace"]}, name="uniform")


def _uniform(source_start: int, source_stop: int, target_start: int, target_stop: int) -> float:
    queries = np.arange(source_start, source_stop)
    seen = np.clip(queries + 1, target_start, target_stop) - target_start
    return float(np.mean(seen / (queries + 1)))


def sink_free_mass(
    mass: Float[xr.DataArray, "*dims"],
) -> Float[xr.DataArray, "*dims"]:
    """Each mass as a share of what a head does not leave in the sink: m / (1 − m(·→bos)).

    mass: segment masses from one segment or several, with the dim to_segment; of the same dims, 0
    on BOS itself. A head that leaves everything in the sink counts as giving nothing.
    """
    sink = mass.sel(to_segment="bos", drop=True).clip(max=SINK_CEILING)
    # near a full sink rounding may carry a share past 1
    return (mass / (1 - sink)).clip(max=1.0).where(mass.coords["to_segment"] != "bos", 0.0)


def head_scores(mass: Masses) -> pd.DataFrame:
    """Every head's reading of the reasoning with its controls, a row a head, best first.

    mass: segment masses, dims (trace, layer, head, from_segment, to_segment). Columns:
    - layer, head; mass: mean over traces of m(answer→reasoning), a share of 0 to 1;
    - lift: mean over traces of m(answer→reasoning) / u, 1 for a head that attends uniformly;
    - sink_free: mean over traces of m / (1 − m(answer→bos)), the share of what is not in the sink;
    - length_matched: log2 of the mass on as many reasoning tokens, drawn at random, as the prompt
      has (in expectation m·|prompt|/|reasoning|), over the mass on the prompt, both averaged over
      traces; above 0 the head prefers the reasoning at equal length;
    - length_rho: Spearman correlation over traces of m with the reasoning's length in tokens
      (receiver heads' kurtosis reached 0.98 with the trace's length and meant nothing more).
    Raises ValueError where the answer's masses are missing or are no shares.
    """
    reading = _answer_mass(mass, "reasoning")
    prompt, free = _answer_mass(mass, "prompt"), sink_free_mass(mass)
    reasoning_tokens, prompt_tokens = _n_tokens(mass, "reasoning"), _n_tokens(mass, "prompt")
    per_token = (prompt_tokens / reasoning_tokens)[:, None, None]
    with np.errstate(divide="ignore"):  # a head may give the prompt nothing at all: +inf
        preference = np.log2((reading * per_token).mean(axis=0) / prompt.mean(axis=0))
    columns = {
        "mass": reading.mean(axis=0),
        "lift": (reading / uniform_mass(mass).values[:, None, None]).mean(axis=0),
        "sink_free": _answer_mass(free, "reasoning").mean(axis=0),
        "length_matched": preference,
        "length_rho": _spearman_with(reading, reasoning_tokens),
    }
    layer, head = np.indices(reading.shape[1:])
    table = pd.DataFrame({"layer": layer.ravel(), "head": head.ravel()}).assign(
        **{name: values.ravel() for name, values in columns.items()}
    )
    return table.sort_values("mass", ascending=False, kind="stable", ignore_index=True)


def _spearman_with(
    values: Float[np.ndarray, "trace layer head"], by: Real[np.ndarray, " trace"]
) -> Float[np.ndarray, "layer head"]:
    """Spearman correlation over the first axis with one series; NaN where either is constant."""
    ranks = stats.rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    by = stats.rankdata(by) - (len(by) + 1) / 2
    scale = np.sqrt((ranks**2).sum(axis=0) * (by**2).sum())
    covariance = np.tensordot(by, ranks, axes=1)
    return np.divide(covariance, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def rank_heads(mass: Masses, k: int = 10, *, seed: int = 0, resamples: int = 1_000) -> pd.DataFrame:
    """The k Reasoning-Focus Heads, best first.

    Columns layer, head, mass, lift (both as in `head_scores`), ci_low, ci_high, rank_stability.
    ci_low and ci_high: 95% percentile bootstrap interval of the mean mass over traces.
    rank_stability: share of the resamples in which the head is among the top k again.
    `head_scores` has all heads and further controls. Stage 2, notebook 04.
    Raises ValueError for a k of no head or of more than the model has.
    """
    scores = head_scores(mass)
    if not 1 <= k <= len(scores):
        raise ValueError(f"k = {k}: the model has {len(scores)} heads")
    resampled = bootstrap_means(_answer_mass(mass, "reasoning"), seed, resamples)
    resampled = resampled.reshape(resamples, -1)
    best = np.argpartition(-resampled, k - 1, axis=1)[:, :k]
    stability = np.bincount(best.ravel(), minlength=resampled.shape[1]) / resamples
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    top = scores.loc[: k - 1, ["layer", "head", "mass", "lift"]]
    flat = top["layer"] * mass.sizes["head"] + top["head"]
    return top.assign(ci_low=low[flat], ci_high=high[flat], rank_stability=stability[flat])


def needs_traces(needed: int, has: int) -> str:
    """What a page says in place of what it cannot show with so few traces."""
    return (
        f"This needs {needed} finished traces with reasoning; the run has {has}. Give it more: "
        f"`--set n_traces={needed}` or above, and as many problems."
    )


def ranking_reliability(mass: Masses, seed: int = 0) -> Reliability:
    """How alike two random halves of the traces rank all heads (receiver heads: 0.84).

    Raises ValueError for fewer than `FEWEST_IN_HALVES` traces or three heads.
    """
    return split_half_reliability(_answer_mass(mass, "reasoning"), seed=seed)


def ranking_across_lengths(mass: Masses, k: int = 10) -> pd.DataFrame:
    """The ranking among traces of like length: a row for each third of traces by reasoning length.

    Columns third, n, shortest, longest (reasoning tokens), uniform (mean null), mass (mean over
    heads), spearman (of the heads' masses with those of all other traces), shared (how many of the
    third's top k are in the top k of all other traces). Raises ValueError for fewer than
    `FEWEST_IN_THIRDS` traces.
    """
    reading = _answer_mass(mass, "reasoning")
    reading = reading.reshape(len(reading), -1)
    if len(reading) < FEWEST_IN_THIRDS:
        raise ValueError(needs_traces(FEWEST_IN_THIRDS, len(reading)))
    tokens = _n_tokens(mass, "reasoning")
    null = uniform_mass(mass).values
    rows = []
    thirds = np.array_split(np.argsort(tokens, kind="stable"), 3)
    for name, chosen in zip(("short", "middle", "long"), thirds, strict=True):
        inside = reading[chosen].mean(axis=0)
        outside = np.delete(reading, chosen, axis=0).mean(axis=0)
        rows.append(
            {
                "third": name,
                "n": len(chosen),
                "shortest": int(tokens[chosen].min()),
                "longest": int(tokens[chosen].max()),
                "uniform": null[chosen].mean(),
                "mass": inside.mean(),
                "spearman": stats.spearmanr(inside, outside).statistic,
                "shared": len(set(np.argsort(-inside)[:k]) & set(np.argsort(-outside)[:k])),
            }
        )
    return pd.DataFrame(rows)


def shuffled_borders(
    segments: dict[str, slice], draws: int, seed: int = 0
) -> Bool[np.ndarray, "draw token"]:
    """Spans as long as the reasoning at random places before the answer: bool [draw, token].

    What lies between BOS and the answer is taken as a ring, and the reasoning's borders are turned
    along it by a random number of tokens, never by none. The mass on these token sets is the null
    of `border_test`. It keeps the reasoning's length, and so excludes a head that reads any span
    before the answer alike. It does not exclude recency: the reasoning is the one span of the ring
    that reaches up to the answer, so that a head which looks ten or sixty tokens back, knowing
    nothing of borders, passes (`recency.distance_test` is for that). Where the reasoning fills
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
    observed = _answer_mass(mass, "reasoning").mean(axis=0)
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


def _borders(mass: xr.DataArray, segment: str) -> Int[np.ndarray, "trace 2"]:
    """First token of a segment and the one after its last, in every trace: [trace, 2]."""
    missing = {"segment_start", "segment_stop"} - set(mass.coords)
    if missing:
        raise ValueError(
            f"the masses carry no {' and no '.join(sorted(missing))} [trace, to_segment], from "
            "which the uniform null is computed; segment_mass sets them"
        )
    ends = [mass.coords[name].sel(to_segment=segment) for name in ("segment_start", "segment_stop")]
    return np.stack(ends, axis=1)


def _n_tokens(mass: Masses, segment: str) -> Int[np.ndarray, " trace"]:
    """Tokens of a segment in every trace: [trace]."""
    return np.diff(_borders(mass, segment), axis=1)[:, 0]


def _answer_mass(mass: Masses, target: str) -> Float[np.ndarray, "trace layer head"]:
    """m(answer→target) of every trace: [trace, layer, head], float64."""
    chosen = mass.sel(from_segment="answer", to_segment=target)
    values = chosen.transpose("trace", "layer", "head").values.astype(np.float64)
    if len(values) == 0:
        raise ValueError("no traces: the masses are empty")
    # float32 sums of many weights may pass 1 by rounding
    if not ((values >= 0) & (values <= 1 + 1e-4)).all():
        raise ValueError(f"masses answer→{target} are NaN or outside [0, 1]: no shares")
    return values
