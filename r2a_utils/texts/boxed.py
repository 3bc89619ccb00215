"""The boxed answer of a text: the one parser of `\boxed{…}` and `\fbox{…}`.

It knows where an answer stands and not whether it is right, which `answers/equality.py` says.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# What stands between boxes that list one answer: "\boxed{1}, \boxed{-2}", "\boxed{1}$ or $…",
# and what a list may say of its next item: "x = \boxed{1} or x = \boxed{2}".
_SPACE = r"(?:\s|\$|\\[()\[\]]|\\[,;:! ]|\\q?quad)*"
_WORD = r"(?:and|or)\b|\\(?:text|mathrm|mbox)\{\s*,?\s*(?:and|or)\s*\}"
_LIST_SEPARATOR = re.compile(
    rf"{_SPACE}(?:[,;]{_SPACE}(?:{_WORD})?|{_WORD}){_SPACE}(?:[A-Za-z](?:_\w)?\s*=)?{_SPACE}"
)


class Box(NamedTuple):
    """A complete box: where it begins and ends in its text, and where its content does."""

    start: int
    stop: int
    content_start: int
    content_stop: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""Every complete `\boxed{…}` or `\fbox{…}` of a text that is not empty, in order.

    Braces nest; an escaped brace does not count; a box that the end of the text cut open, or that
    holds nothing but another box, is none. The content has no white space around it. Stages 1
    to 3.
    """
    found = []
    for opening in _BOX.finditer(text):
        depth, i = 1, opening.end()
        while i < len(text) and depth:
            if text[i] == "\\":
                i += 1  # an escaped character is no brace
            elif text[i] == "{":
                depth += 1
            elif text[i] == "}":
                depth -= 1
            i += 1
        inside = text[opening.end() : i - 1]
        content = inside.strip()
        if depth == 0 and content and not _BOX.match(content):
            start = opening.end() + inside.index(content)
            found.append(Box(opening.start(), i, start, start + len(content), content))
    return found


def extract_answer(text: str) -> str | None:
    """Return the content of a text's last box (see `boxes`), or None without one. Stage 1."""
    found = boxes(text)
    return found[-1].content if found else None


def final_answer(text: str) -> str | None:
    r"""Return the text's last box, or the last list of them: `\boxed{1}, \boxed{-2}` is `1, -2`.

    The same with `and` or `or` between the boxes. None without a box. This is what `grade_math`
    compares; boxes that other text separates are no list, and only the last counts. Stage 1.
    """
    found = boxes(text)
    if not found:
        return None
    listed = [found[-1]]
    for box in reversed(found[:-1]):
        if not _LIST_SEPARATOR.fullmatch(text[box.stop : listed[0].start]):
            break
        listed.insert(0, box)
    return ", ".join(box.content for box in listed)
