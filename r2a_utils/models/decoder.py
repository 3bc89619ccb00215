"""A decoder's places as nouns: where traces read and write, layer by layer.

This file says what there is; `places.py` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nnsight.intervention.envoy import Envoy
from nnsight.intervention.source import SourceEnvoy
from torch import Tensor


@dataclass(frozen=True)
class HeadShape:
    """Heads of one layer: how many ask, how many are asked, and the sizes of their vectors."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True, eq=False)
class Projection:
    """The module whose output holds the queries, keys or values, and in which columns.

    `columns` is [heads * size], head by head, on the CPU; None where they are the whole output in
    this order.
    """

    module: Envoy
    columns: Tensor | None


@dataclass(frozen=True)
class Architecture:
    """Where traces read and write. Envoys are nnsight's handles on modules.

    `decoder` is the model without its unembedding: `decoder.trace(input_ids=…)` runs the layers and
    computes no logits. What belongs to a layer has one entry a layer, None where the layer lacks
    it: `attention`, its `shapes`, `windows` (tokens it looks back at, itself included; None: all)
    and `chunks` (tokens of the pieces that the text falls into, beyond whose start it does not look
    back; None: one piece), `out_projections` and `mlps`. `attention_calls` names the operation,
    inside an attention module's forward, that turns queries, keys and values into the heads'
    results; `asks` has the options of these calls that change what attention is. `unread` has a
    sentence for each component that cannot be read.
    """

    decoder: Envoy
    embedding: Envoy
    layers: tuple[Envoy, ...]
    attention: tuple[Envoy | None, ...]
    attention_calls: tuple[str | None, ...]
    shapes: tuple[HeadShape | None, ...]
    windows: tuple[int | None, ...]
    chunks: tuple[int | None, ...]
    out_projections: tuple[Envoy | None, ...]
    projections: tuple[dict[str, Projection], ...]
    mlps: tuple[Envoy | None, ...]
    final_norm: Envoy
    unembedding: Envoy
    unread: dict[str, str]
    asks: tuple[str, ...]

    @property
    def attending(self) -> tuple[int, ...]:
        """The layers that have attention."""
        return tuple(layer for layer, shape in enumerate(self.shapes) if shape)

    def attend(self, layer: int) -> SourceEnvoy:
        """The attention operation of a layer; to be read inside a trace.

        Its `inputs` are ((module, query [batch, head, token, key_dim], key [batch, kv_head, token,
        key_dim], value [batch, kv_head, token, value_dim], mask or None), {"scaling": …, …}); its
        `output` is a tuple whose first entry is [batch, token, head, value_dim], what the heads
        read, before anything else is done to it.
        """
        return getattr(self.attention[layer].source, self.attention_calls[layer])

    def open_attention(self) -> None:
        """Make the operations inside attention ready; too late once a layer's attention runs."""
        for layer in self.attending:
            self.attention[layer].source  # noqa: B018 (nnsight rewrites the forward when asked)

    def has(self, layer: int, name: str) -> bool:
        """Whether a layer has a component."""
        if name == "resid":
            return True
        if name == "mlp_out":
            return self.mlps[layer] is not None
        if name in ("q", "k", "v"):
            return name in self.projections[layer]
        return self.attention[layer] is not None

    def heads(self, layer: int, name: str) -> int:
        """How many heads a layer has in a component of single heads; 0 where it has none."""
        if not self.has(layer, name):
            return 0
        shape = self.shapes[layer]
        return shape.kv_heads if name in ("k", "v") else shape.heads

    def component(self, layer: int, name: str) -> Tensor:
        """What a layer reads ("resid"), writes or passes on: [batch, position, width].

        To be read inside a trace, in the order of the forward pass: "resid", the projections "q",
        "k", "v", their result "z" before it is mixed, "attn_out", "mlp_out".
        """
        whole, columns = self.target(layer, name)
        return whole if columns is None else whole[..., columns]

    def target(self, layer: int, name: str) -> tuple[Tensor, Tensor | None]:
        """Where a component is written: a tensor [batch, position, …], and its columns in it."""
        if name == "resid":
            return self.layers[layer].input, None
        if name == "z":
            return self.out_projections[layer].input, None
        if name in ("attn_out", "mlp_out"):
            output = (self.attention if name == "attn_out" else self.mlps)[layer].output
            output = output[0] if isinstance(output, tuple) else output
            return (output if output.dim() == 3 else output[None]), None  # flat, of one sequence
        projection = self.projections[layer][name]
        return projection.module.output.flatten(1, -2), projection.columns
