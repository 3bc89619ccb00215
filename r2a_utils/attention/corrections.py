"""After a correction, which value is read: the corrected digit, or the wrong one?

Where a step went wrong and was corrected, a long answer states the step again. The query that
writes the digit can look at the corrected value, at the wrong one, or at the wrong one where it is
said again after it ("so 6, not 4"). Where these digits stand is known for the bundled world only
(`tiny.review.restatements`). Shown in stage 04b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from r2a_utils.attention.mass import token_set_mass
from r2a_utils.attention.trajectories import preference
from r2a_utils.figures.style import head_name
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace
from r2a_utils.tiny.review import Restatement, restatements, reviewable

FEWEST_TRACES = 8
"""Traces with a restated correction below which nothing is said of them: a head is picked on one
half and reported on the other, and fewer than four traces have no interval worth printing."""

MOST = 0.5
"""Attention on the corrected digit from which on a head counts as one that reads it: more than it
gives to all other tokens together."""


@dataclass(frozen=True)
class CorrectedValues:
    """What is read where a corrected step is stated again; of `head`, picked on the other half.

    n steps in so many traces; the rest is None in fewer than `FEWEST_TRACES`. mass: of the head's
    attention, on the corrected digit; share: of what it gives to both values (low to high: 95 %
    over `reported_on` traces); share_against_later: the same where the wrong one stands later.
    rfhs_share and all_share are means over heads, all_weighted is weighted by what is read at all.
    readers: of `n_heads`, the names of those that give the corrected digit more than `most` of
    their attention in all traces (readers_low to readers_high), the strongest first.
    """

    n: int
    traces: int
    fewest: int = FEWEST_TRACES
    head: str | None = None
    mass: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None
    reported_on: int | None = None
    share_against_later: float | None = None
    rfhs_share: float | None = None
    all_share: float | None = None
    all_weighted: float | None = None
    n_heads: int | None = None
    most: float = MOST
    readers: Sequence[str] = ()
    readers_low: float | None = None
    readers_high: float | None = None


def restated_digits(
    model: ReasoningModel, traces: Sequence[Trace]
) -> Float[xr.DataArray, "trace layer head token_set"] | None:
    """What the query of each restated digit reads of the three digits; None where none is restated.

    dims (trace, layer, head, token_set), a row a restated step; the trace coordinate holds problem
    ids; token sets corrected, wrong, denied.
    """
    found: list[Restatement] = [
        restatement for t in traces if reviewable(t) for restatement in restatements(t)
    ]
    if not found:
        return None
    sets = [{n: [getattr(r, n)] for n in ("corrected", "wrong", "denied")} for r in found]
    trace_of, queries = [r.trace for r in found], [[r.query] for r in found]
    mass = token_set_mass(model, trace_of, sets, queries=queries)
    return mass.assign_coords(trace=[trace.problem_id for trace in trace_of])


def value_shares(digits: xr.DataArray, *, seed: int = 0) -> pd.DataFrame:
    """Each head's share on the corrected value against either wrong one, and its masses.

    digits: of `restated_digits`. Columns layer, head, share, ci_low, ci_high, n, …_against_later,
    corrected, wrong, denied (mean mass).
    """
    table = preference(digits, "corrected", "wrong", seed=seed)
    later = preference(digits, "corrected", "denied", seed=seed)
    means = digits.mean("trace").to_series().unstack("token_set").reset_index()
    both = table.merge(
        later[["layer", "head", "share"]], on=["layer", "head"], suffixes=("", "_against_later")
    )
    return both.merge(means, on=["layer", "head"])


def corrected_values(
    digits: xr.DataArray | None, rfhs: Sequence[tuple[int, int]], *, seed: int = 0
) -> CorrectedValues:
    """The head that reads corrected digits most in one half of the traces, in the other half.

    digits: of `restated_digits`. Picking and reporting on the same traces would flatter the head.
    """
    if digits is None:
        return CorrectedValues(0, 0)
    names = np.unique(digits["trace"])
    counts = CorrectedValues(digits.sizes["trace"], len(names))
    if len(names) < FEWEST_TRACES:
        return counts
    own_half = np.isin(digits["trace"], names[::2])
    picked = value_shares(digits[own_half], seed=seed).sort_values("corrected").iloc[-1]
    head = int(picked["layer"]), int(picked["head"])
    other = value_shares(digits[~own_half], seed=seed).set_index(["layer", "head"]).loc[head]
    values = value_shares(digits, seed=seed).set_index(["layer", "head"])
    read = values[["corrected", "wrong", "denied"]].sum()
    strongest = values["corrected"].sort_values(ascending=False)
    readers = strongest[strongest > MOST]
    return CorrectedValues(
        counts.n,
        counts.traces,
        head=head_name(*head),
        mass=other["corrected"],
        share=other["share"],
        low=other["ci_low"],
        high=other["ci_high"],
        reported_on=int(other["n"]),
        share_against_later=other["share_against_later"],
        rfhs_share=values.loc[list(rfhs), "share"].mean(),
        all_share=values["share"].mean(),
        all_weighted=float(read.corrected / (read.corrected + read.wrong)),
        n_heads=len(values),
        readers=[head_name(int(layer), int(index)) for layer, index in readers.index],
        readers_low=None if readers.empty else float(readers.iloc[-1]),
        readers_high=None if readers.empty else float(readers.iloc[0]),
    )
