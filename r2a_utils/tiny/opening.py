"""The problem that the book opens on, carried through its pages.

Home shows it, and every stage that can have it shows it first. A stage whose problems do not hold
it keeps its own order and says nothing. This file knows the problem and its partner, and reads no
trace of a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace
from r2a_utils.tiny.world import is_held_out, problem_of, twins

STEPS = [("multiply", 7), ("add", 4), ("multiply", 7), ("subtract", 3)]
PROBLEM = problem_of(
    {
        "family": "arithmetic",
        "steps": len(STEPS),
        "start": 2,
        "operations": STEPS,
        "form": 0,
        "wording": 0,
        "who": "Leo",  # whom this form does not name
    }
)
SAID = "the problem of the home page, which every stage that has it shows first"

One = TypeVar("One", Problem, Trace)


def opens(one: Problem | Trace) -> bool:
    """Whether it is the problem that the book opens on, or a trace of it."""
    return (one.id if isinstance(one, Problem) else one.problem_id) == PROBLEM.id


def opening_first(some: Iterable[One]) -> list[One]:
    """The same in the same order, but first what is of the problem that the book opens on."""
    return sorted(some, key=lambda one: not opens(one))


def opening_pair() -> tuple[Problem, Problem]:
    """The problem and its minimal partner: the last of its held-out twins. Stage 05."""
    return PROBLEM, [twin for twin in twins(PROBLEM) if is_held_out(twin)][-1]
