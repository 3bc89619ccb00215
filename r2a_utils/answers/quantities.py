r"""Quantities: a value with its unit, and whether two of them are the same.

This file knows units, bases and percent, and how an expression is written for the process that can
do algebra (`math_process.py`). Lists, points and relations are taken apart in `equality.py`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from r2a_utils.answers.math_process import related

# A decimal with this many significant digits may stand for the number that it rounds; math-verify
# compares decimals to six places, too.
ROUNDED_DIGITS = 6

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_BASED = re.compile(r"([0-9A-Z]+)_\{(\d+)\}")
# Longer letters than a product of variables, in which the order does not matter, are a word.
SHORTEST_WORD = 3

_UNIT = re.compile(
    r"(?P<value>.+?)(?:\\text\{(?P<wrapped>[^{}]*)\}|(?<=[\d)}]) ?"
    r"(?P<bare>(?:[A-Za-z]{2,}|[A-Za-z](?=/))(?:[ ./][A-Za-z.]+)*))(?:\^\{?(?P<power>[23])\}?)?"
)
_UNIT_NAMES = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "meter": "m", "metre": "m",
    "kilometer": "km", "kilometre": "km", "inch": "in", "inche": "in", "feet": "ft", "foot": "ft",
    "yard": "yd", "mile": "mi", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h",
    "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "degree": "degree", "deg": "degree",
    "percent": "%", "mile per hour": "mph", "kilometer per hour": "km/h", "kph": "km/h",
    "meter per second": "m/s", "pound": "lb", "lbs": "lb", "dollar": "usd", "pm": "pm", "am": "am",
    "unit": "",
}  # fmt: skip
_FUNCTION = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp"
# A function whose argument ends the text, so that degrees behind it are the argument's.
_OF_ANGLE = re.compile(rf"\\(?:{_FUNCTION})(?:\^\{{-?\d+\}})?[\d.]+$")
_SYMBOL = (
    "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|psi|omega|pi|infty"
)
_TOKEN = re.compile(
    rf"(?P<number>\d+\.\d+|\d+)|(?P<letter>[A-Za-z])|\\(?P<function>{_FUNCTION})(?![A-Za-z])"
    rf"|\\(?P<symbol>{_SYMBOL})(?![A-Za-z])|\\(?P<group>frac|sqrt|binom)(?![A-Za-z])"
    r"|(?P<sign>\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|[-+*/!^_{}()\[\]|])|(?P<blank> )"
)
_INDEX = re.compile(r"_\{(\w+)\}")


def same_quantities(first: str, second: str) -> bool:
    (a, its_unit), (b, unit) = _quantity(first), _quantity(second)
    if its_unit and unit and its_unit != unit:
        return False
    bases = _BASED.fullmatch(a), _BASED.fullmatch(b)
    if any(bases):
        digits = [base[1] if base else text for base, text in zip(bases, (a, b), strict=True)]
        return digits[0] == digits[1] and not all(bases)
    if same_values(a, b):
        return True
    if "%" in (its_unit, unit) and its_unit != unit:
        share, other = (a, b) if its_unit == "%" else (b, a)
        return same_values(rf"\frac{{{share}}}{{100}}", other)
    return False


def _quantity(text: str) -> tuple[str, str]:
    """The value of an answer, and its unit in one spelling ("" where it has none)."""
    if text.endswith("%") and len(text) > 1:
        return text[:-1].strip(), "%"
    match = _UNIT.fullmatch(text)
    if match is None or _OF_ANGLE.search(match["value"]):
        return text, ""
    unit = (match["wrapped"] or match["bare"] or "").strip().casefold().strip(".")
    known = unit in _UNIT_NAMES.values() and " " in text
    if match["bare"] and len(unit) <= SHORTEST_WORD and not known and algebra(text) is not None:
        return text, ""  # `5 ab` is a product
    power = match["power"] or ""
    for word, exponent in (("square", "2"), ("sq", "2"), ("cubic", "3")):
        if re.match(rf"{word}\b\.?", unit):
            unit, power = unit.removeprefix(word).strip(" ."), exponent
    unit = re.sub(r"\s+", " ", unit.replace(".", ""))
    unit = " ".join(singular(word) for word in unit.split(" "))
    unit = _UNIT_NAMES.get(unit, unit)
    return match["value"].strip(), f"{unit}^{power}" if power and unit else unit


def singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and re.search(r"[^s]s$", word) else word


def same_values(first: str, second: str) -> bool:
    if NUMBER.fullmatch(first) and NUMBER.fullmatch(second):
        return Fraction(first) == Fraction(second)
    expressions = algebra(first), algebra(second)
    if None in expressions:
        return first == second
    if expressions[0] == expressions[1] or related(*sorted(expressions), "equal"):
        return True
    for decimal, exact in ((first, second), (second, first)):
        significant = decimal.lstrip("+-0.").replace(".", "")
        if (
            "." in decimal
            and NUMBER.fullmatch(decimal)
            and "." not in exact
            and len(significant) >= ROUNDED_DIGITS
        ):
            return related(decimal, algebra(exact), "rounded")
    return False


def algebra(text: str) -> str | None:
    """An expression as the process reads it, or None where one piece of it cannot be read.

    Decimals become fractions, capital letters get an index (the parser knows no capitals), and a
    product that would be read as a mixed number or a differential gets its sign.
    """
    text = re.sub(r"(\d+(?:\.\d+)?)\\text\{degrees\}", r"(\\frac{\1\\cdot\\pi}{180})", text)
    out, i, before, own = [], 0, "", None  # own: groups open in the power of a function's name
    while i < len(text):
        match = _TOKEN.match(text, i)
        if match is None:
            return None
        kind, token, i = match.lastgroup, match[0], match.end()
        if kind == "blank":
            if before == "number" and text[i : i + 1].isdigit():
                return None
            out.append(" ")
            continue
        if kind == "number" and "." in token:
            token = _fraction(token)
        if kind == "letter" and token.isupper():
            index = _INDEX.match(text, i)
            token = f"{token.lower()}_{{cap{index[1] if index else ''}}}"
            i = index.end() if index else i
        product = token == "(" and before in ("number", "closed") and own is None
        differential = kind == "letter" and before == "letter" and out[-1] == "d"
        if product or differential:
            out.append(r"\cdot ")
        if kind == "function":
            own = 0
        elif own is not None and token in ("{", "}"):
            own += 1 if token == "{" else -1
        elif own == 0 and token not in ("^", "_"):
            own = None
        out.append(token + " " if kind in ("function", "symbol", "group") else token)
        before = "closed" if token in (")", "}", "!") else kind
    return "".join(out).strip() or None


def _fraction(decimal: str) -> str:
    whole, _, places = decimal.partition(".")
    return rf"\frac{{{int(whole + places)}}}{{{10 ** len(places)}}}"
