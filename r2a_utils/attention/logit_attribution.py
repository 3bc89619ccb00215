"""What single heads, reading single tokens, give to the logit of what is written next.

Direct logit attribution (Elhage et al. 2021; nostalgebraist's logit lens for one part of the
residual stream): a head's result is a sum over the tokens that it reads, its way into the residual
stream is linear, and so is the unembedding once the final norm's scale is held as it is. Exact for
the direct path; what later layers make of a head's result is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from r2a_utils.attention.mass import attention_rows
from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.hooks import head_outputs, logit_directions
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace


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
    """
    answer = trace.segments["answer"]
    writes = list(range(answer.start, answer.stop)) if writes is None else [int(w) for w in writes]
    if not writes or not all(0 < write < len(trace) for write in writes):
        raise ValueError(f"written tokens must lie in 1 … {len(trace) - 1}, got {writes}")
    queries = [write - 1 for write in writes]
    cache = run_with_cache(model, trace.token_ids)
    residuals = cache.activations["resid"][-1][queries]
    targets = torch.tensor([trace.token_ids[write] for write in writes], device=residuals.device)
    directions = logit_directions(model, residuals, targets, against)

    first = min(queries)
    rows = attention_rows(model, trace, heads, slice(first, max(queries) + 1)).values
    given = []
    for (layer, head), weights in zip(heads, rows, strict=True):
        values = cache.values[layer][head // (model.n_heads // model.n_kv_heads)].float()
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
