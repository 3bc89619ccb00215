"""Slides of the three stages, made from the pages of the main run: `slides.html` of the book.

A page gives one slide with its question and what it found, and one for each figure with its
caption. The file is a column of slides that snap into place: arrow and page keys turn them,
printing gives one a sheet, and nothing is fetched. Views to explore stay on the pages. This file
knows pages and captions, and nothing of what they say.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from r2a_utils.publishing.foreign_text import html_of
from r2a_utils.publishing.plain_markdown import plain_markdown

BOOK = "From reasoning to answer"
# The pages of the paper's three stages, by their numbers.
PAGES = ("02", "03", "04", "05", "06")
_CAPTION = re.compile(r"\{\.r2a-caption\}\n(\*\*Figure [\w.]+\.\*\* .*)", re.DOTALL)
_FINDING = re.compile(
    r":::\{admonition\} In one line\n:class: r2a-finding\n\n(.*?)\n:::", re.DOTALL
)
_FIGURE = re.compile(r'<figure class="r2a-figure".*?</figure>', re.DOTALL)
_STYLE = """
html { scroll-snap-type: y mandatory; font: 1.25rem/1.45 system-ui, sans-serif; color: #222; }
body { margin: 0; background: #fff; }
section { box-sizing: border-box; height: 100vh; padding: 4vh 6vw; scroll-snap-align: start;
  display: flex; flex-direction: column; justify-content: center; break-after: page; }
section.figure { align-items: center; }
h1 { font-size: 2.4rem; line-height: 1.2; } h2 { font-size: 1.5rem; margin: 0 0 2vh; }
figure { flex: 0 1 auto; min-height: 0; width: 100%; text-align: center; }
figure img { width: auto !important; min-width: 0 !important; max-width: 100% !important;
  height: 62vh !important; object-fit: contain; }
.caption { font-size: 0.8em; color: #555; max-width: 60em; max-height: 20vh; overflow-y: auto; }
a { color: #0072B2; }
@page { size: 13.33in 7.5in; margin: 0; }
"""
_KEYS = """
addEventListener("keydown", function (event) {
  const by = { ArrowRight: 1, " ": 1, ArrowLeft: -1 }[event.key];
  if (by) { event.preventDefault(); scrollBy({ top: by * innerHeight, behavior: "smooth" }); }
});
"""


def slides(title: str, pages: Path) -> str:
    """The slides as one page of HTML, from the stage pages of a run that lie in `pages`.

    `title` is the run's, as a reader sees it.
    """
    parts = [f"<section><h1>{BOOK}</h1><p>{html.escape(title)}</p></section>"]
    for path in (path for number in PAGES for path in pages.glob(f"{number}_*.ipynb")):
        parts += _of_page(nbformat.read(path, as_version=4), f"{pages.name}/{path.stem}.html")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{BOOK}</title>'
        f"<style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + f"\n<script>{_KEYS}</script></body></html>\n"
    )


def _of_page(page: NotebookNode, link: str) -> Iterator[str]:
    """A slide with the page's title and finding, then one for each figure with a caption."""
    title, _, opening = page.cells[0].source.partition("\n")
    title = title.removeprefix("# ")
    found = _FINDING.search(opening)
    told = _words(found[1]) if found else ""
    to_page = f'<p><a href="{link}">The page</a></p>'
    yield f"<section><h1>{html.escape(title)}</h1>{told}{to_page}</section>"
    for cell, after in zip(page.cells, page.cells[1:], strict=False):
        caption = _CAPTION.match(after.source) if after.cell_type == "markdown" else None
        shown = [o.get("data", {}).get("text/html", "") for o in cell.get("outputs", [])]
        figures = [figure for part in shown for figure in _FIGURE.findall(part)]
        if caption and figures:
            yield (
                f'<section class="figure"><h2>{html.escape(title)}</h2>{"".join(figures)}'
                f'<div class="caption">{_words(caption[1])}</div></section>'
            )


def _words(markdown: str) -> str:
    return html_of(plain_markdown(markdown))
