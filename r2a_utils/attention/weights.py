"""Single rows of attention: the weights of chosen heads, and where every head looks.

Only the wanted rows are formed, a few at a time, from the queries and keys of the running model.
This file knows token positions. It does not know which heads matter (heads.py) nor how a model is
entered (models/hooks.py); masses over whole traces are mass.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from r2a_utils.attention.distance import reads_by_distance
from r2a_utils.engine.oracle import rows_fault
from r2a_utils.models.hooks import read_attention, read_weights
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture
from r2a_utils.texts.trace import Trace

# Rows of attention that are formed at once, over all heads, hold at most this many weights.
_CHUNK_WEIGHTS = 2**24


def attention_rows(
    model: ReasoningModel,
    trace: Trace | Sequence[int],
    heads: Sequence[tuple[int, int]],
    queries: slice | None = None,
) -> Float[xr.DataArray, "head query key"]:
    """The attention weights of chosen heads in chosen rows: dims (head, query, key), float32.

    `heads` are (layer, head) pairs and become the coordinates `layer` and `head_index` of `head`.
    `queries` is a slice of tokens, by default the answer; for a plain list of token ids, all. Each
    row sums to 1 (to less where the model has a learned sink) and is 0 on later tokens. Raises
    ValueError for heads or queries outside the model and the trace. Stage 04b draws them.
    """
    token_ids, queries = _rows_wanted(model, trace, queries)
    wanted, attending = {}, architecture(model).attending
    for layer, head in heads:
        if not (layer in attending and 0 <= head < model.n_heads):
            raise ValueError(
                f"no head ({layer}, {head}): {len(attending)} of {model.n_layers} layers attend, "
                f"with {model.n_heads} heads each."
            )
        wanted.setdefault(layer, []).append(head)

    def read(rows: Rows) -> Float[Tensor, "head query key"]:
        return torch.cat([weights for _, weights in rows], dim=1).cpu()

    found = _read_rows(model, token_ids, queries, dict(sorted(wanted.items())), read)
    by_layer = dict(zip(sorted(wanted), found, strict=True))
    rows = [by_layer[layer][wanted[layer].index(head)] for layer, head in heads]
    return xr.DataArray(
        torch.stack(rows).numpy(),
        dims=("head", "query", "key"),
        coords={
            "layer": ("head", [layer for layer, _ in heads]),
            "head_index": ("head", [head for _, head in heads]),
            "query": np.arange(queries.start, queries.stop),
            "key": np.arange(token_ids.shape[1]),
        },
        name="attention",
        attrs={"model": model.name},
    )


def attention_profile(
    model: ReasoningModel,
    trace: Trace | Sequence[int],
    keys: slice | None = None,
    queries: slice | None = None,
    *,
    sink: int | None = None,
) -> xr.Dataset:
    """Where each query looks within a span of keys, for every head: dims (layer, head, query).

    `keys` is by default the reasoning and `queries` the answer; for a plain list of token ids, all.
    The variables: `mass`, the attention on the span; `mean_position`, the mean attended position
    in it, and `peak`, its most attended position, both counted from the start of the trace;
    `entropy` of the whole row, in nats, at most log(i + 1) for token i; `by_distance` [read or
    within, layer, head, distance], the rows' sums by distance (`Counts` of distance.py), without
    what rests on the token `sink` (`find_sink`), if one is given.
    `mean_position` is NaN where the span lies wholly after the query, and `peak` is then the span's
    first position. Layers without attention are NaN, with -1 as `peak`.
    Raises ValueError for a span without a key, or queries outside the trace. Stage 04b.
    """
    if keys is None:
        keys = trace.segments["reasoning"] if isinstance(trace, Trace) else slice(None)
    token_ids, queries = _rows_wanted(model, trace, queries)
    start, stop, _ = keys.indices(token_ids.shape[1])
    if start >= stop:
        raise ValueError(f"no key lies in {keys}: the trace has {token_ids.shape[1]} tokens.")
    name = model.name

    def read(rows: Rows) -> tuple[Tensor, Tensor]:
        found, by_distance = [], 0
        for first, weights in rows:
            span = weights[..., start:stop]
            positions = torch.arange(start, stop, dtype=torch.float32, device=span.device)
            mass = span.sum(-1)
            entropy = torch.special.entr(weights).sum(-1)
            _check_entropy(name, entropy, first)
            peak = start + span.argmax(-1)
            found.append(torch.stack([mass, span @ positions / mass, peak.float(), entropy]))
            by_distance += reads_by_distance(weights, first, sink)
        return torch.cat(found, dim=-1).cpu(), by_distance.cpu()

    attending = architecture(model).attending
    every = dict.fromkeys(attending, range(model.n_heads))
    found = zip(*_read_rows(model, token_ids, queries, every, read), strict=True)
    measured, by_distance = (_in_all_layers(model, torch.stack(parts)) for parts in found)
    dims = ("layer", "head", "query")
    mass, mean_position, peak, entropy = measured.unbind(1)
    return xr.Dataset(
        {
            "mass": (dims, mass.numpy()),
            "mean_position": (dims, mean_position.numpy()),
            "peak": (dims, peak.nan_to_num(-1).numpy().astype(np.int64)),
            "entropy": (dims, entropy.numpy()),
            "by_distance": (
                ("sum", "layer", "head", "distance"),
                by_distance.transpose(0, 1).numpy(),
            ),
        },
        coords={
            "sum": ["read", "within"],
            "layer": np.arange(model.n_layers),
            "head": np.arange(model.n_heads),
            "query": np.arange(queries.start, queries.stop),
        },
        attrs={"model": model.name, "first_key": start, "last_key": stop - 1},
    )


Rows = Iterator[tuple[int, Float[Tensor, "head row token"]]]
"""Attention weights, a few rows at a time, each piece with its first row's token."""


def _read_rows(
    model: ReasoningModel,
    token_ids: Int[Tensor, "1 token"],
    queries: slice,
    heads: Mapping[int, Sequence[int]],
    read: Callable[[Rows], Any],
) -> list[Any]:
    """What `read` makes of the rows `queries` of the `heads` of each layer, in rising order.

    Rows are formed from the queries and keys of the running model where that is exact, and are
    those of the family's eager attention elsewhere.
    """

    of = model.name, tolerance(model)

    def formed(layer, query, key, value, mask, scaling, z):
        chosen = torch.tensor(heads[layer], device=query.device)
        return read(_rows(*of, query, key, value, mask, scaling, z, queries, chosen))

    def own(layer: int, weights: Float[Tensor, "1 head token token"]):
        rows = weights[0, list(heads[layer]), queries].float()
        return read(iter([(queries.start, rows)]))

    if rows_fault(model, _formed_rows):
        return read_weights(model, token_ids, own, list(heads))
    return read_attention(model, token_ids, formed, list(heads))


def _formed_rows(model: ReasoningModel, token_ids: Int[Tensor, "1 token"]) -> list[Tensor]:
    every, of = torch.arange(model.n_heads), (model.name, tolerance(model))

    def form(layer, query, key, value, mask, scaling, z):
        rows = _rows(*of, query, key, value, mask, scaling, z, slice(0, query.shape[2]), every)
        return torch.cat([weights for _, weights in rows], dim=1)

    return read_attention(model, token_ids, form, architecture(model).attending)


def _in_all_layers(
    model: ReasoningModel, found: Float[Tensor, "attending ..."]
) -> Float[Tensor, "layer ..."]:
    every = found.new_full((model.n_layers, *found.shape[1:]), torch.nan)
    every[list(architecture(model).attending)] = found
    return every


def _rows(
    name: str,
    allowed: float,
    query: Float[Tensor, "1 n_heads token key_dim"],
    key: Float[Tensor, "1 kv_head token key_dim"],
    value: Float[Tensor, "1 kv_head token value_dim"],
    mask: Shaped[Tensor, "1 _ token token"] | None,
    scaling: float,
    z: Float[Tensor, "1 token n_heads value_dim"],
    queries: slice,
    heads: Int[Tensor, " chosen"],
) -> Iterator[tuple[int, Float[Tensor, "chosen row token"]]]:
    """Attention weights float32 [head, row, token] of one sequence, a few rows at a time.

    Yields the first row's token with each piece. Rows are held against what the model's own
    attention made of them, so that a model with another formula (a cap on its scores, a sink) is
    refused instead of misread: `name` is the model's, and its rows may be off by `allowed`.
    """
    key_head = heads // (query.shape[1] // key.shape[1])
    keys, tokens = key[0, key_head], torch.arange(key.shape[2], device=key.device)
    size = max(1, _CHUNK_WEIGHTS // (len(heads) * len(tokens)))
    for first in range(queries.start, queries.stop, size):
        last = min(first + size, queries.stop)
        scores = (query[0, heads, first:last] @ keys.mT).float() * scaling
        if mask is None:
            scores.masked_fill_(tokens > tokens[first:last, None], -torch.inf)
        elif mask.dtype == torch.bool:
            scores.masked_fill_(~mask[0, :, first:last], -torch.inf)
        else:
            scores += mask[0, :, first:last].float()
        weights = scores.softmax(-1)
        own = z[0, first:last, heads].transpose(0, 1).float()
        values = value[0, key_head].float()
        error = (weights @ values - own).abs().max() / values.abs().max()
        if not error <= allowed:
            raise RuntimeError(
                f"{name}: its attention is not softmax(scaled q·k) with its own mask "
                f"(off by {error:.2g}), so its rows cannot be formed; segment_mass and "
                "token_set_mass read it from the model itself."
            )
        yield first, weights


def _rows_wanted(
    model: ReasoningModel, trace: Trace | Sequence[int], queries: slice | None
) -> tuple[Int[Tensor, "1 token"], slice]:
    """Token ids [1, token] on the model's device, and a slice with start and stop."""
    token_ids = checked_ids(model, trace)
    if queries is None:
        queries = trace.segments["answer"] if isinstance(trace, Trace) else slice(None)
    start, stop, step = queries.indices(len(token_ids))
    if start >= stop or step != 1:
        raise ValueError(f"no run of queries in {queries}: the trace has {len(token_ids)} tokens.")
    return token_ids[None].to(model.device), slice(start, stop)


def _check_entropy(name: str, entropy: Float[Tensor, "head query"], first: int) -> None:
    """Row i sees i + 1 tokens, so its entropy is at most log(i + 1); more means a look ahead."""
    rows = torch.arange(first, first + entropy.shape[-1], device=entropy.device)
    if not (entropy <= (rows + 1.0).log() + 1e-3).all():  # 1e-3 nats: float32 over 30,000 terms
        raise RuntimeError(f"{name}: a row's entropy exceeds that of causal attention.")


def checked_ids(model: ReasoningModel, trace: Trace | Sequence[int]) -> Int[Tensor, " token"]:
    ids = trace.token_ids if isinstance(trace, Trace) else trace
    token_ids = torch.as_tensor(ids, dtype=torch.long)
    if not 0 <= int(token_ids.min()) <= int(token_ids.max()) < model.vocab_size:
        raise ValueError(
            f"{trace_label(trace)} has token {int(token_ids.max())}, and {model.name} knows "
            f"{model.vocab_size}: it was made for another model; build it with model.tokenizer."
        )
    return token_ids


def tolerance(model: ReasoningModel) -> float:
    """Half the digits of the model's numbers: sums over thousands of rounded terms keep those."""
    return torch.finfo(model.dtype).eps ** 0.5


def trace_label(trace: Trace | Sequence[int]) -> str:
    return f"trace {getattr(trace, 'problem_id', '') or 'without an id'}"
