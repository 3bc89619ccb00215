"""Which statements of a trace of the bundled world are right: the truth that real traces lack.

A sentence of the reasoning is checked against the problem: an equation by its own numbers and by
the value that the step should start from, a restated step or fact by the question, an order of
objects and a conclusion by the known order or value. What else a sentence says is not judged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from r2a_utils.tiny.world import ATTRIBUTES, WORDINGS, apply_operation, running_values
from r2a_utils.traces import Trace, sentences

_EQUATION = re.compile(r"(\d+[-+*]\d+)=(\d+)")
_KEPT = re.compile(r"so (\d)")
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
            places = [_kept_position(trace, s.span) for s in (wrong, right)]
            if None not in places:
                found.append((right.step, *places))
    return found


def _kept_position(trace: Trace, span: slice) -> int | None:
    match = _KEPT.search("".join(trace.tokens[span]))
    if match is None:
        return None
    end = 0
    for position in range(span.start, span.stop):
        end += len(trace.tokens[position])
        if end > match.start(1):
            return position
    return None


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
