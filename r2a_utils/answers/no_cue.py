"""The no-cue arm: the model reasons as ever, but may not write a word of self-reflection.

After NoWait (Wang et al. 2025, arXiv:2506.08343). This file knows which tokens are banned, and how
the two arms are compared, problem by problem. How they are decoded, `collecting/decoding.py` knows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from r2a_utils.stats import (
    CONFIDENCE,
    bootstrap_interval,
    bootstrap_means,
    mcnemar_exact,
    share_interval,
)
from r2a_utils.texts.completions import Completion
from r2a_utils.texts.trace import CUES, encode

ARMS = ("plain", "no cue")

# The first of a word's several tokens begins few other words when it has this many letters:
# "Altern" of "Alternatively" has, "H" of "Hmm" has not.
SPECIFIC_LETTERS = 4


@dataclass(frozen=True)
class NoCue:
    """What banning the cues changes, as the book quotes it; the unit is the problem.

    `difference` of the shares of right answers (no cue minus plain) with the paired BCa bootstrap's
    interval (None for one problem); `only_plain` and `only_no_cue`, the problems that one arm did
    better on, and their exact McNemar p (None where each was asked several times); `length_ratio`
    of the tokens written, with a percentile bootstrap interval; `cued`, the share of problems on
    which the plain arm wrote a banned token, and the shares right among them (None if there are
    none); `still_cued`, the share of the other arm's texts that hold a cue (None without texts).
    """

    n: int
    difference: float
    ci_low: float | None
    ci_high: float | None
    only_plain: int
    only_no_cue: int
    mcnemar_p: float | None
    length_ratio: float
    ratio_low: float
    ratio_high: float
    cued: float
    cued_plain: float | None
    cued_no_cue: float | None
    still_cued: float | None


def cue_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, tuple[int, ...]]:
    """The tokens to ban so that a cue is not written, for each of `CUES` (texts).

    Every token that is the cue's word, in any casing, with whatever blanks or punctuation are part
    of it. Where a usual spelling takes several tokens, its first, if it has four letters or more.
    Empty for a phrase ("let me check"): its first word begins too much else. A word that is spelled
    out letter by letter gets past the ban, so count the cues in what was written. NoWait; stage 1.
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


def cued_problems(completions: Iterable[Completion], banned: Iterable[int]) -> set[str]:
    """Ids of the problems for which one of the completions holds one of the `banned` tokens."""
    banned = set(banned)
    return {c.problem_id for c in completions if banned & set(c.completion_ids)}


def arm_summary(
    plain: pd.DataFrame, no_cue: pd.DataFrame, cued: set[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Accuracy and length of both arms, over all problems and by whether the plain arm had a cue.

    `plain` and `no_cue` are answers frames (`grade_completions`) of the same problems;
    `cued` holds the ids of those on which the plain arm wrote a banned token. One row per group and
    arm: n, accuracy (unfinished counts as wrong), ci_low, ci_high, tokens (mean written), and
    tokens_low, tokens_high; the unit is the problem, and a group without any is left out. Raises
    ValueError where the arms were not asked the same problems. Stage 1.
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


def compare_arms(
    plain: pd.DataFrame,
    no_cue: pd.DataFrame,
    cued: set[str],
    still_cued: float | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> NoCue:
    """What the ban changes, problem by problem; frames and `cued` as `arm_summary` takes them.

    `still_cued` is the share of the texts without banned words in which a cue stands all the same.
    Raises ValueError where the arms were not asked the same problems. NoWait; stage 1.
    """
    pairs = _pairs(plain, no_cue)
    before, after = (pairs["right", arm].to_numpy() for arm in ARMS)
    several = plain["sample"].nunique() > 1
    only_plain, only_no_cue = int((before > after).sum()), int((before < after).sum())
    low, high = bootstrap_interval(after - before, confidence, seed)
    means = bootstrap_means(pairs["tokens"][list(ARMS)].to_numpy(), seed)
    tail = (1 - confidence) / 2
    shortest, longest = np.quantile(means[:, 1] / means[:, 0], [tail, 1 - tail])
    had_cue = pairs.index.isin(cued)
    one = len(pairs) == 1
    return NoCue(
        n=len(pairs),
        difference=float((after - before).mean()),
        ci_low=None if one else low,
        ci_high=None if one else high,
        only_plain=only_plain,
        only_no_cue=only_no_cue,
        mcnemar_p=None if several else mcnemar_exact(only_plain, only_no_cue),
        length_ratio=float(pairs["tokens", "no cue"].sum() / pairs["tokens", "plain"].sum()),
        ratio_low=float(shortest),
        ratio_high=float(longest),
        cued=float(had_cue.mean()),
        cued_plain=float(before[had_cue].mean()) if had_cue.any() else None,
        cued_no_cue=float(after[had_cue].mean()) if had_cue.any() else None,
        still_cued=still_cued,
    )


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
