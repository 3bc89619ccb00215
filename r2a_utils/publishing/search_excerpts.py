"""What the search page quotes of each page that it finds, from a file beside it.

Sphinx fetches every page that is found and quotes from that; a browser refuses this for a book that
is read from disk. The paragraphs of all pages stand in one script instead, which the search page
loads when something is found, and Sphinx quotes from there. This file is an extension of Sphinx.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from docutils import nodes

SCRIPT, TEXTS = "search_excerpts.js", "search_texts.js"
# Instead of the network; Sphinx asks for nothing else on its search page, and for that when
# something is found.
_ANSWER = """
{
  const root = document.documentElement.dataset.content_root;
  let loading;
  const texts = () => (loading ??= new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = `${root}_static/TEXTS`;
    script.onload = () => resolve(r2aSearchTexts);
    document.head.append(script);
  }));
  window.fetch = async (address) => ({
    text: async () => (await texts())[address.slice(root.length).replace(/\\.html$/, "")] ?? "",
  });
}
""".replace("TEXTS", TEXTS)


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
            static = Path(app.outdir) / "_static"
            told = f"const r2aSearchTexts = {json.dumps(texts, ensure_ascii=False)};"
            (static / TEXTS).write_text(told, encoding="utf-8")
            (static / SCRIPT).write_text(_ANSWER, encoding="utf-8")

    app.connect("html-page-context", collect)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}


def paragraphs(node: nodes.Element) -> str:
    """A page's sections with the words of their paragraphs, as HTML; code and figures left out.

    What a search may quote from keeps its anchors: sections and terms.
    """
    found = []
    for child in node.children:
        if isinstance(child, nodes.paragraph | nodes.term):
            found.append(f"<p>{html.escape(' '.join(child.astext().split()))} </p>")
        elif isinstance(child, nodes.Element):
            found.append(_anchored(child, paragraphs(child)))
    return "".join(found)


def _anchored(node: nodes.Element, text: str) -> str:
    own = [node] if isinstance(node, nodes.section) else []
    if isinstance(node, nodes.definition_list_item):
        own = [part for part in node.children if isinstance(part, nodes.term)]
    for name in (name for part in own for name in part["ids"]):
        text = f'<section id="{html.escape(name)}">{text}</section>'
    return text
