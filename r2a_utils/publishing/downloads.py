"""The notebooks that a reader takes from the built book: a file to keep, or a machine that runs it.

Each stage page offers its notebook with the outputs of its run, in plain Markdown and without the
folders of the machine that made it. Where `_config.yml` names the public repository (on GitHub), it
can be opened on Colab and on Binder, too. Colab opens files of a branch and nothing else: it finds
them on the branch `notebooks`, which the workflow of the book writes. This file is an extension of
Sphinx, for the links; it runs no notebook.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from r2a_utils.publishing.exercises import has_tag
from r2a_utils.publishing.plain_markdown import plain_markdown
from r2a_utils.runs.stage import Stage, needed_stages

BRANCH = "notebooks"
_GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?")
_ATTRIBUTES = re.compile(r"(?m)^\{\.[\w .-]+\}\n")
_PAGE_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)[^)\s]*\)")
_SETUP = """\
# On Colab, or wherever R2A is not installed: the package, and what this notebook reads.
import importlib.util

if importlib.util.find_spec("r2a_utils") is None:
    %pip install --quiet "r2a @ git+{repository}"
"""
_EARLIER = "    !r2a run --run-id {run} --stages {stages}\n"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx when it loads the extension."""
    app.connect("html-page-context", _add_buttons, priority=502)  # after the theme's own
    return {"parallel_read_safe": True}


def repository_of(config: Path) -> str:
    """The public repository that `_config.yml` names; empty where it names none."""
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    options = settings.get("sphinx", {}).get("config", {}).get("html_theme_options", {})
    return options.get("repository_url") or ""


def write_downloads(
    source: Path, html: Path, available: Mapping[str, Stage], repository: str
) -> None:
    """Put the notebooks where the pages of the built book offer them, in place of the pages' own
    source, which no notebook program can show.
    """
    for path in source.glob("*/*.ipynb"):
        page = nbformat.read(path, as_version=4)
        stage = page.metadata["r2a"]["stage"]
        earlier = _earlier(stage, available)
        setup_cell = _setup(page.metadata["r2a"]["run_id"], earlier, repository)
        nbformat.write(for_readers(page, setup_cell), html / "_sources" / path.relative_to(source))


def for_readers(page: NotebookNode, setup_cell: str = "") -> NotebookNode:
    """A page of the book as a notebook for any program; `setup_cell` is its first code."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = page.metadata["kernelspec"]
    for cell in page.cells:
        kept = nbformat.from_dict({**cell, "metadata": {}})
        if tags := [tag for tag in cell.metadata.get("tags", []) if tag != "hide-cell"]:
            kept.metadata["tags"] = tags
        if cell.cell_type == "markdown":
            plain = plain_markdown(_ATTRIBUTES.sub("", cell.source))
            kept.source = _PAGE_LINK.sub(r"\1", plain)
        elif has_tag(cell, "solution"):
            kept.metadata["jupyter"] = {"source_hidden": True}
        notebook.cells.append(kept)
    if setup_cell:
        first = next(i for i, c in enumerate(notebook.cells) if c.cell_type == "code")
        notebook.cells.insert(first, nbformat.v4.new_code_cell(setup_cell, id="setup"))
    return notebook


def launch_links(repository: str, page: str) -> dict[str, str]:
    """Where a page (`stages/03_segment_attention`) can be run, by name of the place."""
    named = _GITHUB.fullmatch(repository)
    if named is None:
        return {}
    place, stage = "/".join(named.groups()), page.rpartition("/")[2]
    return {
        "Colab": f"https://colab.research.google.com/github/{place}/blob/{BRANCH}/{page}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/{place}/HEAD?urlpath=lab/tree/lab/{stage}.ipynb",
    }


def _setup(run: str, earlier: list[str], repository: str) -> str:
    if not repository:
        return ""
    install = _SETUP.format(repository=repository)
    return install + (_EARLIER.format(run=run, stages=",".join(earlier)) if earlier else "")


def _earlier(name: str, available: Mapping[str, Stage]) -> list[str]:
    """The numbers of all stages that a stage needs, those that they need included."""
    needed, todo = set(), [name]
    while todo:
        stage = available[todo.pop()]
        before = [other for other in available.values() if other.name < stage.name]
        new = set(needed_stages(stage, before)) - needed
        needed |= new
        todo += new
    return sorted(stage.partition("_")[0] for stage in needed)


def _add_buttons(app: Any, pagename: str, template: str, context: dict, doctree: Any) -> None:
    repository = app.config.html_theme_options.get("repository_url", "")
    if context.get("page_source_suffix") != ".ipynb":
        return
    links = launch_links(repository, pagename)
    buttons = [
        {
            "type": "link",
            "url": url,
            "text": place,
            "tooltip": f"Run this notebook on {place}",
            "icon": "fas fa-rocket",
            "label": f"launch-{place.lower()}-button",
        }
        for place, url in links.items()
    ]
    if buttons:
        group = {
            "type": "group",
            "tooltip": "Run this notebook",
            "icon": "fas fa-rocket",
            "buttons": buttons,
            "label": "launch-buttons",
        }
        context["header_buttons"].append(group)
