"""With reasoning against without: what a frame of answers says, under two accounting rules.

An *answers* frame has one row per (problem_id, condition, sample):

    problem_id  condition  sample  finished  well_formed  answer  correct  n_tokens  + slices

`finished`: the model ended its text itself. `well_formed`: exactly one reasoning and one answer.
`answer`: what was extracted, missing if nothing was. `correct`: the grade. `n_tokens`: all tokens
generated. Slice columns (family, steps, subject, level, area, model, …) hold one value a problem. A
column closed_by_us says where a thought was closed for the model.

Accounting rules, both always worth showing because they can disagree:
- "finished_pairs" (the paper's): problems whose answer was found in both conditions;
- "unfinished_wrong": every problem asked; without a found answer it counts as wrong.

Several samples of a problem are averaged first: the unit of every test is the problem.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from r2a_utils.stats import (
    CONFIDENCE,
    bootstrap_interval,
    bootstrap_means,
    holm,
    mcnemar_exact,
    paired_t,
    share_interval,
    wilcoxon_p,
)

ACCOUNTING = ("finished_pairs", "unfinished_wrong")
WITH, WITHOUT = "with_reasoning", "without_reasoning"
KEYS = ["problem_id", "condition", "sample"]
COLUMNS = [*KEYS, "finished", "well_formed", "answer", "correct", "n_tokens"]
COLUMNS_OF = {"correct": COLUMNS, "score": [*KEYS, "verdict", "score"]}
# The lowest score on the judge's scale: what an unfinished answer is worth under
# "unfinished_wrong", as an empty response is worth in WildBench.
LOWEST_SCORE = 1.0
# Texts without reasoning that are at least so long, as a share of those with it, hold reasoning.
AS_LONG = 0.8


def funnel(answers: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """How many of the answers asked for were finished, well formed too, and had an answer too.

    One row per condition (and value of `by`) and step: asked, finished, well formed, answer
    found; `count` is what passed this step and all before it. Where thoughts were closed for the
    model (column closed_by_us), a last step counts them, which leaves out none. The paper's funnel;
    stage 1. Raises ValueError for a missing column and a frame without rows.
    """
    groups = _group_columns(answers, by)
    _check(answers, [column for column in COLUMNS if column != "correct"])
    finished = answers["finished"].astype(bool)
    well_formed = finished & answers["well_formed"].astype(bool)
    passed = {
        "asked": pd.Series(True, index=answers.index),
        "finished": finished,
        "well formed": well_formed,
        "answer found": well_formed & answers["answer"].notna(),
    }
    if "closed_by_us" in answers and answers["closed_by_us"].any():
        passed["closed by us"] = answers["closed_by_us"].astype(bool)
    counts = pd.DataFrame(passed).groupby([answers[g] for g in groups], sort=False).sum()
    long = counts.stack().rename("count").rename_axis([*groups, "step"])
    return long.reset_index()


def equally_long(answers: pd.DataFrame) -> dict[str, float]:
    """Mean tokens of the finished texts by condition where both are about equally long, else empty.

    A model that writes as much without reasoning as with it reasons in its answer, so that the
    condition is not what it is called. Compared are problems that are finished in both; about
    equally long is `AS_LONG` of the length and more. Stages 01 and 02 warn by it.
    """
    finished = answers[answers["finished"].astype(bool)]
    lengths = finished.pivot_table("n_tokens", "problem_id", "condition").dropna()
    if len(lengths) == 0 or not {WITH, WITHOUT} <= set(lengths):
        return {}
    means = lengths[[WITH, WITHOUT]].mean()
    return means.to_dict() if means[WITHOUT] >= AS_LONG * means[WITH] else {}


def accuracies(
    answers: pd.DataFrame,
    accounting: str = "finished_pairs",
    by: str | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Share of right answers per condition (and value of `by`).

    Columns condition, n, accuracy, ci_low, ci_high: Wilson's interval where every problem is
    right or wrong, the bootstrap over problems where several samples make it a share. Raises
    ValueError as `paired_comparison` does. Stage 1.
    """
    return _per_condition(answers, accounting, by, confidence, "correct", "accuracy")


def mean_scores(
    scores: pd.DataFrame,
    accounting: str = "finished_pairs",
    by: str | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """A judge's mean score per condition (and value of `by`), with a bootstrap interval.

    Columns condition, n, score, ci_low, ci_high; `scores` as `paired_scores` takes them. Raises
    ValueError as `paired_comparison` does. Stage 1.
    """
    return _per_condition(scores, accounting, by, confidence, "score", "score")


def paired_comparison(
    answers: pd.DataFrame,
    accounting: str = "finished_pairs",
    by: str | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy with against without reasoning, one row per value of `by` (or one in all).

    n pairs; accuracy_with, accuracy_without and their difference with a paired bootstrap interval
    (BCa over problems); t and t_p, the paper's paired t-test; only_with and only_without, the
    discordant problems, and their exact McNemar p; holm_p, these p-values adjusted over the rows of
    this frame (Holm 1979). Where problems were asked several times, each is right in a share of its
    samples: McNemar's test is not defined, its three columns are missing values, and holm_p adjusts
    t_p. Raises ValueError for an unknown rule, a missing column, a row that stands twice, and
    problems that were asked in one condition only. Stage 1.
    """
    rows, several = [], answers["sample"].nunique() > 1 if "sample" in answers else False
    for value, part in _slices(answers, by, COLUMNS):
        pairs = paired_values(part, accounting)
        with_, without = pairs[WITH].to_numpy(), pairs[WITHOUT].to_numpy()
        only_with = None if several else int((with_ > without).sum())
        only_without = None if several else int((with_ < without).sum())
        rows.append(
            _slice_row(by, value)
            | _difference("accuracy", with_, without, confidence, seed)
            | {"only_with": only_with, "only_without": only_without}
            | {"mcnemar_p": np.nan if several else mcnemar_exact(only_with, only_without)}
        )
    return _with_holm(rows, "t_p" if several else "mcnemar_p", accounting)


def paired_scores(
    scores: pd.DataFrame,
    accounting: str = "finished_pairs",
    by: str | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> pd.DataFrame:
    """A judge's scores with against without reasoning, one row per value of `by` (or one in all).

    `scores` has problem_id, condition, sample, verdict and score, as `judge_answers` returns
    them. A verdict "rubbish" is no score: those answers are left out under either rule and
    counted in the column rubbish. An "unanswered" one is left out, or worth 1 point, by the rule.
    Columns as in `paired_comparison`, with Wilcoxon's signed-rank test in McNemar's place. Raises
    ValueError as it does. Stage 1.
    """
    rows = []
    for value, part in _slices(scores, by, COLUMNS_OF["score"]):
        pairs = paired_values(part, accounting, "score")
        with_, without = pairs[WITH].to_numpy(), pairs[WITHOUT].to_numpy()
        rows.append(
            _slice_row(by, value)
            | _difference("score", with_, without, confidence, seed)
            | {"wilcoxon_p": wilcoxon_p(with_, without) if len(with_) else np.nan}
            | {"rubbish": int((part["verdict"] == "rubbish").sum())}
        )
    return _with_holm(rows, "wilcoxon_p", accounting)


def tokens_per_right_answer(
    answers: pd.DataFrame, by: str | None = None, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """What a right answer costs: all tokens generated, finished or not, over the right answers.

    One row per condition (and value of `by`): n answers, right, tokens (mean per answer),
    tokens_per_right with a percentile bootstrap interval over problems. Infinite where nothing
    was right. Raises ValueError for a missing column and a frame without rows. Stage 1.
    """
    _check(answers, COLUMNS)
    right = answers.assign(right=_usable(answers) & answers["correct"].astype(bool))
    rows = []
    for keys, part in right.groupby(_group_columns(answers, by)):
        sums = part.groupby("problem_id")[["n_tokens", "right"]].sum().to_numpy(dtype=float)
        means = bootstrap_means(sums, seed)
        with np.errstate(divide="ignore"):
            ratios = means[:, 0] / means[:, 1]
            ratio = sums[:, 0].sum() / sums[:, 1].sum()
        # The nearest drawn ratio, because between a finite and an infinite one lies nothing.
        tail = (1 - confidence) / 2
        low, high = np.quantile(ratios, [tail, 1 - tail], method="nearest")
        rows.append(
            dict(zip(_group_columns(answers, by), keys, strict=True))
            | {"n": len(part), "right": int(sums[:, 1].sum()), "tokens": part["n_tokens"].mean()}
            | {"tokens_per_right": ratio, "ci_low": low, "ci_high": high}
        )
    return pd.DataFrame(rows)


def paired_values(
    frame: pd.DataFrame, accounting: str = "finished_pairs", value: str = "correct"
) -> pd.DataFrame:
    """One row per problem, one column per condition: the mean over samples of `value`.

    `value` is "correct" (of an answers frame) or "score" (of a judge's). Raises ValueError if the
    two conditions were not asked the same problems, naming one that is missing.
    """
    if accounting not in ACCOUNTING:
        raise ValueError(f"accounting {accounting!r}: choose one of {', '.join(ACCOUNTING)}")
    if frame.duplicated(KEYS).any():
        twice = dict(frame.loc[frame.duplicated(KEYS), KEYS].iloc[0])
        raise ValueError(f"two rows for {twice}; of several models, compare by='model'")
    _check_same_problems(frame)
    if value == "correct":
        usable, worst = _usable(frame), 0.0
    else:
        frame = frame[frame["verdict"] != "rubbish"]
        usable, worst = frame["verdict"] == "scored", LOWEST_SCORE
    values = frame[value].astype(float)
    if accounting == "finished_pairs":
        frame, values = frame[usable], values[usable]
    else:
        values = values.where(usable, worst)
    table = frame[["problem_id", "condition"]].assign(value=values)
    means = table.pivot_table(index="problem_id", columns="condition", values="value")
    return means.reindex(columns=[WITH, WITHOUT]).dropna()


def _difference(name: str, with_: np.ndarray, without: np.ndarray, confidence, seed) -> dict:
    low = high = mean_with = mean_without = t = p = np.nan
    if len(with_):
        low, high = bootstrap_interval(with_ - without, confidence, seed)
        mean_with, mean_without = with_.mean(), without.mean()
        t, p = paired_t(with_, without)
    return {
        "n": len(with_),
        f"{name}_with": mean_with,
        f"{name}_without": mean_without,
        "difference": mean_with - mean_without,
        "ci_low": low,
        "ci_high": high,
        "t": t,
        "t_p": p,
    }


def _per_condition(frame, accounting, by, confidence, value, name) -> pd.DataFrame:
    rows = []
    for group, part in _slices(frame, by, COLUMNS_OF[value]):
        pairs = paired_values(part, accounting, value)
        for condition in (WITH, WITHOUT):
            values = pairs[condition]
            interval = share_interval if value == "correct" else bootstrap_interval
            low, high = interval(values, confidence) if len(values) else (np.nan, np.nan)
            rows.append(
                _slice_row(by, group)
                | {"condition": condition, "n": len(values), name: values.mean()}
                | {"ci_low": low, "ci_high": high}
            )
    return pd.DataFrame(rows)


def _with_holm(rows: list[dict], p: str, accounting: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.assign(holm_p=holm(frame[p].to_numpy()), accounting=accounting)


def _usable(answers: pd.DataFrame) -> pd.Series:
    return (
        answers["finished"].astype(bool)
        & answers["well_formed"].astype(bool)
        & answers["answer"].notna()
    )


def _slices(frame: pd.DataFrame, by: str | None, columns: list[str]):
    _check(frame, columns if by is None else [*columns, by])
    if by is None:
        return [(None, frame)]
    if frame[by].isna().any():
        problem = frame.loc[frame[by].isna(), "problem_id"].iloc[0]
        raise ValueError(f"problem {problem!r} has no {by}: fill it in, or leave such problems out")
    return list(frame.groupby(by))


def _slice_row(by: str | None, value) -> dict:
    return {} if by is None else {by: value}


def _group_columns(answers: pd.DataFrame, by: str | None) -> list[str]:
    if by is None:
        return ["condition"]
    _check(answers, [by])
    return [by, "condition"]


def _check(frame: pd.DataFrame, columns: list[str]) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"the frame has no column {', '.join(missing)}; it has {list(frame)}")
    if frame.empty:
        raise ValueError("the frame has no rows: collect and grade answers first")


def _check_same_problems(frame: pd.DataFrame) -> None:
    asked = {c: set(part) for c, part in frame.groupby("condition")["problem_id"]}
    if set(asked) != {WITH, WITHOUT}:
        raise ValueError(f"both conditions are needed to compare them, got {sorted(asked)}")
    odd = asked[WITH] ^ asked[WITHOUT]
    if odd:
        raise ValueError(
            f"{len(odd)} problems were asked in one condition only, for example "
            f"{min(odd, key=str)!r}: collect the missing ones first"
        )
