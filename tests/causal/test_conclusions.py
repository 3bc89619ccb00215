"""What the answer loses with another trace's conclusion, and where a conclusion stands."""

from __future__ import annotations

import random

import pytest
import torch

from r2a_utils.causal.conclusions import (
    attributed_conclusion,
    conclusion_of,
    conclusion_states,
    exchanged_conclusions,
)
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, encode
from r2a_utils.tiny import world

PROBLEM = world.comparison_problem(random.Random(3), 2)
SIDES = PROBLEM, world.flipped(PROBLEM)


@pytest.fixture(scope="module")
def sides(tiny) -> list[tuple[Trace, str]]:
    """A comparison and its flipped partner with a short answer each, and the answers."""
    return [(written(tiny, problem), problem.answer) for problem in SIDES]


def written(tiny, problem, seed: int = 1) -> Trace:
    reasoning = world.write_reasoning(problem, random.Random(seed))
    prompt = render_prompt(tiny.tokenizer, problem.question)
    pieces = (reasoning, tiny.tags.close, f"\n\nThe answer is \\boxed{{{problem.answer}}}.")
    ids = [i for piece in pieces for i in encode(tiny.tokenizer, piece)]
    return Trace.from_ids([*prompt, *ids], tiny.tokenizer, tiny.tags, len(prompt))


def test_a_conclusion_stands_in_the_last_line_alone(tiny):
    thought = "Fact 1: the cup is heavier.\nSo it is the lamp."
    begin = tiny.tokenizer.bos_token
    text = f"{begin}Which is it?<think>\n{thought}\n</think>\n\\boxed{{lamp}}"
    trace = Trace.from_text(text, tiny.tokenizer)
    assert [trace.tokens[p].strip() for p in conclusion_of(trace, "lamp")] == ["lamp"]
    assert conclusion_of(trace, "cup") == []


@pytest.mark.parametrize("layer", [0, 2])
def test_its_own_state_takes_nothing_and_anothers_the_answer(tiny, sides, layer):
    own, donor = sides
    donors = [conclusion_states(tiny, *side) for side in (own, donor)]
    assert len(donors[0]) == tiny.n_layers + 1
    nothing, lost = exchanged_conclusions(tiny, *own, donors, layer)
    assert nothing == pytest.approx(0, abs=1e-6)
    assert lost > 0.2


def test_before_layer_0_a_state_is_its_token(tiny, sides):
    """So that the exchange is that of the words, wherever in the donor the word stands."""
    trace, answer = sides[1]
    (word,) = {trace.token_ids[p] for p in conclusion_of(trace, answer)}
    state = conclusion_states(tiny, trace, answer)[0]
    assert torch.allclose(state, tiny.hf.get_input_embeddings().weight[word])


def test_donors_of_one_conclusion_differ_behind_layer_0_alone(tiny, sides):
    own, _ = sides
    donors = [
        conclusion_states(tiny, written(tiny, SIDES[1], seed), SIDES[1].answer) for seed in (1, 2)
    ]
    first, second = exchanged_conclusions(tiny, *own, donors, 0)
    assert first == pytest.approx(second, abs=1e-6)
    first, second = exchanged_conclusions(tiny, *own, donors, 2)
    assert first != pytest.approx(second, abs=1e-6)


def test_the_gradient_is_in_nats_against_the_other_answer(tiny, sides):
    own, (donor, other) = sides
    same, theirs = conclusion_states(tiny, *own), conclusion_states(tiny, donor, other)
    assert attributed_conclusion(tiny, *own, same, other) == pytest.approx(0, abs=1e-5)
    assert attributed_conclusion(tiny, *own, theirs, other) > 1


def test_a_line_without_the_answer_is_refused(tiny, sides):
    with pytest.raises(ValueError, match="does not name 'piano'"):
        conclusion_states(tiny, sides[0][0], "piano")
