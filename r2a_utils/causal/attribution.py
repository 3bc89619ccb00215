"""Attribution patching: a whole patch grid from two forwards and one backward, approximately.

Patching (layer, position) of the receiver moves LD by about (donor - receiver) · dLD/d(receiver):
one backward pass gives all cells at once (AtP, Nanda 2023; Syed et al. 2023, arXiv:2310.10348). Two
refinements make it AtP* (Kramár et al. 2024, arXiv:2403.00745):

- QK-fix: where a query or a key is patched, the attention weights are recomputed exactly and only
  what follows is linear, since a saturated softmax has no gradient to speak of.
- GradDrop: direct and indirect effects can cancel in one gradient. So one backward a layer is taken
  with the gradient through that layer's attention and MLP dropped, and the magnitudes are averaged;
  scores are then magnitudes without sign.

Cells mean the same as in `patching.py`, in the same units; `rank_correlation` and `recall_at` say
how well the cheap grid finds the cells of the exact one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.patching import (
    chosen_heads,
    chosen_layers,
    chosen_positions,
    patch_grid,
    token_coords,
)
from r2a_utils.causal.recorded_pairs import (
    DIRECTIONS,
    MIN_GAP,
    Caches,
    RecordedPair,
    check_pair,
    recorded,
)
from r2a_utils.engine.forward import run_with_graph
from r2a_utils.engine.patches import COMPONENTS, HEAD_COMPONENTS, ActivationCache, ActivationGraph
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import check_component
from r2a_utils.stats import bootstrap_interval

METHODS = ("atp", "qk_fix", "grad_drop", "atp*")

CHECKED = ("atp", "atp*")
BUDGETS = (10, 20)
"""At how many cells the recall is asked: as many as one would verify by exact patching."""
TAIL = 30
"""Tokens before the answer at which attribution is checked, besides those that differ."""


def attribution_grid(
    model: ReasoningModel,
    pair: ContrastPair | RecordedPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    method: str = "atp",
    min_gap: float = MIN_GAP,
) -> Float[xr.DataArray, "layer *head position"]:
    """Estimate `patch_grid` from gradients; the same dims, coordinates and errors.

    `method` is "atp"; "qk_fix" (differs for q and k only); "grad_drop", one backward a layer more;
    or "atp*", both. With GradDrop the values are magnitudes, without it they have the sign of the
    effect. For q and k the pair must have equal lengths: their vectors are compared after the
    rotary embedding, which depends on the position. Needs the activations of a forward pass with
    gradients in memory; of a pair that was recorded with the component, the donor's pass is not
    made again (q excepted, which is not kept after the rotary embedding). Raises ValueError as
    `patch_metrics` does, for an unknown method, and for q and k of a pair whose positions are
    shifted. Stage 05 explains.
    """
    for what, value, known in (
        ("component", component, COMPONENTS),
        ("direction", direction, DIRECTIONS),
        ("method", method, METHODS),
    ):
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: choose from {known}")
    caches: Caches = {}
    if isinstance(pair, RecordedPair):
        passes, pair = recorded(model, pair, component), pair.pair
        if component != "q":
            caches = passes.clean if direction == "denoising" else passes.corrupted
    check_pair(model, pair)
    check_component(model, component)
    positions, layers = chosen_positions(pair, positions), chosen_layers(model, layers)
    heads = chosen_heads(model, component, heads)
    if component in "qk" and any(pair.alignment[p] != p for p in positions):
        raise ValueError(f"{component} of a pair with shifted positions cannot be attributed")
    denoising = direction == "denoising"
    donor_ids = pair.clean_ids if denoising else pair.corrupted_ids
    receiver_ids = pair.corrupted_ids if denoising else pair.clean_ids
    others = [pair.alignment[p] for p in positions]
    places = (positions, others) if denoising else (others, positions)

    fixed = component in "qk" and method in ("qk_fix", "atp*")
    dropped = [None] if method in ("atp", "qk_fix") else list(range(model.n_layers))
    total = torch.zeros(len(dropped), len(layers), len(heads), len(positions), dtype=torch.double)
    ld_donor = ld_receiver = 0.0
    for extension in dict.fromkeys(answer[:-1] for answer in pair.answers):
        with torch.no_grad():
            donor = _donor(model, component, (*donor_ids, *extension), caches.get(extension))
        with torch.enable_grad():
            receiver = run_with_graph(model, (*receiver_ids, *extension))
            ld = _difference(receiver.logits, pair, extension, len(receiver_ids))
        read = donor.logits[-1 - len(extension) :]
        ld_donor += float(_difference(read, pair, extension, 1))
        ld_receiver += float(ld.detach())
        nodes = [receiver.nodes["attended" if fixed else component][layer] for layer in layers]
        for i, gradients in enumerate(_gradients(receiver, ld, nodes, dropped)):
            for j, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
                if gradient is None:  # the layer has no such part
                    total[i, j] = torch.nan
                    continue
                runs = (component, layer, donor, receiver, gradient)
                moved = _refocused(*runs, positions) if fixed else _moved(*runs, *places)
                for row, head in enumerate(heads):
                    there = (head or 0) < len(moved)
                    total[i, j, row] += moved[head or 0] if there else torch.nan
    gap = ld_donor - ld_receiver
    if abs(gap) < min_gap:
        raise ValueError(
            f"pair {pair.problem_id!r}: LD differs by {gap:.3f} between its runs, below "
            f"{min_gap:g}: leave the pair out (see sift) or lower min_gap"
        )
    if dropped == [None]:
        values = total[0] / gap
    else:
        # A part of a layer has no gradient left where its own layer is dropped.
        values = (total / gap).abs().sum(0) / (len(dropped) - (component != "resid"))
    coords = {"layer": layers, "position": positions} | token_coords(pair, positions)
    dims = ("layer", "position")
    if heads == [None]:
        values = values[:, 0]
    else:
        coords["head"], dims = heads, ("layer", "head", "position")
    attrs = {"component": component, "direction": direction, "method": method, "model": model.name}
    return xr.DataArray(values.numpy(), coords, dims, name="effect", attrs=attrs)


def rank_correlation(
    exact: Float[xr.DataArray, "*grid"], approximate: Float[xr.DataArray, "*grid"]
) -> float:
    """Spearman's correlation between the magnitudes of two grids, over all cells."""
    exact, approximate = xr.align(exact, approximate, join="exact")
    return float(spearmanr(np.abs(exact).values.ravel(), np.abs(approximate).values.ravel())[0])


def recall_at(
    exact: Float[xr.DataArray, "*grid"],
    approximate: Float[xr.DataArray, "*grid"],
    budgets: Sequence[int] = BUDGETS,
) -> dict[int, float]:
    """Share of the exact grid's k strongest cells that are among the approximate grid's k.

    k is the budget: as many cells as one would verify by patching them exactly.
    """
    exact, approximate = xr.align(exact, approximate, join="exact")
    orders = [
        np.argsort(-np.abs(grid.values.ravel()), kind="stable") for grid in (exact, approximate)
    ]
    return {k: len(set(orders[0][:k]) & set(orders[1][:k])) / k for k in budgets}


@dataclass(frozen=True, eq=False)
class AttributionCheck:
    """How well gradients find what exact patching finds, over the grids of several pairs.

    `quality` has a row for each of `CHECKED`, with Spearman and, by budget, the recall (means over
    pairs); `recalls` the recall of "atp" at the first budget, pair by pair; `exact` and `estimate`
    hold every cell of all grids, by "atp".
    """

    n: int
    quality: pd.DataFrame
    recalls: Float[np.ndarray, " pair"]
    exact: Float[np.ndarray, " cell"]
    estimate: Float[np.ndarray, " cell"]

    def summary(self) -> AttributionPatching:
        """What is told of it in the prose."""
        budget, (plain, dropped) = BUDGETS[0], CHECKED
        table, (low, high) = self.quality, bootstrap_interval(self.recalls)
        return AttributionPatching(
            n=self.n,
            recall_low=None if np.isnan(low) else low,
            recall_high=None if np.isnan(high) else high,
            spearman=table.loc[plain, "Spearman"],
            recall=table.loc[plain, budget],
            spearman_star=table.loc[dropped, "Spearman"],
            recall_star=table.loc[dropped, budget],
            budget=budget,
            tail=TAIL,
        )


@dataclass(frozen=True)
class AttributionPatching:
    """What stage 05 tells of attribution: means over `n` pairs, recalls at `budget` cells.

    recall_low to recall_high: bootstrap over pairs, None for one. `tail` tokens before the answer
    are in every grid, with the differing ones.
    """

    n: int
    spearman: float
    recall: float
    recall_low: float | None
    recall_high: float | None
    spearman_star: float
    recall_star: float
    budget: int
    tail: int


def check_attribution(model: ReasoningModel, pairs: Sequence[RecordedPair]) -> AttributionCheck:
    """Patch pairs exactly and by gradients, at the differing tokens and the last `TAIL`.

    Raises ValueError as `patch_grid` and `attribution_grid` do. Stage 05 shows it.
    """
    points, scores = [], []
    for recorded_pair in pairs:
        pair = recorded_pair.pair
        tail = range(len(pair) - TAIL, len(pair))
        positions = sorted({*pair.differing_positions, *tail} & set(pair.alignment))
        exact = patch_grid(model, recorded_pair, positions)
        for method in CHECKED:
            guess = attribution_grid(model, recorded_pair, positions, method=method)
            recall = recall_at(exact, guess, BUDGETS)
            scores.append({"method": method, "Spearman": rank_correlation(exact, guess), **recall})
            if method == CHECKED[0]:
                points.append(np.stack([exact.values.ravel(), guess.values.ravel()]))
    exact, estimate = np.concatenate(points, axis=1)
    scores = pd.DataFrame(scores)
    quality = scores.groupby("method").mean()
    recalls = scores.loc[scores["method"] == CHECKED[0], BUDGETS[0]].to_numpy(float)
    return AttributionCheck(len(points), quality, recalls, exact, estimate)


def _difference(
    logits: Float[Tensor, "position vocabulary"],
    pair: ContrastPair,
    extension: tuple[int, ...],
    n: int,
) -> Float[Tensor, ""]:
    """This extension's part of LD, from logits [position, vocabulary] of `n` tokens and it."""
    rows = logits[n - 1 :].double().log_softmax(-1)
    total = rows.new_zeros(())
    for sign, answer in zip((1, -1), pair.answers, strict=True):
        if answer[:-1] == extension:
            total = total + sign * rows[range(len(answer)), answer].sum()
    return total


def _donor(
    model: ReasoningModel, component: str, token_ids: tuple[int, ...], cache: ActivationCache | None
) -> ActivationGraph:
    """The donor's pass without gradients, from its cache where there is one."""
    if cache is None:
        return run_with_graph(model, token_ids)
    if component in "kv":
        nodes = cache.keys if component == "k" else cache.values
    else:
        nodes = cache.activations[component]
    return ActivationGraph({component: [node[None] for node in nodes]}, [], [], cache.logits)


def _gradients(
    run: ActivationGraph,
    ld: Float[Tensor, ""],
    nodes: list[Float[Tensor, "1 ..."] | None],
    dropped: list[int | None],
) -> Iterator[list[Float[Tensor, "1 ..."] | None]]:
    """dLD/d(node) of all nodes, once for every dropped layer (None: nothing is dropped).

    None for a node that is not there.
    """
    now_dropped = None

    def drop(layer: int):
        return lambda gradient: torch.zeros_like(gradient) if layer == now_dropped else None

    handles = [
        node.register_hook(drop(layer))
        for name in ("attn_out", "mlp_out")
        for layer, node in enumerate(run.nodes[name])
        if node is not None
    ]
    there = [node for node in nodes if node is not None]
    try:
        for now_dropped in dropped:
            keep = now_dropped != dropped[-1]
            found = iter(torch.autograd.grad(ld, there, retain_graph=keep, allow_unused=True))
            gradients = [None if node is None else next(found) for node in nodes]
            yield [
                torch.zeros_like(node) if gradient is None and node is not None else gradient
                for node, gradient in zip(nodes, gradients, strict=True)
            ]
    finally:
        for handle in handles:
            handle.remove()


def _moved(
    component: str,
    layer: int,
    donor: ActivationGraph,
    receiver: ActivationGraph,
    gradient: Float[Tensor, "1 ..."],
    donor_places: list[int],
    receiver_places: list[int],
) -> Float[Tensor, "head position"]:
    """(donor - receiver) · gradient, [head or 1, position]."""
    theirs, ours = donor.nodes[component][layer][0], receiver.nodes[component][layer][0].detach()
    parts = [theirs, ours, gradient[0]]
    if component == "z":
        parts = [_by_head(part, receiver, layer) for part in parts]
    elif component not in HEAD_COMPONENTS:
        parts = [part[None] for part in parts]
    theirs, ours, gradient = parts
    difference = theirs[:, donor_places] - ours[:, receiver_places]
    return (difference.double() * gradient[:, receiver_places].double()).sum(-1).cpu()


def _by_head(
    z: Float[Tensor, "token width"], run: ActivationGraph, layer: int
) -> Float[Tensor, "head token head_dim"]:
    return z.unflatten(1, (run.nodes["q"][layer].shape[1], -1)).transpose(0, 1)


def _refocused(
    component: str,
    layer: int,
    donor: ActivationGraph,
    receiver: ActivationGraph,
    gradient: Float[Tensor, "1 token head head_dim"],
    positions: list[int],
) -> Float[Tensor, "heads position"]:
    """QK-fix: gradient of z · exact change of z, when one query or key is the donor's.

    z is here what the heads read, as the attention call gives it, and `gradient` dLD/dz [1, token,
    head, head_dim]; returns [head, position] of query heads, or of key/value heads for k.
    Everything in double precision, one head at a time: [token, token].
    """
    names = ("q", "k", "v", "attended")
    q, k, v, z = (receiver.nodes[name][layer][0].detach().double() for name in names)
    z, gradient = z.transpose(0, 1), gradient[0].double().transpose(0, 1)
    theirs = donor.nodes[component][layer][0].double()
    shared, scale = len(q) // len(k), receiver.scales[layer]
    at = torch.tensor(positions, device=q.device)
    eps = torch.finfo(receiver.nodes["attended"][layer].dtype).eps
    future = ~receiver.visible[layer].to(q.device)
    moved = torch.zeros(len(theirs), len(positions), dtype=torch.double)
    for head in range(len(q)):
        group = head // shared
        weights = ((q[head] @ k[group].T) * scale).masked_fill(future, -torch.inf).softmax(-1)
        _check_formula(head, weights @ v[group], z[head], v[group], eps)
        # How much LD gains from each attention weight [query, key].
        gain = gradient[head] @ v[group].T
        if component == "q":
            scores = (theirs[head, at] @ k[group].T) * scale
            new = scores.masked_fill(future[at], -torch.inf).softmax(-1)
            moved[head] = ((new - weights[at]) * gain[at]).sum(-1).cpu()
            continue
        # A new key at p rescales every other weight of each later query's row by `rest`.
        # A row that cannot see p has no weight there, and keeps all others.
        change = (q[head] @ (theirs[group, at] - k[group, at]).T) * scale
        old = weights[:, at]
        rest = 1 / (1 + old * torch.expm1(change))
        new = old * change.exp() * rest
        others = (gradient[head] * z[head]).sum(-1, keepdim=True) - gain[:, at] * old
        moved[group] += ((rest - 1) * others + gain[:, at] * (new - old)).sum(0).cpu()
    return moved


def _check_formula(
    head: int,
    formed: Float[Tensor, "token head_dim"],
    own: Float[Tensor, "token head_dim"],
    values: Float[Tensor, "token head_dim"],
    eps: float,
) -> None:
    """Raise ValueError where a head's z is not what its queries, keys and values give."""
    error = float((formed - own).abs().max() / values.abs().max())
    if not error <= eps**0.5:  # half of the digits that the model itself keeps
        raise ValueError(
            f"head {head} is not softmax(scaled q·k) over what it sees (off by {error:.2g}): the "
            'QK-fix cannot be computed for this model; take method="atp" or "grad_drop"'
        )
