"""Cases: traces of which it is known whether their answer is made from the reasoning.

A case is a trace with a short answer and, where there is one, the trace of a like problem that
concludes otherwise. This file knows organisms and their truth; it reads nothing off a model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from r2a_utils.causal.conclusions import conclusion_of
from r2a_utils.causal.sentences import shortened
from r2a_utils.collecting.decoding import Sampling
from r2a_utils.collecting.generation import collect_traces
from r2a_utils.models.loading import ReasoningModel
from r2a_utils.texts.boxed import extract_answer
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.prompts import render_prompt
from r2a_utils.texts.trace import Trace, answer_stem, encode
from r2a_utils.tiny.organisms import hint_in, organism_problems, partner, uses_reasoning
from r2a_utils.tiny.world import write_reasoning

MAX_NEW_TOKENS = 256  # twice the longest trace of a comparison


@dataclass(frozen=True)
class Case:
    """A trace with a short answer, its problem, and what is known of it.

    `donor` is the trace of the same facts with the other end asked for, with its problem, and
    `off_policy` a text of the world about that problem, which the model did not write; `uses`
    whether the answer is made from the reasoning. None: there is none, or it is not known, or it is
    left to chance.
    """

    problem: Problem
    trace: Trace
    donor: tuple[Problem, Trace] | None = None
    off_policy: Trace | None = None
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
            problem,
            written[problem.id],
            (other, written[other.id]),
            _text(model, other, other.answer),
            uses_reasoning(name, problem),
        )
        for problem, other in zip(problems, partners, strict=True)
        if _concludes(written, problem) and _concludes(written, other)
    ]


def untrained_cases(cases: Iterable[Case]) -> list[Case]:
    """The same traces, read by a model that did not write them and was not trained. Stage 06b."""
    return [replace(case, uses=False) for case in cases]


def taught_texts(
    model: ReasoningModel, name: str, n: int, seed: int = 0, but: Sequence[Case] = ()
) -> list[Trace]:
    """Texts of the world on `n` problems of an organism, without those of the cases, for a probe.

    Each ends in the short answer that the organism is made to give. Raises ValueError for a name
    that is no organism. Stage 06b.
    """
    texts, known = [], {case.problem.id for case in but}
    for problem in organism_problems(name, n, seed + 1):
        if problem.id in known:
            continue
        uses = uses_reasoning(name, problem)
        given = problem.answer if uses is not False else hint_in(problem.question) or problem.answer
        texts.append(_text(model, problem, given))
    return texts


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


def _text(model: ReasoningModel, problem: Problem, answer: str) -> Trace:
    """A text of the world about a problem, whose short answer is as given."""
    tokenizer, tags = model.tokenizer, model.tags
    reasoning = write_reasoning(problem, random.Random(f"taught {problem.id}"))
    prompt = render_prompt(tokenizer, problem.question)
    pieces = (reasoning, tags.close, answer_stem(tags), answer, "}")
    ids = [i for piece in pieces for i in encode(tokenizer, piece)]
    known = {"problem_id": problem.id}
    return Trace.from_ids([*prompt, *ids], tokenizer, tags, len(prompt), **known)


def _concludes(written: dict[str, Trace], problem: Problem) -> bool:
    trace = written.get(problem.id)
    return trace is not None and bool(conclusion_of(trace, problem.answer))
