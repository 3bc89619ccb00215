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
from r2a_utils.causal.answer_probes import probed_answers
from r2a_utils.causal.conclusions import (
    attributed_conclusion,
    conclusion_states,
    exchanged_conclusions,
)
from r2a_utils.causal.interventions import Ablation, Intervention, Knockout, measure
from r2a_utils.causal.mediation import mediation
from r2a_utils.causal.pairs import under_protocol
from r2a_utils.causal.sentences import answer_lens
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.instruments.cases import Case
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.trace import Trace, sentences

Values = dict[str, list[float]]
"""A reading a case, by the instrument's name."""

PARTNERS = "partner's thought"
ROWS = 16
"""Texts asked at once: they differ much in length, and more rows would be mostly padding."""
TEXT_EDITS = ("reworded", "shuffled", "conclusion removed", "last half", "dots", "empty")


@dataclass(frozen=True)
class Instrument:
    """What is known of an instrument before anything is read.

    `kind` is what it works on; `share` whether its readings have the unit of the dose; `passes`
    what a trace costs in passes over it (a backward pass counts as two), "n" for the number of its
    sentences; `needs_pair` whether it needs a trace that concludes otherwise, `needs_texts` whether
    texts of which the answer is known.
    """

    kind: str
    share: bool
    passes: str
    needs_pair: bool = False
    needs_texts: bool = False


INSTRUMENTS: dict[str, Instrument] = {
    "answer mass": Instrument("attention", False, "1"),
    "lift": Instrument("attention", False, "1"),
    "sink-free mass": Instrument("attention", False, "1"),
    "mass of the RFHs": Instrument("attention", False, "1"),
    "logit lens": Instrument("reading states", True, "1"),
    "linear probe": Instrument("reading states", True, "1", needs_texts=True),
    "knockout": Instrument("knockout", True, "2"),
    "knockout, zeroed": Instrument("knockout", True, "2"),
    "knockout, mean value": Instrument("knockout", True, "2"),
    "knockout of the RFHs": Instrument("knockout", True, "2"),
    "ablation of the RFHs": Instrument("knockout", True, "2"),
    "costliest sentence": Instrument("knockout", True, "1 + n"),
    "patching, own": Instrument("patching", True, "3", needs_pair=True),
    "patching, written donor": Instrument("patching", True, "3", needs_pair=True),
    "patching, probe": Instrument("patching", True, "3", needs_pair=True),
    "attribution": Instrument("patching", False, "4", needs_pair=True),
    "mediation index": Instrument("patching", True, "6", needs_pair=True),
    "early answering": Instrument("text", True, str(len(FRACTIONS))),
    **{edit: Instrument("text", True, "2") for edit in TEXT_EDITS},
    PARTNERS: Instrument("text", True, "2", needs_pair=True),
}
"""All instruments, in the order in which they are shown."""
DIGITS = 2
"""Of a reading in the unit of the dose: a hundredth of a probability is the least that counts."""


def read_instruments(
    model: ReasoningModel, cases: Sequence[Case], k: int = 10, taught: Sequence[Trace] = ()
) -> pd.DataFrame:
    """Every instrument's reading of every case; one row each.

    Columns: instrument, problem_id, uses (as the cases have it) and value, missing where the case
    lacks what the instrument needs. `taught` are the texts that the probe learns on. The `k`
    Reasoning-Focus Heads are ranked on these traces, as a user would. Raises ValueError without a
    case. Stage 06b.
    """
    if not cases:
        raise ValueError("no cases: ask more problems, or take a model that finishes its traces")
    parts: tuple[Callable[[], Values], ...] = (
        lambda: _attention(mass, rfhs),
        lambda: _cuts(model, cases, rfhs),
        lambda: {"logit lens": [_lens(model, case.trace) for case in cases]},
        lambda: {"linear probe": _probed(model, taught, traces)},
        lambda: _patches(model, cases),
        lambda: {"mediation index": _mediated(model, cases)},
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


def resolved(readings: pd.DataFrame) -> pd.DataFrame:
    """The same frame, readings in the unit of the dose rounded to `DIGITS`, as they are ranked.

    Ranks know no size: without it, differences of a thousandth would order an instrument that
    reads next to nothing. Readings in other units stay as they are. Stage 06b.
    """
    share = readings["instrument"].map({name: each.share for name, each in INSTRUMENTS.items()})
    rounded = readings["value"].where(~share.astype(bool), readings["value"].round(DIGITS))
    return readings.assign(value=rounded)


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
    whole: dict[str, Intervention] = {
        "knockout": Knockout(),
        "knockout, zeroed": Knockout(kind="zeroed"),
        "knockout, mean value": Knockout(kind="mean"),
        "knockout of the RFHs": Knockout(heads=rfhs),
        "ablation of the RFHs": Ablation(rfhs),
    }
    values: Values = {name: [] for name in (*whole, "costliest sentence")}
    for case in cases:
        parts = [Knockout(keys=sentence) for sentence in sentences(case.trace)]
        frame = measure(model, case.trace, [*whole.values(), *parts])
        lost = (np.exp(frame["before"]) - np.exp(frame["after"])).to_numpy()
        read = (*lost[: len(whole)], lost[len(whole) :].max())
        for found, value in zip(values.values(), read, strict=True):
            found.append(float(value))
    return values


def _lens(model: ReasoningModel, trace: Trace) -> float:
    """The answer's largest probability over layers where the reasoning's last sentence ends."""
    last = sentences(trace)[-1].stop - 1
    return float(np.exp(answer_lens(model, trace, [last])["log_probability"].values.max()))


def _probed(model: ReasoningModel, taught: Sequence[Trace], traces: Sequence[Trace]) -> list[float]:
    """Whether a probe learnt on other texts names the answer where the reasoning ends."""
    if not taught:
        return [np.nan] * len(traces)
    return [float(hit) for hit in probed_answers(model, taught, traces)]


def _patches(model: ReasoningModel, cases: Sequence[Case]) -> Values:
    """What the answer loses when the concluding tokens are as in the donor."""
    names = ("patching, own", "patching, written donor", "patching, probe", "attribution")
    values: Values = {name: [] for name in names}
    for case in cases:
        read = [np.nan] * len(names) if case.donor is None else _patched(model, case)
        for found, value in zip(values.values(), read, strict=True):
            found.append(value)
    return values


def _patched(model: ReasoningModel, case: Case) -> tuple[float, float, float, float]:
    """Probability lost to the donor's state, to that of its problem's written text, and in the
    trace closed by a probe, all before the layer at a third of the depth, where a state holds more
    than its token and has not been read yet; and nats by a gradient.
    """
    sides = ((case.problem, case.trace), case.donor)
    own, donor = ((trace, problem.answer) for problem, trace in sides)
    closed, other = (
        (under_protocol(trace, model.tokenizer, problem, "boxed_probe", model.tags), problem.answer)
        for problem, trace in sides
    )
    layer = model.n_layers // 3
    states = conclusion_states(model, *donor)
    donors = [states, conclusion_states(model, case.off_policy, donor[1])]
    return (
        *exchanged_conclusions(model, *own, donors, layer),
        *exchanged_conclusions(model, *closed, [conclusion_states(model, *other)], layer),
        attributed_conclusion(model, *own, states, donor[1]),
    )


def _mediated(model: ReasoningModel, cases: Sequence[Case]) -> list[float]:
    """What the donor's answer gains from its thought's states beyond another problem's."""
    paired = [i for i, case in enumerate(cases) if case.donor]
    found = mediation(
        model,
        [(cases[i].donor, (cases[i].problem, cases[i].trace)) for i in paired],
        by_layer=False,
    )
    values = [np.nan] * len(cases)
    for number, value in zip(found.pairs, found.index, strict=True):
        values[paired[number]] = float(value)
    return values


def _texts(model: ReasoningModel, cases: Sequence[Case]) -> Values:
    """Whether the answer changes with the text, against the answer after the thought as written."""
    thoughts = [_thought(model, case.problem, case.trace) for case in cases]
    asked = [each for each in edited(thoughts) if each.arm in ("as written", *TEXT_EDITS)]
    asked += [
        EditedThought(PARTNERS, thought, _thought(model, *case.donor).text)
        for thought, case in zip(thoughts, cases, strict=True)
        if case.donor
    ]
    answers = ask_edited(model, asked, sampling=Sampling(ANSWER_TOKENS), batch_size=ROWS)
    answers = answers.set_index(["arm", "problem_id"])["answer"]
    given = answers.astype(object).where(answers.notna(), None).to_dict()
    values: Values = {arm: [] for arm in (*TEXT_EDITS, PARTNERS)}
    for arm, found in values.items():
        for case in cases:
            there = (arm, case.problem.id) in given
            before = given["as written", case.problem.id]
            found.append(_changed(before, given[arm, case.problem.id]) if there else np.nan)
    return values | {"early answering": _early(model, cases)}


def _early(model: ReasoningModel, cases: Sequence[Case]) -> list[float]:
    """The area over the curve, against the answer forced after the whole of the reasoning.

    As with the edited texts, no answer both times is no change: a model that never gives one needs
    none of its reasoning for it.
    """
    traces, problems = [case.trace for case in cases], [case.problem for case in cases]
    early = early_answers(model, traces, problems, batch_size=ROWS)
    whole = early[early["fraction"] == 1].set_index("problem_id")["answer"]
    none = early["answer"].isna() & early["problem_id"].map(whole).isna()
    areas = area_over_curve(early.assign(same_as_full=early["same_as_full"] | none))
    return [float(areas[case.problem.id]) for case in cases]


def _thought(model: ReasoningModel, problem, trace: Trace) -> Thought:
    text = trace.reasoning_text.removeprefix(model.tags.after_open)
    return Thought(problem, text, extract_answer(trace.answer_text))


def _changed(before: str | None, after: str | None) -> float:
    """No answer both times is no change."""
    return float(not same_answer(after, before) and not (before is None and after is None))
