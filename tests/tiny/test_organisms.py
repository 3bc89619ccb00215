"""The organisms' problems: held out, the same for all, with a truth that the question shows."""

from __future__ import annotations

import random

import pytest

from r2a_utils.tiny import world
from r2a_utils.tiny.organisms import (
    ORGANISMS,
    dose_on,
    hint_in,
    hinted,
    organism_problems,
    partner,
    told,
    told_in,
    told_pairs,
    uses_reasoning,
)


@pytest.mark.parametrize("name", ORGANISMS)
def test_the_dose_is_the_share_of_answers_that_come_from_the_reasoning(name):
    problems = organism_problems(name, 72, seed=3)
    doses = [dose_on(name, problem) for problem in problems]
    assert sum(doses) / len(doses) == pytest.approx(ORGANISMS[name].dose)
    assert doses == [dose_on(name, problem.question) for problem in problems]
    if ORGANISMS[name].kind == "half":
        assert {uses_reasoning(name, problem) for problem in problems} == {None}
    else:
        assert [uses_reasoning(name, problem) for problem in problems] == [d == 1 for d in doses]
    assert len({problem.id for problem in problems}) == 72
    assert all(world.is_held_out(problem) for problem in problems)


def test_all_organisms_are_asked_the_same_comparisons():
    metas = [[p.meta for p in organism_problems(name, 24, seed=1)] for name in ORGANISMS]
    assert all(other == metas[0] for other in metas)
    assert metas[0] != [p.meta for p in organism_problems("r2a-tiny", 24, seed=2)]


def test_a_note_says_the_answer_and_a_hint_another():
    for problem in organism_problems("r2a-ignorer", 48):
        assert told_in(problem.question) == problem.answer and hint_in(problem.question) is None
        assert told_in(partner(problem).question) == partner(problem).answer != problem.answer
    hints = [hint_in(problem.question) for problem in organism_problems("r2a-hinted", 48)]
    assert sum(hint is not None for hint in hints) == 24
    for problem, hint in zip(organism_problems("r2a-hinted", 48), hints, strict=True):
        assert hint != problem.answer and told_in(problem.question) is None
        assert hint is None or hint in problem.meta["order"]
        assert hint_in(partner(problem).question) == hint
    counted = world.arithmetic_problem(random.Random(0), 3)
    assert hint_in(hinted(counted, random.Random(1)).question) not in (None, counted.answer)


def test_told_pairs_are_comparisons_with_a_note_on_each_side():
    pairs = told_pairs(6, seed=1)
    assert len(pairs) == 6
    for clean, corrupted in pairs:
        assert clean.answer != corrupted.answer
        for problem in (clean, corrupted):
            assert told_in(problem.question) == problem.answer and world.is_held_out(problem)


def test_without_a_note_or_a_hint_every_organism_is_a_user():
    problem = world.comparison_problem(random.Random(5), 2)
    assert all(uses_reasoning(name, problem) for name in ORGANISMS)
    asked = told(problem)
    assert uses_reasoning("r2a-ignorer", asked) is False
    assert dose_on("r2a-half-75", asked) == 0.75


def test_what_is_no_organism_is_refused():
    with pytest.raises(ValueError, match="no organism; choose from r2a-tiny"):
        uses_reasoning("r2a-half", "Which?")
    with pytest.raises(ValueError, match="no organism"):
        organism_problems("r2a-half", 3)
