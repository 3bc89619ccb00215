"""Inside a running model: where it can be read and written, and reading while it runs.

Only this file and the room `engine`, which writes, open nnsight traces or know how a decoder layer
is wired in transformers. `architecture` finds a model's places by what passes through them, never
by the model's name, and holds every shape against the configuration: libraries rename their inner
operations between releases, and a layer's output has changed from a tuple to a tensor.
Reading happens inside the running forward pass and keeps only what the caller's function returns,
so that no more than one layer's activations live at once.

Attention is read where the model itself computes it, after the rotary embedding, with heads still
grouped and with the model's own mask, scale and kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import nnsight
import torch
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import OutOfOrderError
from nnsight.intervention.source import SourceEnvoy
from torch.nn.functional import pad
from transformers.cache_utils import DynamicCache

from r2a_utils.models.reasoning_model import ReasoningModel

# Fused attention kernels want head sizes in multiples of this many elements, and none larger than
# that many: beyond, a GPU falls back to forming the whole matrix.
_KERNEL_WIDTH, _KERNEL_LIMIT = 8, 256

_ARCHITECTURES: WeakKeyDictionary[torch.nn.Module, Architecture] = WeakKeyDictionary()


@dataclass(frozen=True)
class Architecture:
    """Where traces read and write. Envoys are nnsight's handles on modules.

    `decoder` is the model without its unembedding: `decoder.trace(input_ids=…)` runs the layers and
    computes no logits. `layers` and `attention` hold one envoy a layer; `attention_call` names the
    operation, inside an attention module's forward, that turns queries, keys and values into the
    heads' results.
    """

    decoder: Envoy
    embedding: Envoy
    layers: tuple[Envoy, ...]
    attention: tuple[Envoy, ...]
    attention_call: str
    out_projections: tuple[Envoy, ...]
    final_norm: Envoy
    unembedding: Envoy

    def attend(self, layer: int) -> SourceEnvoy:
        """The attention operation of a layer; to be read inside a trace.

        Its `inputs` are ((module, query [batch, head, token, head_dim], key and value [batch,
        kv_head, token, head_dim], mask or None), {"scaling": …, …}); its `output` is a tuple whose
        first entry is z [batch, token, head, head_dim], the heads' results before they are mixed.
        """
        return getattr(self.attention[layer].source, self.attention_call)

    def component(self, layer: int, name: str) -> torch.Tensor:
        """What a layer reads ("resid"), writes or passes on: [batch, position, width].

        To be read inside a trace, in the order of the forward pass: "resid", the projections "q",
        "k", "v", their result "z" before o_proj, "attn_out", "mlp_out".
        """
        if name == "resid":
            return self.layers[layer].input
        if name == "z":
            return self.out_projections[layer].input
        if name in ("attn_out", "mlp_out"):
            whole = self.attention[layer] if name == "attn_out" else self.layers[layer].mlp
            return whole.output[0] if isinstance(whole.output, tuple) else whole.output
        return getattr(self.attention[layer], f"{name}_proj").output


class UnlikeAttentionError(ValueError):
    """An attention that asks for more than a softmax over scaled products."""


def architecture(model: ReasoningModel) -> Architecture:
    """The places of a model, found once and kept as long as the model lives.

    Raises ValueError for a model whose layers do not have the expected parts.
    """
    if model.hf not in _ARCHITECTURES:
        _ARCHITECTURES[model.hf] = _find_places(model)
    return _ARCHITECTURES[model.hf]


def layer_windows(model: ReasoningModel) -> list[int | None]:
    """How many tokens each layer looks back at, itself included; None: at all: [layer]."""
    layers = DynamicCache(config=model.hf.config).layers
    return [getattr(layer, "sliding_window", None) or None for layer in layers]


def most_marks(model: ReasoningModel) -> int:
    """How many marks one pass of `read_marks` may carry without leaving the fused kernels."""
    return max(_KERNEL_WIDTH, _KERNEL_LIMIT - model.head_dim)


def read_marks(
    model: ReasoningModel,
    token_ids: torch.Tensor,
    marks: torch.Tensor,
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> list[torch.Tensor]:
    """For each layer, `pool(A · marks)`, where A are the attention weights of the running model.

    `token_ids` [batch, token]; `marks` [batch, token, n] is a number for each key and each of n
    questions, for instance 1 where the key lies in a segment. `pool` takes [batch, head, query, n]
    and its result is kept.

    The marks ride along as n more columns of the values, so that the model's own attention call
    answers both: no attention matrix is formed, scores and softmax are computed once, and masks,
    scales, windows and grouped heads are the model's. Queries and keys get as many zeros, which
    leaves their products as they are. The model computes what it would have computed anyway.
    """
    places, answers = architecture(model), []
    width = marks.shape[-1]
    padding = -(model.head_dim + width) % _KERNEL_WIDTH
    with torch.no_grad(), places.decoder.trace(input_ids=token_ids, use_cache=False) as tracer:
        for layer in range(model.n_layers):
            call = places.attend(layer)
            (module, query, key, value, *others), options = call.inputs
            _check_attention(model, query, key, value)
            columns = marks.to(value)[:, None].expand(-1, value.shape[1], -1, -1)
            call.inputs = (
                (
                    module,
                    pad(query, (0, width + padding)),
                    pad(key, (0, width + padding)),
                    pad(torch.cat([value, columns], dim=-1), (0, padding)),
                    *others,
                ),
                options,
            )
            both, *rest = call.output
            call.output = (both[..., : model.head_dim], *rest)
            marked = both[..., model.head_dim : model.head_dim + width]
            answers.append(pool(marked.transpose(1, 2)))
        tracer.stop()
    return answers


def read_attention(
    model: ReasoningModel,
    token_ids: torch.Tensor,
    read: Callable[..., torch.Tensor],
    layers: Sequence[int],
) -> list[torch.Tensor]:
    """For each of `layers`, in rising order, what `read` makes of that layer's attention.

    `read(layer, query, key, value, mask, scaling, z)` is called inside the forward pass: query
    [batch, head, token, head_dim] and key after the rotary embedding, key and value [batch,
    kv_head, token, head_dim], the model's mask [batch, 1, token, token] or None where attention is
    plainly causal, the scale of the scores, and z [batch, token, head, head_dim], what came out.
    """
    places, answers = architecture(model), []
    with torch.no_grad(), places.decoder.trace(input_ids=token_ids, use_cache=False) as tracer:
        for layer in layers:
            call = places.attend(layer)
            (_, query, key, value, mask, *_), options = call.inputs
            _check_attention(model, query, key, value)
            z = call.output[0]
            answers.append(read(layer, query, key, value, mask, options["scaling"], z))
        tracer.stop()
    return answers


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
    """What each head of a layer adds to the residual stream for a z: [head, head_dim, hidden]."""
    weight = architecture(model).out_projections[layer].weight
    return weight.T.reshape(model.n_heads, model.head_dim, model.hidden_size)


def read_residuals(model: ReasoningModel, residuals: torch.Tensor) -> torch.Tensor:
    """Logits [n, vocabulary], float32 or finer, of residual streams [n, hidden].

    The streams are put before the model's final norm, whatever stands behind it: the logit lens of
    stage 06.
    """
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


def _check_attention(model, query, key, value) -> None:
    batch, _, tokens, _ = query.shape
    expected = (batch, model.n_kv_heads, tokens, model.head_dim)
    if query.shape[1:] != (model.n_heads, tokens, model.head_dim) or not (
        key.shape == value.shape == expected
    ):
        raise ValueError(
            f"the attention of {model.name} takes queries {tuple(query.shape)}, keys "
            f"{tuple(key.shape)} and values {tuple(value.shape)}; expected {model.n_heads} heads "
            f"in {model.n_kv_heads} groups of size {model.head_dim}, in whole sequences."
        )


def _find_places(model: ReasoningModel) -> Architecture:
    hf = model.hf
    decoder = hf.get_decoder()
    stacks = [
        child
        for child in decoder.children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == model.n_layers
    ]
    if len(stacks) != 1:
        raise _unsupported(model, f"{len(stacks)} stacks of {model.n_layers} layers")
    try:
        mixed = model.n_heads * model.head_dim
    except RuntimeError as error:  # a configuration that has them layer by layer
        raise _unsupported(model, "heads of another size in each layer") from error
    attention, out_projections = [], []
    for layer in stacks[0]:
        # By name, because a query projection can have the same shape as the out projection.
        found = [m for m in layer.modules() if hasattr(m, "o_proj")]
        if len(found) != 1 or found[0].o_proj.weight.shape != (model.hidden_size, mixed):
            raise _unsupported(model, f"{len(found)} attention modules in a layer, or odd shapes")
        attention.append(found[0])
        out_projections.append(found[0].o_proj)
    norms = [child for child in decoder.children() if "Norm" in type(child).__name__]
    if len(norms) != 1:
        raise _unsupported(model, f"{len(norms)} norms after its layers")
    names = {module: name for name, module in hf.named_modules()}

    def envoy(module: torch.nn.Module) -> Envoy:
        return model.lm.get(names[module])

    attention = tuple(map(envoy, attention))
    return Architecture(
        decoder=envoy(decoder),
        embedding=envoy(hf.get_input_embeddings()),
        layers=tuple(map(envoy, stacks[0])),
        attention=attention,
        attention_call=_find_attention_call(model, envoy(decoder), attention[0]),
        out_projections=tuple(map(envoy, out_projections)),
        final_norm=envoy(norms[0]),
        unembedding=envoy(hf.get_output_embeddings()),
    )


def _find_attention_call(model: ReasoningModel, decoder: Envoy, attention: Envoy) -> str:
    """The operation that takes grouped queries, keys and values and gives each head's result.

    nnsight numbers the operations of a forward, and the numbers change from release to release; so
    each operation is watched in a forward pass over three tokens, and told by its shapes.
    """
    tokens = 3
    query = (1, model.n_heads, tokens, model.head_dim)
    key = (1, model.n_kv_heads, tokens, model.head_dim)
    z = (1, tokens, model.n_heads, model.head_dim)
    for name in attention.source.names:
        args, output = _watch(decoder, attention, name, torch.zeros(1, tokens, dtype=torch.long))
        shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
        first = output[0] if isinstance(output, tuple) and output else None
        if shapes[:3] == [query, key, key] and getattr(first, "shape", None) == z:
            return name
    raise _unsupported(model, "no operation from queries, keys and values to heads")


def _watch(decoder: Envoy, attention: Envoy, name: str, token_ids: torch.Tensor) -> tuple:
    """Positional arguments and output of one operation; empty where the forward leaves it out."""
    args, output = (), None
    try:
        with torch.no_grad(), decoder.trace(input_ids=token_ids, use_cache=False) as tracer:
            operation = getattr(attention.source, name)
            args = nnsight.save(operation.inputs[0])
            output = nnsight.save(operation.output)
            tracer.stop()
    except OutOfOrderError:
        pass
    return args, output


def _unsupported(model: ReasoningModel, found: str) -> ValueError:
    return ValueError(
        f"{model.name} ({type(model.hf).__name__}) has {found}. R2A reads decoders built like "
        "Llama, Qwen2 and Qwen3: one stack of layers, each with one attention that ends in o_proj."
    )
