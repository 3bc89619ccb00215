"""Copies of the stage notebooks as .ipynb, to read, run and write in.

`notebooks/*.py` are the only source and nothing flows back from a copy. A copy has no outputs, is
paired with no other file, works in a run folder of its own, and is written in Markdown that any
notebook program shows. It remembers what it was when it was made, so that it is known later whether
a person has worked in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat

from r2a_utils.publishing.plain_markdown import plain_markdown
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.runs.folder import write_aside
from r2a_utils.runs.parameters import fill
from r2a_utils.runs.stage import Stage


def copy_of(
    stage: Stage,
    run_dir: str,
    records: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> nbformat.NotebookNode:
    """A stage's notebook as a copy that works in `run_dir`.

    Its parameters have `values`, and their own defaults where these name none. The numbers in its
    prose come from `records`; where these lack one, a text stays as it is in the source. Solutions
    of exercises are there, with their code folded.
    """
    notebook = nbformat.from_dict(stage.notebook)
    notebook.metadata.pop("jupytext", None)  # unpaired: saving a copy writes no .py
    defaults = {name: parameter.default for name, parameter in stage.parameters.items()}
    cell = notebook.cells[stage.parameters_cell]
    filled = {**defaults, **(values or {}), "run_dir": run_dir}
    cell.source = fill(cell.source, stage.parameters, filled)
    summary = {"id": Path(run_dir).name, "records": dict(records)}
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
        if cell.cell_type == "markdown":
            with suppress(ProseError):  # a stage of this run may not have kept its numbers yet
                cell.source = render(cell.source, f"notebooks/{stage.name}.py", summary, {})
            cell.source = plain_markdown(cell.source)
        elif "solution" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return notebook


def write_copy(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a copy and the mark by which changes to it are known later."""
    notebook.metadata["r2a"] = {"cells": cells_hash(notebook)}
    write_aside(path, lambda part: nbformat.write(notebook, part))


def written_cells(path: Path) -> str | None:
    """The hash that a copy's cells had when it was written; None for another notebook."""
    return nbformat.read(path, as_version=4).metadata.get("r2a", {}).get("cells")


def is_edited(path: Path) -> bool:
    """Whether a person has changed the cells since the copy was written; runs change none."""
    return written_cells(path) != cells_hash(nbformat.read(path, as_version=4))


def cells_hash(notebook: nbformat.NotebookNode) -> str:
    """Of what a person writes into cells, without outputs."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()
