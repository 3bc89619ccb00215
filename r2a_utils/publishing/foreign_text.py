"""Text that is not ours, on a page: it shows as what it is, and does nothing.

A model's name, a parameter, an answer, a title or a column of a user's file may hold anything: HTML
with a script, a directive that includes a file, a table's bar. This file knows what a sign means in
Markdown and HTML. It knows no page.
"""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

# Signs that mean something anywhere in a line of Markdown, or in HTML.
_SIGNS = re.compile(r"[&<>`*\\\[\]{}|$~]|(?<!\w)_|_(?!\w)|::|\s+")
_FIRST = re.compile(r"^[#+=:%(-]")  # at the start of a line


def inert(text: str) -> Markup:
    """Any text as one line of Markdown that shows these very signs and means nothing else."""
    shown = _SIGNS.sub(lambda sign: _entities(sign[0]), text.strip())
    return Markup(_FIRST.sub(lambda sign: _entities(sign[0]), shown))


def code(text: Any) -> Markup:
    """Any text as code in a line of Markdown, a table's row included."""
    text = " ".join(str(text).split())
    if re.fullmatch(r"[^`|]+", text):
        return Markup(f"`{text}`")
    return Markup(f"<code>{inert(text)}</code>" if text else "")


def one_line(text: Any) -> Markup:
    """Any text as the value of a directive's option, which is not read as Markdown."""
    return Markup(" ".join(str(text).split()))


def html_of(markdown: str) -> str:
    """Markdown that a cell has shown as HTML; what looks like HTML in it is text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)


def _entities(signs: str) -> str:
    return " " if signs.isspace() else "".join(f"&#{ord(sign)};" for sign in signs)
