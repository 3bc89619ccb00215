"""Readings: one number a trace from each instrument.

Every reading is made with what the rooms before this one have, in their default way, and is turned
so that a larger number would mean a larger part of the reasoning in the answer. What is done to the
model or to the text is read as the answer's probability that is lost, or as whether the answer
changes, so that both have the unit of the truth: the share of answers made from the reasoning.
This file knows no truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr

from r2a_utils.answers.early_answering import FRACTIONS, area_over_curve, early_answers
from r2a_utils.answers.equality import same_answer
from r2a_utils.answers.text_tests import (
    ANSWER_TOKENS,
    EditedThought,
    Thought,
    ask_edited,
    edited,
)
from r2a_utils.attention.heads import (
    answer_mass,
    head_pairs,
    rank_heads,
    sink_free_mass,
    uniform_mass,
)
from r2a_utils.attention.mass import segment_mass
from r2a_utils.causal.interventions import Ablation, Knockout, measure
from r2a_utils.causal.pairs import under_protocol
from r2a_utils.causal.sentences import answer_lens
from r2a_utils.collecting.generation import Sampling
from r2a_utils.engine.answer_logprobs import answer_scores
from r2a_utils.engine.forward import replay, run_with_cache, run_with_graph
from r2a_utils.engine.patches import Patch, PatchedRun
from r2a_utils.instruments.cases import Case, conclusion_of
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.trace import Trace, answer_span, encode, sentences

Values = dict[str, list[float]]
"""A reading a case, by the instrument's name."""

PARTNERS = "partner's thought"
TEXT_EDITS = ("shuffled", "conclusion removed", "last half", "dots", "empty")


@dataclass(frozen=True)
class Instrument:
    """What is known of an instrument before anything is read.

    `kind` is what it works on; `share` whether its readings have the unit of the dose; `passes`
    what a trace costs in passes over it (a backward pass counts as two), "n" for the number of its
    sentences; `needs_pair` whether it needs a trace that concludes otherwise.
    """

    kind: str
    share: bool
    passes: str
    needs_pair: bool = False


INSTRUMENTS: dict[str, Instrument] = {
    "answer mass": Instrument("attention", False, "1"),
    "lift": Instrument("attention", False, "1"),
    "sink-free mass": Instrument("attention", False, "1"),
    "mass of the RFHs": Instrument("attention", False, "1"),
    "logit lens": Instrument("reading states", True, "1"),
    "knockout": Instrument("knockout", True, "2"),
    "knockout of the RFHs": Instrument("knockout", True, "2"),
    "ablation of the RFHs": Instrument("knockout", True, "2"),
    "dearest sentence": Instrument("knockout", True, "1 + n"),
    "patching, own": Instrument("patching", True, "3", needs_pair=True),
    "patching, probe": Instrument("patching", True, "3", needs_pair=True),
    "attribution": Instrument("patching", False, "4", needs_pair=True),
    "early answering": Instrument("text", True, str(len(FRACTIONS))),
    **{edit: Instrument("text", True, "2") for edit in TEXT_EDITS},
    PARTNERS: Instrument("text", True, "2", needs_pair=True),
}
"""All instruments, in the order in which they are shown."""


def read_instruments(model: ReasoningModel, cases: Sequence[Case], k: int = 10) -> pd.DataFrame:
    """Every instrument's reading of every case; one row each.

    Columns: instrument, problem_id, uses (as the cases have it) and value, missing where the case
    lacks what the instrument needs. The `k` Reasoning-Focus Heads are ranked on these traces, as a
    user would. Raises ValueError without a case. Stage 06b.
    """
    if not cases:
        raise ValueError("no cases: ask more problems, or take a model that finishes its traces")
    parts: tuple[Callable[[], Values], ...] = (
        lambda: _attention(mass, rfhs),
        lambda: _cuts(model, cases, rfhs),
        lambda: {"logit lens": [_lens(model, case.trace) for case in cases]},
        lambda: _patches(model, cases),
        lambda: _texts(model, cases),
    )
    traces = [case.trace for case in cases]
    mass = segment_mass(model, traces)
    rfhs = tuple(head_pairs(rank_heads(mass, k, resamples=2)))
    values = {name: found for part in parts for name, found in part().items()}
    known = [{"problem_id": case.problem.id, "uses": case.uses} for case in cases]
    rows = [
        {"instrument": name, **case, "value": value}
        for name in INSTRUMENTS
        for case, value in zip(known, values[name], strict=True)
    ]
    return pd.DataFrame(rows).astype({"value": float, "uses": "boolean"})


def _attention(mass: xr.DataArray, rfhs: Sequence[tuple[int, int]]) -> Values:
    """Means over heads of what the answer's attention gives to the reasoning."""
    to_reasoning = answer_mass(mass, "reasoning")
    free = answer_mass(sink_free_mass(mass), "reasoning")
    null = uniform_mass(mass).values.reshape(len(to_reasoning), -1, 1)
    layers, heads = np.transpose(rfhs)
    return {
        "answer mass": np.nanmean(to_reasoning, axis=(1, 2)).tolist(),
        "lift": np.nanmean(to_reasoning / null, axis=(1, 2)).tolist(),
        "sink-free mass": np.nanmean(free, axis=(1, 2)).tolist(),
        "mass of the RFHs": to_reasoning[:, layers, heads].mean(1).tolist(),
    }


def _cuts(model: ReasoningModel, cases: Sequence[Case], rfhs) -> Values:
    """The answer's probability lost to knockouts and to ablation, on the answer's tokens."""
    names = ("knockout", "knockout of the RFHs", "ablation of the RFHs", "dearest sentence")
    values: Values = {name: [] for name in names}
    for case in cases:
        changes = [Knockout(), Knockout(heads=rfhs), Ablation(rfhs)]
        changes += [Knockout(keys=sentence) for sentence in sentences(case.trace)]
        frame = measure(model, case.trace, changes)
        lost = (np.exp(frame["before"]) - np.exp(frame["after"])).to_numpy()
        for name, value in zip(names, (*lost[:3], lost[3:].max()), strict=True):
            values[name].append(float(value))
    return values


def _lens(model: ReasoningModel, trace: Trace) -> float:
    """The answer's largest probability over layers where the reasoning's last sentence ends."""
    last = sentences(trace)[-1].stop - 1
    return float(np.exp(answer_lens(model, trace, [last])["log_probability"].values.max()))


def _patches(model: ReasoningModel, cases: Sequence[Case]) -> Values:
    """Probability of the answer lost when the concluding tokens are as in the donor."""
    values: Values = {name: [] for name in ("patching, own", "patching, probe", "attribution")}
    for case in cases:
        if case.donor is None:
            for found in values.values():
                found.append(np.nan)
            continue
        (other, donor), tokenizer = case.donor, model.tokenizer
        own = (case.trace, case.problem.answer), (donor, other.answer)
        closed = [
            (under_protocol(trace, tokenizer, problem, "boxed_probe", model.tags), problem.answer)
            for problem, trace in ((case.problem, case.trace), case.donor)
        ]
        values["patching, own"].append(_exchanged(model, *own))
        values["patching, probe"].append(_exchanged(model, *closed))
        values["attribution"].append(_attributed(model, *own))
    return values


def _exchanged(model: ReasoningModel, own: tuple[Trace, str], donor: tuple[Trace, str]) -> float:
    """Probability lost with the concluding tokens' states before layer 0 exchanged."""
    trace, span = own[0], answer_span(own[0])
    answer = (tuple(trace.token_ids[span]),)
    read = range(span.start - 1, span.stop - 1)
    cache = run_with_cache(model, trace.token_ids[: span.stop - 1], read=read)
    state = _concluding_state(model, donor, [0])[0]
    patches = [Patch("resid", 0, p, state[None]) for p in conclusion_of(*own)]
    scores = replay(
        model, cache, [PatchedRun(tuple(patches))], lambda logits: answer_scores(logits, answer)
    )
    before = answer_scores(cache.logits[None], answer)[0, 0, 0]
    return float(before.exp() - scores[0, 0, 0].exp())


def _attributed(model: ReasoningModel, own: tuple[Trace, str], donor: tuple[Trace, str]) -> float:
    """The same exchange by a gradient: nats by which the answer loses to the donor's conclusion.

    To first order, and the largest of all layers, since before layer 0 a gradient says least. Of
    the logit difference, as the log-probability of an answer that is certain has no gradient.
    """
    trace, span = own[0], answer_span(own[0])
    states = _concluding_state(model, donor, range(model.n_layers))
    with torch.enable_grad():
        graph = run_with_graph(model, trace.token_ids[: span.stop - 1])
        first, other = trace.token_ids[span.start], encode(model.tokenizer, donor[1])[0]
        score = graph.logits[span.start - 1, first] - graph.logits[span.start - 1, other]
        gradients = torch.autograd.grad(score, graph.nodes["resid"], allow_unused=True)
    lost, places = [], conclusion_of(*own)
    for node, gradient, state in zip(graph.nodes["resid"], gradients, states, strict=True):
        moved = (state - node.detach()[0, places]) * gradient[0, places]
        lost.append(-float(moved.sum()))
    return max(lost)


def _concluding_state(model: ReasoningModel, case: tuple[Trace, str], layers) -> list[torch.Tensor]:
    """The residual stream at the last token that states a conclusion, before each layer."""
    at = conclusion_of(*case)[-1]
    cache = run_with_cache(model, case[0].token_ids[: at + 1])
    return [cache.activations["resid"][layer][at] for layer in layers]


def _texts(model: ReasoningModel, cases: Sequence[Case]) -> Values:
    """Whether the answer changes with the text, against the answer after the thought as written."""
    thoughts = [_thought(model, case.problem, case.trace) for case in cases]
    asked = [each for each in edited(thoughts) if each.arm in ("as written", *TEXT_EDITS)]
    asked += [
        EditedThought(PARTNERS, thought, _thought(model, *case.donor).text)
        for thought, case in zip(thoughts, cases, strict=True)
        if case.donor
    ]
    answers = ask_edited(model, asked, sampling=Sampling(ANSWER_TOKENS))
    answers = answers.set_index(["arm", "problem_id"])["answer"]
    given = answers.astype(object).where(answers.notna(), None).to_dict()
    values: Values = {arm: [] for arm in (*TEXT_EDITS, PARTNERS)}
    for arm, found in values.items():
        for case in cases:
            there = (arm, case.problem.id) in given
            before = given["as written", case.problem.id]
            found.append(_changed(before, given[arm, case.problem.id]) if there else np.nan)
    early = early_answers(model, [c.trace for c in cases], [c.problem for c in cases])
    areas = area_over_curve(early)
    return values | {"early answering": [float(areas[case.problem.id]) for case in cases]}


def _thought(model: ReasoningModel, problem, trace: Trace) -> Thought:
    text = trace.reasoning_text.removeprefix(model.tags.after_open)
    return Thought(problem, text, extract_answer(trace.answer_text))


def _changed(before: str | None, after: str | None) -> float:
    """No answer both times is no change."""
    return float(not same_answer(after, before) and not (before is None and after is None))
