"""What a check of the workshop is: it tries a participant's function and says what is wrong.

A check calls the function on hidden cases and compares each result with the right one. Mistakes
that many make are known by what they give: beside the right result stand the wrong ones, each with
the sentence that names its mistake, and the first that fits is said. A check returns a `Passed`,
which shows as one line, or raises `CheckFailed`, which a notebook shows as one line too.

The checks themselves are beside this file, by what a stage needs: `answers.py` (traces and stage
1), `attention.py` (stage 2), `patching.py` (stage 3). A stage's notebook imports its own, so that a
change in another stage's checks leaves its results standing.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Passed:
    """What a check returns: its text is what a notebook shows."""

    text: str

    def __repr__(self) -> str:
        return self.text


class CheckFailed(AssertionError):  # noqa: N818  a check fails; this is that event
    """What is wrong with a participant's function, in one line."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback, which would lead into the check."""
        return [str(self)]


class NotWritten(CheckFailed):
    """The function is still the stub."""


def called(function: Callable, *arguments: Any) -> Any:
    """What the participant's function returns.

    CheckFailed where it returns None or raises, with the line of theirs that did; NotWritten where
    it is the stub.
    """
    try:
        found = function(*arguments)
    except NotImplementedError as error:
        raise NotWritten(f"{function.__name__} is not written yet: {error}") from None
    except Exception as error:
        told = f"{function.__name__} raised {type(error).__name__}: {error}"
        raise CheckFailed(told.splitlines()[0] + _line(function, error)) from error
    if found is None:
        raise CheckFailed(f"{function.__name__} returned None: does it end in `return`?")
    return found


def _line(function: Callable, error: Exception) -> str:
    """Where in the participant's cell it was raised."""
    cell = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == cell]
    if not frames:
        return ""
    source = linecache.getline(cell, frames[-1].lineno).strip()
    return f" (line {frames[-1].lineno} of its cell{f': `{source}`' if source else ''})"


def compare(
    function: Callable,
    found: Any,
    right: Any,
    mistakes: Mapping[str, Any],
    *,
    case: str = "",
    tolerance: float = 1e-5,
) -> None:
    """CheckFailed unless `found` equals `right`; it names the first of the mistakes that fits.

    Numbers or arrays of them, of any library; `mistakes` maps a sentence to what that mistake would
    give in this case. `tolerance` is relative to the largest right number, or absolute where all
    are below 1; `case` tells the participant what was tried.
    """
    name, right = function.__name__, np.asarray(right, dtype=float)
    found = _numbers(name, found)
    scale = tolerance * max(1.0, float(np.abs(right).max(initial=0.0)))
    if _alike(found, right, scale):
        return
    for sentence, wrong in mistakes.items():
        if _alike(found, np.asarray(wrong, dtype=float), scale):
            raise CheckFailed(f"{name}: {sentence}.")
    suffix = f" ({case})" if case else ""
    if found.shape != right.shape:
        raise CheckFailed(
            f"{name} returned {_shape(found)} where {_shape(right)} is needed{suffix}."
        )
    if not np.isfinite(found).all():
        raise CheckFailed(f"{name} returned NaN or infinity{suffix}.")
    worst = np.unravel_index(np.abs(found - right).argmax(), right.shape)
    place = f" at index {tuple(map(int, worst))}" if right.ndim else ""
    raise CheckFailed(
        f"{name} gives {found[worst]:.4g}{place} where {right[worst]:.4g} is right{suffix}."
    )


def _numbers(name: str, found: Any) -> np.ndarray:
    if hasattr(found, "detach"):
        found = found.detach().cpu().double()
    try:
        return np.asarray(found, dtype=float)
    except (TypeError, ValueError):
        raise CheckFailed(
            f"{name} returned {type(found).__name__}, where numbers are needed."
        ) from None


def _alike(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    return first.shape == second.shape and np.allclose(first, second, rtol=0, atol=tolerance)


def _shape(array: np.ndarray) -> str:
    return f"the shape {array.shape}" if array.ndim else "a single number"
