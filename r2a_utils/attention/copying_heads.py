"""Heads that copy: induction and retrieval scores of every head, from attention alone.

Computed here and not taken over, so that lists of Reasoning-Focus Heads can be held against them on
any model. Knows no ranking (heads.py) and no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerBase

from r2a_utils.attention.mass import attention_rows
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import every_head
from r2a_utils.texts.tokens import bos_id
from r2a_utils.texts.trace import encode

COPYING = 0.1  # from here on Wu et al. (2404.15574) call a head a retrieval head


@dataclass(frozen=True)
class NeedleCase:
    """A needle in a haystack, recited at the end: token ids, and where the needle stands twice."""

    token_ids: tuple[int, ...]
    needle: slice
    recital: slice


def induction_scores(
    model: ReasoningModel, *, length: int = 50, repeats: int = 8, seed: int = 0
) -> Float[xr.DataArray, "layer head"]:
    """Attention on the token after the last occurrence of the present one; dims (layer, head).

    `length` random tokens, then the same again; the score is the mean attention from each token of
    the second half to the one that followed it in the first (Elhage et al. 2021, Olsson et al.
    2209.11895), mean over `repeats` draws. A head that attends uniformly scores about
    1 / (1.5 · length). Random tokens leave nothing else to go by.
    """
    ordinary = _ordinary_tokens(model.tokenizer)
    generator = np.random.default_rng(seed)
    scores = np.zeros((model.n_layers, model.n_heads))
    for _ in range(repeats):
        drawn = generator.choice(ordinary, length).tolist()
        ids = [bos_id(model.tokenizer), *drawn, *drawn]
        queries = slice(1 + length, 1 + 2 * length)
        rows = _all_rows(model, ids, queries)
        index = np.arange(length)
        scores += rows[:, :, index, queries.start + index - length + 1].mean(axis=-1) / repeats
    return _by_head(model, scores, "induction_score")


def retrieval_scores(
    model: ReasoningModel, cases: Sequence[NeedleCase]
) -> Float[xr.DataArray, "layer head"]:
    """Share of a needle's tokens that a head looks up while they are recited; dims (layer, head).

    A head looks a token up when, in the step that writes it, its largest attention weight lies on
    that same token within the needle (Wu et al. 2404.15574, eq. 1), mean over cases. The recital is
    teacher-forced: every model recites the same words, also one too weak to find them by itself.
    Raises ValueError for no cases.
    """
    if not cases:
        raise ValueError("no cases; make some with needle_cases")
    scores = np.zeros((model.n_layers, model.n_heads))
    for case in cases:
        ids = np.array(case.token_ids)
        # the token at position i is written by the query at i − 1
        queries = slice(case.recital.start - 1, case.recital.stop - 1)
        looked_at = _all_rows(model, case.token_ids, queries).argmax(axis=-1)
        inside = (looked_at >= case.needle.start) & (looked_at < case.needle.stop)
        copied = inside & (ids[looked_at] == ids[case.recital])
        found = [
            [len(set(at[hit])) for at, hit in zip(*layer, strict=True)]
            for layer in zip(looked_at, copied, strict=True)
        ]
        scores += np.array(found) / (case.needle.stop - case.needle.start) / len(cases)
    return _by_head(model, scores, "retrieval_score")


def needle_cases(
    passages: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    n: int = 20,
    haystack: int = 4,
    seed: int = 0,
) -> list[NeedleCase]:
    """Draw needle cases from short passages that the model understands.

    Each case strings `haystack` passages together, puts another one, the needle, at a random place
    between them and recites it after a colon at the end.
    Raises ValueError for too few passages.
    """
    if len(passages) <= haystack:
        raise ValueError(f"need more than {haystack} passages, got {len(passages)}")
    generator = np.random.default_rng(seed)
    cases = []
    for _ in range(n):
        needle, *straw = generator.choice(len(passages), haystack + 1, replace=False)
        depth = int(generator.integers(0, haystack + 1))
        words = encode(tokenizer, " " + passages[needle])
        ids = [bos_id(tokenizer)]
        for i in straw[:depth]:
            ids += encode(tokenizer, " " + passages[i])
        start = len(ids)
        ids += words
        for i in straw[depth:]:
            ids += encode(tokenizer, " " + passages[i])
        ids += encode(tokenizer, "\nAgain:")
        cases.append(
            NeedleCase(
                (*ids, *words),
                slice(start, start + len(words)),
                slice(len(ids), len(ids) + len(words)),
            )
        )
    return cases


def top_copying_heads(
    scores: Float[xr.DataArray, "_ _"], k: int = 10, least: float = COPYING
) -> list[tuple[int, int]]:
    """The k heads (layer, head) that score highest, best first; only those that score `least`.

    Without a bound, a model that does not copy would get a list of heads all the same.
    """
    values = scores.transpose("layer", "head").values
    best = np.argsort(-values, axis=None, kind="stable")[:k]
    places = zip(*np.unravel_index(best, values.shape), strict=True)
    return [(int(layer), int(head)) for layer, head in places if values[layer, head] >= least]


def copying_summary(scores: Mapping[str, xr.DataArray], k: int) -> dict[str, float]:
    """For each kind of score, its largest value and how many of the k heads pass the bound.

    scores: "induction" and "retrieval" → scores [layer, head]; keys induction_largest,
    induction_n, and so on.
    """
    summary = {}
    for kind, found in scores.items():
        summary[f"{kind}_largest"] = float(found.max())
        summary[f"{kind}_n"] = len(top_copying_heads(found, k))
    return summary


def _all_rows(
    model: ReasoningModel, ids: Sequence[int], queries: slice
) -> Float[np.ndarray, "layer head query key"]:
    """Attention of every head in some rows: [layer, head, query, key]; 0 where there is none."""
    every = every_head(model)
    rows = attention_rows(model, list(ids), every, queries).values
    found = np.zeros((model.n_layers, model.n_heads, *rows.shape[1:]), dtype=rows.dtype)
    found[tuple(np.transpose(every))] = rows
    return found


def _ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> Int[np.ndarray, " token"]:
    """Ids of tokens that stand for text: no tags, no beginnings and ends."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return np.array([i for i in range(len(tokenizer)) if i not in special])


def _by_head(
    model: ReasoningModel, scores: Float[np.ndarray, "layer head"], name: str
) -> Float[xr.DataArray, "layer head"]:
    """Named scores, NaN in layers without attention."""
    there = np.full(scores.shape, np.nan)
    there[tuple(np.transpose(every_head(model)))] = 1.0
    return xr.DataArray(
        scores * there,
        dims=("layer", "head"),
        coords={"layer": np.arange(model.n_layers), "head": np.arange(model.n_heads)},
        name=name,
        attrs={"model": model.name},
    )
