"""A forward pass over a few tokens, watched: what ran in which order, and what called attention.

Plain torch hooks, and an attention function of our own in the place of the model's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from r2a_utils.models.reasoning_model import ReasoningModel

TOKENS = 3

# What a model may tell its attention beside the scale, without changing what attention is.
_HARMLESS = {
    "is_causal",
    "sliding_window",
    "position_ids",
    "position_embeddings",
    "use_cache",
    "scaling",
    "dropout",
}


def asked(options: dict) -> list[str]:
    """The options of an attention call that ask for more than a softmax over scaled products."""
    return [
        name
        for name, value in options.items()
        if name not in _HARMLESS and (isinstance(value, Tensor) or value not in (None, False, 0))
    ]


def some_tokens(model: ReasoningModel) -> Tensor:
    return torch.arange(1, TOKENS + 1, device=model.device)[None] % model.vocab_size


def has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


@dataclass(eq=False)
class Watched:
    """What happened in a forward pass: each module as it ended, and each call of attention."""

    ended: list[nn.Module] = field(default_factory=list)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    calls: dict[nn.Module, tuple[Tensor, Tensor, Tensor, dict]] = field(default_factory=dict)
    called_at: dict[nn.Module, int] = field(default_factory=dict)
    again: bool = False

    def attend(self, module, query, key, value, attention_mask=None, **options):
        """In place of attention: keep what it was given, and let every head read nothing."""
        self.again |= module in self.calls
        self.calls[module] = (query, key, value, options)
        self.called_at[module] = len(self.ended)
        shape = (query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
        return query.new_zeros(shape), None

    def keep(self, module: nn.Module, args: tuple, named: dict, output) -> None:
        self.ended.append(module)
        given = next((x for x in (*args, *named.values()) if isinstance(x, Tensor)), None)
        output = output[0] if isinstance(output, tuple) and output else output
        self.outputs[module], self.inputs[module] = output, given


@contextmanager
def watching(hf: nn.Module) -> Iterator[Watched]:
    """Within, what the model does is kept, and its attention reads nothing."""
    seen, before = Watched(), hf.config._attn_implementation
    AttentionInterface.register("r2a_watch", seen.attend)
    handles = [m.register_forward_hook(seen.keep, with_kwargs=True) for m in hf.modules()]
    hf.set_attn_implementation("r2a_watch")
    try:
        yield seen
    finally:
        hf.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
