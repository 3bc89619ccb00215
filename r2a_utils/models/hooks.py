"""Reading inside a running model: its attention, its residual streams, its logits.

Only `models/` and the room `engine`, which writes, open nnsight traces or know how a decoder layer
is wired in transformers; where a model is read, `places.py` finds. Reading happens inside the
running forward pass and keeps only what the caller's function returns, so that no more than one
layer's activations live at once.

Attention is read where the model itself computes it, after the rotary embedding, with heads still
grouped and with the model's own mask, scale and kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import nnsight
import torch
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from r2a_utils.models.places import HeadShape, architecture
from r2a_utils.models.reasoning_model import ReasoningModel

# Fused attention kernels want head sizes in multiples of this many elements, and none larger than
# that many: beyond, a GPU falls back to forming the whole matrix.
_KERNEL_WIDTH, _KERNEL_LIMIT = 8, 256


class UnlikeAttentionError(ValueError):
    """An attention that asks for more than a softmax over scaled products."""


def most_marks(model: ReasoningModel) -> int:
    """How many marks one pass of `read_marks` may carry without leaving the fused kernels."""
    widest = max(shape.value_dim for shape in architecture(model).shapes if shape)
    return max(_KERNEL_WIDTH, _KERNEL_LIMIT - widest)


def layers_trace(model: ReasoningModel, token_ids: torch.Tensor):
    """A trace that runs a model's layers; no logits where they can be done without.

    A host is told of the whole model alone: a trace of one of its modules would run here.
    """
    if model.remote:
        keep = {"use_cache": False, "logits_to_keep": 1}
        return model.lm.trace(token_ids, remote=model.remote, **keep)
    return architecture(model).decoder.trace(input_ids=token_ids, use_cache=False)


def read_marks(
    model: ReasoningModel,
    token_ids: torch.Tensor,
    marks: torch.Tensor,
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> list[torch.Tensor | None]:
    """For each layer, `pool(A · marks)`, where A are the attention weights of the running model.

    `token_ids` [batch, token]; `marks` [batch, token, n] is a number for each key and each of n
    questions, for instance 1 where the key lies in a segment. `pool` takes [batch, head, query, n]
    and its result is kept; None for a layer without attention.

    The marks ride along as n more columns of the values, so that the model's own attention call
    answers both: no attention matrix is formed, scores and softmax are computed once, and masks,
    scales, windows and grouped heads are the model's. Queries and keys get as many zeros, which
    leaves their products as they are. The model computes what it would have computed anyway.
    """
    places, name = architecture(model), model.name
    n = marks.shape[-1]
    with torch.no_grad(), layers_trace(model, token_ids) as tracer:
        answers = nnsight.save([None] * len(places.layers))
        for layer in places.attending:
            call, shape = places.attend(layer), places.shapes[layer]
            (module, query, key, value, *others), options = call.inputs
            _check_attention(name, shape, query, key, value)
            width = max(shape.key_dim, shape.value_dim + n)
            width += -width % _KERNEL_WIDTH
            columns = marks.to(value)[:, None].expand(-1, shape.kv_heads, -1, -1)
            call.inputs = (
                (
                    module,
                    pad(query, (0, width - shape.key_dim)),
                    pad(key, (0, width - shape.key_dim)),
                    pad(torch.cat([value, columns], dim=-1), (0, width - shape.value_dim - n)),
                    *others,
                ),
                options,
            )
            both, *rest = call.output
            call.output = (both[..., : shape.value_dim], *rest)
            marked = both[..., shape.value_dim : shape.value_dim + n]
            answers[layer] = pool(marked.transpose(1, 2))
        tracer.stop()
    return answers


def read_weights(
    model: ReasoningModel,
    token_ids: torch.Tensor,
    read: Callable[[int, torch.Tensor], torch.Tensor],
    layers: Sequence[int] | None = None,
) -> list[torch.Tensor | None]:
    """For each of `layers`, what `read` makes of the attention weights that the model forms itself.

    The plain way: attention is the family's eager function, and `read(layer, weights)` takes its
    weights [batch, head, query, key]. By default all layers, with None for one without attention.
    Raises ValueError for a family whose eager attention gives no weights.
    """
    model.check_here("weights that eager attention forms need")
    places, answers = architecture(model), {}
    with (
        eager(model),
        torch.no_grad(),
        places.decoder.trace(input_ids=token_ids, use_cache=False) as tracer,
    ):
        for layer in places.attending if layers is None else layers:
            weights = places.attend(layer).output[1]
            if weights is None:
                raise ValueError(f"{model.name}: its eager attention gives no weights")
            answers[layer] = read(layer, weights)
        tracer.stop()
    return [answers.get(layer) for layer in layers or range(model.n_layers)]


@contextmanager
def eager(model: ReasoningModel) -> Iterator[None]:
    """Within, the model attends by its family's own eager function, which forms the weights."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)


def read_attention(
    model: ReasoningModel,
    token_ids: torch.Tensor,
    read: Callable[..., torch.Tensor],
    layers: Sequence[int],
) -> list[torch.Tensor]:
    """For each of `layers`, in rising order, what `read` makes of that layer's attention.

    `read(layer, query, key, value, mask, scaling, z)` is called inside the forward pass: query
    [batch, head, token, key_dim] and key after the rotary embedding, key and value [batch,
    kv_head, token, …], the model's mask [batch, 1, token, token] or None where attention is
    plainly causal, the scale of the scores, and z [batch, token, head, value_dim], what came out.
    """
    places, name = architecture(model), model.name
    with torch.no_grad(), layers_trace(model, token_ids) as tracer:
        answers = nnsight.save([])
        for layer in layers:
            call = places.attend(layer)
            (_, query, key, value, mask, *_), options = call.inputs
            _check_attention(name, places.shapes[layer], query, key, value)
            z = call.output[0]
            answers.append(read(layer, query, key, value, mask, scale_of(query, options), z))
        tracer.stop()
    return answers


def scale_of(query: torch.Tensor, options: dict) -> float:
    """What an attention call multiplies its scores with; where it is not told, 1 / √key_dim."""
    scaling = options.get("scaling")
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def visible_keys(mask: torch.Tensor | None, tokens: int, device: torch.device) -> torch.Tensor:
    """Where each query may look, bool [query, key], from the mask that an attention call takes.

    None is plainly causal; numbers are added to the scores, and a key whose number is hugely
    negative is not seen.
    """
    if mask is None:
        return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    seen = mask[0, 0]
    return seen if seen.dtype == torch.bool else seen > torch.finfo(seen.dtype).min / 2


def head_outputs(model: ReasoningModel, layer: int) -> torch.Tensor:
    """What each head of a layer adds to the residual stream for a z: [head, value_dim, hidden]."""
    model.check_here("what each head adds needs")
    places = architecture(model)
    projection, shape = places.out_projections[layer]._module, places.shapes[layer]
    matrix = projection.weight if isinstance(projection, Conv1D) else projection.weight.T
    return matrix.reshape(shape.heads, shape.value_dim, model.hidden_size)


def read_residuals(model: ReasoningModel, residuals: torch.Tensor) -> torch.Tensor:
    """Logits [n, vocabulary], float32 or finer, of residual streams [n, hidden].

    The streams are put before the model's final norm, whatever stands behind it: the logit lens of
    stage 06.
    """
    model.check_here("a logit lens needs")
    places = architecture(model)
    with torch.no_grad(), model.lm.trace(torch.zeros(1, 1, dtype=torch.long, device=model.device)):
        places.final_norm.input = residuals[None].to(places.final_norm.input)
        logits = nnsight.save(model.lm.output.logits)
    return logits[0].to(torch.promote_types(logits.dtype, torch.float32))


def logit_directions(
    model: ReasoningModel,
    residuals: torch.Tensor,
    token_ids: torch.Tensor,
    against: int | None = None,
) -> torch.Tensor:
    """Directions in the residual stream along which tokens gain on others: float32 [row, hidden].

    `residuals` [row, hidden] is what the final norm reads. With the norm's scale held at that of
    the row, the logit of `token_ids[row]` less that of the token `against` (None: less the mean
    logit of the vocabulary) is the product of direction and residual, but for a constant of the
    norm's or the unembedding's own, and so the sum of what each part of the residual gives. What
    the norm does is found by what comes out of it; one that centres (LayerNorm) takes the mean off
    each direction. Raises ValueError for a final norm that does more, or logits that are no product
    of what it gives (capped or scaled ones).
    """
    model.check_here("a direction of a logit needs")
    places = architecture(model)
    norm, unembedding = places.final_norm, places.unembedding
    with torch.no_grad():
        rows = residuals.to(unembedding.weight)
        shift = norm(torch.zeros_like(rows[:1])).float()
        # Numbers of either sign that are already centred: a norm that centres leaves them so.
        signs = torch.ones_like(rows[:1])
        signs[:, ::2] = -1.0
        gains = (norm(signs).float() - shift) * signs.float()
        normed = norm(rows).float()
        lifted = norm(rows + rows.square().mean(-1, keepdim=True).sqrt()).float()
        # A norm that does not centre is moved by about its own size; rounding moves it far less.
        centres = bool((lifted - normed).abs().max() < 0.05 * normed.abs().max())
        inner = rows.float()
        if centres:
            inner = inner - inner.mean(-1, keepdim=True)
        scaled = normed - shift
        gains = (
            gains * scaled.norm(dim=-1, keepdim=True) / (gains * inner).norm(dim=-1, keepdim=True)
        )
        weights = unembedding.weight.float()
        own = weights[token_ids] * gains
        logits = read_residuals(model, rows).gather(-1, token_ids[:, None])[:, 0].float()
        constants = (weights[token_ids] * shift).sum(-1)
        if unembedding.bias is not None:
            constants = constants + unembedding.bias.float()[token_ids]
        error = ((own * inner).sum(-1) + constants - logits).abs().max() / logits.abs().max()
        if not error <= torch.finfo(rows.dtype).eps ** 0.5:
            raise ValueError(
                f"{model.name}: its final norm is not a scale with gains, or its logits are no "
                f"product (off by {error:.2g}): parts of its residual stream have no share in them"
            )
        others = weights.mean(0) if against is None else weights[against]
        directions = own - others * gains
        return directions - directions.mean(-1, keepdim=True) if centres else directions


def _check_attention(
    name: str,
    shape: HeadShape,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
) -> None:
    tokens = query.shape[2]
    expected = [
        (shape.heads, tokens, shape.key_dim),
        (shape.kv_heads, tokens, shape.key_dim),
        (shape.kv_heads, tokens, shape.value_dim),
    ]
    taken = [tuple(tensor.shape[1:]) for tensor in (query, key, value)]
    if taken != expected:
        raise ValueError(
            f"the attention of {name} takes queries, keys and values {taken}; expected "
            f"{expected}, in whole sequences."
        )
