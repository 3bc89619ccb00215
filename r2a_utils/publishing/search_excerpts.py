"""What the search page quotes of each page that it finds, from a file beside it.

Sphinx fetches every page that is found and quotes from that; a browser refuses this for a book that
is read from disk. The paragraphs of all pages stand in one script instead, which the search page
alone loads, and Sphinx quotes from there. This file is an extension of Sphinx.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from docutils import nodes

SCRIPT = "search_texts.js"
# Instead of the network; Sphinx asks for nothing else on its search page.
_ANSWER = """
window.fetch = async (address) => ({
  text: async () => {
    const root = document.documentElement.dataset.content_root;
    return r2aSearchTexts[address.slice(root.length).replace(/\\.html$/, "")] ?? "";
  },
});
"""


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    texts: dict[str, str] = {}

    def collect(app: Any, pagename: str, template: str, context: dict, doctree: Any) -> None:
        if doctree is not None:
            texts[pagename] = f'<div role="main">{paragraphs(doctree)}</div>'
        if pagename == "search":
            app.add_js_file(SCRIPT)

    def write(app: Any, exception: Exception | None) -> None:
        if exception is None and app.builder.format == "html":
            told = f"const r2aSearchTexts = {json.dumps(texts, ensure_ascii=False)};{_ANSWER}"
            (Path(app.outdir) / "_static" / SCRIPT).write_text(told, encoding="utf-8")

    app.connect("html-page-context", collect)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}


def paragraphs(node: nodes.Element) -> str:
    """A page's sections with the words of their paragraphs, as HTML; code and figures left out."""
    found = []
    for child in node.children:
        if isinstance(child, nodes.section):
            name = html.escape(child["ids"][0])
            found.append(f"<section id='{name}'>{paragraphs(child)}</section>")
        elif isinstance(child, nodes.paragraph):
            found.append(f"<p>{html.escape(' '.join(child.astext().split()))} </p>")
        elif isinstance(child, nodes.Element):
            found.append(paragraphs(child))
    return "".join(found)
