"""The workshop's copies: notebooks to hand out, the same with solutions, and a zip for a laptop.

Made from the stage notebooks alone (see `notebook_copies.py` and `publishing/exercises.py`).
`participants/` is the folder to hand out: the notebooks without solutions and answers, what a run
has made of each stage, so that any of them can be the first, and the package itself, so that
nothing is fetched but the libraries. The zip holds that folder. `teachers/` has the notebooks with
solutions and answers.

Everything is written in a folder beside and renamed when it is complete. What we did not write is
never deleted: where somebody has worked, new copies are refused or, when told, set the whole folder
aside under another name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat

from r2a_utils.folders import CARRIED, PACKAGE, source_folder
from r2a_utils.publishing.exercises import has_tag, load_exercises
from r2a_utils.publishing.plain_markdown import plain_markdown, without_answers
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest, stale_stages
from r2a_utils.runs.running import RUNS
from r2a_utils.runs.stage import NOTEBOOKS, ROOT, Stage, load_stages
from r2a_utils.teaching.lab import NOT_COPIED
from r2a_utils.teaching.notebook_copies import copy_of, is_edited, write_copy

FOLDER = ROOT / "workshop"
SETUP = source_folder() / "book" / "teach" / "setup.md"
RUN_DIR = "runs/workshop"
# What a laptop installs the package from, beside the package.
INSTALLED = ("book/data", "pyproject.toml", "constraints.txt", "LICENSE")
ZIP = "r2a-workshop.zip"
LIST = ".written.json"  # what was written, with a digest of each file
# What lies in a folder because somebody ran or opened what we wrote.
MADE_BY_PROGRAMS = ("__pycache__/*", ".ipynb_checkpoints/*", "*.egg-info/*")


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

    Raises WorkshopError where the run lacks a stage, or where the folder holds what we did not
    write and `overwrite` is not set; ExerciseError for an exercise that lacks a part.
    """
    stages = load_stages(notebooks)
    exercises = load_exercises(stages)
    _check_run(run, stages)
    if not overwrite and (strange := strange_files(folder)):
        named = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if strange[5:] else "")
        raise WorkshopError(
            f"{folder} holds work that new copies would replace: {named}; move it away, or pass "
            "--overwrite, which sets the whole folder aside under another name"
        )
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
        _copy_package(PACKAGE, hand_out / PACKAGE.name)
        for name in INSTALLED:
            _copy_package(source_folder() / name, hand_out / name)
        setup = plain_markdown(SETUP.read_text(encoding="utf-8"))
        (hand_out / "README.md").write_text(setup, encoding="utf-8")
        _write_zip(hand_out, part / ZIP)
        _write_list(part)
        if folder.exists():
            _put_aside(folder)
        os.replace(part, folder)
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


def strange_files(folder: Path) -> list[str]:
    """What in a folder of copies is not as it was written: other files, and changed ones.

    A notebook that was run has other outputs and is still ours; one whose cells somebody has
    changed is theirs. In the copies' own run folder, results made anew are ours, too.
    """
    listed = folder / LIST
    written = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    strange = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name == LIST or any(path.match(pattern) for pattern in MADE_BY_PROGRAMS):
            continue
        if path.suffix == ".ipynb" and name in written:
            if is_edited(path):
                strange.append(name)
        elif name not in written or (RUN_DIR not in name and _digest(path) != written[name]):
            strange.append(name)
    return strange


def _write_list(folder: Path) -> None:
    """Keep what was written, so that later it is known what was not."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    written = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    (folder / LIST).write_text(json.dumps(written, indent=1), encoding="utf-8")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _put_aside(folder: Path) -> None:
    """Make room for new copies: what holds only what we wrote goes, any other folder is kept."""
    if not strange_files(folder):
        shutil.rmtree(folder)
        return
    number = 1
    while (kept := folder.with_name(f"{folder.name}.mine-{number}")).exists():
        number += 1
    os.replace(folder, kept)


def _copy_run(run: Path, place: Path) -> None:
    """What the stages made, without their pages."""
    shutil.copytree(run, place, ignore=shutil.ignore_patterns(*NOT_COPIED))


def _copy_package(path: Path, place: Path) -> None:
    if path.is_dir():
        shutil.copytree(
            path, place, ignore=shutil.ignore_patterns("__pycache__", "*.part", CARRIED.name)
        )
    else:
        shutil.copy(path, place)


def _write_zip(folder: Path, path: Path) -> None:
    """Everything of a folder, under one top folder, in a fixed order."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, Path("r2a-workshop") / file.relative_to(folder))
