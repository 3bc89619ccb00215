"""The prose of an executed notebook: today's, where the code that it ran is today's.

A sentence that was wrong is mended without running anything again, in a run's folder and on the
pages of an archive alike. This file knows cells and nothing of what they say.
"""

from __future__ import annotations

import nbformat
from nbformat import NotebookNode

from r2a_utils.runs.stage import Stage


def in_todays_words(stage: Stage, executed: NotebookNode) -> NotebookNode:
    """An executed notebook with the prose that its stage has now, code and outputs as they are.

    As it is where it ran other code cells than the stage has now, parameters aside: its prose
    belongs to those. One that ended early has prose up to its end.
    """
    if not _ran_this_code(stage, executed):
        return executed
    results = iter([cell for cell in executed.cells if cell.cell_type == "code"])
    last = executed.cells[-1].id if "ended" in executed.metadata.get("r2a", {}) else None
    cells = []
    for index, cell in enumerate(stage.notebook.cells):
        if cell.cell_type == "code":
            cell = {**next(results), "metadata": cell.metadata}
        cells.append(nbformat.from_dict({**cell, "id": f"cell-{index}"}))
        if cell.get("id") == last:
            break
    return NotebookNode({**executed, "cells": cells})


def _ran_this_code(stage: Stage, executed: NotebookNode) -> bool:
    ran = [cell.source for cell in executed.cells if cell.cell_type == "code"]
    now = {i: cell for i, cell in enumerate(stage.notebook.cells) if cell.cell_type == "code"}
    if "ended" not in executed.metadata.get("r2a", {}) and len(ran) != len(now):
        return False
    return all(
        index == stage.parameters_cell or source == cell.source
        for source, (index, cell) in zip(ran, now.items(), strict=False)
    )
