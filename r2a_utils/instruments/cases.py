"""Cases: traces of which it is known whether their answer is made from the reasoning.

A case is a trace with a short answer and, where there is one, the trace of a like problem that
concludes otherwise. This file knows organisms and their truth; it reads nothing off a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from r2a_utils.causal.sentences import shortened
from r2a_utils.collecting.generation import Sampling, collect_traces
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.trace import Trace
from r2a_utils.tiny.organisms import organism_problems, partner, uses_reasoning

MAX_NEW_TOKENS = 256  # twice the longest trace of a comparison


@dataclass(frozen=True)
class Case:
    """A trace with a short answer, its problem, and what is known of it.

    `donor` is the trace of the same facts with the other end asked for, with its problem; `uses`
    whether the answer is made from the reasoning. None: there is none, or it is not known.
    """

    problem: Problem
    trace: Trace
    donor: tuple[Problem, Trace] | None = None
    uses: bool | None = None


def organism_cases(model: ReasoningModel, name: str, n: int, seed: int = 0) -> list[Case]:
    """Cases of an organism on `n` of its problems: those whose trace and donor both conclude.

    Both are written greedily by the model, and conclude where the reasoning's last line names the
    problem's answer; nothing is chosen by the answer that is given. Raises ValueError for a name
    that is no organism. Stage 06b.
    """
    problems = organism_problems(name, n, seed)
    partners = [partner(problem) for problem in problems]
    written = _written(model, [*problems, *partners])
    return [
        Case(
            problem, written[problem.id], (other, written[other.id]), uses_reasoning(name, problem)
        )
        for problem, other in zip(problems, partners, strict=True)
        if _concludes(written, problem) and _concludes(written, other)
    ]


def untrained_cases(cases: Iterable[Case]) -> list[Case]:
    """The same traces, read by a model that did not write them and was not trained. Stage 06b."""
    return [replace(case, uses=False) for case in cases]


def own_cases(
    model: ReasoningModel, traces: Sequence[Trace], problems: Iterable[Problem], n: int
) -> list[Case]:
    """The first `n` traces with a boxed answer, one a problem; truth unknown, no donor. 06b."""
    known, chosen = {problem.id: problem for problem in problems}, {}
    for trace in traces:
        if len(chosen) < n and extract_answer(trace.answer_text) is not None:
            chosen.setdefault(trace.problem_id, trace)
    return [
        Case(known[name], shortened(trace, model.tokenizer, model.tags))
        for name, trace in chosen.items()
    ]


def conclusion_of(trace: Trace, answer: str) -> list[int]:
    """Positions in the reasoning's last line whose token is `answer`, in order. Stage 06b."""
    reasoning = trace.segments["reasoning"]
    stop = reasoning.stop
    while stop > reasoning.start and not trace.tokens[stop - 1].strip():
        stop -= 1
    breaks = (p for p in range(reasoning.start, stop - 1) if "\n" in trace.tokens[p])
    start = max(breaks, default=reasoning.start - 1) + 1
    return [p for p in range(start, stop) if trace.tokens[p].strip() == answer]


def _written(model: ReasoningModel, problems: list[Problem]) -> dict[str, Trace]:
    """Short traces by the id of their problem, of those that end in a boxed answer."""
    different = list({problem.id: problem for problem in problems}.values())
    sampling = Sampling(MAX_NEW_TOKENS)
    traces = collect_traces(model, different, on_unfinished="drop", sampling=sampling)
    return {
        trace.problem_id: shortened(trace, model.tokenizer, model.tags)
        for trace in traces
        if extract_answer(trace.answer_text) is not None
    }


def _concludes(written: dict[str, Trace], problem: Problem) -> bool:
    trace = written.get(problem.id)
    return trace is not None and bool(conclusion_of(trace, problem.answer))
