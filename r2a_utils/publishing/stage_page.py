"""The page of a stage: an executed notebook with numbers in its prose, fit for others to see.

Of another run than the main one, a page has no labels, and links to what that run lacks lead to the
main run's pages. How prose gets its numbers the caller knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import nbformat

from r2a_utils.publishing.book_runs import MAIN_PAGES
from r2a_utils.publishing.captions import number_captions
from r2a_utils.publishing.exercises import fold_solutions, has_tag
from r2a_utils.publishing.foreign_text import html_of, inert
from r2a_utils.publishing.headlines import finding
from r2a_utils.publishing.readers_view import mark_details
from r2a_utils.runs.local_paths import without_folders


def fill_page(
    page: nbformat.NotebookNode,
    stage: str,
    summary: Mapping[str, Any],
    quote: Callable[[str], str],
) -> None:
    """Make an executed notebook the page of a stage, in place: its finding first, its origin last.

    `summary` is that of the run, `quote` puts the numbers into a text.
    """
    number_captions(page, stage)
    _make_fit_for_others(page, summary["folders"])
    fold_solutions(page)
    mark_details(page, stage)
    if finding(stage) and stage not in summary["ended"]:
        title, _, rest = page.cells[0].source.partition("\n")
        page.cells[0].source = f"{title}\n\n{finding(stage)}\n{rest}"
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = quote(cell.source)
    model = summary["stages"][stage].get("model") or {}
    if "packed" in model:
        told = f"*The model is {inert(model['name'])} with {inert(model['packed'])}.*"
        page.cells.insert(1, nbformat.v4.new_markdown_cell(told, id="packed"))
    page.cells.append(nbformat.v4.new_markdown_cell(_origin(summary, stage), id="origin"))
    if summary["pages"] != MAIN_PAGES:
        _remove_labels(page)
        _link_to_main(page, summary["stages"])


def _origin(summary: Mapping[str, Any], stage: str) -> str:
    """A page's foot: which run, model and code made it."""
    entry = summary["stages"][stage]
    model = entry.get("model") or {}
    made_with = " on ".join(str(model[name]) for name in ("name", "device") if name in model)
    weights = [inert(model["packed"])] if "packed" in model else []
    origin = [f"Run `{summary['id']}`", inert(made_with), *weights, f"{entry['seconds']:.0f} s"]
    origin.append(f"source `{entry['inputs']['source'][:10]}`")
    origin.append("[versions and parameters](../status.md)")
    return "---\n\n" + " · ".join(part for part in origin if part)


def _make_fit_for_others(page: nbformat.NotebookNode, folders: Mapping[str, str]) -> None:
    """Take out of a page the folders of the machine, and HTML that a user's text would bring in."""
    for cell in page.cells:
        if has_tag(cell, "parameters"):
            cell.source = without_folders(cell.source, folders)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith("text/")]:
                data[kind] = without_folders(data[kind], folders)
            if "text/markdown" in data:
                data["text/html"] = html_of(data.pop("text/markdown"))
            if "text" in output:
                output.text = without_folders(output.text, folders)


def _remove_labels(page: nbformat.NotebookNode) -> None:
    """A label may be defined once in a book: the main run's pages keep theirs."""
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?m)^\([\w:.-]+\)=\n", "", cell.source)
            cell.source = re.sub(r"(?m)^:(name|label):.*\n", "", cell.source)
        cell.metadata.get("mystnb", {}).get("figure", {}).pop("name", None)


def _link_to_main(page: nbformat.NotebookNode, stages: Mapping[str, Any]) -> None:
    """A link to a stage that this page's run does not have leads to the main run's page."""
    named = re.compile(r"(\{doc\}`(?:[^`<]*<)?)(\d\d[a-z]?_\w+)")

    def led(link: re.Match) -> str:
        return link[0] if link[2] in stages else f"{link[1]}../{MAIN_PAGES}/{link[2]}"

    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = named.sub(led, cell.source)
