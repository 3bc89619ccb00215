"""What may not be parted at the end of a line: a number and its per cent sign.

Prose is wrapped where it is written, so that the space before a sign is often a line's end there.
This file is an extension of Sphinx; it knows nothing of what the pages say.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

_BEFORE_SIGN = re.compile(r"(?<=\d)\s(?=%)")
_VERBATIM = (nodes.literal, nodes.literal_block, nodes.raw, nodes.math, nodes.math_block)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    app.connect("doctree-resolved", lambda app, doctree, page: join_signs(doctree))
    return {"parallel_read_safe": True}


def join_signs(tree: nodes.Node) -> None:
    """Put a no-break space between each number and its per cent sign; code stays as it is."""
    for text in list(tree.findall(nodes.Text)):
        if not isinstance(text.parent, _VERBATIM):
            text.parent.replace(text, nodes.Text(_BEFORE_SIGN.sub("\N{NO-BREAK SPACE}", text)))
