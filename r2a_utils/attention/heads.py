"""Which heads read the reasoning while the answer is written, and how far to trust their ranking.

A Reasoning-Focus Head (RFH) is a head among the top k by mean `m(answer→reasoning)`. This file
takes segment masses (of `mass.segment_mass` or of the authors) and knows no model. Raw mass rewards
a long reasoning, so every score has a control beside it: the lift over a head that attends
uniformly, the mass without the attention sink, the same reading at matched length. The tests of a
ranking against nulls are in `head_tests.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int, Real
from scipy import stats

from r2a_utils.stats import (
    Reliability,
    bootstrap_means,
    split_half_reliability,
)

Head = tuple[int, int]

Masses = Float[xr.DataArray, "_ _ _ _ _"]
"""Segment masses, dims (trace, layer, head, from_segment, to_segment) in any order."""

FEWEST_IN_HALVES = 4
"""Traces below which halves of them would be single ones."""

LEARNED_SINK = "learned_sink"
"""The to_segment of what a head leaves to no token, in models that learn such a sink (gpt-oss)."""

# A head that gives the sink all but a millionth has nothing left to share out in float32.
SINK_CEILING = 1 - 1e-6


def uniform_mass(
    mass: xr.DataArray, source: str = "answer", target: str = "reasoning"
) -> Float[xr.DataArray, "*dims"]:
    """The mass that a head attending uniformly to all it can see would show; dims (trace).

    `u(S→T) = 1/|S| Σ_{i∈S} |T ∩ [0, i]| / (i + 1)`, exact from the borders of the segments, which
    the array carries as the coordinates `segment_start` and `segment_stop` [trace, to_segment].
    Where it carries the coordinate `window` [layer], a head of a windowed layer sees its last
    tokens alone, where it carries `chunk` [layer], a head of a chunked layer the tokens from the
    start of its chunk, and the dims are (trace, layer).
    """
    borders = np.concatenate([_borders(mass, source), _borders(mass, target)], axis=1).tolist()
    coords = {"trace": mass.coords["trace"]}
    limits = [name for name in ("window", "chunk") if name in mass.coords]
    if not limits:
        null = [_uniform(*ends) for ends in borders]
        return xr.DataArray(null, dims="trace", coords=coords, name="uniform")
    layers = [
        {name: int(mass.coords[name][i]) for name in limits} for i in range(mass.sizes["layer"])
    ]
    null = [[_uniform(*ends, **layer) for layer in layers] for ends in borders]
    coords["layer"] = mass.coords["layer"]
    return xr.DataArray(null, dims=("trace", "layer"), coords=coords, name="uniform")


def _uniform(
    source_start: int,
    source_stop: int,
    target_start: int,
    target_stop: int,
    window: int = 0,
    chunk: int = 0,
) -> float:
    queries = np.arange(source_start, source_stop)
    first = np.maximum(queries + 1 - window, 0) if window else np.zeros_like(queries)
    if chunk:
        first = np.maximum(first, queries - queries % chunk)
    ends = [np.clip(place, target_start, target_stop) for place in (first, queries + 1)]
    return float(np.mean((ends[1] - ends[0]) / (queries + 1 - first)))


def sink_free_mass(
    mass: Float[xr.DataArray, "*dims"],
) -> Float[xr.DataArray, "*dims"]:
    """Each mass as a share of what a head does not leave in the sink: m / (1 − m(·→sink)).

    mass: segment masses from one segment or several, with the dim to_segment; of the same dims. The
    sink is the token that the coordinate `sink` names, none where that is -1; masses without it,
    as the authors', have theirs on BOS. What stands on the sink counts to no segment, and neither
    does a learned sink. A head that leaves everything in the sink counts as giving nothing; NaN
    stays NaN.
    """
    on_sink = _on_sink(mass)
    sink = on_sink.sum("to_segment", skipna=False).clip(max=SINK_CEILING)
    # near a full sink rounding may carry a share past 1, or below 0
    return ((mass - on_sink) / (1 - sink)).clip(min=0.0, max=1.0).transpose(*mass.dims)


def _on_sink(mass: Float[xr.DataArray, "*dims"]) -> Float[xr.DataArray, "*dims"]:
    """What of each mass rests on the sink, and on a learned one; of the same dims."""
    place = int(mass.coords.get("sink", 0))
    names = [LEARNED_SINK] if place else ["bos", LEARNED_SINK]
    found = mass.where(mass.coords["to_segment"].isin(names), 0.0)
    if place <= 0:
        return found
    coords = mass.coords
    inside = (coords["segment_start"] <= place) & (place < coords["segment_stop"])
    return found + coords["sink_mass"].reset_coords(drop=True) * inside.reset_coords(drop=True)


def head_scores(mass: Masses) -> pd.DataFrame:
    """Every head's reading of the reasoning with its controls, a row a head, best first.

    mass: segment masses, dims (trace, layer, head, from_segment, to_segment). Columns:
    - layer, head; mass: mean over traces of m(answer→reasoning), a share of 0 to 1;
    - lift: mean over traces of m(answer→reasoning) / u, 1 for a head that attends uniformly; where
      heads leave attention to a learned sink, of what they leave to tokens;
    - sink_free: mean over traces of the share of what is not in the sink (`sink_free_mass`);
    - length_matched: log2 of the mass on as many reasoning tokens, drawn at random, as the prompt
      has (in expectation m·|prompt|/|reasoning|), over the mass on the prompt, both averaged over
      traces; above 0 the head prefers the reasoning at equal length;
    - length_rho: Spearman correlation over traces of m with the reasoning's length in tokens
      (receiver heads' kurtosis reached 0.98 with the trace's length and meant nothing more).
    Layers without attention have no rows. Raises ValueError where the answer's masses are missing
    or are no shares.
    """
    reading = answer_mass(mass, "reasoning")
    prompt, free = answer_mass(mass, "prompt"), sink_free_mass(mass)
    reasoning_tokens, prompt_tokens = _n_tokens(mass, "reasoning"), _n_tokens(mass, "prompt")
    per_token = (prompt_tokens / reasoning_tokens)[:, None, None]
    with np.errstate(divide="ignore"):  # a head may give the prompt nothing at all: +inf
        preference = np.log2((reading * per_token).mean(axis=0) / prompt.mean(axis=0))
    columns = {
        "mass": reading.mean(axis=0),
        "lift": (reading / _on_tokens(mass) / _by_head(uniform_mass(mass))).mean(axis=0),
        "sink_free": answer_mass(free, "reasoning").mean(axis=0),
        "length_matched": preference,
        "length_rho": _spearman_with(reading, reasoning_tokens),
    }
    layer, head = np.indices(reading.shape[1:])
    table = pd.DataFrame({"layer": layer.ravel(), "head": head.ravel()}).assign(
        **{name: values.ravel() for name, values in columns.items()}
    )
    table = table[table["mass"].notna()]
    return table.sort_values("mass", ascending=False, kind="stable", ignore_index=True)


def _on_tokens(mass: Masses) -> Float[np.ndarray, "trace layer head"] | float:
    """What the answer leaves to tokens: 1 where there is no learned sink."""
    if LEARNED_SINK not in mass.coords["to_segment"]:
        return 1.0
    return 1 - answer_mass(mass, LEARNED_SINK).clip(max=SINK_CEILING)


def attending(
    reading: Float[np.ndarray, "trace layer head"],
) -> Float[np.ndarray, "trace attending head"]:
    """The layers that have attention."""
    return reading[:, ~np.isnan(reading).all(axis=(0, 2))]


def attending_layers(mass: Masses) -> list[int]:
    """The layers that have attention, by the answer's masses: the others are NaN."""
    reading = mass.sel(from_segment="answer", to_segment="reasoning")
    there = reading.notnull().any([dim for dim in reading.dims if dim != "layer"])
    return there["layer"].values[there.values].tolist()


def _by_head(null: xr.DataArray) -> Float[np.ndarray, "trace layer 1"]:
    """A null of each trace, or of each trace and layer, as it is laid beside the heads' masses."""
    values = null.values
    return values.reshape(len(values), -1, 1)


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
    rank_stability: share of the resamples in which the head is among the top k again. The frame's
    `attrs` carry the masses' `engine`.
    `head_scores` has all heads and further controls. Stage 2, notebook 04.
    Raises ValueError for a k of no head or of more than the model has.
    """
    scores = head_scores(mass)
    if not 1 <= k <= len(scores):
        raise ValueError(f"k = {k}: the model has {len(scores)} heads")
    reading = answer_mass(mass, "reasoning")
    resampled = np.full((resamples, reading[0].size), np.nan)  # no heads without attention
    there = ~np.isnan(reading[0].ravel())
    means = bootstrap_means(attending(reading), seed, resamples)
    resampled[:, there] = means.reshape(resamples, -1)
    best = np.argpartition(-resampled, k - 1, axis=1)[:, :k]
    stability = np.bincount(best.ravel(), minlength=resampled.shape[1]) / resamples
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    top = scores.loc[: k - 1, ["layer", "head", "mass", "lift"]]
    flat = top["layer"] * mass.sizes["head"] + top["head"]
    top = top.assign(ci_low=low[flat], ci_high=high[flat], rank_stability=stability[flat])
    top.attrs["engine"] = mass.attrs.get("engine", "fast")
    return top


def head_pairs(table: pd.DataFrame) -> list[Head]:
    """The heads of a table with the columns layer and head, in its order."""
    return list(table[["layer", "head"]].itertuples(index=False, name=None))


def ranking_reliability(mass: Masses, seed: int = 0) -> Reliability:
    """How alike two random halves of the traces rank all heads (receiver heads: 0.84).

    Raises ValueError for fewer than `FEWEST_IN_HALVES` traces or three heads.
    """
    return split_half_reliability(attending(answer_mass(mass, "reasoning")), seed=seed)


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


def answer_mass(mass: Masses, target: str) -> Float[np.ndarray, "trace layer head"]:
    """m(answer→target) of every trace: [trace, layer, head], float64; NaN without attention."""
    chosen = mass.sel(from_segment="answer", to_segment=target)
    values = chosen.transpose("trace", "layer", "head").values.astype(np.float64)
    if len(values) == 0:
        raise ValueError("no traces: the masses are empty")
    # float32 sums of many weights may pass 1 by rounding
    there = attending(values)
    if not ((there >= 0) & (there <= 1 + 1e-4)).all() or not there.size:
        raise ValueError(f"masses answer→{target} are NaN or outside [0, 1]: no shares")
    return values
