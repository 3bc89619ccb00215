"""The paper's printed lists of heads, beside what the authors' masses say of these heads.

The lists come with the package, the scores of the heads with the book (`distills.py`). Shown in
stage 04; nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from r2a_utils.attention.distills import Distill
from r2a_utils.attention.head_tests import depth_test, head_overlap
from r2a_utils.models.registry import shape_of
from r2a_utils.paper import published

LISTS = {
    "reasoning-focus head": "stage2_reasoning_focus_heads_top10",
    "induction head": "stage2_induction_heads_top10",
    "retrieval head": "stage2_retrieval_heads_top10",
}
PRINTED = 10


@dataclass(frozen=True)
class DistillHeads:
    """What all heads of one distill read of the reasoning; shares are means over heads and cases.

    mass, sink_free: what they give the reasoning, of all and of what is not left on BOS; uniform: a
    head that looks at everything alike; ceiling: the largest lift that a head can have. above,
    above_sink_free: heads whose lift, or whose sink-free share over uniform, is above 1;
    prefer_reasoning: those that prefer it to the prompt at equal length. on_sink, on_answer: what
    they give to BOS and to the answer itself, uniform_answer what a uniform head gives to it.
    printed_low, printed_high: lifts of the printed heads, least and largest; shared: printed heads
    among the top 10 by mass.
    """

    heads: int
    lift: float
    mass: float
    sink_free: float
    uniform: float
    ceiling: float
    above: int
    above_sink_free: int
    prefer_reasoning: int
    on_sink: float
    on_answer: float
    uniform_answer: float
    reasoning_tokens: float
    printed_low: float
    printed_high: float
    shared: int


@dataclass(frozen=True)
class PublishedHeads:
    """The distills with masses, by name, and the printed heads of all of them together.

    printed: how many there are; prefer_prompt of them prefer the prompt at equal length. lost are
    not in the top 10 by mass; lost_retrieval of these are on the printed list of retrieval heads,
    lost_below_cut lie below the cut by more than their interval.
    """

    models: dict[str, DistillHeads]
    printed: int
    prefer_prompt: int
    lost: int
    lost_retrieval: int
    lost_below_cut: int


def printed_heads() -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Model → kind of head → the paper's printed top 10, as (layer, head)."""
    return {
        who: {kind: [tuple(h) for h in published()[key][who]] for kind, key in LISTS.items()}
        for who in published()["models"]
    }


def ranked_heads(distills: Mapping[str, Distill]) -> pd.DataFrame:
    """All heads of the distills, a row a head, by model and mean mass.

    Columns model, layer, head, rank (1 is the best), those of `Distill.scores`, printed and
    retrieval (whether the paper's list of either kind has the head), cut (the mass of our tenth).
    """
    tables = []
    for who, distill in distills.items():
        scores, lists = distill.scores, printed_heads()[who]
        pairs = list(zip(scores["layer"], scores["head"], strict=True))
        tables.append(
            scores.assign(
                model=who,
                rank=range(1, len(scores) + 1),
                printed=[pair in lists["reasoning-focus head"] for pair in pairs],
                retrieval=[pair in lists["retrieval head"] for pair in pairs],
                cut=scores["mass"][PRINTED - 1],
            )
        )
    return pd.concat(tables, ignore_index=True).set_index("model").reset_index()


def printed_places(*, seed: int = 0) -> pd.DataFrame:
    """Where the printed heads sit, and how many are printed as retrieval heads too: a row a model.

    Columns in_middle (of the middle third of the layers), expected_in_middle, p_central (nearness
    to the middle layer), shared, p (of a blind choice of as many heads), p_groups (of one that
    keeps the heads of a key/value group together). Of lists alone: no masses are needed.
    """
    rows = {}
    for who, hub_id in published()["models"].items():
        shape, lists = shape_of(hub_id), printed_heads()[who]
        sizes = [
            shape[f"num_{noun}"] for noun in ("hidden_layers", "attention_heads", "key_value_heads")
        ]
        depth = depth_test(lists["reasoning-focus head"], *sizes, seed=seed)
        compared = {kind: lists[kind] for kind in ("reasoning-focus head", "retrieval head")}
        [overlap] = head_overlap(compared, *sizes, seed=seed).to_dict("records")
        rows[who] = {
            "in_middle": depth.in_middle,
            "expected_in_middle": depth.expected_in_middle,
            "p_central": depth.p_central,
            **{name: overlap[name] for name in ("shared", "p", "p_groups")},
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def summarise_published(distills: Mapping[str, Distill]) -> PublishedHeads:
    """Sum up what the masses of the distills say of their heads and of the printed ones."""
    ranked = ranked_heads(distills)
    printed = ranked[ranked["printed"]]
    lost = printed[printed["rank"] > PRINTED]
    return PublishedHeads(
        models={
            who: _distill_heads(d, ranked[ranked["model"] == who]) for who, d in distills.items()
        },
        printed=len(printed),
        prefer_prompt=int((printed["length_matched"] < 0).sum()),
        lost=len(lost),
        lost_retrieval=int(lost["retrieval"].sum()),
        lost_below_cut=int((lost["ci_high"] < lost["cut"]).sum()),
    )


def _distill_heads(distill: Distill, ranked: pd.DataFrame) -> DistillHeads:
    printed, controls = ranked[ranked["printed"]], distill.controls
    return DistillHeads(
        heads=len(ranked),
        lift=float(ranked["lift"].mean()),
        mass=float(controls["mass"]["reasoning"]),
        sink_free=float(controls["sink-free"]["reasoning"]),
        uniform=distill.uniform,
        ceiling=distill.ceiling,
        above=int((ranked["lift"] > 1).sum()),
        above_sink_free=int((ranked["sink_free"] > distill.uniform).sum()),
        prefer_reasoning=int((ranked["length_matched"] > 0).sum()),
        on_sink=float(controls["mass"]["bos"]),
        on_answer=float(controls["mass"]["answer"]),
        uniform_answer=float(controls["uniform null"]["answer"]),
        reasoning_tokens=distill.tokens["reasoning"],
        printed_low=float(printed["lift"].min()),
        printed_high=float(printed["lift"].max()),
        shared=int((printed["rank"] <= PRINTED).sum()),
    )
