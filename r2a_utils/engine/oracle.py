"""May this model be replayed? Asked of each model once, and answered by its own forward.

The fast engine takes the recorded keys of a prefix and forms attention itself; that is right where
attention is softmax(scaled q·k) over all that came before and nothing else carries news from token
to token. A short sequence shows whether it is: runs of several kinds, packed together, against the
plain engine. It takes some milliseconds, once for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from r2a_utils.engine.patches import ActivationCache, EdgeCut, Patch, PatchedRun
from r2a_utils.engine.plain import cache_plainly, replay_plainly
from r2a_utils.models.hooks import UnlikeAttentionError, layer_windows
from r2a_utils.models.reasoning_model import ReasoningModel

Replay = Callable[[ReasoningModel, ActivationCache, Sequence[PatchedRun]], Tensor]

TOKENS = 12

_FAULTS: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


def replay_fault(model: ReasoningModel, replay: Replay) -> str:
    """Why the fast engine is wrong for a model; empty where it is right.

    `replay(model, cache, runs)` is the fast way to the logits [run, read, vocabulary].
    """
    if model.hf not in _FAULTS:
        _FAULTS[model.hf] = _fault(model, replay)
    return _FAULTS[model.hf]


def window(model: ReasoningModel) -> int | None:
    """How many tokens the narrowest layer looks back at, itself included; None: at all."""
    return min((width for width in layer_windows(model) if width), default=None)


def _fault(model: ReasoningModel, replay: Replay) -> str:
    n = min(TOKENS, window(model) or TOKENS)
    ids = [(7 * i + 1) % model.vocab_size for i in range(n)]
    cache = cache_plainly(model, ids, ("z",), read=(n - 2, n - 1))
    runs = _runs(model, cache)
    plain = replay_plainly(model, cache, runs, lambda logits: logits)
    try:
        fast = replay(model, cache, runs)
    except UnlikeAttentionError as error:
        return str(error)
    error = (fast - plain).abs().max() / plain.abs().max()
    if not error <= torch.finfo(model.dtype).eps ** 0.5:  # half of the digits that it keeps
        return f"replayed logits are off by {float(error):.2g} of their size"
    return _other_mixer(model, cache)


def _runs(model: ReasoningModel, cache: ActivationCache) -> list[PatchedRun]:
    """Runs of several kinds: early, late, ablated, cut, and one that changes nothing."""
    n, last, resid = len(cache.token_ids), model.n_layers - 1, cache.activations["resid"]
    heads = tuple(range(0, model.n_heads, 2))
    return [
        PatchedRun((Patch("resid", 0, 1, resid[0][n - 1, None]),)),
        PatchedRun((Patch("resid", last, n // 2, resid[last][1, None]),)),
        PatchedRun((Patch("resid", last, n - 2, resid[last][n - 2, None]),)),
        PatchedRun((Patch("z", last // 2, n // 2, cache.activations["z"][0][:1].clone()),)),
        PatchedRun(cuts=(EdgeCut(last // 2, range(n // 2, n), range(0, 2), heads),)),
    ]


def _other_mixer(model: ReasoningModel, cache: ActivationCache) -> str:
    """Why attention is not all that carries news: a token that nobody may look at is still felt."""
    n, resid = len(cache.token_ids), cache.activations["resid"][0]
    layers = range(model.n_layers)
    deaf = tuple(EdgeCut(layer, range(2, n), range(0, 2)) for layer in layers)
    other = Patch("resid", 0, 1, resid[n - 1, None])
    runs = [PatchedRun(cuts=deaf), PatchedRun((other,), deaf)]
    without, patched = replay_plainly(model, cache, runs, lambda logits: logits)
    moved: Float[Tensor, ""] = (patched - without).abs().max() / without.abs().max()
    if moved <= torch.finfo(model.dtype).eps ** 0.5:  # experts add in another order
        return ""
    return "its layers carry news from token to token by more than attention"
