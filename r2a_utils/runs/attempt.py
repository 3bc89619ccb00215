"""An attempt: a run made anew beside the one that stands, and put in its place when it is whole.

Where a stage that has completed must run again, it runs in `<run folder>/unfinished`, which begins
as a copy of the run. Results, pages, manifest and parameters of the run stay as they are until
every asked-for stage has completed there; then they are replaced. An attempt that failed or was
killed stays, and the same request goes on in it. Another request begins from the run again, with
the traces that the attempt wrote, because those take the hours.

This file copies and moves; it neither runs a stage nor decides whether one must run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from r2a_utils.runs.lock import LOCK, OWNER
from r2a_utils.runs.manifest import manifest_path

UNFINISHED = "unfinished"
# What an attempt was asked for, and from which state of the run it began.
_ASKED = ".asked.json"
# It is there once the attempt is whole: from then on the moving is finished, never taken back.
_WHOLE = ".whole"
_OWN = (UNFINISHED, LOCK, OWNER, _ASKED, _WHOLE)
# The last to be replaced: with them, the run says that it is the new one.
_LAST = ("parameters.yml", "manifest.json")
# Files that are replaced when they are written, never changed: a copy may share their content.
_REPLACED = {".nc", ".parquet", ".json", ".png", ".ipynb"}
_PART = re.compile(r"\.(\d+)\.part$")


def run_of(place: Path) -> Path:
    """The run folder that a place of work belongs to: itself, or the one that it is an attempt of.

    A stage's page shows this one's name.
    """
    return place.parent if place.name == UNFINISHED else place


def begin(folder: Path, asked: Mapping[str, Any]) -> Path:
    """The folder of the attempt at what is `asked`: an earlier one at the same, or a new copy."""
    place = folder / UNFINISHED
    base = manifest_path(folder).read_text(encoding="utf-8")
    request = json.dumps({**asked, "base": base}, sort_keys=True)
    if (place / _ASKED).exists() and (place / _ASKED).read_text(encoding="utf-8") == request:
        return place
    part = folder / f"{UNFINISHED}.{os.getpid()}.part"
    shutil.copytree(folder, part, copy_function=_copy, ignore=_ignored)
    for traces in place.glob("traces/*.jsonl"):
        shutil.copy2(traces, part / "traces" / traces.name)
    (part / _ASKED).write_text(request, encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(part, place)
    return place


def finish(folder: Path) -> None:
    """Put the attempt of a run, which is whole, in the run's place; a killed move is gone on with.

    What lies in the run folder and is not of the attempt stays.
    """
    place = folder / UNFINISHED
    (place / _WHOLE).touch()
    go_on_finishing(folder)


def go_on_finishing(folder: Path) -> None:
    """Finish the move of an attempt that a kill has cut short, if there is one."""
    place = folder / UNFINISHED
    if not (place / _WHOLE).exists():
        return
    files = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
    last = {name: number for number, name in enumerate(_LAST, start=1)}
    for file in sorted(files, key=lambda file: last.get(str(file), 0)):
        if file.name not in (_ASKED, _WHOLE):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(place / file, folder / file)
    for page in (folder / "notebooks").glob("*.failed.ipynb"):
        if page.with_name(page.name.replace(".failed", "")).exists():
            page.unlink()
    shutil.rmtree(place)


def clear_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in a run folder."""
    for path in folder.rglob("*.part"):
        number = _PART.search(path.name)
        if number is None or psutil.pid_exists(int(number[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _ignored(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _OWN or name.endswith(".part")}


def _copy(source: str, place: str) -> str:
    """A hard link where the file is only ever replaced, which costs no time and no room."""
    if Path(source).suffix in _REPLACED:
        with suppress(OSError):  # a file system without hard links
            os.link(source, place)
            return place
    return shutil.copy2(source, place)
