"""Which traces are intervened on, and which serve as the pool of resampled states.

What is tested on the traces that chose it looks better than it is: traces that had no part in
ranking the heads come first. This file knows grades and traces; it runs no model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd

from r2a_utils.causal.sentences import shortened
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace

FEWEST = 3
"""Right traces that stage 06 needs: two give an interval, one a pool."""


@dataclass(frozen=True)
class ChosenTraces:
    """The traces that are intervened on, and the others, from which states are resampled.

    `n_fresh` of `traces` had no part in ranking the heads.
    """

    traces: list[Trace]
    others: list[Trace]
    n_fresh: int


def choose_traces(
    model: ReasoningModel,
    traces: Sequence[Trace],
    answers: pd.DataFrame,
    ranked: Collection[str],
    n: int,
) -> ChosenTraces:
    """Right traces with shortened answers, one a problem, and first those that ranked no head.

    `answers` are graded (columns problem_id, sample, correct), `ranked` the problems whose traces
    ranked the heads. As many more as are intervened on, `n` at most, serve as the others; where
    there are fewer than 2 n, they are halved. Raises ValueError for fewer than `FEWEST`. Stage 06.
    """
    right = answers.loc[answers["correct"].astype(bool), ["problem_id", "sample"]]
    right = set(right.itertuples(index=False, name=None))
    written: dict[str, Trace] = {}
    for trace in traces:
        if (trace.problem_id, trace.sample) in right:
            written.setdefault(trace.problem_id, trace)
    if len(written) < FEWEST:
        raise ValueError(
            f"interventions need {FEWEST} right traces of different problems, have {len(written)}: "
            "--set n_problems=… asks more problems; --set model_name=… takes a model that is right "
            "more often"
        )
    first = sorted(written.values(), key=lambda trace: trace.problem_id in ranked)[: 2 * n]
    short = [shortened(trace, model.tokenizer, model.tags) for trace in first]
    cut = -(-len(short) // 2)
    n_fresh = sum(trace.problem_id not in ranked for trace in short[:cut])
    return ChosenTraces(short[:cut], short[cut:], n_fresh)
