"""How the answer's attention divides over the segments, beside what length and sink explain.

Takes segment masses (of `mass.segment_mass` or of the authors) and means them over traces, layers
and heads. It does not single out heads: that is heads.py's. Shown in stage 03.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from r2a_utils.attention.heads import LEARNED_SINK, Masses, sink_free_mass, uniform_mass
from r2a_utils.stats import bootstrap_means


@dataclass(frozen=True)
class SegmentAttention:
    """What a run's answers read of their n reasonings; all but counts are shares of 0 to 1.

    answer: by segment, mean over traces, layers and heads. sink_free_reasoning, uniform_reasoning,
    lift_reasoning: the reasoning's controls (`segment_controls`); lift_low and lift_high: 95 % of
    bootstrap samples of the traces, None for a single one. prefilled: what the answers without
    reasoning give to the prefilled thought. top_layer: the layer that reads the reasoning
    most, of n_layers. largest_head: the largest mean of a head; heads_above_uniform: how many of
    n_heads have a `lift_by_head` above 1. attending: how many layers have attention; engine: "fast"
    for masses read by marks, "plain" for those summed from eager weights.
    """

    n: int
    answer: dict[str, float]
    sink_free_reasoning: float
    uniform_reasoning: float
    lift_reasoning: float
    lift_low: float | None
    lift_high: float | None
    prefilled: float
    top_layer: int
    n_layers: int
    largest_head: float
    n_heads: int
    heads_above_uniform: int
    attending: int
    engine: str


def answer_by_segment(mass: Masses) -> Float[xr.DataArray, "trace to_segment"]:
    """The answer's mass on each segment, mean over layers and heads, a share: [trace, segment].

    What is left to a learned sink is no segment's.
    """
    answer = mass.sel(from_segment="answer", to_segment=mass["to_segment"] != LEARNED_SINK)
    return answer.mean(["layer", "head"]).transpose("trace", "to_segment")


def segment_controls(mass: Masses) -> pd.DataFrame:
    """The answer's attention by segment with its controls, means over traces, layers and heads.

    A row a segment; columns mass, sink-free (`sink_free_mass`), uniform null (`uniform_mass`), lift
    (mass over null). Raises ValueError for masses without the borders of the segments.
    """
    names = [name for name in mass["to_segment"].values.tolist() if name != LEARNED_SINK]
    free = sink_free_mass(mass.sel(from_segment="answer"))
    columns = {
        "mass": answer_by_segment(mass).mean("trace").to_series(),
        "sink-free": free.mean(["trace", "layer", "head"]).to_series(),
        "uniform null": {s: float(uniform_mass(mass, "answer", s).mean()) for s in names},
    }
    table = pd.DataFrame(columns).loc[names]
    return table.assign(lift=table["mass"] / table["uniform null"])


def lift_by_head(mass: Masses) -> Float[xr.DataArray, "layer head"]:
    """Each head's mean m(answer→reasoning) over the mean uniform null: [layer, head], a ratio.

    (`head_scores` has the mean of the traces' ratios instead.) Raises ValueError for masses without
    the borders of the segments.
    """
    reading = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
    return reading / segment_controls(mass)["uniform null"]["reasoning"]


def _lift_interval(mass: Masses) -> tuple[float | None, float | None]:
    """95 % of bootstrap samples of the traces: mean mass on the reasoning over the mean null."""
    if mass.sizes["trace"] < 2:
        return None, None
    read = answer_by_segment(mass).sel(to_segment="reasoning")
    null = uniform_mass(mass, "answer", "reasoning")
    null = null.mean([name for name in null.dims if name != "trace"])
    means = bootstrap_means(np.stack([read.values, null.values], axis=1))
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    return float(low), float(high)


def summarise_segments(mass: Masses, prefilled: Masses) -> SegmentAttention:
    """Sum up a run's masses with reasoning and, `prefilled`, without.

    Raises ValueError for masses without the borders of the segments.
    """
    controls = segment_controls(mass)
    lift_low, lift_high = _lift_interval(mass)
    reading = mass.sel(from_segment="answer", to_segment="reasoning").mean("trace")
    by_layer = reading.mean("head").to_series()
    return SegmentAttention(
        n=mass.sizes["trace"],
        answer=controls["mass"].to_dict(),
        sink_free_reasoning=float(controls["sink-free"]["reasoning"]),
        uniform_reasoning=float(controls["uniform null"]["reasoning"]),
        lift_reasoning=float(controls["lift"]["reasoning"]),
        lift_low=lift_low,
        lift_high=lift_high,
        prefilled=float(answer_by_segment(prefilled).sel(to_segment="reasoning").mean()),
        top_layer=int(by_layer.idxmax()),
        n_layers=mass.sizes["layer"],
        largest_head=float(reading.max()),
        n_heads=int(reading.notnull().sum()),
        heads_above_uniform=int((lift_by_head(mass) > 1).sum()),
        attending=int(reading.notnull().all("head").sum()),
        engine=mass.attrs.get("engine", "fast"),
    )
