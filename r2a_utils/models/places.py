"""Where a decoder is read and written: places found by what passes through them, never by name.

One forward pass over a few tokens is watched: which modules ran in which order and what they gave,
and which of them called attention. A second one, with a graph, tells which columns of which
projection make each head's query, key and value. Libraries rename their parts between releases, and
families name them as they like; what passes through them stays. Of the configuration nothing is
taken but the chunks of attention, which no short text shows.

A layer may lack a part: hybrids attend in some layers only. What cannot be told apart is refused,
the whole model where nothing can be read, otherwise the one component, with a sentence.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import nnsight
import torch
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor, nn

from r2a_utils.models.decoder import Architecture, HeadShape, Projection
from r2a_utils.models.projections import find_projections
from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.models.watching import TOKENS, Watched, asked, has_matrix, some_tokens, watching

_ARCHITECTURES: WeakKeyDictionary[nn.Module, Architecture] = WeakKeyDictionary()


def architecture(model: ReasoningModel) -> Architecture:
    """The places of a model, found once and kept as long as the model lives.

    Raises ValueError for a model whose layers do not have the expected parts.
    """
    if model.hf not in _ARCHITECTURES:
        _ARCHITECTURES[model.hf] = _find_places(model.here, model.lm)
    return _ARCHITECTURES[model.hf]


def check_component(model: ReasoningModel, name: str) -> None:
    """Raise ValueError, with a sentence, for a component that cannot be read in a model."""
    if name in architecture(model).unread:
        raise ValueError(
            f"{model.name} ({type(model.hf).__name__}): {name} cannot be patched, since "
            f"{architecture(model).unread[name]}; take resid, z, attn_out or mlp_out instead"
        )


def every_head(model: ReasoningModel) -> list[tuple[int, int]]:
    """All heads of a model as (layer, head), in the layers that attend."""
    return [(i, head) for i in architecture(model).attending for head in range(model.n_heads)]


def _find_places(model: ReasoningModel, lm: nnsight.TransformersModel) -> Architecture:
    """The places in `lm` of what is found in a model that runs here, which has the same modules."""
    hf = model.hf
    decoder, layers = _stack(model)
    handles = [
        child.register_forward_pre_hook(_same_but_for_the_first, with_kwargs=True)
        for layer in layers
        for child in layer.children()
    ]
    try:
        with torch.no_grad(), watching(hf) as seen:
            hf(some_tokens(model).expand(2, -1), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    attention = [_attention_of(model, layer, seen) for layer in layers]
    if seen.again or not any(attention):
        said = "layers that attend twice" if seen.again else "no attention that can be read"
        raise _unsupported(model, said)
    shapes = [module and _shape(model, *seen.calls[module][:3]) for module in attention]
    outs = [module and _out_projection(model, module, seen) for module in attention]
    mlps = [_mlp(model, layer, seen) for layer in layers]
    several = [mlp for mlp in mlps if isinstance(mlp, str)]
    unread = {"mlp_out": several[0]} if several else {}
    projections, problems = find_projections(model, attention, seen)
    names = {module: name for name, module in hf.named_modules()}

    def envoy(module: nn.Module | None) -> Envoy | None:
        return None if module is None else lm.get(names[module])

    watched = [module and model.lm.get(names[module]) for module in attention]
    calls = _attention_calls(model, model.lm.get(names[decoder]), watched, shapes)
    return Architecture(
        decoder=envoy(decoder),
        embedding=envoy(hf.get_input_embeddings()),
        layers=tuple(map(envoy, layers)),
        attention=tuple(map(envoy, attention)),
        attention_calls=calls,
        shapes=tuple(shapes),
        windows=tuple(_window(module, seen) for module in attention),
        chunks=tuple(_chunk(model, layer) for layer in range(len(layers))),
        out_projections=tuple(map(envoy, outs)),
        projections=tuple(
            {
                name: Projection(envoy(module), columns)
                for name, (module, columns) in layer.items()
                if name not in problems
            }
            for layer in projections
        ),
        mlps=tuple(None if isinstance(mlp, str) else envoy(mlp) for mlp in mlps),
        final_norm=envoy(_final_norm(model, decoder, layers[-1], seen)),
        unembedding=envoy(hf.get_output_embeddings()),
        unread=unread | problems,
        asks=tuple({name: None for *_, options in seen.calls.values() for name in asked(options)}),
    )


def _stack(model: ReasoningModel) -> tuple[nn.Module, nn.ModuleList]:
    """The outermost module that has a stack of layers, and the stack."""
    for module in model.hf.modules():
        stacks = [
            child
            for child in module.children()
            if isinstance(child, nn.ModuleList) and len(child) == model.n_layers
        ]
        if len(stacks) == 1:
            return module, stacks[0]
    raise _unsupported(model, f"no single stack of {model.n_layers} layers")


def _same_but_for_the_first(module: nn.Module, args: tuple, named: dict) -> tuple[tuple, dict]:
    """Give a layer's part two sequences that differ in the first token alone.

    What mixes tokens, and is no MLP, shows by giving other results for the tokens behind it.
    """

    def mended(given):
        if not isinstance(given, Tensor) or given.dim() != 3 or len(given) != 2:
            return given
        given = given.clone()
        given[1, 1:] = given[0, 1:]
        given[1, 0] = given[0, 1]
        return given

    if args:
        return (mended(args[0]), *args[1:]), named
    return args, named | {name: mended(named[name]) for name in ("hidden_states",) if name in named}


def _attention_of(model: ReasoningModel, layer: nn.Module, seen: Watched) -> nn.Module | None:
    given = seen.inputs.get(layer)
    if given is None or given.shape[1:] != (TOKENS, model.hidden_size):
        raise _unsupported(model, "layers that do not take a residual stream")
    found = [module for module in layer.modules() if module in seen.calls]
    if len(found) > 1:
        raise _unsupported(model, f"{len(found)} attention modules in a layer")
    return found[0] if found else None


def _shape(model: ReasoningModel, query: Tensor, key: Tensor, value: Tensor) -> HeadShape:
    shape = HeadShape(query.shape[1], key.shape[1], query.shape[-1], value.shape[-1])
    same = query.shape[2] == key.shape[2] == value.shape[2] == TOKENS
    if not (same and key.shape[:2] == value.shape[:2] and shape.heads == model.n_heads):
        shapes = ", ".join(str(tuple(tensor.shape[1:])) for tensor in (query, key, value))
        raise _unsupported(model, f"an attention of queries, keys and values {shapes}")
    return shape


def _window(attention: nn.Module | None, seen: Watched) -> int | None:
    return None if attention is None else seen.calls[attention][3].get("sliding_window") or None


def _chunk(model: ReasoningModel, layer: int) -> int | None:
    config = model.hf.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    chunked = layer < len(kinds) and kinds[layer] == "chunked_attention"
    return config.attention_chunk_size if chunked else None


def _out_projection(model: ReasoningModel, attention: nn.Module, seen: Watched) -> nn.Module:
    """The last matrix that runs in an attention module: it mixes what the heads give."""
    inside = set(attention.modules()) - {attention}
    after = seen.ended[seen.called_at[attention] :]
    found = [m for m in after if m in inside and not [*m.children()] and has_matrix(m)]
    query, _, value, _ = seen.calls[attention]
    mixed = query.shape[1] * value.shape[-1]
    if (
        not found
        or seen.inputs[found[-1]].shape[1:] != (TOKENS, mixed)
        or seen.outputs[found[-1]].shape[-1] != model.hidden_size
    ):
        raise _unsupported(model, f"no projection from {mixed} columns of heads to the stream")
    return found[-1]


def _mlp(model: ReasoningModel, layer: nn.Module, seen: Watched) -> nn.Module | str | None:
    """The part of a layer that gives the stream something token by token; words for several."""
    found = {}
    for name, child in layer.named_children():
        output = seen.outputs.get(child)
        attends = any(module in seen.calls for module in child.modules())
        if attends or output is None or not has_matrix(child):
            continue
        if output.shape[-1] == model.hidden_size and not _mixes_tokens(output):
            found[name] = child
    if "mlp" in found or len(found) < 2:
        return found.get("mlp", next(iter(found.values()), None))
    return f"several parts of a layer make it ({', '.join(found)})"


def _mixes_tokens(output: Tensor) -> bool:
    if output.dim() != 3:
        return False
    moved = (output[1, 1:] - output[0, 1:]).abs().max()
    return not moved <= torch.finfo(output.dtype).eps ** 0.5 * output.abs().max()


def _final_norm(
    model: ReasoningModel, decoder: nn.Module, last: nn.Module, seen: Watched
) -> nn.Module:
    after = seen.ended[seen.ended.index(last) + 1 :]
    found = [module for module in after if module in [*decoder.children()]]
    if len(found) != 1:
        raise _unsupported(model, f"{len(found)} modules after its layers, where a norm should be")
    if seen.ended.count(found[0]) > 1:
        raise _unsupported(model, "a last norm that also runs elsewhere")
    return found[0]


def _attention_calls(
    model: ReasoningModel,
    decoder: Envoy,
    attention: list[Envoy | None],
    shapes: list[HeadShape | None],
) -> tuple[str | None, ...]:
    by_kind: dict[type, str] = {}
    names: list[str | None] = []
    for module, shape in zip(attention, shapes, strict=True):
        kind = module and type(module._module)
        if module and kind not in by_kind:
            by_kind[kind] = _find_attention_call(model, decoder, module, shape)
        names.append(by_kind[kind] if module else None)
    return tuple(names)


def _find_attention_call(
    model: ReasoningModel, decoder: Envoy, attention: Envoy, shape: HeadShape
) -> str:
    """The operation that takes grouped queries, keys and values and gives each head's result.

    nnsight numbers the operations of a forward, and the numbers change from release to release; so
    each operation is watched in a forward pass over three tokens, and told by its shapes.
    """
    query = (1, shape.heads, TOKENS, shape.key_dim)
    key, value = ((1, shape.kv_heads, TOKENS, size) for size in (shape.key_dim, shape.value_dim))
    z = (1, TOKENS, shape.heads, shape.value_dim)
    ids = some_tokens(model)
    for name in sorted(attention.source.names, key=lambda name: "attention" not in name):
        args, output = _watch(decoder, attention, name, ids)
        taken = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
        first = output[0] if isinstance(output, tuple) and output else None
        if taken[:3] == [query, key, value] and getattr(first, "shape", None) == z:
            return name
    raise _unsupported(model, "no operation from queries, keys and values to heads")


def _watch(decoder: Envoy, attention: Envoy, name: str, token_ids: Tensor) -> tuple:
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
        f"{model.name} ({type(model.hf).__name__}) has {found}. R2A reads decoders with one stack "
        "of layers, some of which attend by transformers' attention functions and end in one "
        "projection; take such a model, as those that `r2a models` lists."
    )
