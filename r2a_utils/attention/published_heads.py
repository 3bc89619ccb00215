"""The paper's printed lists of heads beside the ranking that the authors' own masses give.

The lists come with the package, the masses from the authors' data. Shown in the appendix of stage
04; nothing here runs a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from r2a_utils.attention.heads import rank_heads
from r2a_utils.paper import published

LISTS = {
    "reasoning-focus head": "stage2_reasoning_focus_heads_top10",
    "induction head": "stage2_induction_heads_top10",
    "retrieval head": "stage2_retrieval_heads_top10",
}
PRINTED = 10


@dataclass(frozen=True)
class ListComparison:
    """How the printed lists compare with the rankings of the authors' masses.

    shared: by model, how many of the printed heads are among the top of our ranking; lost: printed
    heads that it lacks, over all models; lost_retrieval of them are on the printed list of
    retrieval heads, lost_below_cut lie below the cut by more than their interval.
    """

    shared: dict[str, int]
    lost: int
    lost_retrieval: int
    lost_below_cut: int


def printed_heads() -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Model → kind of head → the paper's printed top 10, as (layer, head)."""
    return {
        who: {kind: [tuple(h) for h in published()[key][who]] for kind, key in LISTS.items()}
        for who in published()["models"]
    }


def differing_heads(who: str, mass: xr.DataArray, *, seed: int = 0) -> pd.DataFrame:
    """The heads in one of the two top 10 only: ours by mean mass, and the printed one.

    mass: `paper.load_segment_mass` of the model `who`. Columns model, layer, head, rank, mass,
    ci_low, ci_high, printed, retrieval (on the printed list of retrieval heads), cut (the mass of
    our tenth).
    """
    printed = printed_heads()[who]
    full = rank_heads(mass, k=mass.sizes["layer"] * mass.sizes["head"], seed=seed)
    pairs = list(full[["layer", "head"]].itertuples(index=False, name=None))
    listed = set(printed["reasoning-focus head"])
    table = full.assign(
        model=who,
        rank=range(1, len(full) + 1),
        printed=[pair in listed for pair in pairs],
        retrieval=[pair in printed["retrieval head"] for pair in pairs],
        cut=full["mass"][PRINTED - 1],
    )
    in_one_only = [pair in set(pairs[:PRINTED]) ^ listed for pair in pairs]
    return table.drop(columns=["lift", "rank_stability"])[in_one_only]


def compare_lists(differing: dict[str, pd.DataFrame]) -> ListComparison:
    """Sum up `differing_heads` of several models."""
    shared = {who: PRINTED - int(table["printed"].sum()) for who, table in differing.items()}
    lost = [table[table["printed"]] for table in differing.values()]
    return ListComparison(
        shared=shared,
        lost=sum(map(len, lost)),
        lost_retrieval=sum(int(table["retrieval"].sum()) for table in lost),
        lost_below_cut=sum(int((table["ci_high"] < table["cut"]).sum()) for table in lost),
    )
