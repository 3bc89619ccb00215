"""Three kinds of knockout beside each other, and beside an answer without any reasoning.

What a knockout does has two parts: what was not read, and what the model makes of the hole. The
kinds (`CUT_KINDS` of the engine) fill the hole in three ways; what they have in common is not an
artefact of one of them. A layer that costs more alone than all layers together is a sign of such an
artefact, and the answer of a prompt whose thought is empty says what is lost where there is nothing
to read at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from r2a_utils.causal.interventions import Knockout, measure
from r2a_utils.engine.answer_logprobs import answer_caches, cached_scores
from r2a_utils.engine.patches import CUT_KINDS
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture
from r2a_utils.stats import LEVEL, bootstrap_interval, bootstrap_mean_intervals
from r2a_utils.texts.trace import Trace, answer_span, forced_ids

KIND_TITLES = {
    "renormalised": "renormalised: the weight goes elsewhere",
    "zeroed": "zeroed: the weight is gone",
    "mean": "mean: the weight goes evenly to all cut tokens",
}
"""What becomes of the weight that is taken away, in a figure's words."""


@dataclass(frozen=True, eq=False)
class KnockoutKinds:
    """Changes of the answer's log-probability (nats), by kind and trace.

    `alone` is one layer cut, [kind, trace, attending layer], `together` all layers cut, [kind,
    trace], `absent` the reasoning left out of the prompt, [trace]. Kinds are in the order of
    `CUT_KINDS`, `layers` those that attend; `seed` draws the intervals.
    """

    alone: Float[np.ndarray, "3 trace layer"]
    together: Float[np.ndarray, "3 trace"]
    absent: Float[np.ndarray, " trace"]
    layers: tuple[int, ...]
    seed: int

    def curves(self) -> pd.DataFrame:
        """By kind and layer, as `figures.knockout_profile` draws it: mean and 95 % interval."""
        parts = []
        for kind, alone in zip(CUT_KINDS, self.alone, strict=True):
            low, high = bootstrap_mean_intervals(alone, seed=self.seed)
            frame = {"edges": KIND_TITLES[kind], "layer": self.layers, "effect": alone.mean(0)}
            parts.append(pd.DataFrame(frame | {"ci_low": low, "ci_high": high}))
        return pd.concat(parts, ignore_index=True)

    def table(self) -> pd.DataFrame:
        """By kind: the strongest layer alone, all layers, and their difference; last, no thought.

        Changes in nats, means over traces.
        """
        rows = {
            kind: {
                "strongest layer": told.layer,
                "alone": told.alone,
                "all layers": told.together,
                "excess": told.excess,
                "excess from": told.excess_low,
                "excess to": told.excess_high,
            }
            for kind, told in self.summary().items()
        }
        rows["no reasoning at all"] = {"all layers": self.absent.mean()}
        return pd.DataFrame(rows).T.astype({"strongest layer": "Int64"}).rename_axis("kind of cut")

    def summary(self) -> dict[str, KindSummary]:
        """What is told of each kind."""
        return {
            kind: _summary(alone, together, self.layers, self.seed)
            for kind, alone, together in zip(CUT_KINDS, self.alone, self.together, strict=True)
        }


@dataclass(frozen=True)
class KindSummary:
    """One kind of knockout: its strongest layer alone, and all layers; means over traces, nats.

    `excess` is how much more that one layer costs than all of them (negative: less), with an
    interval at the level of `LEVEL` shared among the layers, since the layer was chosen; `exceeds`
    says that the interval lies above 0.
    """

    layer: int
    alone: float
    together: float
    excess: float
    excess_low: float
    excess_high: float
    exceeds: bool


def knockout_kinds(model: ReasoningModel, traces: Sequence[Trace], seed: int = 0) -> KnockoutKinds:
    """Cut answer → reasoning by every kind, in each layer that attends and in all of them.

    A trace costs 3 · (layers + 1) runs of its answer's tokens and two forwards. Raises ValueError
    as `measure` does. Geva et al. 2023; Mohebbi et al. 2023 (arXiv:2301.12971); stage 06.
    """
    layers = architecture(model).attending
    cuts = [
        Knockout(layers=which, kind=kind)
        for kind in CUT_KINDS
        for which in (*((layer,) for layer in layers), None)
    ]
    frames = [measure(model, trace, cuts) for trace in traces]
    shape = (len(traces), len(CUT_KINDS), len(layers) + 1)
    changes = np.array([frame["change"] for frame in frames]).reshape(shape).swapaxes(0, 1)
    without = [log_probability_without_reasoning(model, trace) for trace in traces]
    absent = np.array(without) - [frame["before"].iloc[0] for frame in frames]
    return KnockoutKinds(changes[..., :-1], changes[..., -1], absent, layers, seed)


def log_probability_without_reasoning(model: ReasoningModel, trace: Trace) -> float:
    """Of the trace's own answer (nats), forced behind an empty thought.

    Raises ValueError for an answer without a box. Early answering, Lanham et al. 2023, at its very
    beginning; stage 06.
    """
    answer = tuple(trace.token_ids[answer_span(trace)])
    ids = forced_ids(trace, model.tokenizer, 0, tags=model.tags)
    return float(cached_scores(answer_caches(model, ids, [answer]), [answer])[0, 0])


@dataclass(frozen=True)
class KindsTold:
    """What stage 06 tells of the kinds; changes of the answer's log-probability, in nats.

    `used` is the kind of all other knockouts of the page; `only_renormalised` says that one layer
    costs more than all in that kind and in no other.
    """

    n: int
    used: str
    kinds: dict[str, KindSummary]
    exceeding: list[str]
    only_renormalised: bool
    absent: float
    absent_low: float
    absent_high: float


def summarised_kinds(found: KnockoutKinds, used: str) -> KindsTold:
    """What is told of `knockout_kinds`, where other knockouts are of the kind `used`. Stage 06."""
    kinds = found.summary()
    exceeding = [kind for kind, told in kinds.items() if told.exceeds]
    low, high = bootstrap_interval(found.absent, seed=found.seed)
    return KindsTold(
        n=len(found.absent),
        used=used,
        kinds=kinds,
        exceeding=exceeding,
        only_renormalised=exceeding == ["renormalised"],
        absent=found.absent.mean(),
        absent_low=low,
        absent_high=high,
    )


def _summary(
    alone: Float[np.ndarray, "trace layer"],
    together: Float[np.ndarray, " trace"],
    layers: Sequence[int],
    seed: int,
) -> KindSummary:
    strongest = int(alone.mean(0).argmin())
    excess = together - alone[:, strongest]
    low, high = bootstrap_interval(excess, 1 - LEVEL / len(layers), seed)
    return KindSummary(
        layer=layers[strongest],
        alone=alone[:, strongest].mean(),
        together=together.mean(),
        excess=excess.mean(),
        excess_low=low,
        excess_high=high,
        exceeds=bool(low > 0),
    )
