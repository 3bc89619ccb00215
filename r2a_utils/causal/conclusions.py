"""Conclusions: what the answer loses when the tokens that state it are as in another trace.

The two traces need not be aligned, as contrast pairs must (`pairs.py`): only the state of a token
that concludes goes over, before the same layer. This file knows where a reasoning's last line names
an answer; it knows nothing of what the answer is made from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import replay, run_with_cache, run_with_graph
from r2a_utils.engine.patches import Patch, PatchedRun
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.trace import Trace, answer_span, encode


def conclusion_of(trace: Trace, answer: str) -> list[int]:
    """Positions in the reasoning's last line whose token is `answer`, in order. Stage 06b."""
    reasoning = trace.segments["reasoning"]
    stop = reasoning.stop
    while stop > reasoning.start and not trace.tokens[stop - 1].strip():
        stop -= 1
    breaks = (p for p in range(reasoning.start, stop - 1) if "\n" in trace.tokens[p])
    start = max(breaks, default=reasoning.start - 1) + 1
    return [p for p in range(start, stop) if trace.tokens[p].strip() == answer]


def conclusion_states(
    model: ReasoningModel, trace: Trace, answer: str
) -> list[Float[Tensor, " width"]]:
    """The residual stream before each layer, at the last token that states the trace's conclusion.

    Raises ValueError where the reasoning's last line does not name the answer. Stage 06b.
    """
    at = _stated(trace, answer)[-1]
    cache = run_with_cache(model, trace.token_ids[: at + 1], ("resid",))
    return [layer[at] for layer in cache.activations["resid"]]


def exchanged_conclusions(
    model: ReasoningModel,
    trace: Trace,
    answer: str,
    donors: Sequence[Sequence[Float[Tensor, " width"]]],
    layer: int,
) -> list[float]:
    """Probability that the answer loses with each donor's state at what concludes, before `layer`.

    A donor is what `conclusion_states` gives of it. Before layer 0 a state is the embedding of its
    token, so that all donors with one conclusion are the same there; deeper, a state holds what its
    text has told the token. Activation patching, Zhang & Nanda 2023 (arXiv:2309.16042), of the
    tokens that state `answer` in the last line. Raises ValueError as `conclusion_states`. 06b.
    """
    span = answer_span(trace)
    written = (tuple(trace.token_ids[span]),)
    read = range(span.start - 1, span.stop - 1)
    cache = run_with_cache(model, trace.token_ids[: span.stop - 1], read=read)
    places = _stated(trace, answer)
    runs = [
        PatchedRun(tuple(Patch("resid", layer, place, states[layer][None]) for place in places))
        for states in donors
    ]
    after = replay(model, cache, runs, lambda logits: answer_scores(logits, written))
    before = answer_scores(cache.logits[None], written)[0, 0, 0]
    return [float(before.exp() - score.exp()) for score in after[:, 0, 0]]


def attributed_conclusion(
    model: ReasoningModel,
    trace: Trace,
    answer: str,
    states: Sequence[Float[Tensor, " width"]],
    other: str,
) -> float:
    """The same exchange by a gradient: nats by which the answer loses to the answer `other`.

    `states` are those of `conclusion_states`. To first order, and the largest of all layers, since
    before layer 0 a gradient says least. Of the logit difference, as the log-probability of an
    answer that is certain has no gradient. Attribution patching, Nanda 2023, Syed et al. 2023
    (arXiv:2310.10348). Raises ValueError as `conclusion_states`. Stage 06b.
    """
    places, start = _stated(trace, answer), answer_span(trace).start
    with torch.enable_grad():
        graph = run_with_graph(model, trace.token_ids[:start])
        first, against = trace.token_ids[start], encode(model.tokenizer, other)[0]
        score = graph.logits[start - 1, first] - graph.logits[start - 1, against]
        gradients = torch.autograd.grad(score, graph.nodes["resid"], allow_unused=True)
    lost = [
        -float(((state - node.detach()[0, places]) * gradient[0, places]).sum())
        for node, gradient, state in zip(graph.nodes["resid"], gradients, states, strict=False)
    ]
    return max(lost)


def _stated(trace: Trace, answer: str) -> list[int]:
    places = conclusion_of(trace, answer)
    if not places:
        raise ValueError(
            f"trace {trace.problem_id!r}: the last line of its reasoning does not name {answer!r}"
        )
    return places
