"""Checks of the exercises on attention and on heads: stages 03 and 04 to 04c.

Each takes the participant's function; see `outcome.py` for what a check is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from r2a_utils.teaching.checks.outcome import CheckFailed, Passed, called, compare
from r2a_utils.teaching.checks.passed_exercises import exercise
from r2a_utils.teaching.checks.passed_exercises import progress as progress  # workshop.progress()

# Borders (start, stop) of a trace's segments, in several sizes: prompt, reasoning, answer.
BORDERS = (
    {"prompt": (1, 5), "reasoning": (6, 14), "answer": (15, 18)},
    {"prompt": (1, 9), "reasoning": (10, 13), "answer": (14, 21)},
)


def _softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def _causal(n: int, strictly: bool = False) -> np.ndarray:
    return np.tril(np.ones((n, n), dtype=bool), k=-1 if strictly else 0)


@exercise("3.1")
def check_mass_of_head(function: Callable) -> Passed:
    """Exercise 3.1: `f(weights, source, target)`: m(source → target) from one head's weights."""
    random = np.random.default_rng(0)
    for borders in BORDERS:
        n = borders["answer"][1]
        weights = _softmax(np.where(_causal(n), random.normal(size=(n, n)), -np.inf))
        source, target = slice(*borders["answer"]), slice(*borders["reasoning"])
        part, turned = weights[source, target], weights[target, source]
        queries = source.stop - source.start
        mistakes = {
            "it is not normalised: divide by the number of source tokens": part.sum(),
            "it averages over the target tokens, too; their attention is to be added": part.mean(),
            "it divides by the number of target tokens, not of source tokens": (
                part.sum() / (target.stop - target.start)
            ),
            "rows are queries and columns keys; source and target are exchanged": turned.sum()
            / queries,
            "it gives one mass for each source token; wanted is their mean": part.sum(axis=1),
            "it counts everything up to the end of the target, BOS and prompt included": (
                weights[source, : target.stop].sum() / queries
            ),
            "it divides by the length of the whole trace": part.sum() / n,
        }
        found = called(function, weights.copy(), source, target)
        compare(function, found, part.sum() / queries, mistakes)
    return Passed(f"{function.__name__} is right: a share between 0 and 1.")


@exercise("3.2")
def check_mass_from_q_k(function: Callable) -> Passed:
    """Exercise 3.2: `f(q, k, scale, source, target)`: the mass from a head's queries and keys."""
    random = np.random.default_rng(0)
    # In the first case source and target overlap: only then do some mistakes differ.
    for n, source, target in ((18, slice(6, 14), slice(3, 10)), (21, slice(14, 21), slice(10, 13))):
        width = 5
        q, k = random.normal(size=(2, n, width))
        scale = 1 / np.sqrt(width + 1)
        strict = _causal(n, strictly=True)
        strict[0, 0] = True  # the first token has only itself to look at

        def mass(scores, mask, axis=-1, source=source, target=target) -> float:
            weights = _softmax(np.where(mask, scores, -1e30), axis=axis)
            return weights[source, target].sum() / (source.stop - source.start)

        scores, mask = q @ k.T * scale, _causal(n)
        all_seen = np.ones((n, n), dtype=bool)
        among = _softmax((q[source] @ k[target].T) * scale).sum(-1).mean()
        masked = np.where(mask, _softmax(scores), 0)[source, target].sum(axis=1).mean()
        mistakes = {
            "the scale is missing: multiply the products of queries and keys by it": mass(
                q @ k.T, mask
            ),
            "the causal mask is missing: no token sees a later one": mass(scores, all_seen),
            "that divides by √width; the scale is given, as not every model takes that one": mass(
                q @ k.T / np.sqrt(width), mask
            ),
            "the softmax runs over the target alone, which makes every mass 1": among,
            "the mask comes after the softmax, so that the rows no longer sum to 1": masked,
            "a token sees itself: the mask takes away only later ones": mass(scores, strict),
            "the softmax runs over the queries; each query's row must sum to 1": mass(
                scores, mask, axis=0
            ),
            "the mass is not normalised: divide by the number of source tokens": mass(scores, mask)
            * (source.stop - source.start),
        }
        found = called(function, q.copy(), k.copy(), scale, source, target)
        case = f"{n} tokens, source {source}, target {target}"
        compare(function, found, mass(scores, mask), mistakes, case=case)
    return Passed(f"{function.__name__} is right on two heads of random numbers.")


@exercise("3.3")
def check_uniform_null(function: Callable) -> Passed:
    """Exercise 3.3: `f(source, target)`: the mass of a head that looks at everything alike."""
    for borders in BORDERS:
        for names in (
            ("answer", "reasoning"),
            ("answer", "answer"),
            ("reasoning", "prompt"),
            ("prompt", "answer"),
        ):
            source, target = (slice(*borders[name]) for name in names)
            queries = np.arange(source.start, source.stop)
            width = target.stop - target.start
            seen = np.clip(queries + 1, target.start, target.stop) - target.start
            before = np.clip(queries, target.start, target.stop) - target.start
            mistakes = {
                "a token sees itself as well: position i has i + 1 tokens to look at": (
                    before / queries
                ).mean(),
                "only what stands before a token can be seen: count the target up to position i": (
                    width / (queries + 1)
                ).mean(),
                "each source token sees another number of tokens; average over them": (
                    width / source.stop
                ),
                "it gives one share for each source token; wanted is their mean": seen
                / (queries + 1),
                "it counts tokens; wanted is the share of all that can be seen": seen.mean(),
            }
            found = called(function, source, target)
            case = f"{names[0]} {source} → {names[1]} {target}"
            right = (seen / (queries + 1)).mean()
            compare(function, found, right, mistakes, case=case)
    return Passed(
        f"{function.__name__} is right, also from a segment to itself and to a later one."
    )


@exercise("4.1")
def check_share_in_top(function: Callable) -> Passed:
    """Exercise 4.1: `f(mass, draws, k)`: in how many resamples is each head among the top k?"""
    random = np.random.default_rng(0)
    for n_traces, n_heads, k in ((8, 6, 2), (12, 9, 3)):
        mass = random.random((n_traces, n_heads)) ** 2
        draws = random.integers(n_traces, size=(20, n_traces))
        means = mass[draws].mean(axis=1)
        mistakes = {
            "a resample draws traces with repetition; here each trace counts once at most": (
                _share_in_top(np.stack([mass[np.unique(draw)].mean(axis=0) for draw in draws]), k)
            ),
            "that ranks each trace by itself; rank the mean over a resample": (
                _share_in_top(mass, k)
            ),
            "that always ranks the mean over all traces; each resample has its own": (
                _share_in_top(mass.mean(axis=0, keepdims=True), k)
            ),
            "these are the heads that read least: the order is turned": _share_in_top(-means, k),
            "these are counts; wanted are shares of the resamples": (
                _share_in_top(means, k) * len(draws)
            ),
            "that counts how often a head is the first; wanted is the top k": (
                _share_in_top(means, 1)
            ),
            "that goes one head too far: the top k are k heads": _share_in_top(means, k + 1),
        }
        found = called(function, mass.copy(), draws.copy(), k)
        compare(function, found, _share_in_top(means, k), mistakes)
    return Passed(f"{function.__name__} is right: shares that add up to k.")


def _share_in_top(means: np.ndarray, k: int) -> np.ndarray:
    """Share of the rows [resample, head] in which each head is among the k largest: [head]."""
    order = np.argsort(-means, axis=1)[:, :k]
    return np.bincount(order.ravel(), minlength=means.shape[1]) / len(means)


@exercise("4.2")
def check_tracking_of_head(function: Callable) -> Passed:
    """Exercise 4.2: `f(rows, reasoning)`: does the place that is read move with the answer?

    Raises CheckFailed, also for a result that holds more than the correlation.
    """
    random = np.random.default_rng(0)
    for slope, noise in ((0.8, 2.0), (-0.5, 4.0), (0.3, 6.0)):
        n_queries, n_keys, reasoning = 12, 40, slice(9, 30)
        keys, index = np.arange(n_keys), np.arange(n_queries)
        centre = 19 + slope * (index - 6) + random.normal(scale=noise, size=n_queries)
        rows = np.exp(-0.5 * ((keys - centre[:, None]) / 3) ** 2)
        rows[:, 0] += random.random(n_queries) * 4  # the sink takes a share that varies
        rows /= rows.sum(axis=1, keepdims=True)
        part, places = rows[:, reasoning], keys[reasoning]
        mean = part @ places / part.sum(axis=1)
        inside = part / part.sum(axis=1, keepdims=True)
        mistakes = {
            "divide by each row's mass on the reasoning: that varies, and is no place": _rank(
                part @ places
            ),
            "only the reasoning counts: what lies outside pulls the place away": _rank(rows @ keys),
            "that follows the strongest token; wanted is the mean place": _rank(
                part.argmax(axis=1)
            ),
            "that is Pearson's correlation; wanted is that of the ranks (Spearman)": np.corrcoef(
                index, mean
            )[0, 1],
            "that follows how much is read; wanted is where": _rank(part.sum(axis=1)),
            "the sign is turned: reading forwards must be positive": -_rank(mean),
            "average over keys in the same row, not over rows": _rank(inside.mean(axis=0)),
        }
        found = called(function, rows.copy(), reasoning)
        if isinstance(found, tuple):  # scipy's result, on which the cell below would stumble
            raise CheckFailed(
                f"{function.__name__} returned statistic and p-value together; wanted is the "
                "correlation alone, `.statistic` of what spearmanr gives."
            )
        compare(function, found, _rank(mean), mistakes)
    return Passed(
        f"{function.__name__} is right on three heads that follow, turn back, and wander."
    )


def _rank(places: np.ndarray) -> float:
    return float(stats.spearmanr(np.arange(len(places)), places).statistic)


@exercise("4.3")
def check_contribution_of_head(function: Callable) -> Passed:
    """Exercise 4.3: `f(weights, values, into, direction)`: what each token read gives a logit."""
    random = np.random.default_rng(0)
    for n, head_dim, hidden in ((9, 4, 7), (15, 5, 12)):
        weights = _softmax(random.normal(size=n))
        values, into = random.normal(size=(n, head_dim)), random.normal(size=(head_dim, hidden))
        direction = random.normal(size=hidden)
        right = weights * (values @ into @ direction)
        mistakes = {
            "that is the head's whole contribution; leave it apart for each token read": (
                right.sum()
            ),
            "weigh each token's value by the attention that it receives": right / weights,
            "the values must pass the head's output weights before they meet the direction": (
                weights * (values @ into).sum(axis=1)
            ),
            "that scales the direction to length 1; its length is part of the logit": (
                right / np.linalg.norm(direction)
            ),
            "that gives vectors in the residual stream; project them on the direction": (
                weights[:, None] * (values @ into)
            ),
            "a softmax is taken where the contributions themselves are wanted": _softmax(right),
            "the attention is counted twice": right * weights,
        }
        found = called(function, weights.copy(), values.copy(), into.copy(), direction.copy())
        compare(function, found, right, mistakes)
    return Passed(f"{function.__name__} is right: one number for each token that is read.")
