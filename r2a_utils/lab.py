"""JupyterLab on copies of the stage notebooks.

`notebooks/*.py` are the only source. `lab/` holds a copy of each as .ipynb, for reading, running
and trying things out. A copy is made anew when its source has changed; a copy that was edited is
set aside under another name first. Nothing ever flows back from a copy to its source, so no old
copy can overwrite new work; whoever wants to keep a change makes it in the .py file. The copies
work in a run folder of their own, `runs/lab`, which begins as what the main run has made, so that
trying something out does not change the book.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from r2a_utils.artifacts import write_aside
from r2a_utils.parameters import fill
from r2a_utils.runs import RUNS
from r2a_utils.stages import NOTEBOOKS, ROOT, Stage, load_stages

LAB = ROOT / "lab"
LAB_RUN = "lab"


def open_lab(arguments: Sequence[str], lab: Path = LAB) -> int:
    """Refresh the copies and start JupyterLab on them; returns its exit status."""
    refresh(lab)
    command = [sys.executable, "-m", "jupyterlab", *arguments]
    try:
        import jupyterlab  # noqa: F401
    except ImportError as error:
        raise FileNotFoundError("JupyterLab is not installed: make setup") from error
    return subprocess.run(command, cwd=lab).returncode


def refresh(lab: Path = LAB, notebooks: Path = NOTEBOOKS, runs: Path = RUNS) -> list[Path]:
    """Bring the copies up to date; returns those that were edited and have been set aside."""
    lab.mkdir(exist_ok=True)
    runs.mkdir(exist_ok=True)
    own_run, main_run = runs / LAB_RUN, runs / "default"
    if main_run.exists() and not own_run.exists():
        pages = shutil.ignore_patterns("notebooks", "manifest.json", "parameters.yml")
        shutil.copytree(main_run, own_run, ignore=pages)
    link = lab / "runs"  # so that runs/lab means the same in a copy as in a stage
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(runs, lab), target_is_directory=True)
    set_aside = []
    for stage in load_stages(notebooks).values():
        copy = lab / f"{stage.name}.ipynb"
        source = hashlib.sha256(stage.source.encode()).hexdigest()
        if copy.exists():
            old = nbformat.read(copy, as_version=4)
            made_from = old.metadata.get("r2a", {})
            if made_from.get("source") == source:
                continue
            if made_from.get("cells") != _cells_hash(old):
                kept = _free_name(lab, stage.name)
                os.replace(copy, kept)
                set_aside.append(kept)
        write_aside(copy, lambda part, stage=stage, source=source: _write(stage, source, part))
    return set_aside


def _write(stage: Stage, source: str, path: Path) -> None:
    notebook = nbformat.from_dict(stage.notebook)
    notebook.metadata.pop("jupytext", None)  # unpaired: saving a copy writes no .py
    defaults = {name: parameter.default for name, parameter in stage.parameters.items()}
    cell = notebook.cells[stage.parameters_cell]
    cell.source = fill(cell.source, stage.parameters, {**defaults, "run_dir": f"runs/{LAB_RUN}"})
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.metadata["r2a"] = {"source": source, "cells": _cells_hash(notebook)}
    nbformat.write(notebook, path)


def _cells_hash(notebook: nbformat.NotebookNode) -> str:
    """Of what a person writes into cells, without outputs."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()


def _free_name(lab: Path, stage: str) -> Path:
    number = 1
    while (path := lab / f"{stage}.mine-{number}.ipynb").exists():
        number += 1
    return path
