"""Activation patching: exact patch grids over layers and positions.

Patching copies one activation of the *donor* pass into the *receiver* pass of a contrast pair and
asks how far the answer follows. Every cell of a grid equals a full forward pass with that one
activation replaced; `engine/forward.py` recomputes only what the patch can change.

Semantics (those of the paper and of TransformerLens' `resid_pre`): component "resid" at layer l and
position p replaces the residual stream at the *input* of layer l, at position p only. "attn_out"
and "mlp_out" replace what the attention or the MLP of layer l writes at p; "z" replaces one head's
vector before the output projection; "q", "k", "v" one head's projections (k and v: one key/value
head, read by all its query heads).

What a cell says is its *metric*. By default it is the normalised logit difference. With LD = log
p(clean answer) - log p(corrupted answer), the logit difference for answers of one token, teacher-
forced for longer ones, it is (LD_patched - LD_receiver) / (LD_donor - LD_receiver): 0 where nothing
happens, 1 where the answer follows the donor entirely. Denoising (donor clean, receiver corrupted)
gives the paper's (LD_patched - LD_corrupted) / (LD_clean - LD_corrupted); noising asks the same the
other way round (Zhang & Nanda 2023, arXiv:2309.16042). Any other metric is a function of the logits
[vocabulary] after the last token before the answer, as in TransformerLens' patching.py:

    (clean_id,), _ = pair.answers

    def probability(logits):
        return logits.softmax(-1)[clean_id]

    grid = patch_grid(model, pair, metric=probability)

A pair's two passes are made once where it is recorded first: `recorded = record_pair(model, pair)`
goes wherever `pair` does, for every direction, control and metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from r2a_utils.causal.pairs import ContrastPair
from r2a_utils.causal.recorded_pairs import MIN_GAP, RecordedPair, Transfer, recorded
from r2a_utils.engine.answer_logprobs import answer_scores, logit_difference, logit_step
from r2a_utils.engine.forward import engine_of, replay
from r2a_utils.engine.patches import HEAD_COMPONENTS, Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture
from r2a_utils.runs.pieces import kept_in_pieces

Metric = Callable[[Float[Tensor, " vocabulary"]], Tensor | float]
"""Logits [vocabulary], float32 or finer, after the last token before the answer → one number."""


def patch_grid(
    model: ReasoningModel,
    pair: ContrastPair | RecordedPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    **options,
) -> Float[xr.DataArray, "layer *head position"]:
    """Effect of patching each layer and position: the paper's heat map.

    Dims (layer, position), or (layer, head, position) for z, q, k and v; values in units of the
    metric (default: the normalised logit difference, 0 nothing, 1 all). Arguments, options and
    errors are those of `patch_metrics`, of which this is the variable `effect`. Raises ValueError
    and MemoryError as it does. Stage 05 explains.
    """
    metrics = patch_metrics(model, pair, positions, layers, component, **options)
    return metrics["effect"].assign_attrs(metrics.attrs)


@kept_in_pieces
def patch_metrics(
    model: ReasoningModel,
    pair: ContrastPair | RecordedPair,
    positions: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    component: str = "resid",
    *,
    heads: Sequence[int] | None = None,
    direction: str = "denoising",
    metric: Metric | None = None,
    min_gap: float = MIN_GAP,
    max_tokens: int | None = None,
) -> xr.Dataset:
    """Patch every (layer, position) of the receiver with the donor's activation, one at a time.

    A `pair` that was recorded is not run again. `positions` count in the clean sequence (default:
    all aligned ones), `heads` belongs to z, q, k and v (default: all), `metric` says what `effect`
    is (default: the normalised logit difference), `max_tokens` bounds what is recomputed at once
    (default: by free memory). Variables over (layer, position) or (layer, head, position):
    `effect`, `logit_difference` (nats), `flip` (greedy decoding now writes the donor's answer and
    did not before); with a last dim answer (clean, corrupted): `log_probability` (nats),
    `probability`, `rank` (0: greedy decoding writes this answer; of several tokens the worst).
    Attributes: `ld_clean`, `ld_corrupted`, `engine` ("fast" or "plain") and `noise_floor`, the most
    by which patches that change nothing, early and late, move `effect` (rounding, and no more where
    replaying is right), but by the default metric no less than one step of the logits in the
    model's dtype (`logit_step`). Cells of a layer that lacks the component are NaN (rank -1, no
    flip). A cell whose donor vector equals the receiver's bit for bit is not run: by the default
    metric its effect is exactly 0.

    Raises ValueError for a pair of another model, tokens outside the vocabulary, a position that is
    not aligned, an unknown layer, head, component or direction, a component that the pair was not
    recorded with or cannot be read in this model, a gap below `min_gap`, and a metric that gives
    more than one number; MemoryError where even one cell does not fit. Stage 05 explains.
    """
    transfer = Transfer(recorded(model, pair, component), component, direction)
    transfer.recorded.check_gap(min_gap)
    donor = transfer.donor.activations[component]

    def donated(layer: int, position: int, columns: slice) -> tuple[int, Float[Tensor, " width"]]:
        value = donor[layer][transfer.donor_position[position], columns]
        return transfer.receiver_position[position], value

    return sweep(model, transfer, donated, positions, layers, heads, metric, max_tokens)


def sweep(
    model: ReasoningModel,
    transfer: Transfer,
    donated: Callable[[int, int, slice], tuple[int, Float[Tensor, " width"]]],
    positions: Sequence[int] | None,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
    metric: Metric | None,
    max_tokens: int | None,
) -> xr.Dataset:
    """All cells of a grid. `donated(layer, position, columns)` is where to write what.

    It returns the receiver's position that is overwritten and the vector; `columns` is the head's
    slice of the component, or everything. What comes back and what is raised, `patch_metrics` says.
    """
    positions = chosen_positions(transfer.pair, positions)
    layers = chosen_layers(model, layers)
    heads = chosen_heads(model, transfer.component, heads)
    own = transfer.receiver.activations[transfer.component]
    cells, patched, missing = [], [], torch.zeros(len(layers), len(heads), dtype=torch.bool)
    for i, layer in enumerate(layers):
        for j, head in enumerate(heads):
            columns = _columns(model, transfer.component, layer, head, own[layer].shape[-1])
            missing[i, j] = columns is None
            for k, position in enumerate(positions if columns else ()):
                place, value = donated(layer, position, columns)
                if not torch.equal(value, own[layer][place, columns]):
                    cells.append((i, j, k))
                    patched.append(
                        PatchedRun((Patch(transfer.component, layer, place, value[None], head),))
                    )
    nulls = _nulls(transfer, layers, positions)
    patched += nulls

    scores, measured = _replayed(model, transfer, patched, metric, max_tokens)
    shape = (len(layers), len(heads), len(positions))
    table = transfer.receiver_scores.expand(*shape, 2, 2).clone()
    effect = torch.full(shape, float(measured.before), dtype=torch.double)
    if cells:
        where = tuple(torch.tensor(cells).T)
        table[where], effect[where] = scores[: len(cells)], measured.after[: len(cells)]
    table[missing], effect[missing] = torch.nan, torch.nan
    floor = float((measured.after[len(cells) :] - measured.before).abs().max())
    if metric is None:
        step = logit_step(transfer.receivers, transfer.pair.answers, model.dtype)
        floor = max(floor, step / abs(transfer.towards_donor))
    dataset = _dataset(transfer, table.numpy(), effect.numpy(), layers, heads, positions)
    engine = engine_of(model, max(len(cache.token_ids) for cache in transfer.receivers.values()))
    return dataset.assign_attrs(model=model.name, noise_floor=floor, engine=engine)


def _nulls(transfer: Transfer, layers: Sequence[int], positions: Sequence[int]) -> list[PatchedRun]:
    """Patches that change nothing: what they move is what a replay adds of its own.

    Early, where all is recomputed, they show the rounding; late, where keys, values and the stream
    below come from the cache and other runs share the pack, also a replay that is wrong.
    """
    places = sorted(transfer.receiver_position[position] for position in positions)
    late = (places[len(places) // 2], places[-1])
    where = [(layers[0], places[0]), *((layers[-1], place) for place in late)]
    own = transfer.receiver.activations["resid"]
    return [
        PatchedRun((Patch("resid", layer, place, own[layer][place, None]),))
        for layer, place in dict.fromkeys(where)
    ]


class _Measured(NamedTuple):
    """The metric of the receiver as it is, and of every patched run."""

    before: float
    after: torch.Tensor


def _replayed(
    model: ReasoningModel,
    transfer: Transfer,
    patched: Sequence[PatchedRun],
    metric: Metric | None,
    max_tokens: int | None,
) -> tuple[Float[Tensor, "run 2 2"], _Measured]:
    """Scores [run, answer, (log-probability, rank)] of all patched runs, and their metric."""
    answers = transfer.pair.answers
    scores = torch.empty(len(patched), 2, 2, dtype=torch.double)
    measured = None
    for extension, cache in transfer.receivers.items():
        which = [i for i, answer in enumerate(answers) if answer[:-1] == extension]
        reduce = _reduction([answers[i] for i in which], None if measured else metric)
        rows = replay(model, cache, patched, reduce, max_tokens=max_tokens)
        scores[:, which] = rows[:, : 2 * len(which)].unflatten(1, (len(which), 2))
        if metric is not None and measured is None:
            measured = _Measured(_one_number(metric, cache.logits[0]), rows[:, -1])
    if metric is None:
        own = logit_difference(transfer.receiver_scores)
        moved = scores[:, 0, 0] - scores[:, 1, 0] - own
        # 0 + … turns a negative zero into a plain one.
        measured = _Measured(0.0, 0 + moved / transfer.towards_donor)
    return scores, measured


def _reduction(answers: Sequence[tuple[int, ...]], metric: Metric | None) -> Callable:
    """What is kept of logits [run, read, vocabulary]: scores, flat, and behind them the metric."""

    def reduce(logits: Float[Tensor, "run read vocabulary"]) -> Float[Tensor, "run kept"]:
        scores = answer_scores(logits, answers).flatten(1)
        if metric is None:
            return scores
        values = [[_one_number(metric, row)] for row in logits[:, 0]]
        return torch.cat([scores, torch.tensor(values, dtype=torch.double)], 1)

    return reduce


def _one_number(metric: Metric, logits: Float[Tensor, " vocabulary"]) -> float:
    value = torch.as_tensor(metric(logits))
    if value.numel() != 1:
        raise ValueError(
            f"the metric gives {tuple(value.shape)} numbers from logits [{len(logits)}]: let it "
            "return one"
        )
    return float(value)


def _dataset(
    transfer: Transfer,
    table: Float[np.ndarray, "layer head position 2 2"],
    effect: Float[np.ndarray, "layer head position"],
    layers: Sequence[int],
    heads: Sequence[int | None],
    positions: Sequence[int],
) -> xr.Dataset:
    """Name a table [layer, head, position, answer, (log-probability, rank)] and its effects."""
    coords = {"layer": layers, "position": positions, "answer": ["clean", "corrupted"]}
    dims = ("layer", "position")
    if heads == [None]:
        table, effect = table[:, 0], effect[:, 0]
    else:
        coords["head"], dims = heads, ("layer", "head", "position")
    coords |= token_coords(transfer.pair, positions)
    log_probability, rank = table[..., 0], np.nan_to_num(table[..., 1], nan=-1).astype(np.int64)
    donor = 0 if transfer.direction == "denoising" else 1
    flip = (rank[..., donor] == 0) & bool(transfer.receiver_scores[donor, 1] > 0)
    return xr.Dataset(
        {
            "effect": (dims, effect),
            "logit_difference": (dims, log_probability[..., 0] - log_probability[..., 1]),
            "flip": (dims, flip),
            "log_probability": ((*dims, "answer"), log_probability),
            "probability": ((*dims, "answer"), np.exp(log_probability)),
            "rank": ((*dims, "answer"), rank),
        },
        coords=coords,
        attrs={
            "component": transfer.component,
            "direction": transfer.direction,
            "problem_id": transfer.pair.problem_id,
            "ld_clean": transfer.recorded.ld_clean,
            "ld_corrupted": transfer.recorded.ld_corrupted,
            # of the clean and of the corrupted answer, before anything is patched
            "receiver_probability": transfer.receiver_scores[:, 0].exp().tolist(),
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


def chosen_heads(
    model: ReasoningModel, component: str, heads: Sequence[int] | None
) -> list[int | None]:
    """The heads of a component as a list; a single None for components without heads.

    Raises ValueError for heads of a component without any, and for heads that no layer has.
    """
    if component not in HEAD_COMPONENTS:
        if heads is not None:
            raise ValueError(f"component {component!r} has no heads: only {HEAD_COMPONENTS} have")
        return [None]
    places = architecture(model)
    most = max(places.heads(layer, component) for layer in range(model.n_layers))
    return _chosen("head", heads, most)


def _columns(
    model: ReasoningModel, component: str, layer: int, head: int | None, width: int
) -> slice | None:
    """A head's columns of a layer's component, or all; None where the layer has none."""
    places = architecture(model)
    if head is None:
        return slice(None) if places.has(layer, component) else None
    there = places.heads(layer, component)
    size = width // there if head < there else 0
    return slice(head * size, (head + 1) * size) if size else None


def _chosen(what: str, wanted: Sequence[int] | None, n: int) -> list[int]:
    chosen = list(range(n)) if wanted is None else [int(i) for i in wanted]
    if not chosen or not all(0 <= i < n for i in chosen):
        raise ValueError(f"{what} out of range in {chosen}: the model has {what}s 0 to {n - 1}")
    return chosen
