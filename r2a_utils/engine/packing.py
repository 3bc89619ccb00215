"""Packed branches: many continuations of one recording in one sequence, without padding.

The tokens of all branches lie one after the other: groups of branches that start at the same
position, in each group the branches by their first layer. A branch joins the pack at its own first
layer, with the recorded residual stream. Every linear map of a model then runs once a layer over
the whole pack; only attention has to know where a branch begins, since it sees the recorded keys of
its prefix and its own suffix. This file is plain torch; `replay.py` puts it into a running model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import scaled_dot_product_attention

from r2a_utils.engine.edits import Branch, Edit, Recording
from r2a_utils.models.loading import ReasoningModel

# Tokens recomputed together on a CPU: larger matrices run no faster and need more memory.
CPU_TOKENS = 2048


def start_of(recording: Recording, branch: Branch) -> int:
    """From where a branch is recomputed: all that is read lies in it, changed or not."""
    return min(branch.position, *recording.read)


@dataclass(frozen=True, eq=False)
class Group:
    """Branches of a pack that start at the same position, ordered by their first layer."""

    position: int
    branches: list[Branch]
    mask: torch.Tensor  # [suffix, position + suffix], True where the query may look

    def joined(self, layer: int) -> list[Branch]:
        """The branches that are in the pack in this layer."""
        return [branch for branch in self.branches if branch.layer <= layer]


@dataclass(frozen=True, eq=False)
class Pack:
    """A recording and the groups that continue it, ordered by position."""

    recording: Recording
    groups: list[Group]

    @classmethod
    def of(cls, recording: Recording, branches: Sequence[Branch], device: torch.device) -> Pack:
        """Pack branches that are sorted by where they start and then by layer."""
        n, members = len(recording.token_ids), {}
        for branch in branches:
            members.setdefault(start_of(recording, branch), []).append(branch)
        groups = []
        for position, group in members.items():
            mask = torch.ones(n - position, n, dtype=torch.bool, device=device).tril(position)
            groups.append(Group(position, group, mask))
        return cls(recording, groups)

    @property
    def first_layer(self) -> int:
        return min(branch.layer for group in self.groups for branch in group.branches)

    def rows(self, positions: Sequence[int]) -> list[int]:
        """Where the given positions of every branch lie in the finished pack, branch by branch."""
        found, offset = [], 0
        for group in self.groups:
            for _ in group.branches:
                found += [offset + position - group.position for position in positions]
                offset += len(self.recording.token_ids) - group.position
        return found

    def join(self, layer: int, old: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list]:
        """Put the branches that begin at `layer` between those already packed, `old`.

        Returns the residual stream of the new pack [token, hidden], each token's position, and the
        edits of this layer with the row at which each begins. Edits of "resid" are made.
        """
        n, start = len(self.recording.token_ids), self.recording.activations["resid"][layer]
        parts, positions, edits, taken, offset = [], [], [], 0, 0
        for group in self.groups:
            length = n - group.position
            for branch in group.joined(layer):
                if branch.layer == layer:
                    parts.append(start[group.position :])
                else:
                    # A model spread over several devices hands on what another one computed.
                    parts.append(old[taken : taken + length].to(start.device))
                    taken += length
                for edit in branch.edits:
                    if edit.layer == layer:
                        edits.append((offset + edit.position - group.position, edit))
                positions.append(torch.arange(group.position, n, device=start.device))
                offset += length
        tokens = torch.cat(parts)
        for row, edit in edits:
            if edit.component == "resid":
                write(tokens, row, edit)
        return tokens, torch.cat(positions), edits

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attention of every branch over its recorded prefix and its own suffix.

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
            k = _after(self.recording.keys[layer][:, prefix], key[:, here], count)
            v = _after(self.recording.values[layer][:, prefix], value[:, here], count)
            mask = _visible(group, members, layer, kv_heads, shared).to(q.device)
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
            out = out.unflatten(2, (shared, length)).permute(0, 3, 1, 2, 4)
            outputs.append(out.flatten(2, 3).flatten(0, 1))
        return torch.cat(outputs)


class Rows:
    """Continuations of one recording, a token at a time, all rows at the same position.

    The keys and values of the rows' own tokens grow with every call of `attend`; the recorded ones
    are shared. None among the branches is a row without intervention.
    """

    def __init__(self, recording: Recording, branches: Sequence[Branch | None]) -> None:
        self.recording = recording
        self.branches = branches
        self.keys: list[torch.Tensor | None] = [None] * len(recording.keys)
        self.values: list[torch.Tensor | None] = [None] * len(recording.keys)

    def edits(self, layer: int, position: int) -> list[tuple[int, Edit]]:
        """The row of each edit that acts at a position, and its single vector."""
        found = []
        for row, branch in enumerate(self.branches):
            for edit in branch.edits if branch else ():
                i = position - edit.position
                if edit.layer == layer and 0 <= i < len(edit.value):
                    found.append((row, replace(edit, position=position, value=edit.value[i, None])))
        return found

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Attention of one new token a row: query [row, head, 1, head_dim] → [row, 1, head, …]."""
        if self.keys[layer] is not None:
            key = torch.cat([self.keys[layer], key], dim=2)
            value = torch.cat([self.values[layer], value], dim=2)
        self.keys[layer], self.values[layer] = key, value
        prefix_key, prefix_value = self.recording.keys[layer], self.recording.values[layer]
        n, heads = prefix_key.shape[1], query.shape[1]
        q = query[:, :, 0].unflatten(1, (len(prefix_key), -1))
        before = torch.einsum("bkgd,ktd->bkgt", q, prefix_key)
        own = torch.einsum("bkgd,bksd->bkgs", q, key)
        scores = torch.cat([before, own], dim=-1).float() * scale
        for row, branch in enumerate(self.branches):
            for cut in branch.cuts if branch else ():
                if cut.layer == layer and n + key.shape[2] - 1 in cut.queries:
                    # A view: writing into it writes into the scores.
                    each_head = scores[row].view(heads, -1)
                    for head in range(heads) if cut.heads is None else cut.heads:
                        each_head[head, cut.keys.start : cut.keys.stop] = -torch.inf
        weights = scores.softmax(-1).to(value.dtype)
        out = torch.einsum("bkgt,ktd->bkgd", weights[..., :n], prefix_value)
        out += torch.einsum("bkgs,bksd->bkgd", weights[..., n:], value)
        return out.flatten(1, 2)[:, None]


def activations(model: ReasoningModel) -> int:
    """Numbers held for one token at the widest moment of a layer: the MLP's, and the residuals."""
    return 3 * model.hf.config.intermediate_size + 8 * model.hidden_size


def token_budget(model: ReasoningModel, recording: Recording) -> int:
    """Tokens recomputed together: half of the free GPU memory, or a few thousand on a CPU."""
    if model.device.type != "cuda":
        return CPU_TOKENS
    # Keys and values are copied once a branch; a branch is taken to have at least 16 tokens.
    copied = 2 * len(recording.token_ids) * model.n_kv_heads * model.head_dim // 16
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(0.5 * free) // ((activations(model) + copied) * model.dtype.itemsize)


def take(order: list[int], costs: list[int], budget: int) -> list[int]:
    """The next branches whose costs fit in the budget, at least one."""
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


def write(target: torch.Tensor, row: int, edit: Edit) -> None:
    """Write an edit into [token, width], from `row` on."""
    columns = slice(None)
    if edit.head is not None:
        width = edit.value.shape[-1]
        columns = slice(edit.head * width, (edit.head + 1) * width)
    target[row : row + len(edit.value), columns] = edit.value.to(target)


def _after(prefix: torch.Tensor, suffix: torch.Tensor, count: int) -> torch.Tensor:
    """The suffixes [kv_head, branch * token, head_dim] of `count` branches, after one prefix."""
    suffix = suffix.unflatten(1, (count, -1)).transpose(0, 1)
    return torch.cat([prefix.expand(count, -1, -1, -1), suffix], dim=2)


def _visible(group: Group, members: list[Branch], layer: int, kv_heads: int, shared: int):
    """Mask [branch or 1, kv_head or 1, shared * suffix, keys] of a group in one layer."""
    if not any(cut.layer == layer for branch in members for cut in branch.cuts):
        return group.mask.repeat(shared, 1)[None, None]
    mask = group.mask.repeat(len(members), kv_heads * shared, 1, 1)
    for row, branch in enumerate(members):
        for cut in branch.cuts:
            if cut.layer == layer:
                queries = slice(
                    cut.queries.start - group.position, cut.queries.stop - group.position
                )
                keys = slice(cut.keys.start, cut.keys.stop)
                for head in range(kv_heads * shared) if cut.heads is None else cut.heads:
                    mask[row, head, queries, keys] = False
    return mask.unflatten(1, (kv_heads, shared)).flatten(2, 3)
