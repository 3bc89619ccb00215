"""Checks of the exercises that write into a model: stages 05 and 06.

Each takes the participant's function; see `outcome.py` for what a check is. What runs a model is
tried on the bundled one, whatever model the page's run has, and held against the exact engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.collecting import collect_traces, teacher_forced
from r2a_utils.engine.forward import replay, run_with_cache
from r2a_utils.engine.patches import Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel, load_model
from r2a_utils.teaching.checks.outcome import CheckFailed, Passed, called, compare
from r2a_utils.teaching.checks.passed_exercises import exercise
from r2a_utils.teaching.checks.passed_exercises import progress as progress  # workshop.progress()
from r2a_utils.texts.trace import Trace
from r2a_utils.tiny.world import contrast_problems, write_text

TOLERANCE = 1e-4  # of the largest logit; rounding in float32 leaves a hundredth of it


@cache
def example_model() -> ReasoningModel:
    """The bundled model in float32, loaded once."""
    return load_model("r2a-tiny", dtype="float32", device="cpu")


@cache
def example_pair(which: int = 0) -> ContrastPair:
    """A contrast pair of the bundled world, of two texts that the model did not write."""
    return ContrastPair.from_traces(*_sides(which))


def example_trace(which: int = 0) -> Trace:
    """A trace of the bundled world with a short answer, not written by the model."""
    return _sides(which)[0]


@cache
def _sides(which: int) -> tuple[Trace, Trace]:
    problems, model = contrast_problems(which + 1, seed=7)[which], example_model()
    return tuple(collect_traces(model, problems, backend=teacher_forced(model, write_text)))


def _replayed(ids: Sequence[int], patches: Sequence[Patch]) -> list[np.ndarray]:
    """The logits [vocabulary] after the last token, for each patch on its own."""
    model = example_model()
    runs = [PatchedRun((patch,)) for patch in patches]
    cache = run_with_cache(model, ids, ("z",))
    return list(replay(model, cache, runs, lambda logits: logits[:, -1]).numpy())


@exercise("5.1")
def check_effect_of_patch(function: Callable) -> Passed:
    """Exercise 5.1: `f(patched, clean, corrupted, clean_answer, corrupted_answer)` of logits."""
    random = np.random.default_rng(0)
    for n in (6, 30):
        patched, clean, corrupted = random.normal(scale=3, size=(3, n))
        a, b = 4, 2
        ld_patched, ld_clean, ld_corrupted = (x[a] - x[b] for x in (patched, clean, corrupted))
        gap = ld_clean - ld_corrupted
        p, c, r = (np.exp(x) / np.exp(x).sum() for x in (patched, clean, corrupted))
        mistakes = {
            "it is not normalised: divide by LD_clean − LD_corrupted": ld_patched - ld_corrupted,
            "subtract LD_corrupted first, so that no effect is 0": ld_patched / gap,
            "that divides by LD_clean alone; full restoration would not be 1": ld_patched
            / ld_clean,
            "clean and corrupted are exchanged: 0 must mean that nothing was restored": (
                ld_clean - ld_patched
            )
            / gap,
            "it takes probabilities; the difference is one of logits": (
                (p[a] - p[b]) - (r[a] - r[b])
            )
            / ((c[a] - c[b]) - (r[a] - r[b])),
            "it looks at the clean answer alone; the corrupted one's logit is to be subtracted": (
                patched[a] - corrupted[a]
            )
            / (clean[a] - corrupted[a]),
            "the sign is turned": -(ld_patched - ld_corrupted) / gap,
        }
        found = called(function, patched.copy(), clean.copy(), corrupted.copy(), a, b)
        compare(function, found, (ld_patched - ld_corrupted) / gap, mistakes)
    return Passed(f"{function.__name__} is right: 0 is no effect, 1 is full restoration.")


@exercise("5.2")
def check_patched_logits(function: Callable) -> Passed:
    """Exercise 5.2: `f(model, donor_ids, receiver_ids, layer, position)`: a patched run's logits.

    The donor's residual stream at the input of the layer replaces the receiver's, at one position.
    """
    model, pair = example_model(), example_pair()
    donor_ids, ids = pair.clean_ids, pair.corrupted_ids
    donor, own = run_with_cache(model, donor_ids), run_with_cache(model, ids)
    flipping = pair.flipping_position
    for layer, position in ((1, flipping), (4, len(pair) - 1), (0, flipping)):
        residuals = donor.activations["resid"]

        def patch(layer: int, start: int, stop: int, residuals=residuals, source=None) -> Patch:
            rows = residuals[layer if source is None else source]
            return Patch("resid", layer, start, rows[start:stop])

        next_position = position + 1 if position + 1 < len(pair) else position - 1
        variants = {
            "right": patch(layer, position, position + 1),
            "that patches the layer's output; wanted is its input": patch(
                layer + 1, position, position + 1
            ),
            "that patches everything from the position on; wanted is one token": patch(
                layer, position, len(pair)
            ),
            "that patches a neighbour of the position": patch(
                layer, next_position, next_position + 1
            ),
            "it writes what the layer below reads into this layer": patch(
                layer, position, position + 1, source=max(layer - 1, 0)
            ),
        }
        right, *wrong = _replayed(ids, list(variants.values()))
        turned = Patch("resid", layer, position, own.activations["resid"][layer][position, None])
        mistakes = {
            "nothing was patched: these are the receiver's own logits": own.logits[-1].numpy(),
            "those are the donor's logits: patch one position of the receiver's run, not all": (
                donor.logits[-1].numpy()
            ),
            "donor and receiver are exchanged": _replayed(donor_ids, [turned])[0],
            **dict(zip(list(variants)[1:], wrong, strict=True)),
        }
        found = _traced(function, model, donor_ids, ids, layer, position)
        case = f"layer {layer}, position {position} of {len(pair)}"
        compare(function, found, right, mistakes, case=case, tolerance=TOLERANCE)
    return Passed(f"{function.__name__} is right: it equals the exact engine in three cells.")


def _traced(function: Callable, *arguments):
    """What a function with traces in it returns; the classic mistakes with them have a sentence."""
    try:
        return called(function, *arguments)
    except CheckFailed as failed:
        causes, own = _causes(failed), function.__code__.co_varnames
        if any(type(error).__name__ == "OutOfOrderError" for error in causes):
            raise CheckFailed(
                f"{function.__name__} asks for something that the model has computed before: write "
                "into a layer first and read what comes after it later in the same block."
            ) from failed
        lost = [error for error in causes if isinstance(error, NameError)]
        if any(isinstance(e, UnboundLocalError) or e.name in own for e in lost):
            raise CheckFailed(
                f"{function.__name__} uses behind a block what was not kept in it: end the "
                "line that reads it with `.save()`."
            ) from failed
        raise


def _causes(error: BaseException | None) -> list[BaseException]:
    return [error, *_causes(error.__cause__ or error.__context__)] if error else []


@exercise("6.1")
def check_knockout_mask(function: Callable) -> Passed:
    """Exercise 6.1: `f(n_tokens, queries, keys)`: True where a token may look, with edges cut."""
    for n, queries, keys in ((9, slice(6, 9), slice(2, 5)), (14, slice(9, 14), slice(1, 8))):
        causal = np.tril(np.ones((n, n), dtype=bool))
        right, cut_rows = causal.copy(), causal.copy()
        right[queries, keys] = False
        cut_rows[queries] = False
        everywhere, all_queries = np.ones((n, n), dtype=bool), causal.copy()
        everywhere[queries, keys] = False
        all_queries[:, keys] = False
        strict = np.tril(right, k=-1)
        mistakes = {
            "the causal mask is missing: no token sees a later one": everywhere,
            "True must stand where a token may look; it is the other way round": ~right,
            "nothing is cut that could be seen: rows are queries, columns are keys": causal,
            "it cuts the queries off from everything; only the keys named are taken away": cut_rows,
            "it hides the keys from every token; only from the queries named": all_queries,
            "a token sees itself: the diagonal must stay": strict,
            "it is transposed: row i says what token i may look at": right.T,
        }
        found = called(function, n, queries, keys)
        case = f"{n} tokens, queries {queries}, keys {keys}"
        compare(function, found, right, mistakes, case=case)
    return Passed(f"{function.__name__} is right: causal, and the named edges are gone.")


@exercise("6.2")
def check_mean_ablated_logits(function: Callable) -> Passed:
    """Exercise 6.2: `f(model, token_ids, layer, head, positions, mean)`: one head's z replaced."""
    model = example_model()
    trace = example_trace()
    ids = trace.token_ids[:-2]
    positions = slice(trace.segments["answer"].start, len(ids))
    width, n = model.head_dim, len(ids)
    own = run_with_cache(model, ids, ("z",))
    for layer, head in ((2, 3), (4, 0)):
        mean = own.activations["z"][layer][:, head * width : (head + 1) * width].mean(0) + 1.0

        def rows(value: torch.Tensor, count: int) -> torch.Tensor:
            return value.expand(count, -1)

        start, count = positions.start, n - positions.start
        other = head + 1 if head + 1 < model.n_heads else head - 1
        strided = own.activations["z"][layer][start:].clone()
        strided[:, head :: model.n_heads] = mean
        variants = {
            "right": Patch("z", layer, start, rows(mean, count), head),
            "that ablates the head at every position; wanted are those named": Patch(
                "z", layer, 0, rows(mean, n), head
            ),
            "that sets it to zero; wanted is the mean given": Patch(
                "z", layer, start, torch.zeros(count, width), head
            ),
            "that is the neighbouring head: head h has the columns h·head_dim to (h+1)·head_dim": (
                Patch("z", layer, start, rows(mean, count), other)
            ),
            "a head's columns stand side by side: h·head_dim to (h+1)·head_dim": Patch(
                "z", layer, start, strided
            ),
            "that is the last position alone; all those named are to be replaced": Patch(
                "z", layer, n - 1, rows(mean, 1), head
            ),
            "that ablates every head of the layer": Patch(
                "z", layer, start, mean.repeat(count, model.n_heads)
            ),
            "that is another layer": Patch("z", layer - 1, start, rows(mean, count), head),
        }
        right, *wrong = _replayed(ids, list(variants.values()))
        mistakes = {
            "nothing was ablated: these are the model's own logits": own.logits[-1].numpy(),
            **dict(zip(list(variants)[1:], wrong, strict=True)),
        }
        found = called(function, model, ids, layer, head, positions, mean)
        case = f"layer {layer}, head {head}"
        compare(function, found, right, mistakes, case=case, tolerance=TOLERANCE)
    return Passed(f"{function.__name__} is right: it equals the exact engine for two heads.")
