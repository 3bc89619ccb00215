"""What foretells an answer: nothing that was learnt on the same problem, and only what is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from r2a_utils.answers.early_answering import FRACTIONS
from r2a_utils.causal.beliefs import (
    COMMON,
    FORCED,
    NAMED,
    PROBE,
    READERS,
    WORDS,
    _foretold,
    belief_curves,
    belief_record,
    beliefs,
)
from r2a_utils.texts.boxed import extract_answer


@pytest.fixture(scope="module")
def early(world_traces):
    """Forced answers of 40 traces: none before the end, and there the trace's own."""
    rows = [
        (t.problem_id, t.sample, f, extract_answer(t.answer_text) if f == 1 else None)
        for t in world_traces[:40]
        for f in FRACTIONS
    ]
    return pd.DataFrame(rows, columns=["problem_id", "sample", "fraction", "answer"])


@pytest.fixture(scope="module")
def found(tiny, world_traces, early):
    return beliefs(tiny, world_traces, early)


def share(found, reader, fraction):
    rows = found[(found["reader"] == reader) & (found["fraction"] == fraction)]
    return rows["right"].mean()


def test_every_reader_is_asked_of_every_trace_after_every_share(found):
    assert len(found) and found.groupby(["reader", "fraction"]).size().nunique() == 1
    assert set(found["reader"]) == set(READERS)
    assert not found.duplicated(["problem_id", "sample", "fraction", "reader"]).any()


def test_what_the_text_ends_in_is_named_and_forced_at_the_end_and_not_known_before(found):
    assert share(found, FORCED, 1.0) == 1 and share(found, FORCED, 0.8) == 0
    assert share(found, NAMED, 1.0) > 0.8 > share(found, NAMED, 0.0)
    assert share(found, COMMON, 0.0) == share(found, COMMON, 1.0) < 0.6


def test_of_few_problems_nothing_is_said(tiny, world_traces, early):
    none = beliefs(tiny, world_traces[:10], early)
    assert none.empty
    assert belief_record(none) == {"n": 0, "leads": [], "ends": []}
    assert belief_curves(none).empty


def foretold(states, labels, traces):
    told = _foretold(states, states[0], labels, [True] * len(labels), traces, seed=0)
    return {name: float((guess == labels).mean()) for name, guess in told.items()}


def test_a_probe_finds_the_layer_that_holds_the_answer(world_traces):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=60)
    noise = rng.normal(size=(60, 12))
    told = foretold(np.stack([noise, noise + 6 * np.eye(12)[labels]]), labels, world_traces)
    assert told[PROBE] > 0.9
    assert told[WORDS] < 0.6  # which is given the first layer here


def test_what_only_says_which_problem_it_is_foretells_nothing(world_traces):
    """Two samples of each of 30 problems: a probe that has seen the one would know the other."""
    rng = np.random.default_rng(1)
    traces = [replace(t, sample=s) for t in world_traces[:30] for s in (0, 1)]
    labels = np.repeat(rng.integers(3, size=30), 2)
    states = np.repeat(rng.normal(size=(1, 30, 40)), 2, axis=1)
    assert foretold(states, labels, traces)[PROBE] < 0.6


def frame(probe, named):
    rows = [
        (f"p{i}", 0, "a", f, reader, value[i])
        for i in range(30)
        for f in (0.0, 1.0)
        for reader, value in {
            PROBE: probe, FORCED: named, NAMED: named, WORDS: [False] * 30, COMMON: [False] * 30,
        }.items()
    ]  # fmt: skip
    return pd.DataFrame(
        rows, columns=["problem_id", "sample", "family", "fraction", "reader", "right"]
    )


def test_the_states_are_ahead_only_where_the_interval_says_so():
    first_half = [i < 15 for i in range(30)]
    (lead,) = belief_record(frame([True] * 30, first_half))["leads"]
    assert lead["ahead"] and lead["lead"] == pytest.approx(0.5)
    for probe in (first_half, [i < 16 for i in range(30)], [False] * 30):
        (lead,) = belief_record(frame(probe, first_half))["leads"]
        assert not lead["ahead"]


def test_a_curve_counts_problems(found):
    curves = belief_curves(found)
    assert (curves["ci_low"] <= curves["value"]).all() and (curves["n"] > 0).all()
    one = curves[(curves["reader"] == FORCED) & (curves["fraction"] == 1.0)]
    assert (one["value"] == 1).all()
