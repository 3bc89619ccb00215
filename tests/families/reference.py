"""What a family does, by transformers alone: eager attention, forward hooks, a whole pass for each.

The tests hold R2A against this, so it shares no line with it. Token ids and layers go in, numbers
come out; nothing is cached, batched or packed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest import mock

import torch
from families.zoo import Family
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Write = Callable[[Tensor], Tensor]
"""An activation [1, token, width] → what stands in its place."""


class Reference:
    """One model with eager attention. `attending` are the layers that have attention."""

    def __init__(self, family: Family, model: PreTrainedModel) -> None:
        self.family, self.model = family, model
        self.layers = model.get_submodule(family.layers)
        kinds = getattr(model.config, "layer_types", None) or ["attention"] * len(self.layers)
        self.attending = [
            layer
            for layer, block in enumerate(self.layers)
            if kinds[layer] != "linear_attention"
            and hasattr(getattr(block, family.attention, None), family.out)
        ]
        self.n_heads = getattr(model.config, "num_attention_heads", 0)

    def logits(self, ids: Sequence[int]) -> Tensor:
        """[token, vocabulary]"""
        return self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]

    def weights(self, ids: Sequence[int]) -> dict[int, Tensor]:
        """Attention of each attending layer: [head, query, key]."""
        found = {}

        def keep(layer: int) -> Callable:
            return lambda module, args, output: found.update({layer: output[1][0]})

        with ExitStack() as hooks, torch.no_grad():
            for layer in self.attending:
                module = self._attention(layer)
                hooks.enter_context(module.register_forward_hook(keep(layer)))
            self.model(torch.tensor([list(ids)]), use_cache=False, output_attentions=True)
        return found

    def layers_with(self, component: str) -> list[int]:
        """The layers that have a component: "resid", "mlp_out", or one of attention."""
        if component == "resid":
            return list(range(len(self.layers)))
        if component == "mlp_out":
            # Where each layer has one mixer of several kinds, an MLP is one that projects down.
            needed = "down_proj" if self.family.mlp == self.family.attention else "forward"
            blocks = enumerate(getattr(block, self.family.mlp, None) for block in self.layers)
            return [i for i, module in blocks if hasattr(module, needed)]
        if component in ("q", "k", "v"):
            name = self.family.fused.get(component, (f"{component}_proj",))[0]
            return [i for i in self.attending if getattr(self._attention(i), name, None)]
        return self.attending

    def columns(self, component: str, head: int | None, whole: int) -> slice:
        """A head's columns in the `whole` that a component is part of; all of them for None."""
        if head is None:
            return slice(None)
        width = whole // (self.family.kv_heads if component in "kv" else self.n_heads)
        _, first, step, width = self.family.fused.get(component, ("", 0, width, width))
        return slice(first + head * step, first + head * step + width)

    def activations(
        self, ids: Sequence[int], component: str, graph: bool = False
    ) -> tuple[dict[int, Tensor], Tensor]:
        """A component of every layer that has it, {layer: [1, token, width]}, and the logits."""
        found = {}

        def keep(layer: int) -> Write:
            def write(tensor: Tensor) -> Tensor:
                if graph and not tensor.requires_grad:
                    tensor.requires_grad_()
                # A copy, since a family may go on adding to the tensor itself.
                found[layer] = tensor if graph else tensor.clone()
                return tensor

            return write

        with ExitStack() as hooks, torch.set_grad_enabled(graph):
            for layer in self.layers_with(component):
                hooks.enter_context(self._rewritten(layer, component, keep(layer)))
            logits = self.logits(ids)
        return found, logits.detach() if not graph else logits

    def attended(self, ids: Sequence[int], component: str) -> tuple[dict[int, Tensor], Tensor]:
        """Queries, keys or values as attention takes them, with a graph, and the logits.

        {layer: [1, head, token, width]}; the heads of keys and values are those that there are.
        """
        found, layers = {}, {self._attention(layer): layer for layer in self.attending}
        home = sys.modules[type(self._attention(self.attending[0])).__module__]
        attend = home.eager_attention_forward

        def keep(module: nn.Module, *given: Tensor, **named: object) -> tuple:
            node = given["qkv".index(component)]
            found[layers[module]] = node if node.requires_grad else node.requires_grad_()
            return attend(module, *given, **named)

        with mock.patch.object(home, "eager_attention_forward", keep), torch.enable_grad():
            return found, self.logits(ids)

    def patched(
        self,
        ids: Sequence[int],
        component: str,
        layer: int,
        position: int,
        value: Tensor,
        columns: slice = slice(None),
    ) -> Tensor:
        """Logits [token, vocabulary] with one row of a component replaced."""

        def write(tensor: Tensor) -> Tensor:
            tensor = tensor.clone()
            tensor[0, position, columns] = value
            return tensor

        with self._rewritten(layer, component, write), torch.no_grad():
            return self.logits(ids)

    def cut(
        self,
        ids: Sequence[int],
        layers: Sequence[int],
        queries: range,
        keys: range,
        heads: Sequence[int],
        kind: str = "renormalised",
    ) -> Tensor:
        """Logits [token, vocabulary] where heads of layers may not look from queries to keys.

        By the kind: -inf on the scores, or the weights behind the softmax set to zero or spread.
        """
        if kind != "renormalised":
            return self._redirected(ids, layers, queries, keys, heads, kind)
        n = len(ids)
        wall = torch.zeros(1, self.n_heads, n, n)
        for head in heads:
            wall[0, head, queries.start : queries.stop, keys.start : keys.stop] = -torch.inf

        def walled(argument: object) -> object:
            is_mask = isinstance(argument, Tensor) and argument.shape[-2:] == (n, n)
            return argument + wall if is_mask else argument

        def before(module: nn.Module, args: tuple, named: dict) -> tuple:
            return tuple(map(walled, args)), {k: walled(value) for k, value in named.items()}

        with ExitStack() as hooks, torch.no_grad():
            for layer in set(layers) & {*self.attending}:
                module = self._attention(layer)
                hooks.enter_context(module.register_forward_pre_hook(before, with_kwargs=True))
            return self.logits(ids)

    def _redirected(self, ids, layers, queries, keys, heads, kind) -> Tensor:
        """By the weights themselves, where the eager function multiplies them with the values."""
        n, product, inside, edited = len(ids), torch.matmul, [], set()

        def multiply(left: Tensor, right: Tensor) -> Tensor:
            if inside and left.shape == (1, self.n_heads, n, n) and right.shape[2] == n:
                left = left.clone()
                edited.add(inside[0])
                for head in heads:
                    for query in queries:
                        row = left[0, head, query]
                        seen = [key for key in keys if row[key] != 0]  # others are masked
                        weight = sum(row[key].item() for key in seen)
                        for key in seen:
                            row[key] = 0 if kind == "zeroed" else weight / len(seen)
            return product(left, right)

        with ExitStack() as hooks, torch.no_grad():
            hooks.enter_context(mock.patch.object(torch, "matmul", multiply))
            for layer in (chosen := set(layers) & {*self.attending}):
                module = self._attention(layer)
                enter = partial(lambda layer, *_: inside.append(layer), layer)
                hooks.enter_context(module.register_forward_pre_hook(enter))
                hooks.enter_context(module.register_forward_hook(lambda *_: inside.clear()))
            logits = self.logits(ids)
        assert edited == chosen, "the family does not multiply its weights by torch.matmul"
        return logits

    def written(self, ids: Sequence[int], n: int, logits: Callable | None = None) -> list[int]:
        """The most likely `n` tokens after `ids`, one by one, up to the end token."""
        ids, start = list(ids), len(ids)
        while len(ids) < start + n:
            with torch.no_grad():
                token = int((logits or self.logits)(ids)[-1].argmax())
            if token == self.model.config.eos_token_id:
                break
            ids.append(token)
        return ids[start:]

    def head_share(self, ids: Sequence[int], layer: int, head: int) -> float:
        """What a head adds to the logit of the last token, at the token before it.

        Less the vocabulary's mean, with the scale of the last norm held as it is.
        """
        ids, target = ids[:-1], ids[-1]
        results, _ = self.activations(ids, "z")
        out = getattr(self._attention(layer), self.family.out)
        matrix = out.weight.T if isinstance(out, Conv1D) else out.weight
        columns = self.columns("z", head, matrix.shape[1])
        given = matrix[:, columns] @ results[layer][0, -1, columns]
        norm, seen = self.model.get_submodule(self.family.norm), {}

        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            seen.update(before=args[0][0, -1], after=output[0, -1])

        with norm.register_forward_hook(keep), torch.no_grad():
            self.logits(ids)
        unembedding = self.model.get_output_embeddings().weight
        if "LayerNorm" in type(norm).__name__:
            given, seen["before"] = (row - row.mean() for row in (given, seen["before"]))
        shift = getattr(norm, "bias", None)
        gain = (seen["after"] - (0 if shift is None else shift)) / seen["before"]
        return float((unembedding[target] - unembedding.mean(0)) @ (gain * given))

    @contextmanager
    def _rewritten(self, layer: int, component: str, write: Write) -> Iterator[None]:
        """Within, `write` is done to a component whenever the model runs."""
        module, goes_in = self._place(layer, component)

        def before(module: nn.Module, args: tuple, named: dict) -> tuple:
            if args:
                return (write(args[0]), *args[1:]), named
            return args, {**named, "hidden_states": write(named["hidden_states"])}

        def after(module: nn.Module, args: tuple, output: Tensor | tuple) -> Tensor | tuple:
            if isinstance(output, tuple):
                return (after(module, args, output[0]), *output[1:])
            if output.ndim == 3:
                return write(output)
            return write(output.reshape(1, -1, output.shape[-1])).reshape(output.shape)

        if goes_in:
            hook = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            hook = module.register_forward_hook(after)
        with hook:
            yield

    def _place(self, layer: int, component: str) -> tuple[nn.Module, bool]:
        """The module that a component goes into (True) or comes out of."""
        block = self.layers[layer]
        if component == "resid":
            return block, True
        if component == "mlp_out":
            return getattr(block, self.family.mlp), False
        attention = self._attention(layer)
        if component == "attn_out":
            return attention, False
        if component == "z":
            return getattr(attention, self.family.out), True
        name = self.family.fused.get(component, (f"{component}_proj",))[0]
        return getattr(attention, name), False

    def _attention(self, layer: int) -> nn.Module:
        return getattr(self.layers[layer], self.family.attention)
