"""Activation patching: exact patch grids over layers and positions.

Patching copies one activation of the *donor* run into the *receiver* run of a contrast pair and
asks how far the answer follows. Every cell of a grid equals a full forward pass with that one
activation replaced; `engine/forward.py` recomputes only what the patch can change.

Semantics (those of the paper and of TransformerLens' `resid_pre`): component "resid" at layer l and
position p replaces the residual stream at the *input* of layer l, at position p only. "attn_out"
and "mlp_out" replace what the attention or the MLP of layer l writes at p; "z" replaces one head's
vector before the output projection; "q", "k", "v" one head's projections (k and v: one key/value
head, read by all its query heads).

LD = log p(clean answer) - log p(corrupted answer), the logit difference for answers of one token,
teacher-forced for longer ones. The effect of a cell is (LD_patched - LD_receiver) / (LD_donor -
LD_receiver): 0 where nothing happens, 1 where the answer follows the donor entirely. Denoising
(donor clean, receiver corrupted) gives the paper's (LD_patched - LD_corrupted) / (LD_clean -
LD_corrupted); noising asks the same the other way round (Zhang & Nanda 2023, arXiv:2309.16042).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr

from r2a_utils.causal.pair_runs import MIN_GAP, PairRuns, check_pair
from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.engine.answer_logprobs import (
    answer_caches,
    answer_scores,
    cached_scores,
    logit_difference,
)
from r2a_utils.engine.forward import common_prefix, replay
from r2a_utils.engine.patches import HEAD_COMPONENTS, ActivationCache, Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel

__all__ = ["ContrastPair", "patch_grid", "patch_metrics", "screen_pairs"]


def patch_grid(
    model: ReasoningModel,
    pair: ContrastPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    **options,
) -> xr.DataArray:
    """Effect of patching each layer and position: the paper's heat map.

    Dims (layer, position), or (layer, head, position) for z, q, k and v. Arguments, options and
    errors are those of `patch_metrics`, of which this is the variable `effect`.
    """
    metrics = patch_metrics(model, pair, positions, layers, component, **options)
    return metrics["effect"].assign_attrs(metrics.attrs)


def patch_metrics(
    model: ReasoningModel,
    pair: ContrastPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    min_gap: float = MIN_GAP,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """Patch every (layer, position) of the receiver with the donor's activation, one at a time.

    `positions` count in the clean sequence (default: all aligned ones), `heads` belongs to z, q, k
    and v (default: all), `max_tokens` bounds what is recomputed at once (default: by free memory).
    Variables over (layer, position) or (layer, head, position): `effect`, `logit_difference`
    (nats), `flip` (greedy decoding now writes the donor's answer and did not before); with a last
    dim answer (clean, corrupted): `log_probability`, `probability`, `rank` (0: greedy decoding
    writes this answer; of several tokens the worst). Attributes: `ld_clean`, `ld_corrupted` and
    `noise_floor`, the effect that rounding alone gives a replayed patch that changes nothing. A
    cell whose donor vector equals the receiver's bit for bit is not run: its effect is exactly 0.

    Raises ValueError for a pair of another model, tokens outside the vocabulary, a position that is
    not aligned, an unknown layer, head, component or direction, and a gap below `min_gap`;
    MemoryError where even one cell does not fit. Stage 05 explains.
    """
    runs = PairRuns.of(model, pair, component, direction, min_gap)
    donor = runs.donor.activations[component]

    def donated(layer: int, position: int, columns: slice) -> tuple[int, torch.Tensor]:
        value = donor[layer][runs.donor_position[position], columns]
        return runs.receiver_position[position], value

    return sweep(model, pair, runs, donated, positions, layers, heads, max_tokens)


def screen_pairs(
    model: ReasoningModel, pairs: Sequence[ContrastPair], min_gap: float = MIN_GAP
) -> pd.DataFrame:
    """Which pairs the model tells apart, one row a pair: those with |gap| >= `min_gap` are kept.

    What a sequence has in common with one of the pair before is not run again: let pairs that begin
    alike follow each other. Columns: problem_id, ld_clean, ld_corrupted, gap (their difference,
    nats), clean_rank and corrupted_rank (of each run's own answer: 0 where greedy decoding writes
    it), kept, reason.
    """
    rows, before = [], []
    for pair in pairs:
        check_pair(model, pair)
        scores, caches = [], []
        for ids in (pair.clean_ids, pair.corrupted_ids):
            after = _nearest((*before, *caches), ids)
            runs = answer_caches(model, ids, pair.answers, after=after)
            caches.append(next(iter(runs.values())))
            scores.append(cached_scores(runs, pair.answers))
        (clean, corrupted), before = scores, caches
        gap = logit_difference(clean) - logit_difference(corrupted)
        kept = abs(gap) >= min_gap
        rows.append(
            {
                "problem_id": pair.problem_id,
                "ld_clean": logit_difference(clean),
                "ld_corrupted": logit_difference(corrupted),
                "gap": gap,
                "clean_rank": int(clean[0, 1]),
                "corrupted_rank": int(corrupted[1, 1]),
                "kept": kept,
                "reason": "" if kept else f"|LD_clean - LD_corrupted| < {min_gap:g}",
            }
        )
    return pd.DataFrame(rows)


def _nearest(caches: Sequence[ActivationCache], token_ids: Sequence[int]) -> ActivationCache | None:
    """The cache with the longest beginning in common; None where there are none."""
    shared = [common_prefix(cache.token_ids, token_ids) for cache in caches]
    return caches[int(np.argmax(shared))] if caches else None


def sweep(
    model: ReasoningModel,
    pair: ContrastPair,
    runs: PairRuns,
    donated: Callable[[int, int, slice], tuple[int, torch.Tensor]],
    positions: Sequence[int] | None,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    max_tokens: int | None,
) -> xr.Dataset:
    """All cells of a grid. `donated(layer, position, columns)` is where to write what.

    It returns the receiver's position that is overwritten and the vector; `columns` is the head's
    slice of the component, or everything.
    """
    positions = chosen_positions(pair, positions)
    layers = chosen_layers(model, layers)
    heads, columns = head_columns(model, runs.component, heads)
    own = runs.receiver.activations[runs.component]
    cells, patched = [], []
    for i, layer in enumerate(layers):
        for j, head in enumerate(heads):
            for k, position in enumerate(positions):
                place, value = donated(layer, position, columns[j])
                if not torch.equal(value, own[layer][place, columns[j]]):
                    cells.append((i, j, k))
                    patched.append(
                        PatchedRun((Patch(runs.component, layer, place, value[None], head),))
                    )
    # One more patch, which changes nothing, shows what rounding alone does.
    first = min(runs.receiver_position[position] for position in positions)
    unchanged = runs.receiver.activations["resid"][layers[0]][first, None]
    patched.append(PatchedRun((Patch("resid", layers[0], first, unchanged),)))

    scores = torch.empty(len(patched), 2, 2, dtype=torch.double)
    for extension, cache in runs.receivers.items():
        which = [i for i, answer in enumerate(pair.answers) if answer[:-1] == extension]
        answers = [pair.answers[i] for i in which]

        def reduce(logits: torch.Tensor, answers=answers) -> torch.Tensor:
            return answer_scores(logits, answers)

        scores[:, which] = replay(model, cache, patched, reduce, max_tokens=max_tokens)
    table = runs.receiver_scores.expand(len(layers), len(heads), len(positions), 2, 2).clone()
    if cells:
        table[tuple(torch.tensor(cells).T)] = scores[:-1]
    moved = logit_difference(scores[-1]) - logit_difference(runs.receiver_scores)
    dataset = _dataset(pair, runs, table.numpy(), layers, heads, positions)
    return dataset.assign_attrs(model=model.name, noise_floor=abs(moved / runs.towards_donor))


def _dataset(pair, runs: PairRuns, table: np.ndarray, layers, heads, positions) -> xr.Dataset:
    """Name a table [layer, head, position, answer, (log-probability, rank)]."""
    coords = {"layer": layers, "position": positions, "answer": ["clean", "corrupted"]}
    dims = ("layer", "position")
    if heads == [None]:
        table = table[:, 0]
    else:
        coords["head"], dims = heads, ("layer", "head", "position")
    coords |= token_coords(pair, positions)
    log_probability, rank = table[..., 0], table[..., 1].astype(np.int64)
    difference = log_probability[..., 0] - log_probability[..., 1]
    # 0 + … turns the negative zero of an untouched cell into a plain one.
    effect = 0 + (difference - logit_difference(runs.receiver_scores)) / runs.towards_donor
    donor = 0 if runs.direction == "denoising" else 1
    flip = (rank[..., donor] == 0) & bool(runs.receiver_scores[donor, 1] > 0)
    return xr.Dataset(
        {
            "effect": (dims, effect),
            "logit_difference": (dims, difference),
            "flip": (dims, flip),
            "log_probability": ((*dims, "answer"), log_probability),
            "probability": ((*dims, "answer"), np.exp(log_probability)),
            "rank": ((*dims, "answer"), rank),
        },
        coords=coords,
        attrs={
            "component": runs.component,
            "direction": runs.direction,
            "problem_id": pair.problem_id,
            "ld_clean": runs.ld_clean,
            "ld_corrupted": runs.ld_corrupted,
            # of the clean and of the corrupted answer, before anything is patched
            "receiver_probability": runs.receiver_scores[:, 0].exp().tolist(),
        },
    )


def token_coords(pair: ContrastPair, positions: Sequence[int]) -> dict[str, tuple]:
    """Coordinates `token` and `corrupted_token` over positions, where the pair knows its texts."""
    coords = {}
    if pair.tokens:
        coords["token"] = ("position", [pair.tokens[p] for p in positions])
    if pair.corrupted_tokens:
        others = [pair.corrupted_tokens[pair.alignment[p]] for p in positions]
        coords["corrupted_token"] = ("position", others)
    return coords


def chosen_positions(pair: ContrastPair, positions: Sequence[int] | None) -> list[int]:
    """The positions as a list, all of them aligned (ValueError otherwise)."""
    chosen = list(pair.alignment) if positions is None else [int(p) for p in positions]
    if not chosen:
        raise ValueError("no position to patch")
    for position in chosen:
        if not 0 <= position < len(pair):
            raise ValueError(
                f"position {position} is out of range: the clean sequence ends at {len(pair) - 1}"
            )
        if position not in pair.alignment:
            raise ValueError(f"position {position} has no counterpart in the corrupted sequence")
    return chosen


def chosen_layers(model: ReasoningModel, layers: Sequence[int] | None) -> list[int]:
    """The layers as a list, all of them in the model (ValueError otherwise)."""
    return _chosen("layer", layers, model.n_layers)


def head_columns(
    model: ReasoningModel, component: str, heads: Sequence[int] | None
) -> tuple[list[int | None], list[slice]]:
    """The heads of a component and each one's slice; a single None for components without heads."""
    if component not in HEAD_COMPONENTS:
        if heads is not None:
            raise ValueError(f"component {component!r} has no heads: only {HEAD_COMPONENTS} have")
        return [None], [slice(None)]
    n_heads, width = model.n_kv_heads if component in "kv" else model.n_heads, model.head_dim
    chosen = _chosen("head", heads, n_heads)
    return chosen, [slice(head * width, (head + 1) * width) for head in chosen]


def _chosen(what: str, wanted: Sequence[int] | None, n: int) -> list[int]:
    chosen = list(range(n)) if wanted is None else [int(i) for i in wanted]
    if not chosen or not all(0 <= i < n for i in chosen):
        raise ValueError(f"{what} out of range in {chosen}: the model has {what}s 0 to {n - 1}")
    return chosen
