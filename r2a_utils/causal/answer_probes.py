"""The linear probe: can the answer be read off a state at the end of the reasoning?

A linear map from the residual stream to the answer's first token, learnt on some texts and asked of
others: scikit-learn's ridge classifier on standardised states. What it finds is there to be read;
whether the answer is made from it, a probe does not know. Probes of the final answer before and
along a chain of thought: Cox et al. 2026 (arXiv:2603.01437), Boppana et al. 2026
(arXiv:2603.05488).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from r2a_utils.engine.forward import run_with_cache
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace, answer_span, sentences

RIDGE = 0.1
"""Penalty for each feature, of unit variance."""
FOLDS = 3
"""Of the problems that a probe learns on, to choose its layer."""


def probed_answers(
    model: ReasoningModel, taught: Sequence[Trace], asked: Sequence[Trace]
) -> list[bool]:
    """Whether a probe learnt on the traces `taught` names the answer of each trace `asked`.

    The state is that of the last token of the reasoning's last sentence, before the `best_layer`.
    Raises ValueError where fewer than two answers are taught, and for a trace without a box. Stage
    06b.
    """
    answers = np.array([_answer(trace) for trace in taught])
    if len(set(answers.tolist())) < 2:
        raise ValueError("a probe has nothing to tell apart: teach it two different answers")
    states = _end_states(model, taught)
    best = best_layer(states, answers, [trace.problem_id for trace in taught])
    named = probe(states[best], answers, _end_states(model, asked)[best])
    return [bool(name == _answer(trace)) for name, trace in zip(named, asked, strict=True)]


def probe(
    states: Float[np.ndarray, "taught width"],
    answers: Int[np.ndarray, " taught"],
    asked: Float[np.ndarray, "asked width"],
) -> Int[np.ndarray, " asked"]:
    """The answer that a probe, learnt on `states` and their answers, gives to others."""
    return _linear(states.shape[1]).fit(states, answers).predict(asked)


def best_layer(
    states: Float[np.ndarray, "layer taught width"],
    answers: Int[np.ndarray, " taught"],
    problems: Sequence[str],
    seed: int = 0,
) -> int:
    """The layer whose probe is right most often of problems that it was not taught."""
    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    linear = _linear(states.shape[2])
    right = [
        cross_val_score(linear, layer, answers, groups=problems, cv=folds).mean()
        for layer in states
    ]
    return int(np.argmax(right))


def _linear(width: int):
    return make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE * width))


def _end_states(
    model: ReasoningModel, traces: Sequence[Trace]
) -> Float[np.ndarray, "layer trace width"]:
    """The residual stream before each layer, and before the final norm, where a reasoning ends."""
    states: list[list[np.ndarray]] = []
    for trace in traces:
        at = sentences(trace)[-1].stop - 1
        cache = run_with_cache(model, trace.token_ids[: at + 1], ("resid",))
        states.append([layer[at].float().cpu().numpy() for layer in cache.activations["resid"]])
    return np.array(states, dtype=float).swapaxes(0, 1)


def _answer(trace: Trace) -> int:
    return trace.token_ids[answer_span(trace).start]
