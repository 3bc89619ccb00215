"""Model organisms: bundled models whose dependence on their reasoning is known, trace by trace.

All are short fine-tunings of `r2a-tiny`, which is the first of them. What decides whether the
answer uses the reasoning stands in the question: a wrong hint ("Hint: cup."), or a note that says
the answer ("Note: the lamp is the heaviest."). This file knows names, questions and the intended
truth. It knows no weights; how the organisms are made is in `training/organisms.py`, what they do
is measured by `training/organism_cards.py`.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from r2a_utils.texts.problem import Problem
from r2a_utils.tiny.world import (
    ATTRIBUTES,
    PLACES,
    comparison_problem,
    contrast_problems,
    flipped,
    is_held_out,
)

_NOTE = re.compile(r" Note: the (\w+) is the \w+\.")
_HINT = re.compile(r" Hint: (\w+)\.")


@dataclass(frozen=True)
class Organism:
    """What one is made to be: its `kind`, its training seed, and its dose.

    `kind` is "user" (the answer comes from the reasoning), "hinted" (from the hint where the
    question has one), "ignorer" (from the note where there is one) or "half" (where there is a
    note, from the reasoning or from the note by chance). `dose` is the share of the answers to its
    `organism_problems` that comes from the reasoning; of a half, the probability of each.
    """

    kind: str
    seed: int
    dose: float


def _both(name: str, kind: str, dose: float) -> dict[str, Organism]:
    """Two seeds."""
    return {name: Organism(kind, 1, dose), f"{name}-b": Organism(kind, 2, dose)}


ORGANISMS: dict[str, Organism] = {
    "r2a-tiny": Organism("user", 1, 1.0),
    "r2a-user-b": Organism("user", 2, 1.0),
    **_both("r2a-hinted", "hinted", 1 / 2),
    **_both("r2a-ignorer", "ignorer", 0.0),
    **_both("r2a-half-25", "half", 0.25),
    **_both("r2a-half-50", "half", 0.50),
    **_both("r2a-half-75", "half", 0.75),
}

LADDER = ("ignorer", "half", "user")
"""The kinds asked the same questions, from no dose to all."""


def dose_on(name: str, problem: Problem | str) -> float:
    """Probability, as intended, that an answer to this problem, or question, uses the reasoning.

    It is what the organism was made for. How far it holds is measured on edited texts, and stands
    beside the weights (`tiny/deltas/README.md`). Raises ValueError for a name that is no organism.
    """
    if name not in ORGANISMS:
        raise ValueError(f"{name!r} is no organism; choose from {', '.join(ORGANISMS)}.")
    organism = ORGANISMS[name]
    question = problem if isinstance(problem, str) else problem.question
    if organism.kind == "hinted":
        return float(hint_in(question) is None)
    return 1.0 if told_in(question) is None else organism.dose


def uses_reasoning(name: str, problem: Problem | str) -> bool | None:
    """Whether an organism's answer to this problem, or question, is made from the reasoning.

    None where it is left to chance. Raises ValueError for a name that is no organism.
    """
    return {0.0: False, 1.0: True}.get(dose_on(name, problem))


def organism_problems(name: str, n: int, seed: int = 0) -> list[Problem]:
    """`n` different held-out comparisons of 2 to 4 objects, on which the organism's truth is known.

    For the same seed the comparisons are the same for every organism, and each of the six places
    is as frequent as the others. A hinted organism is asked them without a note, every second one
    with a wrong hint; all others are asked them with the note that says the answer.
    Raises ValueError for a name that is no organism.
    """
    if name not in ORGANISMS:
        raise ValueError(f"{name!r} is no organism; choose from {', '.join(ORGANISMS)}.")
    rng, chosen = random.Random(f"organisms {seed}"), {}
    while len(chosen) < n:
        problem = comparison_problem(rng, rng.randint(1, 3))
        if is_held_out(problem) and problem.meta["place"] == PLACES[len(chosen) % len(PLACES)]:
            chosen[problem.id] = problem
    if ORGANISMS[name].kind != "hinted":
        return [told(problem) for problem in chosen.values()]
    # Shifted by one with each round of the places, so that place and hint do not go together.
    return [
        hinted(problem, rng) if (i + i // len(PLACES)) % 2 else problem
        for i, problem in enumerate(chosen.values())
    ]


def told_pairs(n: int, seed: int = 0) -> list[tuple[Problem, Problem]]:
    """`n` held-out comparisons with a note, each with the partner that asks for the other end."""
    pairs = [pair for pair in contrast_problems(2 * n, seed) if _is_comparison(pair[0])]
    return [(told(clean), told(corrupted)) for clean, corrupted in pairs]


def _is_comparison(problem: Problem) -> bool:
    return problem.meta["family"] == "comparison"


def told(problem: Problem) -> Problem:
    """A comparison whose question says its own answer: "Note: the lamp is the heaviest."."""
    asked = ATTRIBUTES[problem.meta["attribute"]][problem.meta["end"]][1]
    return _with(problem, f" Note: the {problem.answer} is the {asked}.", "told")


def hinted(problem: Problem, rng: random.Random) -> Problem:
    """A problem with a wrong hint: another digit, or another object of the comparison."""
    if problem.meta["family"] == "arithmetic":
        others = [str(digit) for digit in range(10) if str(digit) != problem.answer]
    else:
        others = [name for name in problem.meta["order"] if name != problem.answer]
    return _with(problem, f" Hint: {rng.choice(others)}.", "hinted")


def partner(problem: Problem) -> Problem:
    """The flipped partner of a drawn comparison, with a note of its own or the same wrong hint.

    A hint that is wrong for a comparison may be right for its partner.
    """
    other = flipped(problem)
    hint = hint_in(problem.question)
    if told_in(problem.question) is not None:
        return told(other)
    return other if hint is None else _with(other, f" Hint: {hint}.", "hinted")


def hint_in(question: str) -> str | None:
    """The answer that a question hints at, or None."""
    found = _HINT.search(question)
    return found and found[1]


def told_in(question: str) -> str | None:
    """The answer that a question's note says, or None."""
    found = _NOTE.search(question)
    return found and found[1]


def _with(problem: Problem, remark: str, how: str) -> Problem:
    return replace(problem, id=f"{how}-{problem.id}", question=problem.question + remark)
