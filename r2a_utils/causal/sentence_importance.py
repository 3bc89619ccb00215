"""Over many traces: how much of the reasoning an answer needs, and whether what is read is needed.

One trace by its sentences, `sentences.py` measures. This file asks the same of many: the share of
the reasoning that a forced answer needs, what each sentence's knockout costs, and how that cost
goes with what heads read and with the sentence's mere place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr

from r2a_utils.answers.early_answering import area_over_curve
from r2a_utils.attention.weights import attention_rows
from r2a_utils.causal.random_sets import Head
from r2a_utils.causal.sentences import forced_answers, sentence_knockouts
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import every_head
from r2a_utils.stats import bootstrap_interval, partial_spearman, wilson_interval
from r2a_utils.texts.trace import Trace, sentences

NOISE = 0.1
"""Nats. Where no sentence costs more, the order of the costs is rounding."""

FEWEST_SENTENCES = 4
"""Of a trace whose costs are ranked: the fewest of which a place can be taken away."""

SHOWN_SENTENCES = 10
"""As many as a page shows well: the trace that is closest to it is the example."""

CORRELATED = {
    "read": "read by these heads",
    "all_heads": "read by all heads",
    "place": "the sentence's place",
    "place_taken_away": "read by these heads, place taken away",
    "length_taken_away": "read by these heads, length taken away",
}
"""What a sentence's cost is held against, and how a table says so."""

NEEDED = "share of the reasoning that a forced answer needs"
LAST_COSTS_MOST = "costly traces in which the last sentence costs most"


def example_of(traces: Sequence[Trace]) -> Trace:
    """The first of the traces whose count of sentences is closest to `SHOWN_SENTENCES`.

    Raises ValueError for no trace.
    """
    return min(traces, key=lambda trace: abs(len(sentences(trace)) - SHOWN_SENTENCES))


def read_by_sentence(model: ReasoningModel, trace: Trace, heads: Sequence[Head]) -> list[float]:
    """Attention of the answer's tokens to each sentence (a share), mean over tokens and heads.

    Raises ValueError as `attention_rows` does. Stage 06.
    """
    rows = attention_rows(model, trace, heads).mean(("head", "query")).values
    return [float(rows[span].sum()) for span in sentences(trace)]


def needed_share(model: ReasoningModel, trace: Trace) -> float:
    """Share of the reasoning before a forced answer is the trace's; 0 none of it, 1 all of it.

    NaN where the answer is not written even after all of it. Lanham et al. 2023; stage 06.
    """
    forced = forced_answers(model, trace)
    if not forced["written"].iloc[-1]:
        return np.nan
    forced["fraction"] = forced["sentences"] / forced["sentences"].max()
    forced = forced.rename(columns={"written": "same_as_full"})
    return area_over_curve(forced.assign(problem_id=trace.problem_id)).item()


def agreement(
    model: ReasoningModel,
    trace: Trace,
    heads: Sequence[Head],
    knockouts: pd.DataFrame,
) -> dict[str, float]:
    """Spearman's correlations of `CORRELATED` with the costs of sentences in `sentence_knockouts`.

    A long sentence is read more and costs more for its length alone. With the length taken away,
    attention per token is held against what a sentence costs more than random spans of its length;
    a sentence beside which none fits is left out. NaN where a correlation is not defined. Stage 06.
    """
    read, cost = np.array(read_by_sentence(model, trace, heads)), -knockouts["change"].to_numpy()
    place, length = np.arange(len(cost)), (knockouts["stop"] - knockouts["start"]).to_numpy()
    above_random = cost + knockouts["random_mean"].to_numpy()
    fits = np.isfinite(above_random)
    enough = fits.sum() >= FEWEST_SENTENCES
    per_token = spearmanr((read / length)[fits], above_random[fits])[0] if enough else np.nan
    return {
        "read": spearmanr(read, cost)[0],
        "all_heads": spearmanr(read_by_sentence(model, trace, every_head(model)), cost)[0],
        "place": spearmanr(place, cost)[0],
        "place_taken_away": partial_spearman(read, cost, place),
        "length_taken_away": per_token,
    }


@dataclass(frozen=True, eq=False)
class ManyTraces:
    """What is asked of each trace.

    `needed` are the shares of those whose forced answer is written at all; `costs` a cost (nats)
    for each sentence, by trace; `agreements` a row for each trace that can be ranked, with the
    columns of `CORRELATED`, the last of which may be NaN. `seed` draws the intervals.
    """

    needed: Float[np.ndarray, " _trace"]
    costs: list[Float[np.ndarray, " _sentence"]]
    agreements: pd.DataFrame
    seed: int

    @property
    def dear(self) -> list[Float[np.ndarray, " _sentence"]]:
        """The costs of the traces in which some sentence costs more than `NOISE`."""
        return [cost for cost in self.costs if cost.max() > NOISE]

    @property
    def last(self) -> int:
        """The costly traces in which the last sentence costs most."""
        return sum(int(cost.argmax() == len(cost) - 1) for cost in self.dear)

    def table(self) -> pd.DataFrame:
        """A row for each thing asked: mean, 95 % interval over traces, and how many traces."""
        rows = {NEEDED: self._summary(self.needed)}
        for name in self.agreements:
            rows[f"cost ~ {CORRELATED[name]}"] = self._summary(self.agreements[name].to_numpy())
        if n := len(self.dear):
            rows[LAST_COSTS_MOST] = (self.last / n, *wilson_interval(self.last, n), n)
        table = pd.DataFrame(rows, index=["mean", "interval from", "interval to", "traces"]).T
        return table.astype({"traces": int})

    def _summary(self, values: Float[np.ndarray, " _trace"]) -> tuple[float, float, float, int]:
        """Mean with its interval over the traces that have the value; NaN for none."""
        values = values[np.isfinite(values)]
        if not len(values):
            return np.nan, np.nan, np.nan, 0
        return np.mean(values), *bootstrap_interval(values, seed=self.seed), len(values)

    def correlations(self) -> dict[str, dict[str, float | None]]:
        """By the names of `CORRELATED`: mean, low, high, n; None where there is no interval."""
        told = {}
        for name in self.agreements:
            mean, low, high, n = self._summary(self.agreements[name].to_numpy())
            bounds = (float(b) if np.isfinite(b) else None for b in (low, high))
            told[name] = dict(zip(("mean", "low", "high", "n"), (mean, *bounds, n), strict=True))
        return told


def over_many_traces(
    model: ReasoningModel,
    traces: Sequence[Trace],
    heads: Sequence[Head],
    *,
    spans: int = 4,
    seed: int = 0,
    kind: str = "renormalised",
) -> ManyTraces:
    """Ask of every trace what its answer needs and whether that is what `heads` read.

    A sentence's cost is that of its knockout, of a `kind` as in `Knockout`; `spans` random spans of
    its length stand beside it. Correlations are asked only of traces with `FEWEST_SENTENCES` in
    which some sentence costs more than `NOISE`. Raises ValueError as the measures of `sentences.py`
    do. Stage 06.
    """
    needed = np.array([needed_share(model, trace) for trace in traces])
    knockouts = [
        sentence_knockouts(model, trace, spans=spans, seed=seed, kind=kind) for trace in traces
    ]
    costs = [-table["change"].to_numpy() for table in knockouts]
    rows = [
        agreement(model, trace, heads, table)
        for trace, table, cost in zip(traces, knockouts, costs, strict=True)
        if cost.max() > NOISE and len(cost) >= FEWEST_SENTENCES
    ]
    agreements = pd.DataFrame(rows)
    if rows:
        agreements = agreements.dropna(subset=[*CORRELATED][:-1])
    return ManyTraces(needed[np.isfinite(needed)], costs, agreements, seed)


@dataclass(frozen=True)
class SentenceImportance:
    """What stage 06 tells of sentences; None where no trace says anything."""

    n: int
    needed_n: int
    needed: float | None
    noise: float
    dear_n: int
    last_strongest: float | None
    last_low: float | None
    last_high: float | None
    agreement_n: int
    fewest_sentences: int
    agreement: dict[str, dict[str, float | None]]
    shown_sentences: int
    first_share: float | None
    last_share: float | None
    samples: int
    unfinished: float | None
    resampled_tokens: int


def summarised_sentences(
    many: ManyTraces, resampled: pd.DataFrame | None, resampled_tokens: int
) -> SentenceImportance:
    """What is told: of many traces, and of the example's `resampled_answers`. Stage 06 quotes it.

    `resampled` is None of a model that writes nothing here. `resampled_tokens` is how long a
    continuation could be.
    """
    asked = resampled is not None
    dear = len(many.dear)
    low, high = wilson_interval(many.last, dear) if dear else (None, None)
    return SentenceImportance(
        n=len(many.costs),
        needed_n=len(many.needed),
        needed=many.needed.mean() if len(many.needed) else None,
        noise=NOISE,
        dear_n=dear,
        last_strongest=many.last / dear if dear else None,
        last_low=low,
        last_high=high,
        agreement_n=len(many.agreements),
        fewest_sentences=FEWEST_SENTENCES,
        agreement=many.correlations(),
        shown_sentences=SHOWN_SENTENCES,
        first_share=resampled["share"].iloc[0] if asked else None,
        last_share=resampled["share"].iloc[-1] if asked else None,
        samples=int(resampled["n"].iloc[0]) if asked else 0,
        unfinished=resampled["unfinished"].sum() / resampled["n"].sum() if asked else None,
        resampled_tokens=resampled_tokens,
    )
