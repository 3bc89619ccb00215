"""The paper's own stage 1, read anew: its paired comparisons, its funnel, its judge's scores.

This file knows what follows from the published numbers. The numbers themselves are in `paper`.
"""

from __future__ import annotations

import pandas as pd

from r2a_utils.paper import discordant_pairs, published
from r2a_utils.stats import LEVEL, holm, mcnemar_exact
from r2a_utils.texts.trace import CONDITIONS


def published_comparison() -> pd.DataFrame:
    """The paper's MATH-500 comparison, a row a model, with McNemar's exact test beside its t-test.

    The published columns (model, n, with_reasoning, without_reasoning, t, p) with difference,
    only_with, only_without (the one pair of counts that t, n and the accuracies leave) and
    mcnemar_p. Zhang et al. 2025; stage 1.
    """
    rows = pd.DataFrame(published()["stage1_math500"]["rows"])
    counts = [
        discordant_pairs(row.n, row.with_reasoning, row.without_reasoning, row.t)
        for row in rows.itertuples()
    ]
    return rows.assign(
        difference=rows["with_reasoning"] - rows["without_reasoning"],
        only_with=[first for first, _ in counts],
        only_without=[second for _, second in counts],
        mcnemar_p=[mcnemar_exact(*pair) for pair in counts],
    )


def published_funnel() -> pd.DataFrame:
    """How many problems the paper's filters leave: a row per model and condition, a column a step.

    Stage 1.
    """
    funnels = published()["stage1_math500"]["funnel"]
    rows = {
        (model, condition): counts
        for model, conditions in funnels.items()
        if model != "columns"
        for condition, counts in conditions.items()
    }
    return pd.DataFrame(rows, index=funnels["columns"]).T


def most_unfinished(funnel: pd.DataFrame) -> float:
    """The largest share of a model's traces with reasoning that did not finish. Stage 1."""
    finished = funnel["finished"] / funnel["asked"]
    return float((1 - finished.unstack()["with_reasoning"]).max())


def published_scores(level: float = LEVEL) -> pd.DataFrame:
    """The judge's mean scores on WildBench, a row per model, area and condition.

    Columns panel (model and n), label (area), condition, score (1 to 10), p (the paper's), and
    differs: whether p is below `level` after Holm's correction over all panels. Zhang et
    al. 2025; stage 1.
    """
    wildbench = published()["stage1_wildbench"]
    scores = pd.DataFrame(
        [
            {"panel": f"{row['model']}\nn = {row['n'][-1]}", "label": area, "score": score, "p": p}
            | {"condition": condition}
            for row in wildbench["rows"]
            for condition in CONDITIONS
            for area, score, p in zip(wildbench["areas"], row[condition], row["p"], strict=True)
        ]
    )
    tests = scores[scores["condition"] == CONDITIONS[0]]
    tests = tests.assign(differs=holm(tests["p"]) < level)[["panel", "label", "differs"]]
    return scores.merge(tests, on=["panel", "label"])
