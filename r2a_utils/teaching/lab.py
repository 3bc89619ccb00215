"""JupyterLab on copies of the stage notebooks.

`lab/` holds a copy of each stage (see `notebook_copies.py`), for reading, running and trying things
out. A copy is made anew when its source has changed; a copy that was edited is set aside under
another name first, and whoever wants to keep a change makes it in the .py file. The copies work in
a run folder of their own, `runs/lab`, which begins as what the main run has made, so that trying
something out does not change the book.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from r2a_utils.runs.folder import Run
from r2a_utils.runs.running import RUNS
from r2a_utils.runs.stage import NOTEBOOKS, ROOT, load_stages
from r2a_utils.teaching.notebook_copies import (
    cells_hash,
    copy_of,
    is_edited,
    write_copy,
    written_cells,
)

LAB = ROOT / "lab"
LAB_RUN = "lab"
# Of a run: its pages and what belongs to the process that makes it.
NOT_COPIED = ("notebooks", "manifest.json", "parameters.yml", "unfinished", ".*", "*.part")


def open_lab(arguments: Sequence[str], lab: Path = LAB) -> int:
    """Refresh the copies and start JupyterLab on them; returns its exit status.

    Raises FileNotFoundError where JupyterLab is not installed.
    """
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
        begun = runs / f"{LAB_RUN}.part"  # a kill leaves it, and the next time it begins anew
        shutil.rmtree(begun, ignore_errors=True)
        pages = shutil.ignore_patterns(*NOT_COPIED)
        shutil.copytree(main_run, begun, ignore=pages)
        os.replace(begun, own_run)
    link = lab / "runs"  # so that runs/lab means the same in a copy as in a stage
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(runs, lab), target_is_directory=True)
    records = Run.open(main_run).records() if main_run.exists() else {}
    set_aside = []
    for stage in load_stages(notebooks).values():
        copy, new = lab / f"{stage.name}.ipynb", copy_of(stage, f"runs/{LAB_RUN}", records)
        if copy.exists():
            if written_cells(copy) == cells_hash(new):
                continue
            if is_edited(copy):
                kept = _free_name(lab, stage.name)
                os.replace(copy, kept)
                set_aside.append(kept)
        write_copy(new, copy)
    return set_aside


def _free_name(lab: Path, stage: str) -> Path:
    number = 1
    while (path := lab / f"{stage}.mine-{number}.ipynb").exists():
        number += 1
    return path
