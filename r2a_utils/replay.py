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
from dataclasses import dataclass, field

import nnsight
import torch
from torch.nn.functional import scaled_dot_product_attention
from tqdm.auto import tqdm
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from r2a_utils.tracing import Architecture, architecture

COMPONENTS = ("resid", "q", "k", "v", "z", "attn_out", "mlp_out")
"""What an edit can replace, in the order of the forward pass: the residual stream at the input of a
layer; per head the outputs of the query, key and value projections (before any rotary embedding) and
the input of o_proj (z); the output of the attention (after o_proj) and of the MLP."""

HEAD_COMPONENTS = ("z", "q", "k", "v")


@dataclass(frozen=True, eq=False)
class Recording:
    """One plain forward pass over one sequence, kept for replaying.

    `activations[component][layer]` is [position, width]; `keys[layer]` and `values[layer]` are
    [kv_head, position, head_dim] as the attention uses them (after the rotary embedding); `logits`
    is [len(read), vocabulary], float32, at the positions `read`.
    """

    token_ids: tuple[int, ...]
    read: tuple[int, ...]
    logits: torch.Tensor
    activations: dict[str, list[torch.Tensor]]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]


@dataclass(frozen=True, eq=False)
class Edit:
    """Replace `component` of `layer` at positions `position`, `position + 1`, ... by the rows of `value`.

    `value` is [n positions, width]; with `head` the width is the head's, and only that head's slice
    is replaced (for k and v `head` counts key/value heads).
    """

    component: str
    layer: int
    position: int
    value: torch.Tensor
    head: int | None = None


@dataclass(frozen=True)
class Cut:
    """Remove the attention edges from the positions `queries` to the positions `keys` in one layer.

    `heads` None means all heads.  The remaining weights of a row are renormalised by the softmax,
    as in attention knockout (Geva et al. 2023, arXiv:2304.14767).
    """

    layer: int
    queries: range
    keys: range
    heads: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Branch:
    """A counterfactual continuation of a recording: at least one edit or cut."""

    edits: tuple[Edit, ...] = ()
    cuts: tuple[Cut, ...] = ()
    layer: int = field(init=False)
    position: int = field(init=False)

    def __post_init__(self) -> None:
        changes = (*self.edits, *self.cuts)
        if not changes:
            raise ValueError("a branch needs at least one edit or cut")
        starts = [e.position for e in self.edits] + [c.queries.start for c in self.cuts]
        object.__setattr__(self, "layer", min(change.layer for change in changes))
        object.__setattr__(self, "position", min(starts))


def record(
    model, token_ids: Sequence[int], components: Sequence[str] = ("resid",), read: Sequence[int] = (-1,)
) -> Recording:
    """Run `token_ids` once and keep what replaying needs, besides the named components.

    The residual stream is always kept.  `read` are the positions whose logits are kept.
    """
    n = len(token_ids)
    read = tuple(range(n)[i] for i in read)
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in dict.fromkeys(("resid", *components))}
    places, cache = architecture(model), DynamicCache(config=model.hf.config)
    ids = torch.tensor([list(token_ids)], device=model.device)
    rows = torch.tensor(read, device=model.device)
    with torch.no_grad():
        with model.lm.trace(ids, past_key_values=cache, use_cache=True, logits_to_keep=rows):
            for layer in range(model.n_layers):
                for name in COMPONENTS:
                    if name in kept:
                        kept[name].append(_read(places, layer, name)[0].clone())
            logits = nnsight.save(model.lm.output.logits)
            nnsight.save(kept)
    return Recording(
        token_ids=tuple(int(i) for i in token_ids),
        read=read,
        logits=logits[0].float(),
        activations=kept,
        keys=[layer.keys[0] for layer in cache.layers],
        values=[layer.values[0] for layer in cache.layers],
    )


def replay(
    model,
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
        _check(branch, recording)
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
                    raise MemoryError(
                        f"one branch of {n - branches[chunk[0]].position} positions after a prefix of "
                        f"{branches[chunk[0]].position} does not fit in memory: use a shorter trace, a "
                        "smaller dtype or a larger device"
                    ) from error
                budget = sum(n - branches[i].position for i in chunk) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            for i, row in zip(chunk, reduced, strict=True):
                results[i] = row
            done += len(chunk)
            bar.update(len(chunk))
    return torch.stack(results)


def _check(branch: Branch, recording: Recording) -> None:
    n, layers = len(recording.token_ids), len(recording.keys)
    for edit in branch.edits:
        if edit.component not in COMPONENTS:
            raise ValueError(f"unknown component {edit.component!r}: choose one of {', '.join(COMPONENTS)}")
        if not 0 <= edit.position <= edit.position + len(edit.value) <= n:
            raise ValueError(f"an edit at position {edit.position} runs outside the {n} tokens")
    for change in (*branch.edits, *branch.cuts):
        if not 0 <= change.layer < layers:
            raise ValueError(f"layer {change.layer} is out of range: the model has layers 0 to {layers - 1}")
    for cut in branch.cuts:
        if cut.keys.start <= 0 and cut.keys.stop > cut.queries.start:
            raise ValueError("a cut may not take every key from a query: leave at least one visible")
        if cut.queries.stop > n or cut.queries.start < 0:
            raise ValueError(f"a cut of queries {cut.queries} runs outside the {n} tokens")
    if branch.position > min(recording.read):
        raise ValueError(
            f"a branch from position {branch.position} cannot change the logits at position "
            f"{min(recording.read)}, which comes before it"
        )


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
    """Tokens recomputed together: half the free GPU memory; on a CPU what fits its caches' patience.

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
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "not enough memory" in str(error)


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

    with _attention(model.hf, "r2a_replay"), torch.no_grad():
        with model.lm.trace(ids, position_ids=positions, use_cache=False):
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


def _packed_attention(module, query, key, value, attention_mask, scaling=None, r2a_pack=None, **kwargs):
    """Attention of packed branches over their recorded prefix and their own suffix.

    `query` is [1, head, tokens, head_dim].  The query heads that share a key/value head are folded
    into the query positions, so that keys and values are never repeated.
    """
    recording, groups = r2a_pack
    layer, n = module.layer_idx, len(recording.token_ids)
    if kwargs.get("sliding_window") is not None and kwargs["sliding_window"] < n:
        raise ValueError(
            f"layer {layer} attends to a sliding window of {kwargs['sliding_window']} tokens, and the "
            f"trace has {n}: replaying knows full causal attention only"
        )
    kv_heads, width = key.shape[1], key.shape[3]
    shared = query.shape[1] // kv_heads
    prefix_key, prefix_value = recording.keys[layer].to(key.device), recording.values[layer].to(key.device)
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
        k = _after_prefix(prefix_key, key[0, :, here], group.position, count)
        v = _after_prefix(prefix_value, value[0, :, here], group.position, count)
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
                queries = slice(cut.queries.start - group.position, cut.queries.stop - group.position)
                heads = slice(None) if cut.heads is None else list(cut.heads)
                mask[row, heads, queries, cut.keys.start : cut.keys.stop] = False
    return mask.unflatten(1, (kv_heads, shared)).flatten(2, 3)


AttentionInterface.register("r2a_replay", _packed_attention)
