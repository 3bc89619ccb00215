"""A set of heads against random sets of the same layers, under every way of intervening.

The set in question stands first in every list and array, the random sets behind it; its rank among
them gives an exact p (`random_sets.py`). Effects are means over traces of the change of the
answer's log-probability, in nats, or shares of answers that turn over when they are written anew.
What one intervention does to one trace, `interventions.py` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from r2a_utils import figures
from r2a_utils.causal.chosen_traces import ChosenTraces
from r2a_utils.causal.interventions import (
    METHODS,
    WAYS,
    Ablation,
    Intervention,
    Knockout,
    measure,
    regenerate,
)
from r2a_utils.causal.random_sets import Head, against_random, n_possible_sets
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import LEVEL, bootstrap_interval, holm
from r2a_utils.texts.trace import Trace

SET_WAYS = ("knockout", *METHODS)
"""Edges to the reasoning cut, or z replaced: by zero, its mean, or resampled vectors."""

REWRITTEN_TOKENS = 96
"""How long an answer may be that is written anew: the shortened ones have about ten tokens."""

FEWEST_REWRITTEN = 2
"""Traces that must be answered in a box of their own accord: fewer give no interval."""

HeadSet = tuple[Head, ...]
ByDraw = Float[np.ndarray, "_draw _set"]


def set_interventions(
    sets: Sequence[HeadSet], n_draws: int, kind: str = "renormalised"
) -> dict[str, list[list[Intervention]]]:
    """Way → draw → an intervention for every set; only resampling has more than one draw."""
    ways: dict[str, list[list[Intervention]]] = {
        "knockout": [[Knockout(heads=heads, kind=kind) for heads in sets]]
    }
    for method in METHODS:
        draws = range(n_draws if method == "resample" else 1)
        ways[method] = [[Ablation(heads, method, draw=d) for heads in sets] for d in draws]
    return ways


def set_changes(
    model: ReasoningModel,
    traces: Sequence[Trace],
    sets: Sequence[HeadSet],
    pool: Sequence[Float[Tensor, "token _"]],
    n_draws: int,
    seed: int = 0,
    kind: str = "renormalised",
) -> dict[str, ByDraw]:
    """Mean over traces of the change of the answer's log-probability (nats), by way: [draw, set].

    `pool` is that of `answer_z`, `kind` that of `Knockout`. Raises ValueError as `measure` does.
    Stage 06.
    """
    changes = {}
    for way, draws in set_interventions(sets, n_draws, kind).items():
        every = [change for draw in draws for change in draw]
        measured = [measure(model, t, every, pool=pool, seed=seed)["change"] for t in traces]
        changes[way] = np.mean(measured, axis=0).reshape(len(draws), len(sets))
    return changes


def set_table(by_draw: Mapping[str, ByDraw]) -> pd.DataFrame:
    """The set in question against the random ones, a row a way; changes are means over draws.

    Columns are those of `against_random`, and "p, Holm", corrected for the ways. Stage 06.
    """
    rows = {way: against_random(change.mean(0)) for way, change in by_draw.items()}
    table = pd.DataFrame(rows).T.rename_axis("change (nats)")
    return table.assign(**{"p, Holm": holm(table["p"])})


@dataclass(frozen=True, eq=False)
class TurnedOver:
    """How many of `n` answers change or are lost when they are written anew.

    `shares` are by way, for every set [set]; `table` has the columns of `against_random`,
    `difference` (mean over traces of the set in question less the random sets' share) and its
    95 % interval `ci_low`, `ci_high`. Both are empty where n is below `FEWEST_REWRITTEN`.
    """

    n: int
    shares: dict[str, Float[np.ndarray, " _set"]]
    table: pd.DataFrame


def turned_over(
    model: ReasoningModel,
    traces: Sequence[Trace],
    sets: Sequence[HeadSet],
    pool: Sequence[Float[Tensor, "token _"]],
    seed: int = 0,
    kind: str = "renormalised",
) -> TurnedOver:
    """Let the model write its answers anew under every way and set (one draw a trace).

    Counted are the traces to which it writes a box when nothing is changed. Raises ValueError as
    `regenerate` does. Stage 06.
    """
    ways = set_interventions(sets, 1, kind)
    tried = [change for draws in ways.values() for change in draws[0]]
    found = []
    for trace in traces:
        frame = regenerate(
            model, trace, tried, max_new_tokens=REWRITTEN_TOKENS, pool=pool, seed=seed
        )
        if frame["unaltered"].notna().all():
            found.append((frame["flip"] | frame["lost"]).to_numpy().reshape(len(ways), -1))
    if len(found) < FEWEST_REWRITTEN:
        return TurnedOver(len(found), {}, pd.DataFrame())
    shares, rows = {}, {}
    for i, way in enumerate(ways):
        of_way = np.array(found)[:, i].astype(float)  # [trace, set]
        differences = of_way[:, 0] - of_way[:, 1:].mean(1)
        low, high = bootstrap_interval(differences, seed=seed)
        shares[way] = of_way.mean(0)
        rows[way] = against_random(shares[way], "greater")
        rows[way] |= {"difference": differences.mean(), "ci_low": low, "ci_high": high}
    return TurnedOver(len(found), shares, pd.DataFrame(rows).T)


@dataclass(frozen=True)
class Domination:
    """Whether the random sets that hold the head that costs most cost more than all others.

    `dominated` is how many hold it, 0 where the two groups overlap or one is empty; the changes
    (nats) that they range over are then not told. `others` hold it not, and `others_beyond` of
    these cost as much as the set in question or more.
    """

    dominated: int
    dominated_low: float | None
    dominated_high: float | None
    others_low: float | None
    others_beyond: int
    others: int


def domination(
    head: Head, sets: Sequence[HeadSet], changes: Float[np.ndarray, " set"]
) -> Domination:
    """What `head` alone explains of the random sets' changes (nats, the first set's in front).

    Differences below 1e-6, rounding in float32, count as ties. Stage 06.
    """
    own, *drawn = np.round(np.asarray(changes, dtype=float), 6)
    drawn, holds = np.array(drawn), np.array([head in heads for heads in sets[1:]])
    within, without = drawn[holds], drawn[~holds]
    apart = bool(len(within) and len(without) and within.max() < without.min())
    return Domination(
        dominated=int(holds.sum()) if apart else 0,
        dominated_low=within.min() if apart else None,
        dominated_high=within.max() if apart else None,
        others_low=without.min() if apart else None,
        others_beyond=int((without <= own).sum()),
        others=len(without),
    )


VERDICTS = ("different", "cannot tell", "no difference found")
"""What sets of heads against random ones can come to: see `verdict`."""


def floor_p(head: Head, sets: Sequence[HeadSet], by_draw: Mapping[str, ByDraw]) -> float:
    """The smallest p, after Holm's correction, that these sets could give the first one.

    Random sets that hold a `head` which costs more than all others are ahead of any set that lacks
    it, however many traces are measured.
    """
    ahead = [
        0 if head in sets[0] else domination(head, sets, change.mean(0)).dominated
        for change in by_draw.values()
    ]
    return min(1.0, len(ahead) * (1 + min(ahead)) / len(sets))


def verdict(smallest_p: float, floor: float, level: float = LEVEL) -> str:
    """One of `VERDICTS`: a p that could not have passed the level says nothing by not passing."""
    if smallest_p <= level:
        return VERDICTS[0]
    return VERDICTS[1] if floor > level else VERDICTS[2]


@dataclass(frozen=True)
class HeadInterventions:
    """What stage 06 found of heads; changes are of the answer's log-probability, in nats.

    `sets` and `flips` are `against_random` by way, `smallest_possible_p` is `floor_p`, `verdict`
    one of `VERDICTS`, `shared` the mean overlap of a random set with the heads, `engine` that of
    `knockout_curves`.
    """

    n: int
    n_fresh: int
    engine: str
    strongest_layer: int
    strongest_change: float
    strongest_random: float
    all_layers: float
    sets: dict[str, dict[str, float]]
    smallest_p: float
    smallest_possible_p: float
    verdict: str
    level: float
    n_random_sets: int
    n_possible_sets: int
    n_heads: int
    shared: float
    n_draws: int
    resample_low: float
    resample_high: float
    flip_n: int
    fewest_flip_n: int
    n_flip_sets: int
    flips: dict[str, dict[str, float]]
    top_head_lost: float
    top_head: str
    top_is_rfh: bool
    dominated: int
    dominated_low: float | None
    dominated_high: float | None
    others_low: float | None
    others_beyond: int
    others: int


def summarised_interventions(
    model: ReasoningModel,
    chosen: ChosenTraces,
    sets: Sequence[HeadSet],
    curves: pd.DataFrame,
    all_layers: float,
    lost: Float[np.ndarray, "layer head"] | Float[xr.DataArray, "layer head"],
    by_draw: Mapping[str, ByDraw],
    turned: TurnedOver,
) -> HeadInterventions:
    """What is told of a run's interventions on heads.

    `sets` begin with the heads in question; `curves` are of `knockout_curves` one layer wide,
    `all_layers` is the mean change with all of them cut, `lost` what each head alone costs (nats),
    `by_draw` of `set_changes`. Stage 06 quotes it.
    """
    heads, *drawn = sets
    lost = np.asarray(lost)
    top = tuple(map(int, np.unravel_index(np.nanargmax(lost), lost.shape)))
    cut = curves[curves["edges"] == WAYS[0]]
    strongest = cut.loc[cut["effect"].idxmin()]
    table = set_table(by_draw)
    dominating = domination(top, sets, by_draw["knockout"].mean(0))
    smallest, floor = table["p, Holm"].min(), floor_p(top, sets, by_draw)
    return HeadInterventions(
        n=len(chosen.traces),
        n_fresh=chosen.n_fresh,
        engine=curves.attrs["engine"],
        strongest_layer=int(strongest.layer),
        strongest_change=strongest.effect,
        strongest_random=curves.loc[curves["edges"] == WAYS[1], "effect"].min(),
        all_layers=all_layers,
        sets=table.drop(columns="p, Holm").to_dict("index"),
        smallest_p=smallest,
        smallest_possible_p=floor,
        verdict=verdict(smallest, floor),
        level=LEVEL,
        n_random_sets=len(drawn),
        n_possible_sets=n_possible_sets(heads, model.n_heads),
        n_heads=len(heads),
        shared=np.mean([len({*other} & {*heads}) for other in drawn]),
        n_draws=len(by_draw["resample"]),
        resample_low=by_draw["resample"][:, 0].min(),
        resample_high=by_draw["resample"][:, 0].max(),
        flip_n=turned.n,
        fewest_flip_n=FEWEST_REWRITTEN,
        n_flip_sets=max((len(share) - 1 for share in turned.shares.values()), default=0),
        flips=turned.table.to_dict("index"),
        top_head_lost=float(np.nanmax(lost)),
        top_head=figures.head_name(*top),
        top_is_rfh=top in heads,
        **vars(dominating),
    )
