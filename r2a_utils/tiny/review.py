"""Which statements of a trace of the bundled world are right: the truth that real traces lack.

A sentence of the reasoning is checked against the problem: an equation by its own numbers and by
the value that the step should start from, a restated step or fact by the question, an order of
objects and a conclusion by the known order or value. What else a sentence says is not judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate, pairwise

from r2a_utils.texts.trace import Trace, sentences
from r2a_utils.tiny.world import ATTRIBUTES, WORDINGS, apply_operation, running_values

_EQUATION = re.compile(r"(\d+[-+*]\d+)=(\d+)")
_KEPT = re.compile(r"so (\d)")
_DENIED = re.compile(r"so \d, not (\d)")
_GIVEN = re.compile(r"Step (\d+) gives (\d)")
_CORRECTING = re.compile(r"^Wait\b|^Let me check: .*\bnot\b")


@dataclass(frozen=True)
class Statement:
    """A sentence of the reasoning: its tokens, its step or fact (from 1; 0 before the first).

    `right` by what is known of the problem; `corrects` where a cue opens it and a wrong one of its
    step stands before it.
    """

    span: slice
    step: int
    right: bool
    corrects: bool


@dataclass(frozen=True)
class Restatement:
    """A corrected step in the answer ("Step 2 gives 6"): who writes its digit, what it could read.

    `query` is the token before the digit. `digits` are the positions of digits in the reasoning:
    `wrong` ("so 4"), `corrected` ("so 6"), and `denied`, the wrong one once more and now later
    than the right one ("so 6, not 4").
    """

    trace: Trace
    query: int
    wrong: int
    corrected: int
    denied: int


def reviewable(trace: Trace) -> bool:
    """Whether a trace is of the bundled world, so that its statements can be checked."""
    return trace.meta.get("family") in ("arithmetic", "comparison")


def review(trace: Trace) -> list[Statement]:
    """The statements of a trace's reasoning, in order. The trace's `meta` is its problem's."""
    check = _check_arithmetic if trace.meta["family"] == "arithmetic" else _check_comparison
    step, wrong, found = 0, False, []
    for span in sentences(trace):
        text = "".join(trace.tokens[span]).strip()
        start = re.match(r"(?:Step|Fact) (\d+):", text)
        if start:
            step, wrong = int(start[1]), False
        right = step <= trace.meta["steps"] and check(trace.meta, step, text)
        corrects = bool(right and wrong and _CORRECTING.match(text))
        wrong = not right or (wrong and not corrects)
        found.append(Statement(span, step, right, corrects))
    return found


def first_error(trace: Trace) -> slice | None:
    """The first wrong sentence that nothing in its step corrects, or None."""
    statements = review(trace)
    for i, statement in enumerate(statements):
        later = (s for s in statements[i + 1 :] if s.step == statement.step)
        if not statement.right and not any(s.corrects for s in later):
            return statement.span
    return None


def leads_to(meta: dict, written: str) -> str | None:
    """The answer to which a reasoning that was written so far must lead, by the world's own rules.

    What its last step kept ("so 4") is taken as it stands, right or wrong, and the steps of the
    problem behind it are done. None for a comparison, or where no step has been done. Stage 02b.
    """
    if meta.get("family") != "arithmetic":
        return None
    steps, kept = re.findall(r"Step (\d+):", written), _KEPT.findall(written)
    if not steps or not kept:
        return None
    value = int(kept[-1])
    for operation, operand in meta["operations"][int(steps[-1]) :]:
        value = apply_operation(value, operation, operand)[1] % 10
    return str(value)


def corrections(trace: Trace) -> list[tuple[int, int, int]]:
    """Corrected arithmetic steps: (step, position of the wrong digit, position of the right one).

    Both are the digit kept ("so 4", then "so 6"), one token each.
    """
    if trace.meta["family"] != "arithmetic":
        return []
    statements = review(trace)
    found = []
    for wrong, right in pairwise(statements):
        if right.corrects and not wrong.right:
            places = [_position(trace, s.span, _KEPT) for s in (wrong, right)]
            if None not in places:
                found.append((right.step, *places))
    return found


def restatements(trace: Trace) -> list[Restatement]:
    """The corrected steps that a long answer states again, in the order of the reasoning.

    Corrections that do not name what they correct are left out.
    """
    given = _given(trace)
    denied = {s.step: _position(trace, s.span, _DENIED) for s in review(trace) if s.corrects}
    return [
        Restatement(trace, given[step] - 1, wrong, corrected, denied[step])
        for step, wrong, corrected in corrections(trace)
        if step in given and denied[step] is not None
    ]


def _given(trace: Trace) -> dict[int, int]:
    """Step → position of the digit that the answer gives for it."""
    answer = trace.segments["answer"]
    matches = _GIVEN.finditer(trace.answer_text)
    return {int(m[1]): _token_at(trace, answer, m.start(2)) for m in matches}


def _position(trace: Trace, span: slice, pattern: re.Pattern) -> int | None:
    """Position of the token with the pattern's first group, or None where it is not found."""
    match = pattern.search("".join(trace.tokens[span]))
    return None if match is None else _token_at(trace, span, match.start(1))


def _token_at(trace: Trace, span: slice, character: int) -> int:
    """Position of the token that holds a character, counted from the start of the span."""
    ends = accumulate(len(token) for token in trace.tokens[span])
    return span.start + next(i for i, end in enumerate(ends) if end > character)


def _check_arithmetic(meta: dict, step: int, text: str) -> bool:
    values = running_values(meta)
    if step == 0:
        return re.findall(r"\d", text) == [str(values[0])]
    operation, operand = meta["operations"][step - 1]
    left, result = apply_operation(values[step - 1], operation, operand)
    if text.startswith("Step"):
        return text == f"Step {step}: {WORDINGS[meta['wording']][operation].format(operand)}."
    if text.startswith("Hmm"):
        return text == f"Hmm, {values[step - 1]} is less than {operand}."
    equation, kept = _EQUATION.search(text), _KEPT.search(text)
    if text.startswith("Alternatively"):
        first, symbol, second = re.match(r"(\d+)([-+*])(\d+)", left).groups()
        return equation[1] == f"{second}{symbol}{first}" and int(equation[2]) == result
    if equation:
        digit = kept is None or kept[1] == str(result % 10)
        return equation[1] == left and int(equation[2]) == result and digit
    # A conclusion: the value of the last step, which stands last or, in the forms below, elsewhere.
    digits = re.findall(r"\d", text)
    if text.startswith("It should be"):
        digits = digits[:1]
    return not digits or digits[-1] == str(values[step])


def _check_comparison(meta: dict, step: int, text: str) -> bool:
    order = meta["order"]
    named = [name for name in re.findall(r"[a-z]+", text) if name in order]
    if text.startswith("Fact"):
        subject, direction, other = meta["facts"][step - 1]
        word = ATTRIBUTES[meta["attribute"]][direction][0]
        return text == f"Fact {step}: the {subject} is {word} than the {other}."
    if re.match(r"So [a-z]+(, [a-z]+)+\.$", text):
        known = {name for fact in meta["facts"][:step] for name in (fact[0], fact[2])}
        return re.findall(r"[a-z]+", text[3:]) == [name for name in order if name in known]
    if text.startswith("Wait"):
        return named[:1] == [meta["facts"][step - 1][0]]
    if text.startswith("Let me check"):
        return named == [order[0], order[-1]]
    if step == 0 or text.endswith("?"):
        return True
    # A conclusion names the answer; two forms name the opposite end beside it.
    answer, opposite = (order[0], order[-1]) if meta["end"] == 0 else (order[-1], order[0])
    if text.startswith("The "):
        return named == [opposite, answer]
    return bool(named) and named[0] == answer
