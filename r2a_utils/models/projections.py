"""Which columns of which projection make each head's query, key and value.

Found by gradients, for fused and interleaved projections as for separate ones; what several heads
share, or several projections make together, is told in words.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from r2a_utils.models.reasoning_model import ReasoningModel
from r2a_utils.models.watching import Watched, has_matrix, some_tokens, watching


def find_projections(
    model: ReasoningModel, attention: list[nn.Module | None], seen: Watched
) -> tuple[list[dict[str, tuple[nn.Module, Tensor | None]]], dict[str, str]]:
    """For each layer the projection and the columns of "q", "k" and "v"; what is wrong with them.

    Layers whose attention is built alike share what is found in the first of them.
    """
    alike: dict[tuple, dict[str, tuple[str, Tensor | None]]] = {}
    problems: dict[str, str] = {}
    found = []
    for module in attention:
        if module is None:
            found.append({})
            continue
        before = set(seen.ended[: seen.called_at[module]])
        inner = {
            name: m
            for name, m in module.named_modules()
            if m in before and not [*m.children()] and has_matrix(m)
        }
        sizes = tuple((name, seen.outputs[m].shape[-1]) for name, m in inner.items())
        kind = (type(module), *(tensor.shape for tensor in seen.calls[module][:3]), sizes)
        if kind not in alike:
            columns = _columns(model, module, inner)
            alike[kind] = {}
            for name, of_heads in columns.items():
                laid = _laid_out(of_heads, columns)
                if isinstance(laid, str):
                    problems.setdefault(name, laid)
                elif laid is not None:
                    where, chosen = laid
                    whole = torch.equal(chosen, torch.arange(dict(sizes)[where]))
                    alike[kind][name] = where, None if whole else chosen
        found.append(
            {name: (inner[where], columns) for name, (where, columns) in alike[kind].items()}
        )
    return found, problems


Columns = list[dict[str, list[int]]]
"""For each head, the columns of each projection that its vector is made of."""


def _columns(
    model: ReasoningModel, attention: nn.Module, inner: dict[str, nn.Module]
) -> dict[str, Columns]:
    """By gradients at projections of zero, where norms over several heads do not couple them."""
    leaves: dict[str, Tensor] = {}

    def cut(name: str):
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            leaves[name] = torch.zeros_like(output).requires_grad_()
            return leaves[name]

        return hook

    handles = [module.register_forward_hook(cut(name)) for name, module in inner.items()]
    try:
        with torch.enable_grad(), watching(model.hf) as seen:
            model.hf(some_tokens(model), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Columns] = {}
    generator = torch.Generator().manual_seed(0)
    for name, tensor in zip("qkv", seen.calls[attention][:3], strict=True):
        found[name] = []
        weights = torch.rand(tensor.shape[-1], generator=generator) + 0.5
        for head in range(tensor.shape[1]):
            summed = (tensor[0, head, -1] * weights.to(tensor)).sum()
            gradients = [None] * len(leaves)
            if summed.requires_grad:
                gradients = torch.autograd.grad(
                    summed, [*leaves.values()], retain_graph=True, allow_unused=True
                )
            found[name].append(
                {
                    where: gradient.flatten(0, -2)[-1].nonzero().flatten().tolist()
                    for where, gradient in zip(leaves, gradients, strict=True)
                    if gradient is not None and gradient.any()
                }
            )
    return found


def _laid_out(of_heads: Columns, every: dict[str, Columns]) -> tuple[str, Tensor] | str | None:
    """The projection and its columns, head by head; None where there is none, words for a fault."""
    if not any(of_heads):
        return None
    used = Counter(
        (where, column)
        for heads in every.values()
        for head in heads
        for where, columns in head.items()
        for column in columns
    )
    sources = {where for head in of_heads for where in head}
    if len(sources) != 1 or not all(of_heads):
        return f"it is made of several projections ({', '.join(sorted(sources))})"
    where = sources.pop()
    if any(used[where, column] > 1 for head in of_heads for column in head[where]):
        return f"single columns of {where} are read by more than one of its heads"
    if len({len(head[where]) for head in of_heads}) != 1:
        return f"its heads take unequal parts of {where}"
    return where, torch.tensor([column for head in of_heads for column in head[where]])
