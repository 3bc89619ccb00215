"""Early answering: the reasoning cut short after a fraction of its sentences, the answer forced.

After Lanham et al. 2023 (arXiv:2307.13702). An answer that stands long before the reasoning ends
does not need what follows. This file knows what is asked of a model and how the area over the curve
is read off. How a cut trace is closed, `texts/trace.py` knows; how it is decoded, `decoding.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from r2a_utils.answers.equality import grade_math
from r2a_utils.collecting.decoding import Prompt, Sampling, decode
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import CONFIDENCE, bootstrap_interval, share_interval
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace, answer_stem, forced_ids, sentences

FRACTIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# The fraction beside none and all at which the book quotes the share of right answers.
QUOTED_FRACTION = 0.8
COLUMNS = ("problem_id", "sample", "fraction", "kept", "n", "answer", "correct", "same_as_full")


@dataclass(frozen=True)
class EarlyAnswering:
    """Early answering as the book quotes it; the unit is the problem, its samples averaged.

    `n` problems; `area` over the curve with its bootstrap interval (`area_over_curve`); the share
    of right answers forced after no reasoning, after `QUOTED_FRACTION` of its sentences and after
    all of them, and of the same traces' own answers. None where no trace could be cut; the
    interval is None for a single problem. `most` is the largest area that these fractions give.
    """

    n: int
    area: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    right_at_0: float | None = None
    right_at_80: float | None = None
    right_at_100: float | None = None
    right_unforced: float | None = None
    most: float | None = None


def early_answers(
    model: ReasoningModel,
    traces: Sequence[Trace],
    problems: Iterable[Problem],
    fractions: Sequence[float] = FRACTIONS,
    *,
    stem: str | None = None,
    max_new_tokens: int = 48,
    batch_size: int = 64,
) -> pd.DataFrame:
    r"""Cut each trace's reasoning at fractions of its sentences and force the answer (greedily).

    What is kept, a line break where it does not end in one, the closing tag, the `stem`
    (`answer_stem` if none is given), and then up to
    `max_new_tokens` of the model, of which the text up to the first complete `\boxed{…}` counts.
    One row per trace and fraction: problem_id, sample, fraction, kept (sentences), n (of them in
    all), answer (None where no box was closed), correct, and same_as_full: whether it equals the
    answer forced after the whole reasoning (False where either is missing). Without traces the
    frame has these columns and no row. Raises ValueError for a fraction outside [0, 1] or a trace
    whose problem is not given or has no known answer. Lanham et al. 2023; stage 1.
    """
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions {list(fractions)}: each is a share of the sentences, 0 to 1")
    stem = answer_stem(model.tags) if stem is None else stem
    known = {problem.id: problem for problem in problems}
    counts = [len(sentences(trace)) for trace in traces]
    prompts: dict[tuple[int, int], Prompt] = {}
    for index, (trace, count) in enumerate(zip(traces, counts, strict=True)):
        problem = known.get(trace.problem_id)
        if problem is None or problem.answer is None:
            raise ValueError(f"no known answer for trace {trace.problem_id!r}: give its problem")
        for kept in {kept_sentences(fraction, count) for fraction in (*fractions, 1.0)}:
            ids = forced_ids(trace, model.tokenizer, kept, stem, model.tags)
            prompts[index, kept] = Prompt(tuple(ids), problem, trace.condition, trace.sample)
    keys, asked, written = list(prompts), list(prompts.values()), {}
    for i, ids, *_ in decode(model, asked, Sampling(max_new_tokens), batch_size):
        written[keys[i]] = _up_to_box(stem, model.tokenizer.decode(ids, skip_special_tokens=False))
    rows = []
    for index, (trace, count) in enumerate(zip(traces, counts, strict=True)):
        full = _boxed(written[index, count])
        for fraction in fractions:
            kept = kept_sentences(fraction, count)
            text = written[index, kept]
            row = {"problem_id": trace.problem_id, "sample": trace.sample, "fraction": fraction}
            row |= {"kept": kept, "n": count, "answer": _boxed(text)}
            gold = known[trace.problem_id].answer
            row["correct"] = text is not None and grade_math(text, gold)
            row["same_as_full"] = None not in (text, full) and grade_math(text, full)
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def kept_sentences(fraction: float, count: int) -> int:
    """The whole number of sentences nearest to a fraction of them, halves upwards. Stage 02."""
    return int(fraction * count + 0.5)


def early_curve(early: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """`early_answers` as `figures.early_answering` draws it.

    Columns series ("right" or "same as after all of it"), fraction, value, ci_low, ci_high; the
    unit is the problem, its samples averaged. Raises ValueError for a frame without rows. Stage 1.
    """
    if early.empty:
        raise ValueError("early answering needs 1 finished trace with reasoning, has 0")
    rows = []
    for series, column in (("right", "correct"), ("same as after all of it", "same_as_full")):
        for fraction, part in early.groupby("fraction"):
            shares = part.groupby("problem_id")[column].mean()
            low, high = share_interval(shares, confidence)
            row = {"series": series, "fraction": fraction, "value": shares.mean()}
            rows.append(row | {"ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def area_over_curve(early: pd.DataFrame) -> pd.Series:
    """How much of its reasoning each problem's answer needs: 0 if none, up to 1 if all of it.

    One minus the mean of `same_as_full` over the fractions (trapezoids, so that an answer which
    only the whole reasoning gives has 1 minus half the last step between fractions); the mean over
    the problems is the area over the mean curve. Raises ValueError if fraction 0 or 1 is missing.
    The area over the curve of Lanham et al. 2023; stages 1 and 3.
    """
    table = early.pivot_table(index="problem_id", columns="fraction", values="same_as_full")
    fractions = table.columns.to_numpy(float)
    if not {0.0, 1.0} <= set(fractions):
        raise ValueError(f"an area needs the fractions 0 and 1, got {fractions.tolist()}")
    area = np.trapezoid(table.to_numpy(float), fractions, axis=1)
    return pd.Series(1 - area, index=table.index, name="area_over_curve")


def early_summary(
    early: pd.DataFrame, answers: pd.DataFrame, confidence: float = CONFIDENCE, seed: int = 0
) -> EarlyAnswering:
    """What the book quotes of `early_answers`.

    `answers` is the answers frame that has the same traces' own grades. Raises ValueError if a
    fraction that is quoted is missing. Stage 1.
    """
    if early.empty:
        return EarlyAnswering(0)
    areas = area_over_curve(early)
    fractions = early["fraction"].unique()
    if QUOTED_FRACTION not in fractions:
        raise ValueError(f"fraction {QUOTED_FRACTION} is quoted and missing among {fractions}")
    low, high = bootstrap_interval(areas, confidence, seed)
    keys = ["problem_id", "sample"]
    right = early.pivot(index=keys, columns="fraction", values="correct")
    own = answers[answers["condition"] == "with_reasoning"].set_index(keys)["correct"]
    return EarlyAnswering(
        n=len(areas),
        area=float(areas.mean()),
        ci_low=low if len(areas) > 1 else None,
        ci_high=high if len(areas) > 1 else None,
        right_at_0=right[0.0].mean(),
        right_at_80=right[QUOTED_FRACTION].mean(),
        right_at_100=right[1.0].mean(),
        right_unforced=own.loc[right.index].mean(),
        most=float(1 - np.diff(np.sort(fractions))[-1] / 2),
    )


def _up_to_box(stem: str, text: str) -> str | None:
    """Stem and text up to where the first box closes, or None where none does."""
    for brace in re.finditer("}", text):
        closed = stem + text[: brace.end()]
        if extract_answer(closed) is not None:
            return closed
    return None


def _boxed(text: str | None) -> str | None:
    return None if text is None else extract_answer(text)
