"""Docstrings on the book's page about the package: Sphinx reads reStructuredText, ours are plain.

A docstring of this project is prose with `code` in single backticks, lists with dashes and indented
blocks. This file is an extension of Sphinx (`_config.yml` names it) that says the same in
reStructuredText, in which any other sign stands for itself. It knows no module and no page.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

_CODE = re.compile(r"`([^`]+)`")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def as_restructured(docstring: str) -> str:
    """A docstring of this project as reStructuredText: paragraphs, lists with dashes, blocks."""
    return "\n\n".join(filter(None, map(_block, re.split(r"\n\s*\n", docstring.strip("\n")))))


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [*as_restructured("\n".join(lines)).split("\n"), ""]


def _block(text: str) -> str:
    """One block: indented lines stay as they are, others are prose and items of a list."""
    if all(line.startswith("  ") for line in text.splitlines()):
        return "::\n\n" + textwrap.indent(textwrap.dedent(text), "    ")
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        item = line.startswith("- ")
        if item or (parts[-1] and parts[-1][0].startswith("- ") and not line.startswith("  ")):
            parts.append([])
        parts[-1].append(line)
    return "\n\n".join(_prose(part) for part in parts if part)


def _prose(lines: list[str]) -> str:
    text = " ".join(line.strip() for line in lines)
    bullet = "- " if text.startswith("- ") else ""
    text = _inline(re.sub("::$", ":", text.removeprefix("- ")))
    return bullet + re.sub(r"^(?=\(?\w+[.)]\s|\(?\w+[.)]$)", r"\\ ", text)  # no enumeration


def _inline(text: str) -> str:
    """Code as code, every other sign that means something to reStructuredText as itself."""
    pieces = _CODE.split(text)
    pieces[::2] = [re.sub(r"([\\*_|`])", r"\\\1", piece) for piece in pieces[::2]]
    pieces[1::2] = [rf"\ ``{code}``\ " for code in pieces[1::2]]
    return "".join(pieces)
