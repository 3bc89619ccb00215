"""Heads chosen where the answer is written, on one half of the traces, and cut on the other half.

A set of heads that was ranked elsewhere, against random sets that may hold the one head that
matters, cannot be told from them however many traces are measured (`head_sets.py`). So there is a
second design, laid down before its results: the heads are ranked by the attention of the very
tokens that write the boxed answer, on every second trace; the edges are cut on the others; and two
questions are asked, of all of them and of those beside the *dominating* head, the one whose cut
alone costs most on the first half. In the second the random sets lack it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from r2a_utils import figures
from r2a_utils.attention.mass import token_set_mass
from r2a_utils.causal.head_sets import HeadSet, verdict
from r2a_utils.causal.interventions import Knockout, measure
from r2a_utils.causal.random_sets import (
    Head,
    against_random,
    n_possible_sets,
    random_head_sets,
)
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import holm
from r2a_utils.texts.trace import Trace, answer_span

ALL, BESIDE = "all of them", "those beside the dominating head"


@dataclass(frozen=True)
class Question:
    """One set of heads against random sets, on the tested half; changes in nats.

    `mean` and `median` are `against_random` of the mean and of the median over traces. `p` is that
    of the mean with Holm's correction for the questions, `floor` the smallest that it could be:
    random sets that hold the dominating head are ahead of a set that lacks it. `verdict` is that of
    `head_sets.verdict`.
    """

    question: str
    n_heads: int
    mean: dict[str, float]
    median: dict[str, float]
    p: float
    floor: float
    verdict: str


@dataclass(frozen=True)
class HeldOutHeads:
    """What the second design found. `shared` heads are among the Reasoning-Focus Heads.

    The heads are ranked on `n_ranked` traces and cut on `n_cut` others; `questions` lacks one for
    which no other set of the same layers exists.
    """

    n_ranked: int
    n_cut: int
    n_sets: int
    k: int
    shared: int
    dominating: str
    holds: bool
    questions: list[Question]


def heads_where_written(model: ReasoningModel, traces: Sequence[Trace], k: int) -> HeadSet:
    """The `k` heads whose attention from the tokens that write the answer is most on the reasoning.

    The writing token is the one before each token of the box's content. Raises ValueError for a
    trace without a box. Stage 06.
    """
    spans = [answer_span(trace) for trace in traces]
    queries = [slice(span.start - 1, span.stop - 1) for span in spans]
    sets = [{"reasoning": trace.segments["reasoning"]} for trace in traces]
    mass = token_set_mass(model, traces, sets, queries=queries).sel(token_set="reasoning")
    mean = mass.mean("trace").values
    order = np.argsort(np.where(np.isnan(mean), np.inf, -mean), axis=None, kind="stable")
    chosen = np.unravel_index(order[:k], mean.shape)
    return tuple((int(layer), int(head)) for layer, head in zip(*chosen, strict=True))


def held_out_heads(
    model: ReasoningModel,
    traces: Sequence[Trace],
    lost: Sequence[Float[np.ndarray, "layer head"]],
    rfhs: Sequence[Head],
    n_sets: int = 100,
    seed: int = 0,
    kind: str = "renormalised",
) -> HeldOutHeads:
    """Rank heads on every second trace, cut them from the reasoning on the others.

    `lost` is what each head's cut alone costs in each trace (nats), as many heads are chosen as
    there are in `rfhs`, `kind` is that of `Knockout`. Raises ValueError for fewer than two traces
    and as `heads_where_written`. Stage 06.
    """
    if len(traces) < 2:
        raise ValueError(f"two halves need 2 traces, got {len(traces)}")
    heads = heads_where_written(model, traces[::2], len(rfhs))
    alone = np.mean(np.asarray(lost[::2]), axis=0)
    dominating = tuple(map(int, np.unravel_index(np.nanargmax(alone), alone.shape)))
    beside = tuple(head for head in heads if head != dominating)
    asked = {ALL: (heads, None), BESIDE: (beside, dominating)}
    sets = {
        name: [own, *random_head_sets(own, model.n_heads, n_sets, seed, without=without)]
        for name, (own, without) in asked.items()
        if n_possible_sets(own, model.n_heads, without) > 1
    }
    every = [Knockout(heads=each, kind=kind) for of in sets.values() for each in of]
    changes = np.array([measure(model, trace, every)["change"] for trace in traces[1::2]])
    by_set = changes.reshape(len(changes), len(sets), 1 + n_sets)
    means = [against_random(values) for values in by_set.mean(0)]
    medians = [against_random(values) for values in np.median(by_set, axis=0)]
    questions = [
        Question(
            name, len(own), mean, median, float(p), floor, verdict(float(p), floor)
        )
        for (name, (own, *others)), mean, median, p in zip(
            sets.items(), means, medians, holm([mean["p"] for mean in means]), strict=True
        )
        for floor in [_floor(own, others, dominating, len(sets))]
    ]  # fmt: skip
    return HeldOutHeads(
        n_ranked=len(traces[::2]),
        n_cut=len(changes),
        n_sets=n_sets,
        k=len(heads),
        shared=len({*heads} & {*map(tuple, rfhs)}),
        dominating=figures.head_name(*dominating),
        holds=dominating in heads,
        questions=questions,
    )


def _floor(own: HeadSet, others: Sequence[HeadSet], dominating: Head, n_questions: int) -> float:
    ahead = 0 if dominating in own else sum(dominating in other for other in others)
    return min(1.0, n_questions * (1 + ahead) / (1 + len(others)))
