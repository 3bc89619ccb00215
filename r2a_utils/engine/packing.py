"""Packed runs: many continuations of one cached pass in one sequence, without padding.

The tokens of all runs lie one after the other: groups of runs that start at the same
position, in each group the runs by their first layer. A run joins the pack at its own first
layer, with the cached residual stream. Every linear map of a model then runs once a layer over
the whole pack; only attention has to know where a run begins, since it sees the cached keys of
its prefix and its own suffix. This file is plain torch; `forward.py` puts it into a running model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from r2a_utils.engine.patches import ActivationCache, EdgeCut, Patch, PatchedRun, write
from r2a_utils.engine.plain import at_least_float
from r2a_utils.models.reasoning_model import ReasoningModel

# Tokens recomputed together on a CPU: larger matrices run no faster and need more memory.
CPU_TOKENS = 2048


def start_of(cache: ActivationCache, run: PatchedRun) -> int:
    """From where a run is recomputed: all that is read lies in it, changed or not."""
    return min(run.position, *cache.read)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of a pack that start at the same position, ordered by their first layer."""

    position: int
    runs: list[PatchedRun]
    mask: Bool[Tensor, "suffix token"]  # True where the query may look

    def joined(self, layer: int) -> list[PatchedRun]:
        """The runs that are in the pack in this layer."""
        return [run for run in self.runs if run.layer <= layer]


@dataclass(frozen=True, eq=False)
class Pack:
    """A cache and the groups that continue it, ordered by position."""

    cache: ActivationCache
    groups: list[Group]

    @classmethod
    def of(cls, cache: ActivationCache, runs: Sequence[PatchedRun], device: torch.device) -> Pack:
        """Pack runs that are sorted by where they start and then by layer."""
        n, members = len(cache.token_ids), {}
        for run in runs:
            members.setdefault(start_of(cache, run), []).append(run)
        groups = []
        for position, group in members.items():
            mask = torch.ones(n - position, n, dtype=torch.bool, device=device).tril(position)
            groups.append(Group(position, group, mask))
        return cls(cache, groups)

    @property
    def first_layer(self) -> int:
        return min(run.layer for group in self.groups for run in group.runs)

    def rows(self, positions: Sequence[int]) -> list[int]:
        """Where the given positions of every run lie in the finished pack, run by run."""
        found, offset = [], 0
        for group in self.groups:
            for _ in group.runs:
                found += [offset + position - group.position for position in positions]
                offset += len(self.cache.token_ids) - group.position
        return found

    def join(
        self, layer: int, old: Float[Tensor, "packed hidden"]
    ) -> tuple[Float[Tensor, "token hidden"], Int[Tensor, " token"], list[tuple[int, Patch]]]:
        """Put the runs that begin at `layer` between those already packed, `old`.

        Returns the residual stream of the new pack [token, hidden], each token's position, and the
        patches of this layer with the row at which each begins. Patches of "resid" are made.
        """
        n, start = len(self.cache.token_ids), self.cache.activations["resid"][layer]
        parts, positions, patches, taken, offset = [], [], [], 0, 0
        for group in self.groups:
            length = n - group.position
            for run in group.joined(layer):
                if run.layer == layer:
                    parts.append(start[group.position :])
                else:
                    # A model spread over several devices hands on what another one computed.
                    parts.append(old[taken : taken + length].to(start.device))
                    taken += length
                for patch in run.patches:
                    if patch.layer == layer:
                        patches.append((offset + patch.position - group.position, patch))
                positions.append(torch.arange(group.position, n, device=start.device))
                offset += length
        tokens = torch.cat(parts)
        for row, patch in patches:
            if patch.component == "resid":
                write(tokens, row, patch)
        return tokens, torch.cat(positions), patches

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "head token key_dim"],
        key: Float[Tensor, "kv_head token key_dim"],
        value: Float[Tensor, "kv_head token value_dim"],
        scale: float,
    ) -> Float[Tensor, "token head value_dim"]:
        """Attention of every run over its cached prefix and its own suffix.

        `query` [head, token, head_dim]; `key` and `value` [kv_head, token, head_dim]; returns
        [token, head, head_dim]. The query heads that share a key/value head are folded into the
        query positions, so that keys and values are never repeated.
        """
        kv_heads, shared = len(key), len(query) // len(key)
        outputs, start = [], 0
        for group in self.groups:
            members = group.joined(layer)
            if not members:
                continue
            count, length = len(members), len(group.mask)
            here = slice(start, start + count * length)
            start = here.stop
            q = query[:, here].unflatten(1, (count, length)).unflatten(0, (kv_heads, shared))
            q = q.permute(2, 0, 1, 3, 4).flatten(2, 3)
            prefix = slice(0, group.position)
            k = _after(self.cache.keys[layer][:, prefix], key[:, here], count)
            v = _after(self.cache.values[layer][:, prefix], value[:, here], count)
            mask = _visible(group, members, layer, kv_heads, shared).to(q.device)
            if any(cut.kind != "renormalised" for run in members for cut in _cuts(run, layer)):
                scores = at_least_float(q) @ at_least_float(k).transpose(-1, -2) * scale
                weights = scores.masked_fill_(~mask, -torch.inf).softmax(-1)
                _redirect(weights.view(count, kv_heads * shared, length, -1), group, members, layer)
                out = weights.to(v.dtype) @ v
            else:
                out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            out = out.unflatten(2, (shared, length)).permute(0, 3, 1, 2, 4)
            outputs.append(out.flatten(2, 3).flatten(0, 1))
        return torch.cat(outputs)


class Rows:
    """Continuations of one cached pass, a token at a time, all rows at the same position.

    The keys and values of the rows' own tokens grow with every call of `attend`; the cached ones
    are shared. None among the runs is a row without intervention.
    """

    def __init__(self, cache: ActivationCache, runs: Sequence[PatchedRun | None]) -> None:
        self.cache = cache
        self.runs = runs
        self.keys: list[Tensor | None] = [None] * len(cache.keys)
        self.values: list[Tensor | None] = [None] * len(cache.keys)
        self._patches: dict[int, list[tuple[int, Patch]]] = {}  # by layer, with their rows
        for row, run in enumerate(runs):
            for patch in run.patches if run else ():
                self._patches.setdefault(patch.layer, []).append((row, patch))

    def chosen(self, rows: Sequence[int]) -> Rows:
        """These rows alone, with what they have written so far."""
        there = Rows(self.cache, [self.runs[row] for row in rows])
        there.keys = [None if keys is None else keys[rows] for keys in self.keys]
        there.values = [None if values is None else values[rows] for values in self.values]
        return there

    def patches(self, layer: int, position: int) -> list[tuple[int, Patch]]:
        """The row of each patch that acts at a position, and its single vector."""
        found = []
        for row, patch in self._patches.get(layer, ()):
            i = position - patch.position
            if 0 <= i < len(patch.value):
                found.append((row, replace(patch, position=position, value=patch.value[i, None])))
        return found

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "row head 1 key_dim"],
        key: Float[Tensor, "row kv_head 1 key_dim"],
        value: Float[Tensor, "row kv_head 1 value_dim"],
        scale: float,
    ) -> Float[Tensor, "row 1 head value_dim"]:
        """Attention of one new token a row: query [row, head, 1, head_dim] → [row, 1, head, …]."""
        if self.keys[layer] is not None:
            key = torch.cat([self.keys[layer], key], dim=2)
            value = torch.cat([self.values[layer], value], dim=2)
        self.keys[layer], self.values[layer] = key, value
        prefix_key, prefix_value = self.cache.keys[layer], self.cache.values[layer]
        n, heads = prefix_key.shape[1], query.shape[1]
        q = query[:, :, 0].unflatten(1, (len(prefix_key), -1))
        before = torch.einsum("bkgd,ktd->bkgt", q, prefix_key)
        own = torch.einsum("bkgd,bksd->bkgs", q, key)
        scores = at_least_float(torch.cat([before, own], dim=-1)) * scale
        # Views: what is written into them is written into the scores and weights.
        cuts = [
            (row, cut, cut.which_heads, slice(cut.keys.start, cut.keys.stop))
            for row, run in enumerate(self.runs)
            for cut in (_cuts(run, layer) if run else ())
            if n + key.shape[2] - 1 in cut.queries
        ]
        for row, cut, chosen, keys in cuts:
            if cut.kind == "renormalised":
                scores[row].view(heads, -1)[chosen, keys] = -torch.inf
        weights = scores.softmax(-1)
        for row, cut, chosen, keys in cuts:
            if cut.kind != "renormalised":
                block = weights[row].view(heads, 1, -1)[chosen, :, keys]
                seen = torch.ones_like(block[0], dtype=torch.bool)  # one new token sees all keys
                weights[row].view(heads, 1, -1)[chosen, :, keys] = cut.redirected(block, seen)
        weights = weights.to(value.dtype)
        out = torch.einsum("bkgt,ktd->bkgd", weights[..., :n], prefix_value)
        out += torch.einsum("bkgs,bksd->bkgd", weights[..., n:], value)
        return out.flatten(1, 2)[:, None]


def activations(model: ReasoningModel) -> int:
    """Numbers held for one token at the widest moment of a layer: the MLP's, and the residuals."""
    return 3 * model.hf.config.intermediate_size + 8 * model.hidden_size


def token_budget(model: ReasoningModel, cache: ActivationCache) -> int:
    """Tokens recomputed together: half of the free GPU memory, or a few thousand on a CPU."""
    if model.device.type != "cuda":
        return CPU_TOKENS
    # Keys and values are copied once a run; a run is taken to have at least 16 tokens.
    copied = 2 * len(cache.token_ids) * model.n_kv_heads * model.head_dim // 16
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(0.5 * free) // ((activations(model) + copied) * model.dtype.itemsize)


def take(order: list[int], costs: list[int], budget: int) -> list[int]:
    """The next runs whose costs fit in the budget, at least one."""
    chunk, spent = [], 0
    for i in order:
        spent += costs[i]
        if chunk and spent > budget:
            break
        chunk.append(i)
    return chunk


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    # The CPU's allocator raises a plain RuntimeError with these words.
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "not enough memory" in str(error)


def _after(
    prefix: Float[Tensor, "kv_head before head_dim"],
    suffix: Float[Tensor, "kv_head tokens head_dim"],
    count: int,
) -> Float[Tensor, "{count} kv_head key head_dim"]:
    """The suffixes [kv_head, run * token, head_dim] of `count` runs, after one prefix."""
    suffix = suffix.unflatten(1, (count, -1)).transpose(0, 1)
    return torch.cat([prefix.expand(count, -1, -1, -1), suffix], dim=2)


def _visible(
    group: Group, members: list[PatchedRun], layer: int, kv_heads: int, shared: int
) -> Bool[Tensor, "_ _ query key"]:
    """Mask [run or 1, kv_head or 1, shared * suffix, keys] of a group in one layer."""
    if not any(_cuts(run, layer) for run in members):
        return group.mask.repeat(shared, 1)[None, None]
    mask = group.mask.repeat(len(members), kv_heads * shared, 1, 1)
    for row, run in enumerate(members):
        for cut in _cuts(run, layer):
            if cut.kind == "renormalised":
                mask[row, cut.which_heads, *_edges(cut, group)] = False
    return mask.unflatten(1, (kv_heads, shared)).flatten(2, 3)


def _redirect(
    weights: Float[Tensor, "_run head suffix key"],
    group: Group,
    members: list[PatchedRun],
    layer: int,
) -> None:
    """Write into the weights of a group what its cuts of the other kinds make of them."""
    for row, run in enumerate(members):
        for cut in _cuts(run, layer):
            if cut.kind != "renormalised":
                block, edges = weights[row], _edges(cut, group)
                seen = group.mask[edges].to(weights.device)
                block[cut.which_heads, *edges] = cut.redirected(
                    block[cut.which_heads, *edges], seen
                )


def _cuts(run: PatchedRun, layer: int) -> list[EdgeCut]:
    return [cut for cut in run.cuts if cut.layer == layer]


def _edges(cut: EdgeCut, group: Group) -> tuple[slice, slice]:
    """The queries and keys of a cut in a group's suffix, as an index."""
    queries = slice(cut.queries.start - group.position, cut.queries.stop - group.position)
    return queries, slice(cut.keys.start, cut.keys.stop)
