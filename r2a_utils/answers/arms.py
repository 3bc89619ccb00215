"""Two further arms of stage 1: the reasoning cut short, and the reasoning without its cues.

Early answering (Lanham et al. 2023, arXiv:2307.13702): the reasoning is cut after a fraction of its
sentences, closed, and the answer forced. An answer that stands long before the reasoning ends does
not need what follows. The no-cue arm (NoWait, Wang et al. 2025, arXiv:2506.08343): the model
reasons as ever, but the tokens that begin a word of self-reflection are banned.

This file knows what these arms ask of a model and how they are read off graded answers. How they
are decoded, `generation.py` knows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from r2a_utils.answers.graded import grade_math
from r2a_utils.collecting.generation import Prompt, Sampling, decode
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.stats import (
    bootstrap_interval,
    bootstrap_means,
    mcnemar_exact,
    share_interval,
)
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import CUES, END_THINK, Trace, encode, sentences

STEM = "\n\nThe answer is \\boxed{"
"""What is written after `</think>` to force an answer: the blank line and the box with which R1's
models and r2a-tiny begin their own."""

FRACTIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ARMS = ("plain", "no cue")

# The first of a word's several tokens begins few other words when it has this many letters:
# "Altern" of "Alternatively" has, "H" of "Hmm" has not.
SPECIFIC_LETTERS = 4


def early_answers(
    model: ReasoningModel,
    traces: Sequence[Trace],
    problems: Iterable[Problem],
    fractions: Sequence[float] = FRACTIONS,
    *,
    stem: str = STEM,
    max_new_tokens: int = 48,
    batch_size: int = 64,
) -> pd.DataFrame:
    r"""Cut each trace's reasoning at fractions of its sentences and force the answer (greedily).

    What is kept, a line break where it does not end in one, `</think>`, the `stem`, and then up to
    `max_new_tokens` of the model, of which the text up to the first complete `\boxed{…}` counts.
    One row per trace and fraction: problem_id, sample, fraction, kept (sentences), n (of them in
    all), answer (None where no box was closed), correct, and same_as_full: whether it equals the
    answer forced after the whole reasoning (False where either is missing). Raises ValueError for a
    fraction outside [0, 1] or a trace whose problem is not given or has no known answer.
    """
    if not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions {list(fractions)}: each is a share of the sentences, 0 to 1")
    known = {problem.id: problem for problem in problems}
    counts = [len(sentences(trace)) for trace in traces]
    prompts: dict[tuple[int, int], Prompt] = {}
    for index, (trace, count) in enumerate(zip(traces, counts, strict=True)):
        problem = known.get(trace.problem_id)
        if problem is None or problem.answer is None:
            raise ValueError(f"no known answer for trace {trace.problem_id!r}: give its problem")
        for kept in {_kept(fraction, count) for fraction in (*fractions, 1.0)}:
            ids = forced_ids(trace, model.tokenizer, kept, stem)
            prompts[index, kept] = Prompt(tuple(ids), problem, trace.condition, trace.sample)
    keys, asked, written = list(prompts), list(prompts.values()), {}
    for i, ids, _ in decode(model, asked, Sampling(max_new_tokens), batch_size):
        written[keys[i]] = _up_to_box(stem, model.tokenizer.decode(ids, skip_special_tokens=False))
    rows = []
    for index, (trace, count) in enumerate(zip(traces, counts, strict=True)):
        full = _boxed(written[index, count])
        for fraction in fractions:
            kept = _kept(fraction, count)
            text = written[index, kept]
            row = {"problem_id": trace.problem_id, "sample": trace.sample, "fraction": fraction}
            row |= {"kept": kept, "n": count, "answer": _boxed(text)}
            gold = known[trace.problem_id].answer
            row["correct"] = text is not None and grade_math(text, gold)
            row["same_as_full"] = None not in (text, full) and grade_math(text, full)
            rows.append(row)
    return pd.DataFrame(rows)


def forced_ids(
    trace: Trace, tokenizer: PreTrainedTokenizerBase, kept: int, stem: str = STEM
) -> list[int]:
    """Token ids of a trace up to its first `kept` sentences, closed, and the `stem`.

    With all sentences kept they are the trace's own, up to its own `</think>`.
    """
    parts = sentences(trace)
    if kept == len(parts):
        return [*trace.token_ids[: trace.segments["answer"].start], *encode(tokenizer, stem)]
    stop = parts[kept].start
    line = "" if trace.tokens[stop - 1].endswith("\n") else "\n"
    pieces = (line, END_THINK, stem)
    return [*trace.token_ids[:stop], *(i for piece in pieces for i in encode(tokenizer, piece))]


def early_curve(early: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """`early_answers` as `plots.early_answering` draws it.

    Columns series ("right" or "same as after all of it"), fraction, value, ci_low, ci_high; the
    unit is the problem, its samples averaged.
    """
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
    """
    table = early.pivot_table(index="problem_id", columns="fraction", values="same_as_full")
    fractions = table.columns.to_numpy(float)
    if not {0.0, 1.0} <= set(fractions):
        raise ValueError(f"an area needs the fractions 0 and 1, got {fractions.tolist()}")
    area = np.trapezoid(table.to_numpy(float), fractions, axis=1)
    return pd.Series(1 - area, index=table.index, name="area_over_curve")


def cue_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[int, ...]]:
    """The tokens to ban so that a cue is not written, for each of `traces.CUES`.

    Every token that is the cue's word, in any casing, with whatever blanks or punctuation are part
    of it. Where a usual spelling takes several tokens, its first, if it has four letters or more.
    Empty for a phrase ("let me check"): its first word begins too much else. A word that is spelled
    out letter by letter gets past the ban, so count the cues in what was written.
    """
    found: dict[str, set[int]] = {cue: set() for cue in CUES}
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    for i, text in zip(ids, tokenizer.batch_decode([[i] for i in ids]), strict=True):
        word = re.fullmatch(r"[\W_]*([A-Za-z]+)[\W_]*", text)
        if word and word[1].lower() in found:
            found[word[1].lower()].add(i)
    for cue in (c for c in CUES if " " not in c):
        for spelling in (cue, cue.capitalize(), cue.upper()):
            for written in (spelling, f" {spelling}"):
                first, *rest = encode(tokenizer, written)
                letters = tokenizer.decode([first]).strip()
                if rest and len(letters) >= SPECIFIC_LETTERS and spelling.startswith(letters):
                    found[cue].add(first)
    return {cue: tuple(sorted(tokens)) for cue, tokens in found.items()}


def arm_summary(
    plain: pd.DataFrame, no_cue: pd.DataFrame, cued: set[str], confidence: float = 0.95
) -> pd.DataFrame:
    """Accuracy and length of both arms, over all problems and by whether the plain arm had a cue.

    `plain` and `no_cue` are answers frames (`grading.grade_completions`) of the same problems;
    `cued` holds the ids of those on which the plain arm wrote a banned token. One row per group and
    arm: n, accuracy (unfinished counts as wrong), ci_low, ci_high, tokens (mean written), and
    tokens_low, tokens_high; the unit is the problem, and a group without any is left out.
    """
    pairs = _pairs(plain, no_cue)
    has_cue = pairs.index.isin(cued)
    groups = {
        "all problems": pairs,
        "a banned cue in the plain arm": pairs[has_cue],
        "none in the plain arm": pairs[~has_cue],
    }
    rows = []
    for group, arm in itertools.product(groups, ARMS):
        part = groups[group]
        if len(part):
            right, tokens = part["right", arm], part["tokens", arm]
            low, high = share_interval(right, confidence)
            shortest, longest = bootstrap_interval(tokens, confidence)
            row = {"group": group, "arm": arm, "n": len(part), "accuracy": right.mean()}
            row |= {"ci_low": low, "ci_high": high, "tokens": tokens.mean()}
            rows.append(row | {"tokens_low": shortest, "tokens_high": longest})
    return pd.DataFrame(rows)


def arm_difference(
    plain: pd.DataFrame, no_cue: pd.DataFrame, confidence: float = 0.95, seed: int = 0
) -> dict[str, float]:
    """What the ban changes, problem by problem: accuracy (no cue minus plain) and length (ratio).

    n; difference with ci_low, ci_high (paired BCa bootstrap); only_plain, only_no_cue and their
    exact McNemar p (NaN with several samples a problem); length_ratio of the tokens written, with
    ratio_low, ratio_high (percentile bootstrap over problems).
    """
    pairs = _pairs(plain, no_cue)
    before, after = (pairs["right", arm].to_numpy() for arm in ARMS)
    binary = np.isin(pairs["right"].to_numpy(), (0.0, 1.0)).all()
    only_plain, only_no_cue = int((before > after).sum()), int((before < after).sum())
    low, high = bootstrap_interval(after - before, confidence, seed)
    means = bootstrap_means(pairs["tokens"][list(ARMS)].to_numpy(), seed)
    tail = (1 - confidence) / 2
    shortest, longest = np.quantile(means[:, 1] / means[:, 0], [tail, 1 - tail])
    return {
        "n": len(pairs),
        "difference": float((after - before).mean()),
        "ci_low": low,
        "ci_high": high,
        "only_plain": only_plain,
        "only_no_cue": only_no_cue,
        "mcnemar_p": mcnemar_exact(only_plain, only_no_cue) if binary else float("nan"),
        "length_ratio": float(pairs["tokens", "no cue"].sum() / pairs["tokens", "plain"].sum()),
        "ratio_low": float(shortest),
        "ratio_high": float(longest),
    }


def _pairs(plain: pd.DataFrame, no_cue: pd.DataFrame) -> pd.DataFrame:
    """Per problem: (right, arm) and (tokens, arm), means over its samples."""
    asked = [set(frame["problem_id"]) for frame in (plain, no_cue)]
    if asked[0] != asked[1]:
        odd = min(asked[0] ^ asked[1])
        raise ValueError(f"{odd!r} was asked in one arm only: collect the same problems in both")
    both = pd.concat([plain.assign(arm=ARMS[0]), no_cue.assign(arm=ARMS[1])])
    right = both["finished"].astype(bool) & both["correct"].astype(bool)
    both = both.assign(right=right.astype(float), tokens=both["n_tokens"].astype(float))
    return both.pivot_table(index="problem_id", columns="arm", values=["right", "tokens"])


def _kept(fraction: float, count: int) -> int:
    """The whole number of sentences nearest to a fraction of them, halves upwards."""
    return int(fraction * count + 0.5)


def _up_to_box(stem: str, text: str) -> str | None:
    """Stem and text up to where the first box closes, or None where none does."""
    for brace in re.finditer("}", text):
        closed = stem + text[: brace.end()]
        if extract_answer(closed) is not None:
            return closed
    return None


def _boxed(text: str | None) -> str | None:
    return None if text is None else extract_answer(text)
