"""A run's figures and tables as files for a paper: PDF and SVG as they were drawn, and CSV.

A figure has the number that the book gives it (`figure-4.2.pdf`); one without a caption has the
name of its stage. What is written was kept while the stages ran: this file draws nothing, and of a
run that was made before figures were kept, or came in an archive, it has the tables alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

from r2a_utils.publishing.captions import number_captions
from r2a_utils.runs.folder import Run, RunFolderError
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.vectors import KINDS, read_vectors, vectors_file

FORMATS = (*KINDS, "csv")
_PICTURE = re.compile(r'class="r2a-figure".*?src="data:image/webp;base64,([\w/+=]+)"', re.DOTALL)
_NUMBER = re.compile(r"\{\.r2a-caption\}\n\*\*Figure ([\w.]+)\.\*\*")


@dataclass(frozen=True)
class Exported:
    """What was written, and the stages of which a figure is shown but was not kept."""

    files: tuple[Path, ...]
    without_figures: tuple[str, ...]


def export(folder: Path, to: Path, formats: Sequence[str] = FORMATS) -> Exported:
    """Write the figures and tables of the run in `folder` into `to`, which is made.

    `formats` are of pdf, svg and csv. Files of the same name are replaced. Raises RunFolderError
    where no stage has completed.
    """
    stages = read_manifest(folder)["stages"]
    done = [name for name, entry in stages.items() if entry["status"] == "completed"]
    if not done:
        raise RunFolderError(f"no stage of {folder} has completed: r2a run --run-id {folder.name}")
    to.mkdir(parents=True, exist_ok=True)
    written, without = [], []
    for stage in done:
        for name, picture in _figures(folder, stage):
            for kind in KINDS:
                vectors = read_vectors(vectors_file(folder, stage), picture, kind)
                if vectors is None:
                    without.append(stage)
                elif kind in formats:
                    written.append(to / f"{name}.{kind}")
                    written[-1].write_bytes(vectors)
    for name, table in _tables(folder) if "csv" in formats else ():
        written.append(to / f"{name}.csv")
        table.to_csv(written[-1], index=not isinstance(table.index, pd.RangeIndex))
    return Exported(tuple(written), tuple(dict.fromkeys(without)))


def _figures(folder: Path, stage: str) -> Iterator[tuple[str, bytes]]:
    """The figures of a stage's page in order: a name for each, and its picture."""
    page = nbformat.read(folder / "notebooks" / f"{stage}.ipynb", as_version=4)
    number_captions(page, stage)
    unnumbered = 0
    for cell, after in zip(page.cells, [*page.cells[1:], None], strict=True):
        shown = [output.get("data", {}).get("text/html", "") for output in cell.get("outputs", [])]
        pictures = [base64.b64decode(p) for part in shown for p in _PICTURE.findall(part)]
        caption = _NUMBER.match(after.source) if after else None
        for place, picture in enumerate(pictures):
            if caption:
                part = "" if len(pictures) == 1 else "abcdefghijklmnopqrstuvwxyz"[place]
                yield f"figure-{caption[1]}{part}", picture
            else:
                unnumbered += 1
                yield f"{stage}-{unnumbered}", picture


def _tables(folder: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    for path in sorted((folder / "tables").glob("*.parquet")):
        yield path.stem, Run(folder).read_table(path.stem)
