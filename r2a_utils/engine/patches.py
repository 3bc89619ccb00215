"""What a forward pass leaves behind, and what an intervention changes in one.

An `ActivationCache` is what one plain pass over one sequence left. A `PatchedRun` is a set of
patches (an activation replaced) and of edge cuts (attention edges removed); it starts at the first
position and the first layer that they touch. This file holds the nouns and knows no model;
`forward.py` runs them in one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

COMPONENTS = ("resid", "q", "k", "v", "z", "attn_out", "mlp_out")
"""What a patch can replace, in the order of the forward pass: the residual stream at the input of a
layer; per head the outputs of the query, key and value projections (before any rotary embedding)
and the input of the projection that mixes them (z); the output of the attention (after it) and of
the MLP."""

HEAD_COMPONENTS = ("z", "q", "k", "v")

CUT_KINDS = ("renormalised", "zeroed", "mean")
"""What becomes of the weight that a cut takes away: see `EdgeCut`."""


@dataclass(frozen=True, eq=False)
class ActivationCache:
    """What one plain forward pass over one sequence left, kept for replaying.

    `activations[component][layer]` is [position, width], "resid" with one entry more: what the
    final norm reads; `keys[layer]` and `values[layer]` are
    [kv_head, position, head_dim] as the attention uses them (after the rotary embedding); `logits`
    is [len(read), vocabulary], in float32 or finer, at the positions `read`. A layer that lacks a
    part has it with the width 0, and without attention no key/value head.
    """

    token_ids: tuple[int, ...]
    read: tuple[int, ...]
    logits: Float[Tensor, "read vocabulary"]
    activations: dict[str, list[Float[Tensor, "position _"]]]
    keys: list[Float[Tensor, "_ position _"]]
    values: list[Float[Tensor, "_ position _"]]


@dataclass(frozen=True, eq=False)
class ActivationGraph:
    """One plain forward pass with its autograd graph, where gradients are enabled.

    `nodes[component][layer]` is [1, position, width]; for q and k, after the rotary embedding, and
    v it is [1, head, position, head_dim]; beside z there is "attended" [1, position, head,
    head_dim], what the heads read before anything else is done to it. `scales[layer]` multiplies
    q · k; `visible[layer]` is True where the query may look at the key; `logits` is [position,
    vocabulary]. None stands for what a layer lacks.
    """

    nodes: dict[str, list[Float[Tensor, "1 ..."] | None]]
    scales: list[float | None]
    visible: list[Bool[Tensor, "query key"] | None]
    logits: Float[Tensor, "position vocabulary"]


@dataclass(frozen=True, eq=False)
class Patch:
    """Replace `component` of `layer`, from `position` on, by the rows of `value`.

    `value` is [n positions, width]; with `head` the width is the head's, and only that head's slice
    is replaced (for k and v `head` counts key/value heads).
    """

    component: str
    layer: int
    position: int
    value: Float[Tensor, "n width"]
    head: int | None = None


@dataclass(frozen=True)
class EdgeCut:
    """Remove the attention edges from the positions `queries` to the positions `keys` in one layer.

    `heads` None means all heads. `kind` is one of `CUT_KINDS`. "renormalised": the scores are -∞,
    and the softmax gives the weight to the other keys, as in attention knockout (Geva et al. 2023,
    arXiv:2304.14767). "zeroed": the weights are 0 behind the softmax and nothing else is changed,
    as if the keys' values were zero (Mohebbi et al. 2023, arXiv:2301.12971). "mean": the same
    weight, spread evenly over those of `keys` that the query can see, so that it reads their mean
    value, not one of them (mean ablation of an edge; constant attention, Hassid et al. 2022,
    arXiv:2211.03495). Raises ValueError for another kind.
    """

    layer: int
    queries: range
    keys: range
    heads: tuple[int, ...] | None = None
    kind: str = "renormalised"

    def __post_init__(self) -> None:
        if self.kind not in CUT_KINDS:
            raise ValueError(f"unknown kind of cut {self.kind!r}: choose from {CUT_KINDS}")

    @property
    def which_heads(self) -> slice | list[int]:
        """The heads, as an index of a dimension of all heads."""
        return slice(None) if self.heads is None else list(self.heads)

    def redirected(
        self, weights: Float[Tensor, "*head query key"], visible: Bool[Tensor, "query key"]
    ) -> Float[Tensor, "*head query key"]:
        """What stands in place of the weights that a "zeroed" or "mean" cut takes away.

        `weights` are those of its own edges, `visible` where a query may look.
        """
        if self.kind == "zeroed":
            return torch.zeros_like(weights)
        even = visible / visible.sum(-1, keepdim=True).clamp(min=1)
        return weights.sum(-1, keepdim=True) * even.to(weights)


@dataclass(frozen=True, eq=False)
class PatchedRun:
    """A counterfactual continuation of a cached pass: at least one patch or cut."""

    patches: tuple[Patch, ...] = ()
    cuts: tuple[EdgeCut, ...] = ()
    layer: int = field(init=False)
    position: int = field(init=False)

    def __post_init__(self) -> None:
        changes = (*self.patches, *self.cuts)
        if not changes:
            raise ValueError("a patched run needs at least one patch or cut")
        starts = [p.position for p in self.patches] + [c.queries.start for c in self.cuts]
        object.__setattr__(self, "layer", min(change.layer for change in changes))
        object.__setattr__(self, "position", min(starts))


def check_run(run: PatchedRun, cache: ActivationCache) -> None:
    """Raise ValueError, with what to do, for a run that does not fit the cache."""
    n, layers = len(cache.token_ids), len(cache.keys)
    for patch in run.patches:
        if patch.component not in COMPONENTS:
            raise ValueError(f"unknown component {patch.component!r}: choose from {COMPONENTS}")
        if not 0 <= patch.position <= patch.position + len(patch.value) <= n:
            raise ValueError(f"a patch at position {patch.position} runs outside the {n} tokens")
    for change in (*run.patches, *run.cuts):
        if not 0 <= change.layer < layers:
            raise ValueError(
                f"layer {change.layer} is out of range: there are layers 0 to {layers - 1}"
            )
        of_attention = getattr(change, "component", "z") not in ("resid", "mlp_out")
        if of_attention and not len(cache.keys[change.layer]):
            raise ValueError(f"layer {change.layer} has no attention to change: name others")
    for cut in run.cuts:
        takes_all = cut.keys.start <= 0 and cut.keys.stop > cut.queries.start
        if cut.kind == "renormalised" and takes_all:
            raise ValueError("a cut takes every key from a query: leave at least one visible")
        if cut.queries.stop > n or cut.queries.start < 0:
            raise ValueError(f"a cut of queries {cut.queries} runs outside the {n} tokens")
    for one, other in combinations(run.cuts, 2):
        if {one.kind, other.kind} != {"renormalised"} and _share_edges(one, other):
            raise ValueError(f"two cuts of layer {one.layer} share edges: name each edge once")


def write(
    target: Float[Tensor, "token width"],
    row: int,
    patch: Patch,
    columns: Int[Tensor, " column"] | None = None,
) -> None:
    """Write a patch into [token, width], from `row` on.

    `columns` are those of the component in the target, head by head; None: all.
    """
    chosen = slice(None)
    if patch.head is not None:
        width = patch.value.shape[-1]
        chosen = slice(patch.head * width, (patch.head + 1) * width)
    if columns is not None:
        chosen = columns[chosen]
    target[row : row + len(patch.value), chosen] = patch.value.to(target)


def _share_edges(one: EdgeCut, other: EdgeCut) -> bool:
    def meet(a: range, b: range) -> bool:
        return max(a.start, b.start) < min(a.stop, b.stop)

    heads = one.heads is None or other.heads is None or {*one.heads} & {*other.heads}
    places = meet(one.queries, other.queries) and meet(one.keys, other.keys)
    return one.layer == other.layer and bool(heads) and places
