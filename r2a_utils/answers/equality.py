r"""Equality of two answers: whether they say the same, as mathematics or as words.

Answers are brought into normal form (`normal_form.py`) and taken apart here into lists, points,
intervals, matrices, relations and ratios. What cannot be taken apart further is a quantity
(`quantities.py`); two expressions go to the process that can do algebra (`math_process.py`), whole
or not at all: an answer that this file cannot read to its end equals its own spelling and nothing
else. Exact numbers are compared exactly. How good an open answer is, `judging.py` asks a judge.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from r2a_utils.answers.math_process import related
from r2a_utils.answers.normal_form import normal_form
from r2a_utils.answers.quantities import (
    NUMBER,
    SHORTEST_WORD,
    algebra,
    same_quantities,
    same_values,
    singular,
)
from r2a_utils.texts.boxed import final_answer

_CHOICE = re.compile(
    r"(?:(?i:(?:the )?(?:correct )?(?:option|choice|answer)(?: is)?)[: ]*)?\(?([A-Z])\)?[.:]?"
)
# A choice with what it says: "(C) 12", "Option C: 12".
_CHOSEN = re.compile(r"(?:(?i:option|choice) ?\(?([A-Z])\)?[.:]|\(([A-Z])\)).+")
# What may stand before a word that answers: "the sun", "on Monday", "at the lake".
_BEFORE_WORD = re.compile(r"^(?:(?:on|in|at) )?(?:(?:the|an?) )?")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")
# Words that are mathematics when they stand alone.
_NO_WORDS = {"pi", "infinity", "sin", "cos", "tan", "log", "ln", "exp"}

_RELATION = re.compile(r"\\le(?![A-Za-z])|\\ge(?![A-Za-z])|[<>=]")
_FLIPPED = {"<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le"}
_NAME = re.compile(
    r"(?:m?\\angle ?)?(?:\\?[A-Za-z]+)(?:_\{\w+\})?'*(?:\([A-Za-z0-9,=]*\))?|\\text\{[^{}]*\}"
    r"|\|[A-Z]+\||\\frac\{d[a-z]\}\{d[a-z]\}"
    r"|\((?:[A-Za-z](?:_\{\w+\})?,)+[A-Za-z](?:_\{\w+\})?\)"
)
_NAMED = re.compile(r"([A-Za-z])(?:_\{\w+\})?=(?!.*=)")
_REALS = r"\mathbb{R}"
_MATRIX = re.compile(r"\\begin\{([pbvBV]?|small)matrix\}(.*)\\end\{\1matrix\}")
_OPEN, _CLOSE = "([", ")]"


def grade_math(answer_text: str, gold: str) -> bool:
    """Whether an answer equals the known one.

    `answer_text` is a whole answer part, of which the boxed answer counts (see `final_answer`),
    or, without a box, the bare answer itself. Works in any thread. A comparison that takes more
    than 10 s of computing counts as wrong, with a warning. Stage 1.
    """
    boxed = final_answer(answer_text)
    return equal(answer_text if boxed is None else boxed, gold)


def same_answer(first: str | None, second: str | None) -> bool:
    """Whether two bare answers are equal.

    None, no answer, is the same as nothing, not even as another None.
    """
    return first is not None and second is not None and grade_math(first, second)


def equal(first: str, second: str) -> bool:
    """Whether two bare answers say the same; `equal(a, b)` is `equal(b, a)`. Nothing equals "".

    Lists and sets have no order, points, intervals and matrices have. A unit, a percent sign or
    the name of what is found (`x=`) may be missing on one side; two different ones are unequal.
    A decimal of six significant digits equals the number that it rounds.
    """
    first, second = sorted((normal_form(first), normal_form(second)))
    if not first or not second:
        return False
    if first == second:
        return True
    choices = _CHOICE.fullmatch(first), _CHOICE.fullmatch(second)
    if any(choices):
        return _same_choice(first, second)
    words = _word(first), _word(second)
    if any(words):
        return words[0] == words[1]
    return _same_lists(first, second)


def _same_choice(first: str, second: str) -> bool:
    """Whether a choice's letter and another answer name the same choice."""
    letters = [_CHOICE.fullmatch(text) or _CHOSEN.fullmatch(text) for text in (first, second)]
    if not all(letters):
        return False
    return len({next(filter(None, match.groups())) for match in letters}) == 1


def _word(text: str) -> str | None:
    """An answer in words, without its article and in lower case; None where it may be algebra."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip(" *.,!()[]").casefold()
    bare = _BEFORE_WORD.sub("", bare)
    if not _WORDS.fullmatch(bare) or bare in _NO_WORDS:
        return None
    bare = singular(bare) if bare.startswith("no ") else bare  # "no solution", "no solutions"
    return bare if len(bare) >= SHORTEST_WORD or bare in ("no",) else None


def _same_lists(first: str, second: str) -> bool:
    lists = [_items(text) for text in _without_name(first, second)]
    if len(lists[0]) == len(lists[1]) == 1:
        return _same_items(lists[0][0], lists[1][0])
    for one, other in (lists, lists[::-1]):
        point = _bracketed(one[0]) if len(one) == 1 else None
        if point is not None and len(point[1]) == len(other) and point[0] == "(":
            return all(map(_same_items, point[1], _by_name(other) or other))
        by_name = _by_name(other)
        if by_name and len(one) == len(other) and "=" not in "".join(one):
            return all(map(_same_items, one, by_name))
    return _matched(*lists)


def _by_name(items: list[str]) -> list[str] | None:
    """`y=2` and `x=1` in the order of their names; None where names lack or are one letter's."""
    names = [match[1] for item in items if (match := _NAMED.match(item))]
    return sorted(items) if len(set(names)) == len(items) else None


def _matched(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether each item of a list has its own equal in the other, in any order."""
    left = list(second)
    for item in first:
        partner = next((other for other in left if _same_items(item, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def _items(text: str) -> list[str]:
    r"""The items of a list or a set; `1\pm2` is two of them, and so is `(x,y)=(1,2)`."""
    name, _, value = text.partition("=")
    names, values = _bracketed(name), _bracketed(value)
    if names and values and _NAME.fullmatch(name) and len(names[1]) == len(values[1]):
        return [f"{name}={value}" for name, value in zip(names[1], values[1], strict=True)]
    text = re.sub(r"\\\}\\cup\\\{", ",", text)  # of sets that are listed
    if text.startswith(r"\{") and text.endswith(r"\}"):
        text = text[2:-2]
    items = [item for item in _split(text, r"[,;]") if item]
    if len(items) > 1 and (name := re.match(rf"(?:{_NAME.pattern})=", items[0])):
        bare = [item.removeprefix(name[0]) for item in items]
        items = items if _RELATION.search("".join(bare)) else bare
    return [one for item in items for one in _signed(item)] or [text]


def _signed(item: str) -> list[str]:
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", item):
        return [item]
    upper = re.sub(r"\\mp(?![A-Za-z])", "-", re.sub(r"\\pm(?![A-Za-z])", "+", item))
    lower = re.sub(r"\\mp(?![A-Za-z])", "+", re.sub(r"\\pm(?![A-Za-z])", "-", item))
    return [re.sub(r"(^|[=(,{])\+", r"\1", sign) for sign in (upper, lower)]


def _split(text: str, separator: str) -> list[str]:
    """The text at each separator that stands in no bracket, group or environment."""
    parts, depth, start, i, pattern = [], 0, 0, 0, re.compile(separator)
    while i < len(text):
        if text.startswith(r"\begin", i) or text.startswith(r"\end", i):
            depth += 1 if text.startswith(r"\begin", i) else -1
            i += 4
        elif depth == 0 and (match := pattern.match(text, i)):
            parts.append(text[start:i])
            start = i = match.end()
            continue
        elif text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
        i += 1
    return [part.strip() for part in [*parts, text[start:]]]


def _same_items(first: str, second: str) -> bool:
    if first == second:
        return True
    if NUMBER.fullmatch(first) and NUMBER.fullmatch(second):
        return Fraction(first) == Fraction(second)
    texts = _without_name(first, second)
    relations = [_relation(text) for text in texts]
    if all(relations) and (same := _same_relations(*relations)):
        return same
    sets = [_union(text, relation) for text, relation in zip(texts, relations, strict=True)]
    if all(sets):
        return _same_unions(*sets)
    if any(relations):
        return False
    ratios = [_split(text, ":") for text in texts]
    if any(len(ratio) > 1 for ratio in ratios):
        return _same_ratios(*ratios)
    if any(sets) or any(map(_bracketed, texts)):
        points = [_bracketed(text) for text in texts]
        return all(points) and _same_points(*points)
    matrices = [_MATRIX.fullmatch(text) for text in texts]
    if any(matrices):
        return all(matrices) and _same_matrices(*matrices)
    return same_quantities(*texts)


def _without_name(first: str, second: str) -> tuple[str, str]:
    r"""Both texts, without an `x=` or an `x\in` that only one of them has."""
    bare = []
    for text in (first, second):
        text = re.sub(r"^[A-Za-z]\\in(?![A-Za-z])", "", text).strip()
        sides = _split(text, "=")
        lone = len(_split(text, "[,;]")) == 1
        named = lone and len(sides) > 1 and not _RELATION.search("".join(sides[1:]))
        name = sides[0] if named and _NAME.fullmatch(sides[0]) else None
        bare.append((text, name, sides[-1]))
    (one, its_name, value), (other, other_name, other_value) = bare
    if its_name and not _RELATION.search(other):
        return value, other
    if other_name and not _RELATION.search(one):
        return one, other_value
    if its_name and (its_name == other_name or {its_name, other_name} == {"y", "f(x)"}):
        return value, other_value
    return one, other


def _relation(text: str) -> tuple[list[str], list[str]] | None:
    """The sides of a relation and the signs between them; None where it is none."""
    sides = _split(text, _RELATION.pattern)
    signs = _RELATION.findall(text)
    if len(sides) < 2 or len(signs) != len(sides) - 1 or not all(sides):
        return None
    return sides, signs


def _same_relations(first, second) -> bool:
    """Whether two relations are multiples of each other, read from either side."""
    (a, its_signs), (b, signs) = first, second
    if len(a) != 2 or len(b) != 2:
        return False
    expressions = [algebra(f"{left}-({right})") for left, right in (a, b)]
    if None in expressions:
        return False
    if its_signs == signs == ["="]:
        return related(*sorted(expressions), "multiple")
    if "=" in (*its_signs, *signs):
        return False
    if _FLIPPED[its_signs[0]] == signs[0]:
        return related(*sorted(expressions), "negative multiple")
    return its_signs == signs and related(*sorted(expressions), "positive multiple")


def _union(text: str, relation) -> list[tuple[str, list[str], str]] | None:
    r"""The intervals of a union, or of an inequality of one letter; None for anything else."""
    if relation is not None:
        interval = _solved(*relation)
        return None if interval is None else [interval]
    text = text.replace(_REALS, r"(-\infty,\infty)")
    if hole := re.fullmatch(r"\(-\\infty,\\infty\)(?:\\setminus|-)\\\{([^,]+)\\\}", text):
        text = rf"(-\infty,{hole[1]})\cup({hole[1]},\infty)"
    parts = [_bracketed(part) for part in _split(text, r"\\cup(?![A-Za-z])")]
    if not all(part is not None and len(part[1]) == 2 for part in parts):
        return None
    return parts


def _solved(sides: list[str], signs: list[str]) -> tuple[str, list[str], str] | None:
    r"""`2<x\le5` as the interval (2,5]; None where it is not of that form."""
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], [_FLIPPED.get(sign, sign) for sign in signs[::-1]]
    if not set(signs) <= {"<", r"\le"}:
        return None
    letters = [bool(re.fullmatch(r"[A-Za-z]|\\theta", side)) for side in sides]
    if letters == [False, True, False]:
        return "(["[signs[0] == r"\le"], [sides[0], sides[2]], ")]"[signs[1] == r"\le"]
    if letters == [True, False]:
        return "(", [r"-\infty", sides[1]], ")]"[signs[0] == r"\le"]
    if letters == [False, True]:
        return "(["[signs[0] == r"\le"], [sides[0], r"\infty"], ")"
    return None


def _same_unions(first, second) -> bool:
    left = list(second)
    for part in first:
        partner = next((other for other in left if _same_points(part, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def _bracketed(text: str) -> tuple[str, list[str], str] | None:
    """A point or an interval: its brackets and what stands between its commas."""
    if len(text) < 3 or text[0] not in _OPEN or text[-1] not in _CLOSE:
        return None
    items = _split(text[1:-1], ",")
    if len(items) < 2 or not all(items) or not _closed(text[1:-1]):
        return None
    return text[0], items, text[-1]


def _closed(text: str) -> bool:
    """Whether every bracket of a text closes one that stands in it."""
    steps = [(char in "([{") - (char in ")]}") for char in text]
    return min(accumulate(steps), default=0) >= 0


def _same_points(first, second) -> bool:
    brackets = (first[0], first[2]) == (second[0], second[2])
    same_length = len(first[1]) == len(second[1])
    return brackets and same_length and all(map(_same_items, first[1], second[1]))


def _same_ratios(first: list[str], second: list[str]) -> bool:
    """Whether two ratios are the same, or one of two terms a number; times of day are no ratios."""
    if all(len(ratio) == 2 and re.match(r"\d\d(?!\d)", ratio[1]) for ratio in (first, second)):
        return all(map(same_quantities, first, second))
    if len(first) == len(second):
        crossed = [f"({a})({second[0]})" for a in first], [f"({b})({first[0]})" for b in second]
        return all(map(same_values, *crossed))
    first, second = sorted((first, second), key=len)
    return len(second) == 2 and same_values(first[0], rf"\frac{{{second[0]}}}{{{second[1]}}}")


def _same_matrices(first: re.Match, second: re.Match) -> bool:
    if (first[1] in ("v", "V")) != (second[1] in ("v", "V")):
        return False
    tables = []
    for match in (first, second):
        rows = [row for row in _split(match[2], r"\\\\") if row]
        tables.append([_split(row, "&") for row in rows])
    if [len(row) for row in tables[0]] != [len(row) for row in tables[1]]:
        return False
    entries = [[entry for row in table for entry in row] for table in tables]
    return all(map(_same_items, *entries))
