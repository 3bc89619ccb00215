"""The workshop's copies: notebooks to hand out, the same with solutions, and a zip for a laptop.

Made from the stage notebooks alone (see `notebook_copies.py` and `publishing/exercises.py`).
`participants/` is the folder to hand out: the notebooks without solutions and answers, what a run
has made of each stage, so that any of them can be the first, and the package itself, so that
nothing is fetched but the libraries. The zip holds that folder. `teachers/` has the notebooks with
solutions and answers.

Everything is written in a folder beside and renamed when it is complete. Notebooks in which
somebody has worked are not replaced unless told.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat

from r2a_utils.publishing.exercises import has_tag, load_exercises
from r2a_utils.publishing.plain_markdown import plain_markdown, without_answers
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest, stale_stages
from r2a_utils.runs.running import RUNS
from r2a_utils.runs.stage import NOTEBOOKS, ROOT, Stage, load_stages
from r2a_utils.teaching.notebook_copies import copy_of, is_edited, write_copy

FOLDER = ROOT / "workshop"
SETUP = ROOT / "book" / "teach" / "setup.md"
RUN_DIR = "runs/workshop"
# What a laptop installs the package from.
PACKAGE = ("r2a_utils", "pyproject.toml", "constraints.txt", "LICENSE")
ZIP = "r2a-workshop.zip"


class WorkshopError(RuntimeError):
    """Copies that were not written; the message says why and what to do."""


@dataclass(frozen=True)
class Workshop:
    """What was written."""

    folder: Path
    zip: Path
    notebooks: int
    exercises: int


def write_workshop(
    folder: Path = FOLDER,
    run: Path = RUNS / "default",
    notebooks: Path = NOTEBOOKS,
    overwrite: bool = False,
) -> Workshop:
    """Write both kinds of copies and the zip into `folder`, from the stages and a complete run.

    Raises WorkshopError where the run lacks a stage, or where a copy in the folder has been worked
    in and `overwrite` is not set; ExerciseError for an exercise that lacks a part.
    """
    stages = load_stages(notebooks)
    exercises = load_exercises(stages)
    _check_run(run, stages)
    if not overwrite:
        _check_folder(folder)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        records = Run.open(run).records()
        entries = read_manifest(run)["stages"]
        hand_out = part / "participants"
        for place, with_solutions in ((hand_out, False), (part / "teachers", True)):
            _copy_run(run, place / RUN_DIR)
            for stage in stages.values():
                values = entries[stage.name]["inputs"]["parameters"]
                copy = workshop_copy(stage, records, values, with_solutions)
                write_copy(copy, place / f"{stage.name}.ipynb")
        for name in PACKAGE:
            _copy_package(ROOT / name, hand_out / name)
        setup = plain_markdown(SETUP.read_text(encoding="utf-8"))
        (hand_out / "README.md").write_text(setup, encoding="utf-8")
        _write_zip(hand_out, part / ZIP)
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Workshop(folder, folder / ZIP, len(stages), len(exercises))


def workshop_copy(
    stage: Stage, records: Mapping[str, Any], values: Mapping[str, Any], with_solutions: bool
) -> nbformat.NotebookNode:
    """One stage's notebook for a teacher, or without solutions and answers for a participant.

    `records` are those of the run that it begins from, `values` the stage's parameters there.
    """
    if not with_solutions:
        kept = [cell for cell in stage.notebook.cells if not has_tag(cell, "solution")]
        source = nbformat.from_dict({**stage.notebook, "cells": kept})
        for cell in source.cells:
            if cell.cell_type == "markdown":
                cell.source = without_answers(cell.source)
        number = next(i for i, cell in enumerate(kept) if has_tag(cell, "parameters"))
        stage = replace(stage, notebook=source, parameters_cell=number)
    return copy_of(stage, RUN_DIR, records, values)


def _check_run(run: Path, stages: Mapping[str, Stage]) -> None:
    manifest = read_manifest(run)
    missing = [name for name in stages if name not in manifest["stages"]]
    if missing or stale_stages(manifest):
        which = ", ".join(missing or stale_stages(manifest))
        raise WorkshopError(
            f"run {run.name!r} is not complete ({which}), and the copies begin from what it has "
            f"made: r2a run --run-id {run.name}"
        )


def _check_folder(folder: Path) -> None:
    """WorkshopError if somebody has worked in it, or if it holds anything that is not ours."""
    made = {"participants", "teachers", ZIP}
    strange = [path for path in folder.glob("*") if path.name not in made]
    for path in sorted(folder.glob("*/*.ipynb")):
        if is_edited(path):
            strange.append(path)
    if strange:
        named = ", ".join(str(path.relative_to(folder)) for path in strange)
        raise WorkshopError(
            f"{folder} holds work that new copies would replace: {named}; move it away, or pass "
            "--overwrite"
        )


def _copy_run(run: Path, place: Path) -> None:
    """What the stages made, without their pages."""
    pages = shutil.ignore_patterns(
        "notebooks", "manifest.json", "parameters.yml", "unfinished", ".*", "*.part"
    )
    shutil.copytree(run, place, ignore=pages)


def _copy_package(path: Path, place: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__", "*.part"))
    else:
        shutil.copy(path, place)


def _write_zip(folder: Path, path: Path) -> None:
    """Everything of a folder, under one top folder, in a fixed order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, Path("r2a-workshop") / file.relative_to(folder))
