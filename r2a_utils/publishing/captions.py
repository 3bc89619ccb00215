"""Captions of a page's figures: numbered on the book's pages, plain prose in a notebook.

A caption is a markdown cell right behind the code cell whose figure or view it describes::

    # %% [markdown]
    # **Figure.** What is drawn, of which model and how many traces, and how to read the marks.

The book numbers it with the stage ("Figure 4.2"). Where the cell before it shows no figure in a
run, for want of data, the caption is left out. This file knows cells and their outputs, no figures.
"""

from __future__ import annotations

from nbformat import NotebookNode

CAPTION = "**Figure.** "
SHOWN = ('class="r2a-figure"', 'class="r2a-view"')
EXERCISE = '{"kind":"pick"'  # a view that is asked and not shown, and needs no caption


def number_captions(page: NotebookNode, stage: str) -> None:
    """Number the captions of an executed notebook, in place, and mark them for the book's style.

    stage: its name, such as 04_reasoning_focus_heads, whose number the figures share.
    """
    kept, count = [], 0
    for cell in page.cells:
        if not is_caption(cell):
            kept.append(cell)
        elif kept and shows_figure(kept[-1]):
            count += 1
            number = f"**Figure {stage.partition('_')[0].removeprefix('0')}.{count}.** "
            cell.source = "{.r2a-caption}\n" + number + cell.source.removeprefix(CAPTION)
            kept.append(cell)
    page.cells = kept


def is_caption(cell: NotebookNode) -> bool:
    """Whether a cell is a caption."""
    return cell.cell_type == "markdown" and cell.source.startswith(CAPTION)


def shows_figure(cell: NotebookNode) -> bool:
    """Whether an executed cell shows a figure or a view of this package."""
    shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
    parts = ["".join(part) for part in shown]
    return any(mark in part and EXERCISE not in part for part in parts for mark in SHOWN)
