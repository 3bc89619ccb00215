"""What single heads, reading single tokens, give to the logit of what is written next.

Direct logit attribution (Elhage et al. 2021; nostalgebraist's logit lens for one part of the
residual stream): a head's result is a sum over the tokens that it reads, its way into the residual
stream is linear, and so is the unembedding once the final norm's scale is held as it is. Exact for
the direct path; what later layers make of a head's result is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from weakref import WeakSet

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from r2a_utils.attention.weights import attention_rows, tolerance
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.hooks import head_outputs, logit_directions, read_attention
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.models.places import architecture, check_component
from r2a_utils.texts.trace import Trace

_ADDITIVE: WeakSet[torch.nn.Module] = WeakSet()


def head_contributions(
    model: ReasoningModel,
    trace: Trace,
    heads: Sequence[tuple[int, int]],
    *,
    writes: Sequence[int] | None = None,
    against: int | None = None,
) -> Float[xr.DataArray, "head query key"]:
    """Direct contribution of each head and token to the logit of each written token, in nats.

    Row i is the query that writes the trace's token `writes[i]`, the one right before it; default:
    every token of the answer. The target is the written token's logit, less the logit of the token
    `against` where one is given and less the mean logit of the vocabulary otherwise, since only
    differences of logits count. Dims (head, query, key) with the coordinates layer, head_index,
    and query (the written token's position); summed over keys it is z · W_O · direction.

    Raises ValueError for written tokens outside the trace, for a model on a host, and for one that
    scales or normalises its logits, or what a layer gives before it is added: the parts then do not
    add up to them. Stage 04 explains.
    """
    model.check_here("what heads give directly needs")
    answer = trace.segments["answer"]
    writes = list(range(answer.start, answer.stop)) if writes is None else [int(w) for w in writes]
    if not writes or not all(0 < write < len(trace) for write in writes):
        raise ValueError(f"written tokens must lie in 1 … {len(trace) - 1}, got {writes}")
    _check_additive(model)
    queries = [write - 1 for write in writes]
    cache = run_with_cache(model, trace.token_ids)
    residuals = cache.activations["resid"][-1][queries]
    targets = torch.tensor([trace.token_ids[write] for write in writes], device=residuals.device)
    directions = logit_directions(model, residuals, targets, against)

    first = min(queries)
    rows = attention_rows(model, trace, heads, slice(first, max(queries) + 1)).values
    given = []
    for (layer, head), weights in zip(heads, rows, strict=True):
        shared = model.n_heads // len(cache.values[layer])
        values = cache.values[layer][head // shared].float()
        into = head_outputs(model, layer)[head].float()
        gains = (directions @ into.T) @ values.T
        given.append(gains.cpu().numpy() * weights[np.array(queries) - first])
    return xr.DataArray(
        np.stack(given),
        dims=("head", "query", "key"),
        coords={
            "layer": ("head", [layer for layer, _ in heads]),
            "head_index": ("head", [head for _, head in heads]),
            "query": writes,
            "key": np.arange(len(trace)),
        },
        name="contribution",
        attrs={"model": model.name, "units": "nats"},
    )


def has_contributions(model: ReasoningModel, trace: Trace) -> bool:
    """Whether single heads have a share in the model's logits, tried on one token of a trace.

    A family that scales or normalises what its layers give, or its logits, has none, and
    `head_contributions` refuses it: pages leave that part out. Stage 04c.
    """
    try:
        head_contributions(model, trace, [(0, 0)], writes=[len(trace) - 1])
    except ValueError:
        return False
    return True


def _check_additive(model: ReasoningModel) -> None:
    """Raise ValueError where layers are not sums of what heads read and what the MLP gives.

    How a decoder is wired does not depend on what it reads: a few tokens show it.
    """
    if model.hf in _ADDITIVE:
        return
    ids, places = [i % model.vocab_size for i in range(1, 9)], architecture(model)
    check_component(model, "mlp_out")
    for layer in range(model.n_layers):
        if not (places.has(layer, "z") and places.has(layer, "mlp_out")):
            raise ValueError(
                f"{model.name}: layer {layer} is not one attention and one MLP, so that what "
                "single heads give cannot be told from the rest. What heads read, and what patches "
                "and knockouts do, can be measured all the same"
            )
    cache = run_with_cache(model, ids, ("z", "attn_out", "mlp_out"))
    tokens = torch.tensor([ids], device=model.device)
    read = read_attention(
        model, tokens, lambda *given: given[-1][0].flatten(1), range(model.n_layers)
    )
    parts = cache.activations
    for layer, (below, above) in enumerate(pairwise(parts["resid"])):
        written = torch.einsum(
            "thd,hdm->tm",
            parts["z"][layer].unflatten(-1, (model.n_heads, -1)).float(),
            head_outputs(model, layer).float(),
        )
        attended, given = parts["attn_out"][layer].float(), (above - below).float()
        # A bias of o_proj is nobody's: it is the same at every token.
        moved = (attended - written) - (attended - written).mean(0)
        left = (given - attended - parts["mlp_out"][layer].float()).abs()
        # Adding twice to a stream rounds to its own steps, which may be wide beside what is added.
        steps = torch.maximum(below.abs(), above.abs()).float() * 2 * torch.finfo(model.dtype).eps
        between = parts["z"][layer] - read[layer]
        error = max(
            moved.abs().max() / attended.abs().max(),
            (left - steps).clamp(min=0).max() / given.abs().max(),
            between.abs().max() / read[layer].abs().max(),
        )
        if not error <= tolerance(model):
            raise ValueError(
                f"{model.name}: layer {layer} does not add what its heads read and its MLP gives "
                f"to the residual stream as it is (off by {error:.2g}): it changes them, "
                "so that single heads have no share in the logits. What heads read, and what "
                "patches and knockouts do, can be measured all the same"
            )
    _ADDITIVE.add(model.hf)


def _own_results(model: ReasoningModel, ids: list[int]) -> list[Float[torch.Tensor, "token width"]]:
    """What the attention call itself gives, layer by layer."""

    def read(layer, query, key, value, mask, scaling, z):
        return z[0].flatten(1).float()

    token_ids = torch.tensor([ids], device=model.device)
    return read_attention(model, token_ids, read, range(model.n_layers))
