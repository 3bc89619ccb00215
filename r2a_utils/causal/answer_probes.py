"""The linear probe: can the answer be read off a state at the end of the reasoning?

A linear map from the residual stream to the answer's first token, learnt on some texts and asked of
others: ridge regression on the answers as classes. What it finds is there to be read; whether the
answer is made from it, a probe does not know. Probes of the final answer before and along a chain
of thought: Cox et al. 2026 (arXiv:2603.01437), Boppana et al. 2026 (arXiv:2603.05488).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace, answer_span, sentences

RIDGE = 0.1
"""Penalty for each feature, of unit variance."""


def probed_answers(
    model: ReasoningModel, taught: Sequence[Trace], asked: Sequence[Trace]
) -> list[bool]:
    """Whether a probe learnt on the traces `taught` names the answer of each trace `asked`.

    The state is that of the last token of the reasoning's last sentence. The layer is the one at
    which the probe is right most often of the taught traces, each left out of its own probe. Raises
    ValueError where fewer than two answers are taught, and for a trace without a box. Stage 06b.
    """
    answers = np.array([_answer(trace) for trace in taught])
    if len(set(answers.tolist())) < 2:
        raise ValueError("a probe has nothing to tell apart: teach it two different answers")
    states = _end_states(model, taught)
    right = [(left_out(layer, answers) == answers).mean() for layer in states]
    best = int(np.argmax(right))
    named = probe(states[best], answers, _end_states(model, asked)[best])
    return [bool(name == _answer(trace)) for name, trace in zip(named, asked, strict=True)]


def probe(
    states: Float[np.ndarray, "taught width"],
    answers: Int[np.ndarray, " taught"],
    asked: Float[np.ndarray, "asked width"],
) -> Int[np.ndarray, " asked"]:
    """The answer that a ridge regression, learnt on `states` and their answers, gives to others."""
    classes, targets, (known, new) = _prepared(answers, states, asked)
    kernel = known @ known.T
    weights = np.linalg.solve(kernel + RIDGE * states.shape[1] * np.eye(len(known)), targets)
    return classes[(new @ known.T @ weights).argmax(1)]


def left_out(
    states: Float[np.ndarray, "taught width"], answers: Int[np.ndarray, " taught"]
) -> Int[np.ndarray, " taught"]:
    """What the regression gives to each state that was left out, by the closed form for ridge.

    The means and the scale of the features are those of all states.
    """
    classes, targets, (known,) = _prepared(answers, states)
    kernel = known @ known.T
    penalty = RIDGE * states.shape[1] * np.eye(len(known))
    hat = np.linalg.solve(kernel + penalty, kernel)
    own = np.diag(hat)[:, None]
    return classes[((hat @ targets - own * targets) / (1 - own)).argmax(1)]


def _prepared(
    answers: Int[np.ndarray, " taught"], *states: Float[np.ndarray, "_ width"]
) -> tuple[Int[np.ndarray, " class"], Float[np.ndarray, "taught class"], list[np.ndarray]]:
    """Classes, centred targets, and states in units of the first ones' spread."""
    classes = np.unique(answers)
    targets = (answers[:, None] == classes).astype(float)
    centre, spread = states[0].mean(0), states[0].std(0)
    scaled = [(each - centre) / np.where(spread > 0, spread, 1) for each in states]
    return classes, targets - targets.mean(0), scaled


def _end_states(
    model: ReasoningModel, traces: Sequence[Trace]
) -> Float[np.ndarray, "layer trace width"]:
    """The residual stream before each layer, and before the final norm, where a reasoning ends."""
    states: list[list[np.ndarray]] = []
    for trace in traces:
        at = sentences(trace)[-1].stop - 1
        cache = run_with_cache(model, trace.token_ids[: at + 1])
        states.append([layer[at].float().cpu().numpy() for layer in cache.activations["resid"]])
    return np.array(states, dtype=float).swapaxes(0, 1)


def _answer(trace: Trace) -> int:
    return trace.token_ids[answer_span(trace).start]
