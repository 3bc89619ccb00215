"""The runs that the book shows, as `book/runs.yml` declares them.

This file reads that file and refuses, in one line, what a book cannot be made of. It looks into no
run folder and knows no page.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from r2a_utils.folders import source_folder
from r2a_utils.runs.parameters import ParameterError
from r2a_utils.runs.plain_yaml import read_yaml
from r2a_utils.runs.running import RUNS, read_parameters, run_folder

BOOK = source_folder() / "book"
MAIN_PAGES = "stages"
_KNOWN = ("id", "title", "parameters", "matrix", "stages", "archive")
# A run's pages lie in a folder of its name, beside what Jupyter Book itself puts there.
_BUILT = {
    MAIN_PAGES,
    "extra",
    "genindex",
    "index",
    "objects",
    "py-modindex",
    "search",
    "searchindex",
}


class PublishError(RuntimeError):
    """A book that was not published; the message says why and what to do."""


@dataclass(frozen=True)
class BookRun:
    """One run as `book/runs.yml` declares it."""

    id: str
    title: str
    parameters: Mapping[str, Any] | None = None  # None: shown as it lies in its folder
    stages: Sequence[str] | None = None  # the stages it consists of; None: all
    folder: Path = field(default=RUNS)  # of all runs
    archive: Path | None = None  # the file that is shown in place of a run made here

    @property
    def run(self) -> Path:
        """The run's own folder."""
        return self.folder / self.id


def declared_runs(book: Path = BOOK, runs: Path = RUNS, file: Path | None = None) -> list[BookRun]:
    """The runs that the book shows, in order; the first one's pages are the book's main pages.

    With `file`, those of another file of this kind, of which the book knows nothing. An entry with
    a `matrix` is one run for each combination of its values, which are part of its name.

    Raises PublishError, in one line, for a file that is not there or no YAML, and for an entry that
    lacks a name or a title, has one that is taken, or names what is not there.
    """
    path, book = (book / "runs.yml", book) if file is None else (file, file.parent)
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PublishError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict) or set(content) != {"runs"}:
        raise PublishError(f"{path} must hold `runs:` and nothing else")
    entries = content["runs"]
    if not isinstance(entries, list) or not entries:
        raise PublishError(f"{path}: `runs:` must hold a list of one run or more")
    pages = {page.stem.lower() for page in book.iterdir()} | _BUILT if file is None else set()
    declared: list[BookRun] = []
    for number, entry in enumerate(entries, start=1):
        try:
            for run in _varied(_read(entry, book, runs), entry.get("matrix")):
                if run.id.lower() in pages:
                    raise ValueError(f"the book has a page or folder {run.id!r}: take another id")
                if run.id.lower() in {other.id.lower() for other in declared}:
                    raise ValueError(f"the id {run.id!r} stands in an earlier run already")
                declared.append(run)
        except (ValueError, ParameterError) as error:
            raise PublishError(f"{path}, run {number}: {error}") from error
    return declared


def _varied(run: BookRun, matrix: Any) -> list[BookRun]:
    """The runs of an entry: itself, or one for each combination of the values of its matrix."""
    if matrix is None:
        return [run]
    if run.archive is not None:
        raise ValueError("an archive is one run: it has no matrix")
    if (
        not isinstance(matrix, dict)
        or not matrix
        or not all(isinstance(values, list) and values for values in matrix.values())
    ):
        raise ValueError(
            f"its matrix must hold a list of values for each name, as in `seed: [0, 1]`, not "
            f"{matrix!r}"
        )
    varied = []
    for values in product(*matrix.values()):
        words = [re.sub(r"[^A-Za-z0-9_.]+", "-", str(v).rpartition("/")[2]).lower() for v in values]
        said = ", ".join(f"{name} = {v}" for name, v in zip(matrix, values, strict=True))
        varied.append(
            replace(
                run,
                id=run_folder("-".join([run.id, *words])).name,
                title=f"{run.title}: {said}",
                parameters={**(run.parameters or {}), **dict(zip(matrix, values, strict=True))},
            )
        )
    return varied


def _read(entry: Any, book: Path, runs: Path) -> BookRun:
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is no run: give it {', '.join(_KNOWN)}")
    for name in entry:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_KNOWN)}"
            raise ValueError(f"a run has no {name!r}; {hint}")
    for name in ("id", "title"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(f"its {name} must be a text (in quotes), not {entry.get(name)!r}")
    run_folder(entry["id"])  # refuses what cannot name a folder
    parameters = entry.get("parameters")
    if isinstance(parameters, str):
        parameters = read_parameters(book / parameters)
    elif parameters is not None and not isinstance(parameters, dict):
        raise ValueError(f"its parameters must be names and values or a file, not {parameters!r}")
    stages = entry.get("stages")
    if stages is not None and (
        not isinstance(stages, list) or not stages or not all(isinstance(s, str) for s in stages)
    ):
        raise ValueError(f'its stages must be a list of texts, as in ["01", "03"], not {stages!r}')
    archive = entry.get("archive")
    if archive is not None and not (isinstance(archive, str) and (book / archive).is_file()):
        raise ValueError(f"its archive must be a file below {book.name}/, not {archive!r}")
    path = None if archive is None else book / archive
    return BookRun(entry["id"], " ".join(entry["title"].split()), parameters, stages, runs, path)
