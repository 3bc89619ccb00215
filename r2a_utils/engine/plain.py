"""The plain engine: one full forward a run, in the model's own functions. Slow, for every family.

A run's patches are written where they are read, and its cuts into the mask of the model's own
attention call; nothing else of the model is replaced, so that windows, caps on the scores, sinks
and layers with more than attention are what they are. It is what the fast engine (`forward.py`) is
held against (`oracle.py`), and what does its work where it cannot: for families that cannot be
replayed, and for models whose weights are on a host, where many runs are one request and nothing
but what `reduce` makes of their logits comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import nnsight
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from r2a_utils.engine.patches import (
    COMPONENTS,
    ActivationCache,
    EdgeCut,
    PatchedRun,
    check_run,
    write,
)
from r2a_utils.models.decoder import Architecture
from r2a_utils.models.hooks import visible_keys
from r2a_utils.models.places import architecture, check_component
from r2a_utils.models.reasoning_model import ReasoningModel


def cache_plainly(
    model: ReasoningModel,
    token_ids: Sequence[int],
    components: Sequence[str] = (),
    read: Sequence[int] = (-1,),
) -> ActivationCache:
    """What `run_with_cache` gives, keys and values as the model's own attention call takes them.

    From a host comes what is asked for: residual streams where `components` name them, and no keys
    and values (they have the width 0), since nothing is replayed here.

    Raises ValueError for a component that cannot be read in this model.
    """
    for name in components:
        check_component(model, name)
    lm, places, read = model.lm, architecture(model), tuple(range(len(token_ids))[i] for i in read)
    always, width = ((), 0) if model.remote else (("resid",), None)
    names = [name for name in COMPONENTS if name in (*always, *components)]
    ids = torch.tensor([list(token_ids)], device=model.device)
    options = {"use_cache": False, "logits_to_keep": torch.tensor(read)}
    with torch.no_grad(), lm.trace(ids, remote=model.remote, **options):
        places.open_attention()
        kept = nnsight.save({name: [] for name in names})
        keys, values = nnsight.save([]), nnsight.save([])
        for layer in range(len(places.layers)):
            for name in COMPONENTS:  # in the order of the forward pass, z with its keys and values
                if name == "z" and layer in places.attending:
                    (_, _, key, value, *_), _ = places.attend(layer).inputs
                    keys.append(key[0, ..., :width].clone())
                    values.append(value[0, ..., :width].clone())
                elif name == "z":
                    keys.append(torch.empty(0, ids.shape[1], 0))
                    values.append(torch.empty(0, ids.shape[1], 0))
                if name not in names:
                    continue
                if places.has(layer, name):
                    kept[name].append(places.component(layer, name)[0].clone())
                else:
                    kept[name].append(torch.empty(ids.shape[1], 0, device=ids.device))
        if "resid" in names:
            kept["resid"].append(places.final_norm.input[0].clone())
        logits = nnsight.save(lm.output.logits)
    ids = tuple(int(i) for i in token_ids)
    return ActivationCache(ids, read, at_least_float(logits[0]), kept, keys, values)


def replay_plainly(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun],
    reduce: Callable[[Float[Tensor, "run read vocabulary"]], Shaped[Tensor, "run ..."]],
) -> Shaped[Tensor, "run ..."]:
    """What `replay` gives, by a full forward for every run.

    Raises ValueError for a run that does not fit the cache.
    """
    for run in runs:
        check_run(run, cache)
    if model.remote:
        return _replay_on_host(model, cache, runs, reduce)
    bar = tqdm(runs, desc="replay, plain", unit="run", disable=None, leave=False)
    return torch.cat([reduce(_run(model, cache.token_ids, run, cache.read)[None]) for run in bar])


def _replay_on_host(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun],
    reduce: Callable[[Float[Tensor, "run read vocabulary"]], Shaped[Tensor, "run ..."]],
) -> Shaped[Tensor, "run ..."]:
    """All runs as one request, reduced where the logits are.

    What stands inside the session goes over as text, with all that it names; a model's tokenizer
    need not.
    """
    lm, places = model.lm, architecture(model)
    ids, read = torch.tensor([cache.token_ids]), torch.tensor(cache.read)
    with torch.no_grad(), lm.session(remote=model.remote):
        found = nnsight.save([])
        for run in runs:
            found.append(reduce(_logits(lm, places, ids, run, read)[None]))
    return torch.cat(found)


def continue_plainly(
    model: ReasoningModel,
    cache: ActivationCache,
    runs: Sequence[PatchedRun | None],
    max_new_tokens: int,
) -> list[list[int]]:
    """What `continue_greedily` gives, by a full forward for every run and token."""
    lm, places, ends = model.lm, architecture(model), model.end_ids
    ids, first = (
        torch.tensor([cache.token_ids], device=model.device),
        int(cache.logits[-1].argmax()),
    )
    if model.remote:
        with torch.no_grad(), lm.session(remote=model.remote):
            rows = nnsight.save([])
            for run in runs:
                rows.append(_written(lm, places, ids, first, run, ends, max_new_tokens))
    else:
        bar = tqdm(runs, desc="writing, plain", unit="run", disable=None, leave=False)
        with torch.no_grad():
            rows = [_written(lm, places, ids, first, run, ends, max_new_tokens) for run in bar]
    return [[token for token in row if token not in ends] for row in rows]


def _written(
    lm: nnsight.TransformersModel,
    places: Architecture,
    ids: Int[Tensor, "1 token"],
    first: int,
    run: PatchedRun | None,
    ends: frozenset[int],
    max_new_tokens: int,
) -> list[int]:
    """What one run writes, from its `first` token on, up to the first end token."""
    row, last = [first], torch.tensor([-1])
    while row[-1] not in ends and len(row) < max_new_tokens:
        longer = torch.cat([ids, ids.new_tensor([row])], dim=1)
        changed = _up_to(run, longer.shape[1])
        row.append(int(_logits(lm, places, longer, changed, last)[0].argmax()))
    return row


def extend_plainly(
    model: ReasoningModel, cache: ActivationCache, position: int, token_ids: Sequence[int]
) -> Float[Tensor, "new_token vocabulary"]:
    """What `extend` gives, by a forward from the first token on."""
    ids = (*cache.token_ids[:position], *token_ids)
    return _run(model, ids, None, range(position, len(ids)))


def at_least_float(logits: Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
    """Logits in float32, or as they are in float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _run(
    model: ReasoningModel, token_ids: Sequence[int], run: PatchedRun | None, read: Sequence[int]
) -> Float[Tensor, "read vocabulary"]:
    """Logits at the positions `read` of one patched run."""
    n = len(token_ids)
    ids = torch.tensor([list(token_ids)], device=model.device)
    kept = torch.tensor([i % n for i in read])
    with torch.no_grad():
        return _logits(model.lm, architecture(model), ids, run, kept, model.remote)


def _logits(
    lm: nnsight.TransformersModel,
    places: Architecture,
    ids: Int[Tensor, "1 token"],
    run: PatchedRun | None,
    read: Int[Tensor, " read"],
    remote: bool | str = False,
) -> Float[Tensor, "read vocabulary"]:
    """Logits of one run; `remote` is False within a session, which goes to the host as a whole."""
    n, changes = ids.shape[1], [*run.patches, *run.cuts] if run else []
    with lm.trace(ids, use_cache=False, logits_to_keep=read, remote=remote):
        places.open_attention()
        for layer in sorted({change.layer for change in changes}):
            patches = [patch for patch in run.patches if patch.layer == layer]
            cuts = [cut for cut in run.cuts if cut.layer == layer]
            for name in COMPONENTS:
                if name == "z" and cuts:
                    call = places.attend(layer)
                    (module, query, key, value, mask, *others), named = call.inputs
                    redirecting = [cut for cut in cuts if cut.kind != "renormalised"]
                    seen = visible_keys(mask, n, query.device)
                    mask, wide = _cut(mask, cuts, query), _with_columns(value, redirecting)
                    call.inputs = ((module, query, key, wide, mask, *others), named)
                    if redirecting:
                        attended, *rest = call.output
                        call.output = (_redirect(attended, value, seen, redirecting), *rest)
                for patch in patches:
                    if patch.component == name:
                        target, columns = places.target(layer, name)
                        write(target[0], patch.position, patch, columns)
        logits = nnsight.save(lm.output.logits)
    return at_least_float(logits[0])


def _cut(
    mask: Shaped[Tensor, "1 _ query key"] | None,
    cuts: Sequence[EdgeCut],
    query: Float[Tensor, "1 head query _"],
) -> Shaped[Tensor, "1 head query key"]:
    """The model's own mask, or a plainly causal one where it takes none, without the cut edges.

    Those of the kind "renormalised" are; the others are cut behind the softmax.
    """
    heads, n = query.shape[1:3]
    if mask is None:
        mask = torch.ones(1, 1, n, n, dtype=torch.bool, device=query.device).tril()
    mask = mask.expand(1, heads, n, n).clone()
    unseen = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    for cut in cuts:
        if cut.kind == "renormalised":
            rows, columns = (slice(span.start, span.stop) for span in (cut.queries, cut.keys))
            mask[0, cut.which_heads, rows, columns] = unseen
    return mask


def _with_columns(
    value: Float[Tensor, "1 kv_head key width"], cuts: Sequence[EdgeCut]
) -> Float[Tensor, "1 kv_head key wide"]:
    """Values with more columns: for every cut those of its keys, and a 1 for each of its keys.

    So the model's own attention call says, without its weights being formed, what every query takes
    from the cut keys and how much weight it gives them.
    """
    ones, columns = torch.ones_like(value[..., :1]), [value]
    for cut in cuts:
        of_cut = torch.zeros_like(ones)
        of_cut[:, :, cut.keys.start : cut.keys.stop] = 1
        columns += [value * of_cut, of_cut]
    return torch.cat(columns, dim=-1)


def _redirect(
    attended: Float[Tensor, "1 query head wide"],
    value: Float[Tensor, "1 kv_head key width"],
    seen: Bool[Tensor, "query key"],
    cuts: Sequence[EdgeCut],
) -> Float[Tensor, "1 query head width"]:
    """What heads read when the weight on the cut keys is zero, or goes to their mean value."""
    width, heads = value.shape[-1], attended.shape[2]
    own, *columns = attended.split([width, *[width, 1] * len(cuts)], dim=-1)
    own = own.clone()
    values = value[0].repeat_interleave(heads // value.shape[1], dim=0)
    for cut, taken, weight in zip(cuts, columns[::2], columns[1::2], strict=True):
        keys = slice(cut.keys.start, cut.keys.stop)
        instead = torch.zeros_like(own[0])
        if cut.kind == "mean":
            count = seen[:, keys].sum(-1).clamp(min=1)
            mean = torch.einsum("qk,hkd->qhd", seen[:, keys].to(values), values[:, keys])
            instead = weight[0] * mean / count[:, None, None]
        rows = slice(cut.queries.start, cut.queries.stop)
        own[0, rows, cut.which_heads] += (instead - taken[0])[rows, cut.which_heads]
    return own


def _up_to(run: PatchedRun | None, n: int) -> PatchedRun | None:
    """The part of a run that acts on the first `n` positions; None where there is none."""
    if run is None:
        return None
    patches = [
        replace(patch, value=patch.value[: n - patch.position])
        for patch in run.patches
        if patch.position < n
    ]
    cuts = [
        replace(cut, queries=range(cut.queries.start, min(cut.queries.stop, n)))
        for cut in run.cuts
        if cut.queries.start < n
    ]
    return PatchedRun(tuple(patches), tuple(cuts)) if patches or cuts else None
