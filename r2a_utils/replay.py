"""Replay a recorded forward pass from the first place that an intervention can change (engine 2).

An intervention at layer l and position p leaves every position before p and every layer below l as
they were.  So one plain pass is *recorded* (the input of every layer, its keys and values, whatever
component is asked for), and each *branch*, a set of edits and cut attention edges, recomputes only
the positions from its own first position on, and only the layers from its own first layer on.

All branches share one nnsight trace.  Their tokens lie packed in one sequence without padding, so
that every linear map of the model runs once a layer over all of them; branches join the pack at
their own first layer, and the attention of a branch sees the recorded keys of its prefix and its
own suffix.  This file knows how a decoder layer is wired in transformers; `patching.py` and
`interventions.py` know what to ask of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import nnsight
import torch
from torch.nn.functional import scaled_dot_product_attention
from tqdm.auto import tqdm
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from r2a_utils.branches import COMPONENTS, Branch, Edit, Recording, check_branch
from r2a_utils.models import ReasoningModel
from r2a_utils.tracing import Architecture, architecture


def record(
    model: ReasoningModel,
    token_ids: Sequence[int],
    components: Sequence[str] = ("resid",),
    read: Sequence[int] = (-1,),
) -> Recording:
    """Run `token_ids` once and keep what replaying needs, besides the named components.

    The residual stream is always kept.  `read` are the positions whose logits are kept.
    """
    n = len(token_ids)
    read = tuple(range(n)[i] for i in read)
    names = [name for name in COMPONENTS if name == "resid" or name in components]
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    places, cache = architecture(model), DynamicCache(config=model.hf.config)
    ids = torch.tensor([list(token_ids)], device=model.device)
    options = {"past_key_values": cache, "use_cache": True, "logits_to_keep": torch.tensor(read)}
    with torch.no_grad(), model.lm.trace(ids, **options):
        for layer in range(model.n_layers):
            for name in names:
                kept[name].append(_read(places, layer, name)[0].clone())
        logits = nnsight.save(model.lm.output.logits)
    return Recording(
        token_ids=tuple(int(i) for i in token_ids),
        read=read,
        logits=logits[0].float(),
        activations=kept,
        keys=[layer.keys[0] for layer in cache.layers],
        values=[layer.values[0] for layer in cache.layers],
    )


def replay(
    model: ReasoningModel,
    recording: Recording,
    branches: Sequence[Branch],
    reduce: Callable[[torch.Tensor], torch.Tensor],
    *,
    max_tokens: int | None = None,
) -> torch.Tensor:
    """Logits of every branch at the recording's `read` positions, reduced chunk by chunk.

    `reduce` takes float32 logits [branch, read, vocabulary] and returns a tensor whose first
    dimension is the branch; the results come back in the order of `branches`.  `max_tokens` bounds
    the tokens recomputed together (default: by free memory).  Out of memory halves it and goes on.
    """
    n = len(recording.token_ids)
    for branch in branches:
        check_branch(branch, recording)
    order = sorted(range(len(branches)), key=lambda i: (branches[i].position, branches[i].layer))
    budget = max_tokens or _token_budget(model, n)
    results: list[torch.Tensor | None] = [None] * len(branches)
    done = 0
    with tqdm(total=len(branches), desc="replay", unit="branch", disable=None, leave=False) as bar:
        while done < len(order):
            chunk = _take(order[done:], branches, n, budget)
            try:
                reduced = _replay_pack(model, recording, [branches[i] for i in chunk], reduce)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    position = branches[chunk[0]].position
                    raise MemoryError(
                        f"one branch of {n - position} positions after a prefix of {position} does "
                        "not fit in memory: use a shorter trace, a smaller dtype or a larger device"
                    ) from error
                budget = sum(n - branches[i].position for i in chunk) // 2
                torch.cuda.empty_cache()  # does nothing where there is no GPU
                continue
            for i, row in zip(chunk, reduced, strict=True):
                results[i] = row
            done += len(chunk)
            bar.update(len(chunk))
    return torch.stack(results)


def _take(order: list[int], branches: Sequence[Branch], n: int, budget: int) -> list[int]:
    """The next branches whose suffixes fit in `budget` tokens, at least one."""
    chunk, tokens = [], 0
    for i in order:
        tokens += n - branches[i].position
        if chunk and tokens > budget:
            break
        chunk.append(i)
    return chunk


def _token_budget(model, n: int) -> int:
    """Tokens recomputed together: half of the free GPU memory, or a few thousand on a CPU.

    Per token the widest moment of a layer holds the MLP's three inner vectors and a handful of
    residual-sized ones; per branch the expanded keys and values of one layer are added, counted
    here as if each token were a branch of its own 16 tokens, which errs on the small side.
    """
    if model.device.type != "cuda":
        return 4096  # beyond this, measured on two cores, larger matrices gain nothing
    config = model.hf.config
    width = 3 * config.intermediate_size + 8 * config.hidden_size
    width += 2 * n * model.n_kv_heads * model.head_dim // 16
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(n, int(0.5 * free) // (width * model.dtype.itemsize))


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator raises a plain RuntimeError with these words.
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "not enough memory" in str(error)


@dataclass(frozen=True, eq=False)
class _Group:
    """Branches of a pack that start at the same position, ordered by their first layer."""

    position: int
    branches: list[Branch]
    mask: torch.Tensor  # [suffix, position + suffix], True where the query may look

    def joined(self, layer: int) -> list[Branch]:
        return [branch for branch in self.branches if branch.layer <= layer]


def _replay_pack(model, recording, branches, reduce) -> torch.Tensor:
    """Recompute one pack of branches, sorted by position and layer, in one trace."""
    n = len(recording.token_ids)
    places, groups = architecture(model), []
    for position in dict.fromkeys(branch.position for branch in branches):
        visible = torch.ones(n - position, n, dtype=torch.bool, device=model.device).tril(position)
        members = [branch for branch in branches if branch.position == position]
        groups.append(_Group(position, members, visible))
    first, lowest = groups[0].position, min(branch.layer for branch in branches)
    ids = torch.tensor([recording.token_ids[first:]], device=model.device)
    positions = torch.arange(first, n, device=model.device)[None]
    # Offsets of the `read` rows in the finished pack, branch by branch.
    read = torch.tensor(recording.read, device=model.device)
    starts, offset = [], 0
    for group in groups:
        for _ in group.branches:
            starts.append(offset - group.position + read)
            offset += n - group.position
    read_rows = torch.cat(starts)

    options = {"position_ids": positions, "use_cache": False}
    with _attention(model.hf, "r2a_replay"), torch.no_grad(), model.lm.trace(ids, **options):
        for index, layer in enumerate(places.layers):
            if index < lowest:
                layer.skip(layer.input)
                continue
            args, kwargs = layer.inputs
            old = args[0][0] if index > lowest else args[0][0, :0]
            pack, rows, found = _join(recording, groups, index, old)
            cos, sin = kwargs["position_embeddings"]
            layer.inputs = (
                (pack[None],),
                {
                    **kwargs,
                    "position_ids": positions[:, rows - first],
                    "position_embeddings": (cos[:, rows - first], sin[:, rows - first]),
                    "r2a_pack": (recording, groups),
                },
            )
            for name in COMPONENTS[1:]:
                edits = [(at, e) for at, e in found if e.component == name]
                if edits:
                    target = _read(places, index, name)[0]
                    for at, edit in edits:
                        _write(target, at, edit)
        places.final_norm.input = places.final_norm.input[:, read_rows]
        logits = nnsight.save(model.lm.output.logits)
    return reduce(logits[0].float().unflatten(0, (len(branches), len(recording.read))))


def _join(recording, groups, layer, old):
    """Put the branches that begin at `layer` into the pack.

    Returns the new pack [tokens, hidden], each token's position, and the edits of this layer with
    the row of the pack at which each begins.
    """
    n = len(recording.token_ids)
    parts, rows, found, taken, offset = [], [], [], 0, 0
    for group in groups:
        length = n - group.position
        for branch in group.joined(layer):
            if branch.layer == layer:
                parts.append(recording.activations["resid"][layer][group.position :].to(old.device))
            else:
                parts.append(old[taken : taken + length])
                taken += length
            for edit in branch.edits:
                if edit.layer == layer:
                    found.append((offset + edit.position - group.position, edit))
            rows.append(torch.arange(group.position, n, device=old.device))
            offset += length
    pack = torch.cat(parts)
    for at, edit in found:
        if edit.component == "resid":
            _write(pack, at, edit)
    return pack, torch.cat(rows), found


def _write(target: torch.Tensor, at: int, edit: Edit) -> None:
    columns = slice(None)
    if edit.head is not None:
        width = edit.value.shape[-1]
        columns = slice(edit.head * width, (edit.head + 1) * width)
    target[at : at + len(edit.value), columns] = edit.value.to(target)


def _read(places: Architecture, layer: int, component: str) -> torch.Tensor:
    """The named tensor [batch, position, width] of a layer, inside a trace."""
    if component == "resid":
        return places.layers[layer].input
    if component == "attn_out":
        return places.attention[layer].output[0]
    if component == "mlp_out":
        return places.layers[layer].mlp.output
    if component == "z":
        return places.out_projections[layer].input
    return getattr(places.attention[layer], f"{component}_proj").output


@contextmanager
def _attention(module, name: str) -> Iterator[None]:
    before = module.config._attn_implementation
    module.set_attn_implementation(name)
    try:
        yield
    finally:
        module.set_attn_implementation(before)


def _packed_attention(module, query, key, value, attention_mask, scaling, r2a_pack, **options):
    """Attention of packed branches over their recorded prefix and their own suffix.

    `query` is [1, head, tokens, head_dim].  The query heads that share a key/value head are folded
    into the query positions, so that keys and values are never repeated.
    """
    recording, groups = r2a_pack
    layer, n = module.layer_idx, len(recording.token_ids)
    window = options.get("sliding_window")
    if window is not None and window < n:
        raise ValueError(
            f"layer {layer} attends to a sliding window of {window} tokens, and the sequence has "
            f"{n}: only full causal attention is replayed; take a shorter sequence"
        )
    kv_heads, width = key.shape[1], key.shape[3]
    shared = query.shape[1] // kv_heads
    outputs, start = [], 0
    for group in groups:
        members = group.joined(layer)
        count, length = len(members), n - group.position
        if not count:
            continue
        here = slice(start, start + count * length)
        start = here.stop
        q = query[0, :, here].unflatten(1, (count, length)).unflatten(0, (kv_heads, shared))
        q = q.permute(2, 0, 1, 3, 4).reshape(count, kv_heads, shared * length, width)
        k = _after_prefix(recording.keys[layer], key[0, :, here], group.position, count)
        v = _after_prefix(recording.values[layer], value[0, :, here], group.position, count)
        mask = _visible(group, members, layer, kv_heads, shared)
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        out = out.unflatten(2, (shared, length)).permute(0, 3, 1, 2, 4)
        outputs.append(out.reshape(count * length, kv_heads * shared, width))
    return torch.cat(outputs)[None], None


def _after_prefix(prefix, suffix, position, count):
    """[kv_head, tokens, head_dim] of `count` branches, each after the shared prefix."""
    suffix = suffix.unflatten(1, (count, -1)).transpose(0, 1)
    return torch.cat([prefix[None, :, :position].expand(count, -1, -1, -1), suffix], dim=2)


def _visible(group: _Group, members: list[Branch], layer: int, kv_heads: int, shared: int):
    """Attention mask [branch or 1, kv_head or 1, shared * suffix, keys] of a group in one layer."""
    if not any(cut.layer == layer for branch in members for cut in branch.cuts):
        return group.mask.repeat(shared, 1)[None, None]
    mask = group.mask.expand(len(members), kv_heads * shared, -1, -1).clone()
    for row, branch in enumerate(members):
        for cut in branch.cuts:
            if cut.layer == layer:
                queries = [query - group.position for query in cut.queries]
                heads = range(kv_heads * shared) if cut.heads is None else cut.heads
                for head in heads:
                    mask[row, head, queries, cut.keys.start : cut.keys.stop] = False
    return mask.unflatten(1, (kv_heads, shared)).flatten(2, 3)


AttentionInterface.register("r2a_replay", _packed_attention)
