"""A probe finds what is linearly there, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.causal.answer_probes import RIDGE, left_out, probe, probed_answers
from r2a_utils.instruments.cases import taught_texts


def drawn(n: int, seed: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    """States of which three directions say the answer, by `signal`, in noise."""
    rng = np.random.default_rng(seed)
    answers = rng.choice([7, 11, 20], n)
    directions = np.eye(30)[:3]
    states = signal * directions[np.searchsorted([7, 11, 20], answers)] + rng.normal(size=(n, 30))
    return states, answers


def test_a_probe_reads_what_is_linearly_there_in_states_that_it_was_not_taught():
    (states, answers), (others, theirs) = drawn(90, 0, 6.0), drawn(60, 1, 6.0)
    assert (probe(states, answers, others) == theirs).mean() > 0.95
    states, answers = drawn(90, 0, 0.0)
    assert (probe(states, answers, drawn(60, 1, 0.0)[0]) == drawn(60, 1, 0.0)[1]).mean() < 0.55


def test_leaving_one_out_is_learning_without_it():
    states, answers = drawn(40, 2, 2.0)
    states = (states - states.mean(0)) / states.std(0)
    targets = (answers[:, None] == [7, 11, 20]) - np.mean(answers[:, None] == [7, 11, 20], axis=0)
    slow = []
    for i in range(40):
        known, wanted = np.delete(states, i, 0), np.delete(targets, i, 0)
        weights = np.linalg.solve(known.T @ known + RIDGE * 30 * np.eye(30), known.T @ wanted)
        slow.append([7, 11, 20][int((states[i] @ weights).argmax())])
    assert left_out(states, answers).tolist() == slow
    noise, any_answers = drawn(60, 3, 0.0)
    assert (left_out(noise, any_answers) == any_answers).mean() < 0.55


def test_a_probe_recalls_what_it_was_taught_where_a_reasoning_ends(tiny):
    texts = taught_texts(tiny, "r2a-tiny", 30)
    assert sum(probed_answers(tiny, texts, texts)) >= 20
    others = taught_texts(tiny, "r2a-tiny", 6, seed=5)
    assert len(probed_answers(tiny, texts, others)) == 6


def test_one_answer_teaches_nothing(tiny):
    (text,) = taught_texts(tiny, "r2a-tiny", 1)
    with pytest.raises(ValueError, match="two different answers"):
        probed_answers(tiny, [text, text], [text])
