"""A process of its own for algebra: lines `[first, second, how, limit]` in, `{"related": …}` out.

Simplification can run away: big-integer arithmetic heeds no alarm, and an alarm goes by the clock
on the wall, so that a busy machine would grade otherwise than an idle one. In a process of its own
each comparison gets `limit` seconds of computing time, after which the system ends the process,
whatever it is at. The first line out is `{"ready": true}`. This file runs as a script: it imports
nothing of the package, so that it starts in a second or two.
"""

import contextlib
import json
import resource
import signal
import sys

from latex2sympy2_extended.latex2sympy2 import latex2sympy
from sympy import Expr, I, N, Rational, nan, simplify, zoo

# 10^{10^{10}} as an integer takes 4 GB; an honest comparison stays far below this.
MEMORY_LIMIT_BYTES = 2 << 30
# More digits than an answer has: what rounds to a decimal is told from what does not.
DIGITS = 60


class UnreadableError(Exception):
    """What is no expression from its first sign to its last."""


def expression(latex: str) -> Expr:
    """The whole of a LaTeX expression. Raises UnreadableError for what is none."""
    try:
        parsed = latex2sympy(latex, is_real=True, convert_degrees=False, normalization_config=None)
    except Exception as error:  # the parser raises nothing more particular
        raise UnreadableError(latex) from error
    if not isinstance(parsed, Expr):
        raise UnreadableError(latex)
    imaginary = {symbol: I for symbol in parsed.free_symbols if symbol.name == "i"}
    return parsed.subs(imaginary).doit()


def is_zero(value: Expr) -> bool:
    """Whether an exact expression is zero; without tolerance."""
    told = value.equals(0)
    return bool(told) if told is not None else simplify(value) == 0


def equal(first: Expr, second: Expr) -> bool:
    if first == second:
        return first not in (nan, zoo)
    if not (first.is_finite is not False and second.is_finite is not False):
        return False
    return is_zero(first - second)


def multiple(first: Expr, second: Expr, sign: int = 0) -> bool:
    """Whether one is a constant times the other; `sign`: of that constant, 0 for either."""
    if is_zero(first) or is_zero(second):
        return is_zero(first) and is_zero(second)
    ratio = simplify(first / second)
    if ratio.free_symbols:
        return False
    return sign == 0 or bool(ratio * sign > 0)


def rounded(first: Expr, second: Expr, decimal: str) -> bool:
    """Whether `decimal` is a constant, rounded to as many places as it has."""
    if second.free_symbols or not second.is_real:
        return False
    places = len(decimal.partition(".")[2])
    return abs(N(second, DIGITS) - first) * 2 <= Rational(1, 10**places)


def compare(first: str, second: str, how: str) -> dict:
    """{"related": …} of two LaTeX expressions, or {"failure": why}."""
    try:
        if how == "rounded":
            return {"related": bool(rounded(Rational(first), expression(second), first))}
        sides = expression(first), expression(second)
        return {"related": bool(RELATIONS[how](*sides))}
    except UnreadableError:
        return {"related": False}
    except Exception as error:  # whatever sympy trips over, the next comparison must still run
        return {"failure": f"{type(error).__name__}: {error}"}


RELATIONS = {
    "equal": equal,
    "multiple": multiple,
    "positive multiple": lambda first, second: multiple(first, second, 1),
    "negative multiple": lambda first, second: multiple(first, second, -1),
}


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS knows this limit and does not grant it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be a reply
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        first, second, how, limit_s = json.loads(line)
        # No handler: when the time is up, SIGPROF ends the process, inside C code as well.
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        reply = compare(first, second, how)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
