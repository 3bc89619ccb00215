"""Answer quality: what stage 1 says of a run in a few numbers, and by what its problems are sliced.

This file knows which numbers the book quotes and what a slice may be. How they come from a frame of
answers, `comparison.py` knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from r2a_utils.answers.comparison import (
    ACCOUNTING,
    COLUMNS,
    accuracies,
    paired_comparison,
    paired_scores,
)
from r2a_utils.stats import CONFIDENCE, holm
from r2a_utils.tiny import world

ALL = "all"
"""The one slice of problems that say nothing by which they could be sliced."""
ASKED_FOR = {"steps": "Steps that the problem needs"}
"""Axis labels of slices that are no plain words."""
# What the known data sets say of how much a problem asks, in the order in which it is looked for.
DIFFICULTIES = ("steps", "level", "subject")
# A figure with more slices cannot be read, and a slice of it holds hardly a problem.
MOST_SLICES = 40
RULE_LABELS = dict(zip(ACCOUNTING, ("finished pairs", "unfinished is wrong"), strict=True))
# What grading adds to what the problems say of themselves.
_GRADING = {*COLUMNS, "answer_text"}


@dataclass(frozen=True)
class AnswerQuality:
    """The paired comparison of a run as the book quotes it: "unfinished is wrong", n problems.

    Shares are fractions of 1, with their interval at `confidence`. `mcnemar_p`, `only_with` and
    `only_without` are None where each problem was asked several times (`samples`): it is then
    right in a share of its samples, and `t_p`, of the paired t-test over these shares, stands in.
    `t_p` is None where no problem differs from another. `finished_pairs` is how many problems the
    paper's rule compares. `last_slice` is the highest value of `slice_by`; its shares end in
    `_with` and `_without`.
    """

    n: int
    with_reasoning: float
    without_reasoning: float
    difference: float
    ci_low: float
    ci_high: float
    mcnemar_p: float | None
    only_with: int | None
    only_without: int | None
    slice_by: str
    asked_for: str
    last_slice: str
    last_family: str | None
    last_slice_with: float
    last_slice_without: float
    samples: int
    t_p: float | None
    finished_pairs: int
    confidence: float


def slicing(answers: pd.DataFrame, slice_by: str | None) -> pd.Series:
    """By what each answer is counted apart; the series has the name of what the problems call it.

    None takes the first of steps, level and subject that the problems have, or one slice, "all".
    Values of several kinds are compared as texts. Raises ValueError, naming the choices, for a
    `slice_by` that the problems do not have, and for one that has as many values as a list.
    """
    choices = [str(column) for column in answers if column not in _GRADING]
    if slice_by is None:
        slice_by = next((name for name in DIFFICULTIES if name in choices), None)
    if slice_by is None:
        return pd.Series(ALL, index=answers.index, name=DIFFICULTIES[0])
    if slice_by not in choices:
        known = f"choose one of {', '.join(choices)}" if choices else "they say nothing"
        raise ValueError(f"slice_by is {slice_by!r}, which no problem says of itself; {known}")
    values = answers[slice_by]
    if values.map(type).nunique() > 1 and values.notna().all():
        values = values.map(str)
    if values.nunique() > MOST_SLICES:
        raise ValueError(
            f"slice_by={slice_by} makes {values.nunique()} slices, and a figure holds "
            f"{MOST_SLICES}: choose a column with fewer values"
        )
    return values


def accuracies_by_family(
    answers: pd.DataFrame, by: str, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """`accuracies` by a slicing, under "unfinished_wrong", for each family of problems.

    A slice may hold other families than the next (in the bundled world only arithmetic takes more
    than three steps), and one line over all would mix them. Where the problems are of several
    families there is a column family, and where blind guesses are known (`world.chance`) a column
    chance. Raises ValueError as `accuracies` does. Stage 1.
    """
    parts = _families(answers, by)
    if len(parts) < 2:
        return accuracies(answers, "unfinished_wrong", by, confidence)
    table = pd.concat(
        [
            accuracies(part, "unfinished_wrong", by, confidence).assign(family=family)
            for family, part in parts.items()
        ],
        ignore_index=True,
    )
    if by == "steps" and all(map(world.chance, table["family"], table["steps"])):
        table["chance"] = list(map(world.chance, table["family"], table["steps"]))
    return table


def compare_slices(
    answers: pd.DataFrame, by: str, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """`paired_comparison` by a slicing, under "unfinished_wrong", for each family of problems.

    Split as `accuracies_by_family` splits, with the column family behind that of the slicing;
    Holm's correction runs over all rows. Raises ValueError as `paired_comparison` does. Stage 1.
    """
    parts = _families(answers, by)
    if len(parts) < 2:
        return paired_comparison(answers, "unfinished_wrong", by, confidence, seed)
    compared = {
        family: paired_comparison(part, "unfinished_wrong", by, confidence, seed)
        for family, part in parts.items()
    }
    table = pd.concat([rows.assign(family=name) for name, rows in compared.items()])
    table = table.reset_index(drop=True)
    table.insert(1, "family", table.pop("family"))
    tested = "mcnemar_p" if table["mcnemar_p"].notna().any() else "t_p"
    return table.assign(holm_p=holm(table[tested]))


def _families(answers: pd.DataFrame, by: str) -> dict[str, pd.DataFrame]:
    """The answers of each family of problems, none where nothing says a family or `by` does."""
    if "family" not in answers or by == "family":
        return {}
    return dict(list(answers.groupby("family", sort=True)))


def compare_conditions(
    answers: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """`paired_comparison` under both accounting rules, a row each. Stage 1.

    Raises ValueError where fewer than two problems were asked, or as `paired_comparison` does.
    """
    asked = answers["problem_id"].nunique()
    if asked < 2:
        raise ValueError(f"a comparison needs 2 problems, has {asked}; --set n_problems=2")
    rows = [paired_comparison(answers, rule, None, confidence, seed) for rule in ACCOUNTING]
    return pd.concat(rows, ignore_index=True)


@dataclass(frozen=True)
class OpenAnswers:
    """A judge's scores (1 to 10) of answers to n open questions, with less without reasoning.

    None where no question was scored in both conditions. `ci_low` to `ci_high` at `confidence`.
    """

    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None


def compare_scores(
    scores: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> pd.DataFrame:
    """`paired_scores` under both accounting rules, a row each; ValueError as there. Stage 1."""
    rows = [paired_scores(scores, rule, None, confidence, seed) for rule in ACCOUNTING]
    return pd.concat(rows, ignore_index=True)


def open_answers(compared: pd.DataFrame) -> OpenAnswers:
    """What the book quotes of `compare_scores`: the rule by which an unfinished answer is worth 1.

    Raises KeyError if that rule is missing.
    """
    overall = compared.set_index("accounting").loc["unfinished_wrong"]
    return OpenAnswers(
        n=int(overall["n"]),
        difference=_told(overall["difference"]),
        ci_low=_told(overall["ci_low"]),
        ci_high=_told(overall["ci_high"]),
    )


def accuracies_by_rule(answers: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """`accuracies` under both accounting rules, named in `label`. Stage 1.

    A rule that leaves no problem has no row. Raises ValueError as `accuracies` does.
    """
    parts = [
        accuracies(answers, rule, confidence=confidence).assign(label=label)
        for rule, label in RULE_LABELS.items()
    ]
    both = pd.concat(parts)
    return both[both["n"] > 0]


def answer_quality(
    rules: pd.DataFrame, slices: pd.DataFrame, answers: pd.DataFrame, confidence: float
) -> AnswerQuality:
    """What the book quotes of `compare_conditions` and of the comparison by slice.

    `slices` is `compare_slices` by its first column. Raises KeyError
    if `rules` lack one of the two rules.
    """
    by_rule = rules.set_index("accounting")
    overall = by_rule.loc["unfinished_wrong"]
    slice_by = str(slices.columns[0])
    last = slices.sort_values([c for c in (slice_by, "family") if c in slices]).iloc[-1]
    return AnswerQuality(
        n=int(overall["n"]),
        with_reasoning=float(overall["accuracy_with"]),
        without_reasoning=float(overall["accuracy_without"]),
        difference=float(overall["difference"]),
        ci_low=float(overall["ci_low"]),
        ci_high=float(overall["ci_high"]),
        mcnemar_p=_told(overall["mcnemar_p"]),
        only_with=_count(overall["only_with"]),
        only_without=_count(overall["only_without"]),
        slice_by=slice_by,
        asked_for=asked_for(slice_by),
        last_slice=str(last[slice_by]),
        last_family=str(last["family"]) if slice_by != "family" and "family" in last else None,
        last_slice_with=float(last["accuracy_with"]),
        last_slice_without=float(last["accuracy_without"]),
        samples=int(answers["sample"].nunique()),
        t_p=_told(overall["t_p"]),
        finished_pairs=int(by_rule.loc["finished_pairs", "n"]),
        confidence=confidence,
    )


def asked_for(slice_by: str) -> str:
    """The axis label of a slicing: `steps` is "Steps that the problem needs"."""
    return ASKED_FOR.get(slice_by, slice_by.capitalize())


def _told(value: float) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _count(value: float | None) -> int | None:
    return None if value is None or math.isnan(value) else int(value)
