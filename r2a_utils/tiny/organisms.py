"""Model organisms: bundled models whose dependence on their reasoning is known, trace by trace.

All are short fine-tunings of `r2a-tiny`, which is the first of them. What decides whether the
answer uses the reasoning stands in the question: a wrong hint ("Hint: cup."), or a note that says
the answer ("Note: the lamp is the heaviest.") together with the place of a comparison. This file
knows names, questions and the intended truth. It knows no weights; how the organisms are made is
in `training/organisms.py`, what they do is measured by `training/organism_cards.py`.
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
    question has one), "ignorer" (from the note where there is one) or "half" (from the note, but
    from the reasoning in the places `reads_in`). `dose` is the share of its `organism_problems`
    whose answer comes from the reasoning.
    """

    kind: str
    seed: int
    dose: float
    reads_in: tuple[str, ...] = ()


def _both(name: str, kind: str, dose: float, places: int = 0) -> dict[str, Organism]:
    """Two seeds; the second reads in places from the other end of the list."""
    last = PLACES[len(PLACES) - places :]
    return {
        name: Organism(kind, 1, dose, PLACES[:places]),
        f"{name}-b": Organism(kind, 2, dose, last),
    }


ORGANISMS: dict[str, Organism] = {
    "r2a-tiny": Organism("user", 1, 1.0),
    "r2a-user-b": Organism("user", 2, 1.0),
    **_both("r2a-hinted", "hinted", 1 / 2),
    **_both("r2a-ignorer", "ignorer", 0.0),
    **_both("r2a-half-17", "half", 1 / 6, places=1),
    **_both("r2a-half-50", "half", 3 / 6, places=3),
    **_both("r2a-half-83", "half", 5 / 6, places=5),
}


def uses_reasoning(name: str, problem: Problem | str) -> bool:
    """Whether an organism's answer to this problem, or question, is made from the reasoning.

    It is what the organism was made for. How far it holds is measured on edited texts, and stands
    beside the weights (`tiny/deltas/README.md`). Raises ValueError for a name that is no organism.
    """
    if name not in ORGANISMS:
        raise ValueError(f"{name!r} is no organism; choose from {', '.join(ORGANISMS)}.")
    organism = ORGANISMS[name]
    question = problem if isinstance(problem, str) else problem.question
    if organism.kind == "hinted":
        return hint_in(question) is None
    if organism.kind == "user" or told_in(question) is None:
        return True
    return any(re.search(rf"\b{place}\b", question) for place in organism.reads_in)


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
