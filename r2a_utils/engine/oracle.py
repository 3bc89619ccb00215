"""May this model be read and replayed the fast way? Asked once, answered by its own forward.

The fast engine takes the recorded keys of a prefix and forms attention itself; that is right where
attention is softmax(scaled q·k) over all that came before and nothing else carries news from token
to token. A short sequence shows whether it is: runs of several kinds, packed together, against the
plain engine. Masses read by marks are held against the weights that the family's eager attention
forms. Each takes some milliseconds, once for each model.

A verdict is kept with the model (`ReasoningModel.verdicts`), and by a run for its later stages:
what was compared, the largest error, the tolerance, the fault if there is one, and the engine that
follows from it. It holds for the code, the versions and the kernel that it names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nnsight
import torch
import transformers
from jaxtyping import Float
from torch import Tensor

from r2a_utils.engine.patches import (
    COMPONENTS,
    ActivationCache,
    EdgeCut,
    Patch,
    PatchedRun,
)
from r2a_utils.engine.plain import cache_plainly, replay_plainly
from r2a_utils.models.hooks import eager, read_marks, read_weights
from r2a_utils.models.places import architecture
from r2a_utils.models.reasoning_model import ReasoningModel

FastWay = Callable[
    [ReasoningModel, Sequence[int], Sequence[str], Sequence[int], Sequence[PatchedRun]],
    tuple[ActivationCache, Tensor],
]
"""(model, token ids, components, read, runs) → a cache and the runs' logits [run, read, vocab]."""

FormRows = Callable[[ReasoningModel, Tensor], list[Tensor]]
"""(model, token ids [1, token]) → for each layer that attends its weights [head, row, token]."""

TOKENS = 12

Finding = tuple[str, float | None]
"""The fault, empty where there is none, and the largest error, where it came to numbers."""

COMPARED = {
    "replay": "replayed activations and logits with those of whole forward passes",
    "marks": "masses read by marks with sums of eager weights",
    "rows": "rows formed from queries and keys with eager weights",
    "sink": "sums of rows of eager weights with 1",
}

STOPS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError)
"""How a module stops that is called in a way it was not written for."""


def replay_fault(model: ReasoningModel, fast: FastWay) -> str:
    """Why the fast engine is wrong for a model; empty where it is right."""
    return _asked_once(model, "replay", lambda here: _replay_fault(here, fast))


def marks_fault(model: ReasoningModel) -> str:
    """Why masses read by marks are wrong for a model; empty where they are right.

    Raises RuntimeError where the model attends in another way than its family's eager function.
    """
    return _asked_once(model, "marks", _marks_fault)


def rows_fault(model: ReasoningModel, form: FormRows) -> str:
    """Why rows of attention may not be formed from queries and keys; empty where they may.

    Raises RuntimeError where the model attends in another way than its family's eager function.
    """
    return _asked_once(model, "rows", lambda here: _rows_fault(here, form))


def has_learned_sink(model: ReasoningModel) -> bool:
    """Whether heads leave part of their attention to no token: their weights sum to less than 1."""
    return bool(_asked_once(model, "sink", _sink))


@cache
def _code() -> str:
    """A digest of what a verdict rests on besides the model: this code and its libraries."""
    rooms = Path(__file__).parents[1]
    files = [path for room in ("engine", "models") for path in sorted((rooms / room).glob("*.py"))]
    files.append(rooms / "attention" / "weights.py")  # forms the rows
    versions = [library.__version__ for library in (nnsight, torch, transformers)]
    digest = hashlib.sha256(" ".join(versions).encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def window(model: ReasoningModel) -> int | None:
    """The longest text of which every layer sees all that came before; None: any."""
    places = architecture(model)
    return min((width for width in places.windows + places.chunks if width), default=None)


def _asked_once(model: ReasoningModel, what: str, ask: Callable[[ReasoningModel], Finding]) -> str:
    """The fault that `ask` finds, in what of the model may be watched in this process."""
    model = model.here
    by = {"code": _code(), "kernel": model.hf.config._attn_implementation}
    known: dict[str, Any] = model.verdicts.get(what, {})
    if {name: known.get(name) for name in by} != by:
        fault, error = ask(model)
        known = {
            "compared": COMPARED[what],
            "error": error,
            "tolerance": _tolerance(model),
            "fault": fault,
            **by,
        }
        if what != "sink":  # decides on no engine
            known["engine"] = "plain" if fault else "fast"
        model.verdicts[what] = known
    return known["fault"]


def _some_ids(model: ReasoningModel, n: int) -> list[int]:
    return [(7 * i + 1) % model.vocab_size for i in range(n)]


def _replay_fault(model: ReasoningModel, fast: FastWay) -> Finding:
    places = architecture(model)
    if len(places.attending) < model.n_layers:
        return f"it attends in {len(places.attending)} of {model.n_layers} layers", None
    n = min(TOKENS, window(model) or TOKENS)
    names = [name for name in COMPONENTS if name not in places.unread]
    ids, read = _some_ids(model, n), (n - 2, n - 1)
    cache = cache_plainly(model, ids, names, read)
    runs = _runs(model, cache)
    plain = replay_plainly(model, cache, runs, lambda logits: logits)
    try:
        found, logits = fast(model, ids, names, read, runs)
    except torch.OutOfMemoryError:
        raise
    except STOPS as error:  # the plain engine does without it
        return f"it stops with: {_said(error)}", None
    largest = 0.0
    for name in names:
        pairs = zip(found.activations[name], cache.activations[name], strict=True)
        errors = [_error(*pair) for pair in pairs]
        if not all(error <= _tolerance(model) for error in errors):
            return f"it records another {name}", _number(max(errors))
        largest = max(largest, *errors)
    for name in ("keys", "values"):
        theirs, own = getattr(found, name), getattr(cache, name)
        shapes = [[tensor.shape for tensor in tensors] for tensors in (theirs, own)]
        if shapes[0] != shapes[1]:
            return f"it keeps its {name} in another form", None
    error = _error(logits, plain)
    if not error <= _tolerance(model):
        return f"replayed logits are off by {error:.2g} of their size", _number(error)
    return _other_mixer(model, cache), max(largest, error)


def _check_kernel(model: ReasoningModel) -> None:
    """Raise RuntimeError where weights formed by the eager function are not the running model's."""
    ids = torch.tensor([_some_ids(model, TOKENS)], device=model.device)
    with torch.no_grad():
        own = model.hf(ids, use_cache=False).logits
        with eager(model):
            error = _error(own, model.hf(ids, use_cache=False).logits)
    if not error <= _tolerance(model):
        kernel = model.hf.config._attn_implementation
        raise RuntimeError(
            f"{model.name} ({type(model.hf).__name__}): its attention by {kernel!r} is not that of "
            f"its family's eager function (logits off by {error:.2g} of their size), so that none "
            "can say where it looks; load it again with load_model, or take another model"
        )


def _marks_fault(model: ReasoningModel) -> Finding:
    _check_kernel(model)
    ids = torch.tensor([_some_ids(model, TOKENS)], device=model.device)
    marks = torch.zeros(1, TOKENS, 3, device=model.device)
    marks[0, range(TOKENS), [i % 3 for i in range(TOKENS)]] = 1.0
    formed = read_weights(model, ids, lambda _, weights: weights.float() @ marks[:, None])
    try:
        marked = read_marks(model, ids, marks, lambda marked: marked.float())
    except torch.OutOfMemoryError:
        raise
    except STOPS as error:  # weights are formed plainly then
        return f"marks stop with: {_said(error)}", None
    layers = architecture(model).attending
    error = max(float((marked[i] - formed[i]).abs().max()) for i in layers)
    if not error <= _tolerance(model):
        return f"masses read by marks are off by {error:.2g}", _number(error)
    return "", error


def _rows_fault(model: ReasoningModel, form: FormRows) -> Finding:
    _check_kernel(model)
    if architecture(model).asks:
        return f"its attention asks for {', '.join(architecture(model).asks)}", None
    ids = torch.tensor([_some_ids(model, TOKENS)], device=model.device)
    own = [w for w in read_weights(model, ids, lambda _, weights: weights[0]) if w is not None]
    try:
        formed = form(model, ids)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # they miss what the model's own attention made of them
        return str(error), None
    error = max(float((a - b).abs().max()) for a, b in zip(formed, own, strict=True))
    fault = "" if error <= _tolerance(model) else f"rows of attention are off by {error:.2g}"
    return fault, _number(error)


def _sink(model: ReasoningModel) -> Finding:
    ids = torch.tensor([_some_ids(model, TOKENS)], device=model.device)
    sums = read_weights(model, ids, lambda _, weights: weights.float().sum(-1).min())
    least = min(float(sums[layer]) for layer in architecture(model).attending)
    fault = "" if least >= 1 - _tolerance(model) else f"a row of weights sums to {least:.2g}"
    return fault, _number(1 - least)


def _tolerance(model: ReasoningModel) -> float:
    return torch.finfo(model.dtype).eps ** 0.5  # half of the digits that it keeps


def _said(error: Exception) -> str:
    """The last line of an error, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _number(error: float) -> float | None:
    """None in the place of what a record cannot hold."""
    return float(error) if math.isfinite(error) else None


def _error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    if got.shape != expected.shape:
        return torch.inf
    return float((got - expected).abs().max() / expected.abs().max())


def _runs(model: ReasoningModel, cache: ActivationCache) -> list[PatchedRun]:
    """Runs of several kinds: early, late, ablated, cut, and one that changes nothing."""
    n, last, resid = len(cache.token_ids), model.n_layers - 1, cache.activations["resid"]
    middle, heads = last // 2, tuple(range(0, model.n_heads, 2))
    return [
        PatchedRun((Patch("resid", 0, 1, resid[0][n - 1, None]),)),
        PatchedRun((Patch("resid", last, n // 2, resid[last][1, None]),)),
        PatchedRun((Patch("resid", last, n - 2, resid[last][n - 2, None]),)),
        PatchedRun((Patch("z", middle, n // 2, cache.activations["z"][middle][:1]),)),
        PatchedRun(cuts=(EdgeCut(middle, range(n // 2, n), range(0, 2), heads),)),
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
