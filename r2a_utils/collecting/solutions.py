"""Solutions that somebody has written, as a model would have: the thought, its end, the answer.

A problem carries its solution in `meta["reasoning"]`, a column of the file that it comes from. This
file knows what such a text may look like. It knows no model.
"""

from __future__ import annotations

from r2a_utils.texts.boxed import boxes
from r2a_utils.texts.problem import Problem
from r2a_utils.texts.tags import R1_TAGS, respelt, tags_in
from r2a_utils.texts.trace import sentence_ends

_CLOSED = f"{R1_TAGS.before_close}{R1_TAGS.close}{R1_TAGS.after_close}"


def write_solution(problem: Problem, condition: str) -> str:
    r"""A completion from a written solution, for teacher forcing.

    A solution with a closing tag that is known (`KNOWN_TAGS`) is taken as it is, from behind its
    opening tag, with R1's closing tag, which becomes that of the model. Of any other, the
    sentence with the last box and what follows are the answer, and what stands before is the
    reasoning; without a box, all is reasoning, and the answer boxes the known one. Without
    reasoning, the text is that answer alone. Raises ValueError where a problem has no solution, or
    neither it nor the problem tells the answer. Stages 01 and 05 (`source`).
    """
    reasoning = problem.meta.get("reasoning")
    if not isinstance(reasoning, str) or not reasoning.strip():
        raise ValueError(
            f"problem {problem.id!r} has no reasoning: source=written needs a solution of each; "
            "the file's column is called reasoning, or is named in columns (reasoning=…)"
        )
    found = boxes(reasoning)
    answer = problem.answer or (found[-1].content if found else None)
    if answer is None:
        raise ValueError(f"problem {problem.id!r} has no answer, and its reasoning boxes none")
    if condition == "without_reasoning":
        return _stated(answer)
    if own := tags_in(reasoning):
        thought = reasoning.rpartition(own.open)[2].removeprefix(own.after_open)
        return respelt(thought, R1_TAGS, own)
    if not found:
        return f"{reasoning}{_CLOSED}{_stated(answer)}"
    start = max((e for e in sentence_ends(reasoning) if e <= found[-1].start), default=0)
    return f"{reasoning[:start].rstrip()}{_CLOSED}{reasoning[start:].strip()}"


def _stated(answer: str) -> str:
    return f"The answer is \\boxed{{{answer}}}."
