"""What random weights show: the same tables from untrained twins of the model, on its own traces.

Much that looks like a finding needs no training: an untrained head ranks, walks and prefers some
places, since the place of the reasoning is enough for that. So each measure of stages 03 to 04b
stands beside the same measure of a few models of the same shape with random weights, and a page
says of the model only what none of them shows. Each twin's own best head is compared, which pays
for having picked the best of many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields

import pandas as pd

from r2a_utils.attention.corrections import CorrectedValues, corrected_values, restated_digits
from r2a_utils.attention.distance import distance_test
from r2a_utils.attention.head_tests import (
    RankingSummary,
    border_test,
    middle_layers,
    turned_reasonings,
)
from r2a_utils.attention.heads import (
    FEWEST_IN_HALVES,
    Masses,
    head_pairs,
    head_scores,
    rank_heads,
    ranking_reliability,
)
from r2a_utils.attention.mass import attention_profile, attention_rows, segment_mass, token_set_mass
from r2a_utils.attention.sinks import find_sink
from r2a_utils.attention.trajectories import (
    BestTracking,
    CueLift,
    best_tracking,
    cue_lift,
    overall_cue_lift,
    tracking_and_beyond,
)
from r2a_utils.models.loading import ReasoningModel, untrained_twin
from r2a_utils.stats import LEVEL
from r2a_utils.texts.trace import Trace


@dataclass(frozen=True)
class Beside:
    """A model's own measure, and the largest of each number over n untrained twins.

    untrained lacks what no twin has.
    """

    n: int
    own: dict[str, float | None]
    untrained: dict[str, float]

    def table(self, name: str) -> pd.DataFrame:
        """Both as rows: the model, by its name, and the twins' largest."""
        rows = {name: self.own, f"largest of {self.n} untrained": self.untrained}
        return pd.DataFrame(list(rows.values()), index=list(rows)).astype(float)


def beside_untrained(
    model: ReasoningModel, own: object, measure: Callable[[ReasoningModel], object], n: int
) -> Beside:
    """A model's `own` measure, a dataclass of numbers, beside that of n untrained twins.

    One twin lives at a time. Of a model on a host there is none: it may be too large to be here.
    """
    n = 0 if model.remote else n
    twins = [asdict(measure(untrained_twin(model, seed=seed))) for seed in range(n)]
    numbers = {
        name: [twin[name] for twin in twins if twin[name] is not None] for name in asdict(own)
    }
    return Beside(n, asdict(own), {name: max(found) for name, found in numbers.items() if found})


@dataclass(frozen=True)
class Looking:
    """How a model's answers look at the reasoning, over all heads (`head_scores`).

    lift: mean over heads; largest_lift: that of the head with the largest; above_uniform: how many
    heads have one above 1.
    """

    lift: float
    largest_lift: float
    above_uniform: int


def looking(mass: Masses) -> Looking:
    """Sum up the segment masses of a model."""
    lift = head_scores(mass)["lift"]
    return Looking(float(lift.mean()), float(lift.max()), int((lift > 1).sum()))


def heads_beyond(mass: Masses, lift: float) -> int:
    """How many heads have a larger `head_scores` lift than this one."""
    return int((head_scores(mass)["lift"] > lift).sum())


def looking_of(
    traces: Sequence[Trace], batch_size: int = 16
) -> Callable[[ReasoningModel], Looking]:
    """`looking` of a model on these traces. Stage 03."""
    return lambda twin: looking(segment_mass(twin, traces, batch_size=batch_size))


@dataclass(frozen=True)
class Ranking:
    """How a model's own top k heads pass the tests of stage 04.

    top_mass, top_lift: of the first; reliability: split-half, None for few traces; above_null,
    beyond_distance and in_middle: of the k, as in `RankingSummary`.
    """

    top_mass: float
    top_lift: float
    reliability: float | None
    above_null: int
    beyond_distance: int
    in_middle: int


def own_ranking(summary: RankingSummary) -> Ranking:
    """What a run has measured of its own model already."""
    return Ranking(**{field.name: getattr(summary, field.name) for field in fields(Ranking)})


def ranking_of(
    traces: Sequence[Trace], k: int, n_shuffles: int, n_watched: int, *, seed: int = 0
) -> Callable[[ReasoningModel], Ranking]:
    """A model's ranking on these traces, and its tests against n_shuffles turned borders.

    The distance profiles are of the first n_watched traces. Stage 04.
    """
    turned = [turned_reasonings(t.segments, n_shuffles, seed + i) for i, t in enumerate(traces)]
    watched = traces[:n_watched]

    def measure(twin: ReasoningModel) -> Ranking:
        mass = segment_mass(twin, traces)
        top = rank_heads(mass, k=k, seed=seed)
        heads = head_pairs(top)
        null = border_test(mass, token_set_mass(twin, traces, turned))
        rows = [attention_rows(twin, trace, heads).values for trace in watched]
        sink = find_sink(twin).position
        recency = distance_test(rows, [trace.segments for trace in watched], sink, seed=seed)
        halved = len(traces) >= FEWEST_IN_HALVES
        return Ranking(
            top_mass=top["mass"][0],
            top_lift=top["lift"][0],
            reliability=ranking_reliability(mass, seed=seed).spearman if halved else None,
            above_null=int((null[:k]["p_familywise"] <= LEVEL).sum()),
            beyond_distance=int((recency["ci_low"] > 0).sum()),
            in_middle=int(middle_layers(twin.n_layers)[top["layer"]].sum()),
        )

    return measure


@dataclass(frozen=True)
class Following:
    """What a model's heads do along the reasoning, its own best ones (stage 04b).

    rho, beyond: of the head that walks along best, and of the one that does so most beyond distance
    (`best_tracking`); cue_lift: over all cues, through its own top k heads, None without a cue;
    corrected: the share on the corrected digit of the head that reads it most (`corrected_values`),
    None where too few are restated.
    """

    rho: float
    beyond: float | None
    cue_lift: float | None
    corrected: float | None


def own_following(walk: BestTracking, lift: CueLift, values: CorrectedValues) -> Following:
    """What a run has measured of its own model already."""
    return Following(walk.rho, walk.beyond, lift.lift, values.share)


def following_of(
    traces: Sequence[Trace],
    followed: Sequence[Trace],
    cued: Sequence[Trace],
    k: int,
    *,
    seed: int = 0,
) -> Callable[[ReasoningModel], Following]:
    """A model's walks over the traces `followed`, its cue lift over `cued`. Stage 04b."""

    def measure(twin: ReasoningModel) -> Following:
        heads = head_pairs(rank_heads(segment_mass(twin, followed), k=k, seed=seed))
        sink = find_sink(twin).position
        profiles = [attention_profile(twin, trace, sink=sink) for trace in followed]
        walk = best_tracking(tracking_and_beyond(profiles, heads, seed=seed))
        reads = [attention_rows(twin, t, heads).mean(["head", "query"]).values for t in cued]
        lifts = cue_lift(cued, reads, seed=seed) if cued else None
        digits = restated_digits(twin, traces)
        return Following(
            rho=walk.rho,
            beyond=walk.beyond,
            cue_lift=overall_cue_lift(lifts).lift,
            corrected=corrected_values(digits, heads, seed=seed).share,
        )

    return measure
