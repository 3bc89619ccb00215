"""Replay a cached forward pass from the first place that an intervention can change (engine 2).

An intervention at layer l and position p leaves every position before p and every layer below l as
they were. So one plain pass is *cached* (the input of every layer, its keys and values, whatever
component is asked for), and each `PatchedRun`, a set of patches and of cut attention edges,
recomputes only the positions from its own first position on, and only the layers from its own
first layer on. All runs share one nnsight trace, packed as `packing.py` describes. Runs may also
be continued beyond the cache's end, by greedy decoding.

Not every model may be replayed so: `oracle.py` asks each one once, and `plain.py` does the work for
those that may not. These two, `models/hooks.py` and this file are the only ones that open nnsight
traces or know how a decoder layer is wired; the room `causal` knows what to ask of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

import nnsight
import torch
from jaxtyping import Float, Shaped
from nnsight.intervention.envoy import Envoy
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from r2a_utils.engine.oracle import replay_fault, window
from r2a_utils.engine.packing import (
    Pack,
    Rows,
    activations,
    is_out_of_memory,
    start_of,
    take,
    token_budget,
)
from r2a_utils.engine.patches import (
    COMPONENTS,
    ActivationCache,
    ActivationGraph,
    PatchedRun,
    check_run,
    write,
)
from r2a_utils.engine.plain import (
    at_least_float,
    cache_plainly,
    continue_plainly,
    extend_plainly,
    replay_plainly,
)
from r2a_utils.models.hooks import UnlikeAttentionError, scale_of, visible_keys
from r2a_utils.models.places import architecture, check_component
from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.models.watching import asked
from r2a_utils.texts.tokens import common_prefix


def run_with_cache(
    model: ReasoningModel,
    token_ids: Sequence[int],
    components: Sequence[str] = (),
    read: Sequence[int] = (-1,),
    *,
    after: ActivationCache | None = None,
) -> ActivationCache:
    """Run `token_ids` once and keep what replaying needs, and the named components.

    `read` are the positions whose logits are kept. What a cache `after` has in common with the
    sequence, up to the first token that differs or is read, is taken from it and not run again; it
    must hold those components. A model that cannot be replayed is run plainly, from nothing; from a
    host residual streams come back where they are among the components ("resid"), and no others.
    Raises ValueError for a component that cannot be read in this model.
    """
    for name in components:
        check_component(model, name)
    if not replayable(model, len(token_ids)):
        return cache_plainly(model, token_ids, components, read)
    return _run_with_cache(model, token_ids, components, read, after)


def _run_with_cache(
    model: ReasoningModel,
    token_ids: Sequence[int],
    components: Sequence[str],
    read: Sequence[int],
    after: ActivationCache | None,
) -> ActivationCache:
    n = len(token_ids)
    read = tuple(range(n)[i] for i in read)
    names = [name for name in COMPONENTS if name == "resid" or name in components]
    shared = 0 if after is None else min(common_prefix(after.token_ids, token_ids), *read)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    places, kept_keys = architecture(model), _kv_cache(model, after, shared)
    ids = torch.tensor([list(token_ids[shared:])], device=model.device)
    keep = torch.tensor(read) - shared
    options = {"past_key_values": kept_keys, "use_cache": True, "logits_to_keep": keep}
    with torch.no_grad(), model.lm.trace(ids, **options):
        for layer in range(model.n_layers):
            for name in names:
                kept[name].append(places.component(layer, name)[0].clone())
        kept["resid"].append(places.final_norm.input[0].clone())
        logits = nnsight.save(model.lm.output.logits)
    if shared:
        kept = {
            name: [
                torch.cat([old[:shared], new])
                for old, new in zip(after.activations[name], kept[name], strict=True)
            ]
            for name in names
        }
    return ActivationCache(
        token_ids=tuple(int(i) for i in token_ids),
        read=read,
        logits=at_least_float(logits[0]),
        activations=kept,
        keys=[layer.keys[0] for layer in kept_keys.layers],
        values=[layer.values[0] for layer in kept_keys.layers],
    )


def extend(
    model: ReasoningModel, cache: ActivationCache, position: int, token_ids: Sequence[int]
) -> Float[Tensor, "new_token vocabulary"]:
    """Logits [new token, vocabulary] of other tokens after the cache's first `position`."""
    if not replayable(model, position + len(token_ids)):
        return extend_plainly(model, cache, position, token_ids)
    kept_keys = _kv_cache(model, cache, position)
    ids = torch.tensor([list(token_ids)], device=model.device)
    with torch.no_grad(), model.lm.trace(ids, past_key_values=kept_keys, use_cache=True):
        logits = nnsight.save(model.lm.output.logits)
    return at_least_float(logits[0])


def run_with_graph(model: ReasoningModel, token_ids: Sequence[int]) -> ActivationGraph:
    """Run `token_ids` and keep every component as it is in the graph, for gradients.

    Under `torch.no_grad` the same without a graph. Logits are those of the whole sequence.
    """
    model.check_here("a gradient needs")
    places, scales, visible, graph = architecture(model), [], [], torch.is_grad_enabled()
    nodes: dict[str, list[Tensor | None]] = {name: [] for name in (*COMPONENTS, "attended")}
    ids = torch.tensor([list(token_ids)], device=model.device)
    with model.lm.trace(ids, use_cache=False):
        # Parameters take no gradient, so the embeddings are where the graph begins.
        places.embedding.output.requires_grad_(graph)
        for layer, shape in enumerate(places.shapes):
            if layer == 0:  # what else reads the embeddings is not on the residual stream's way
                places.layers[0].input = places.layers[0].input.clone()
            nodes["resid"].append(places.component(layer, "resid"))
            if shape:
                (_, query, key, value, mask, *_), named = places.attend(layer).inputs
                scales.append(scale_of(query, named))
                visible.append(visible_keys(mask, len(token_ids), query.device))
                attended = places.attend(layer).output[0]
                found = (query, key, value, attended, places.component(layer, "z"))
            else:
                scales.append(None)
                visible.append(None)
                found = (None,) * 5
            for name, node in zip(("q", "k", "v", "attended", "z"), found, strict=True):
                nodes[name].append(node)
            for name in ("attn_out", "mlp_out"):
                there = places.has(layer, name)
                node = places.component(layer, name) if there else None
                if there and name == "mlp_out":
                    _pass_on(places.mlps[layer], node)
                nodes[name].append(node)
        logits = nnsight.save(model.lm.output.logits)
    return ActivationGraph(nodes, scales, visible, logits[0])


def _pass_on(module: Envoy, node: Float[Tensor, "1 position width"]) -> None:
    """Let what comes behind a module that gives [position, width] read the node instead."""
    output = module.output
    first = output[0] if isinstance(output, tuple) else output
    if first.dim() == 2:
        module.output = (node[0], *output[1:]) if isinstance(output, tuple) else node[0]


def replay(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun],
    reduce: Callable[[Float[Tensor, "run read vocabulary"]], Shaped[Tensor, "run ..."]],
    *,
    max_tokens: int | None = None,
) -> Shaped[Tensor, "run ..."]:
    """Logits of every run at the cache's `read` positions, reduced pack by pack.

    `reduce` takes logits [run, read, vocabulary], float32 or finer, and returns a tensor whose
    first dimension is the run; the results come back in the order of `runs`. `max_tokens`
    bounds the tokens recomputed together (default: by free memory). Out of memory halves it and
    goes on; MemoryError says when even one run does not fit. Raises ValueError for a run that does
    not fit the cache. A model that cannot be replayed (see `oracle.py`), or whose window is shorter
    than the sequence, runs plainly, a whole forward for each.
    """
    if not replayable(model, len(cache.token_ids)):
        return replay_plainly(model, cache, runs, reduce)
    return _replay(model, cache, runs, reduce, max_tokens)


def replayable(model: ReasoningModel, tokens: int) -> bool:
    """Whether the fast engine is exact for a model, on so many tokens, and can run where it is."""
    if model.remote:
        return False
    width = window(model)
    return (width is None or tokens <= width) and not replay_fault(model, _probe)


def engine_of(model: ReasoningModel, tokens: int) -> str:
    """Which engine runs patches and cuts of a model on so many tokens: "fast" or "plain"."""
    return "fast" if replayable(model, tokens) else "plain"


def _probe(
    model: ReasoningModel,
    token_ids: Sequence[int],
    components: Sequence[str],
    read: Sequence[int],
    runs: Sequence[PatchedRun],
) -> tuple[ActivationCache, Float[Tensor, "run read vocabulary"]]:
    """By the fast engine, a cache and the logits of some runs."""
    cache = _run_with_cache(model, token_ids, components, read, None)
    return cache, _replay(model, cache, runs, lambda logits: logits, None)


def _replay(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun],
    reduce: Callable[[Float[Tensor, "run read vocabulary"]], Shaped[Tensor, "run ..."]],
    max_tokens: int | None,
) -> Shaped[Tensor, "run ..."]:
    n = len(cache.token_ids)
    for run in runs:
        check_run(run, cache)
    starts = [start_of(cache, run) for run in runs]
    order = sorted(range(len(runs)), key=lambda i: (starts[i], runs[i].layer))
    budget = max_tokens or token_budget(model, cache)
    # Reading a run costs memory too: its logits, as many tokens' worth of activations.
    reading = len(cache.read) * 2 * model.vocab_size // activations(model)
    costs = [n - start + reading for start in starts]
    results: list[Tensor | None] = [None] * len(runs)
    done = 0
    with tqdm(total=len(runs), desc="replay", unit="run", disable=None, leave=False) as bar:
        while done < len(order):
            chunk = take(order[done:], costs, budget)
            try:
                reduced = _replay_pack(model, cache, [runs[i] for i in chunk], reduce)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    position = starts[chunk[0]]
                    raise MemoryError(
                        f"one run of {n - position} positions after a prefix of {position} does "
                        "not fit in memory: use a shorter trace, a smaller dtype or a larger device"
                    ) from error
                budget = sum(costs[i] for i in chunk) // 2
                torch.cuda.empty_cache()  # does nothing where there is no GPU
                continue
            for i, row in zip(chunk, reduced, strict=True):
                results[i] = row
            done += len(chunk)
            bar.update(len(chunk))
    return torch.stack(results)


def continue_greedily(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun | None],
    max_new_tokens: int,
) -> list[list[int]]:
    """What the model writes after the cache under each run, up to the first end token.

    The patches of "z" and the cuts of a run lie beyond the cache's end, at the positions where
    they are to act; None continues as the model is. The cache must have read its last position,
    from which the first new token comes: no run can change that one. The cached keys are
    shared by all rows and never copied. Any of the model's `end_ids` ends a row. Raises ValueError
    for another cache or other runs.
    """
    last = len(cache.token_ids) - 1
    if cache.read[-1] != last:
        raise ValueError("the cache must have read its last position to be continued")
    for run in runs:
        if run is not None and run.position <= last:
            raise ValueError(f"a run acts at {run.position}, inside the {last + 1} tokens")
        if run is not None and any(patch.component != "z" for patch in run.patches):
            raise ValueError("only patches of z can be continued")
    if not replayable(model, last + max_new_tokens):
        return continue_plainly(model, cache, runs, max_new_tokens)
    places, ends = architecture(model), model.end_ids
    written: list[list[int]] = [[int(cache.logits[-1].argmax())] for _ in runs]
    rows, going = Rows(cache, runs), written
    with _attention(model.hf, "r2a_continue"), torch.no_grad():
        for position in range(last + 1, last + max_new_tokens):
            left = [i for i, row in enumerate(going) if row[-1] not in ends]
            if not left:
                break
            if len(left) < len(going):
                rows, going = rows.chosen(left), [going[i] for i in left]
            ids = torch.tensor([[row[-1]] for row in going], device=model.device)
            options = {"position_ids": torch.full_like(ids, position), "use_cache": False}
            with model.lm.trace(ids, **options, r2a_rows=rows):
                for layer in range(model.n_layers):
                    patches = rows.patches(layer, position)
                    if patches:
                        z = places.out_projections[layer].input
                        for row, patch in patches:
                            write(z[row], 0, patch)
                logits = nnsight.save(model.lm.output.logits)
            for row, token in zip(going, logits[:, -1].argmax(-1).tolist(), strict=True):
                row.append(token)
    return [list(takewhile(lambda token: token not in ends, row)) for row in written]


def _replay_pack(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun],
    reduce: Callable[[Tensor], Tensor],
) -> Shaped[Tensor, "run ..."]:
    """Recompute one pack of runs, sorted by position and layer, in one trace."""
    places, pack = architecture(model), Pack.of(cache, runs, model.device)
    first, n = pack.groups[0].position, len(cache.token_ids)
    # The trace needs some tokens to begin with; only their rotary embeddings are used.
    ids = torch.tensor([cache.token_ids[first:]], device=model.device)
    at = torch.arange(first, n, device=model.device)[None]
    options = {"position_ids": at, "use_cache": False}
    with _attention(model.hf, "r2a_replay"), torch.no_grad(), model.lm.trace(ids, **options):
        for index, layer in enumerate(places.layers):
            if index < pack.first_layer:
                layer.skip(layer.input)
                continue
            (old, *_), named = layer.inputs
            old = old[0] if index > pack.first_layer else old[0, :0]
            tokens, positions, patches = pack.join(index, old)
            cos, sin = named["position_embeddings"]
            at = (positions - first).to(cos.device)
            named = named | {
                "position_ids": positions[None],
                "position_embeddings": (cos[:, at], sin[:, at]),
                "r2a_pack": pack,
            }
            layer.inputs = ((tokens[None],), named)
            for name in COMPONENTS[1:]:
                chosen = [(row, patch) for row, patch in patches if patch.component == name]
                if chosen:
                    target, columns = places.target(index, name)
                    for row, patch in chosen:
                        write(target[0], row, patch, columns)
        rows = pack.rows(cache.read)
        places.final_norm.input = places.final_norm.input[:, rows]
        logits = nnsight.save(model.lm.output.logits)
    shape = (len(runs), len(cache.read))
    return reduce(at_least_float(logits[0]).unflatten(0, shape))


def _kv_cache(model: ReasoningModel, cache: ActivationCache | None, position: int) -> DynamicCache:
    """Transformers' own cache, filled with the keys and values before a position."""
    kept_keys = DynamicCache(config=model.hf.config)
    if position:
        for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
            kept_keys.update(keys[None, :, :position], values[None, :, :position], layer)
    return kept_keys


@contextmanager
def _attention(module: torch.nn.Module, name: str) -> Iterator[None]:
    """Let the model's attention modules call the function registered under `name`."""
    before = module.config._attn_implementation
    module.set_attn_implementation(name)
    try:
        yield
    finally:
        module.set_attn_implementation(before)


def _packed_attention(
    module, query, key, value, attention_mask, scaling=None, r2a_pack=None, **options
):
    _check_options(r2a_pack, scaling, options)
    attended = r2a_pack.attend(module.layer_idx, query[0], key[0], value[0], scaling)
    return attended[None], None


def _continued_attention(
    module, query, key, value, attention_mask, scaling=None, r2a_rows=None, **options
):
    _check_options(r2a_rows, scaling, options)
    return r2a_rows.attend(module.layer_idx, query, key, value, scaling), None


def _check_options(carried: Pack | Rows | None, scaling: float | None, options: dict) -> None:
    """Raise UnlikeAttentionError where attention is told what the engine does not do."""
    if carried is None or scaling is None:
        raise UnlikeAttentionError("its layers do not hand on what attention is to be told")
    if asked(options):
        raise UnlikeAttentionError(f"its attention asks for {', '.join(asked(options))}")


AttentionInterface.register("r2a_replay", _packed_attention)
AttentionInterface.register("r2a_continue", _continued_attention)
