"""A probe finds what is linearly there, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from r2a_utils.causal.answer_probes import best_layer, probe, probed_answers
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


def test_the_layer_is_chosen_by_problems_that_its_probe_was_not_taught():
    """A probe recalls all of a layer that tells the problems apart, and learns nothing from it."""
    rng = np.random.default_rng(4)
    (told, answers), problems = drawn(60, 2, 3.0), [f"p{i // 2}" for i in range(60)]
    answers[1::2], told[1::2] = answers[::2], told[::2]
    which = np.repeat(rng.normal(size=(30, 30)), 2, axis=0)
    assert (probe(which, answers, which) == answers).mean() > 0.9
    assert best_layer(np.stack([which, told]), answers, problems) == 1
    assert best_layer(np.stack([told, which]), answers, problems) == 0


def test_a_probe_recalls_what_it_was_taught_where_a_reasoning_ends(tiny):
    texts = taught_texts(tiny, "r2a-tiny", 120)
    assert sum(probed_answers(tiny, texts, texts)) >= 100
    others = taught_texts(tiny, "r2a-tiny", 6, seed=5)
    assert len(probed_answers(tiny, texts, others)) == 6


def test_one_answer_teaches_nothing(tiny):
    (text,) = taught_texts(tiny, "r2a-tiny", 1)
    with pytest.raises(ValueError, match="two different answers"):
        probed_answers(tiny, [text, text], [text])
