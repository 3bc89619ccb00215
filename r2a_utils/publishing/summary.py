"""What `r2a run` says at its end: a line a stage, with what it found, and where its page is.

The findings come from the run's records, as on the pages. This file prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2a_utils.publishing.book import BUILD
from r2a_utils.publishing.book_runs import MAIN_PAGES, BookRun
from r2a_utils.publishing.headlines import headline
from r2a_utils.runs.folder import Run
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.running import StageResult


def summary(folder: Path, results: Sequence[StageResult], shown: Sequence[BookRun]) -> str:
    """The table of a run's stages, and where to read on; `shown` are the runs of the book."""
    records, entries = Run.open(folder).records(), read_manifest(folder)["stages"]
    lines = [f"{'stage':26} {'status':9} {'minutes':>7}  finding"]
    for result in results:
        status = "ran" if result.ran else "unchanged"
        minutes = f"{result.seconds / 60:7.1f}"
        ended = entries.get(result.stage, {}).get("ended")
        finding = ended or headline(result.stage, folder.name, records)
        lines.append(f"{result.stage:26} {status:9} {minutes}  {finding}".rstrip())
    return "\n".join([*lines, "", _where(folder, results, shown)])


def _where(folder: Path, results: Sequence[StageResult], shown: Sequence[BookRun]) -> str:
    ids = [run.id for run in shown]
    if folder.name not in ids:
        return (
            f"executed notebooks: {folder / 'notebooks'}\n"
            f"To see them in the book, list {folder.name!r} in book/runs.yml and run `r2a book`."
        )
    pages = MAIN_PAGES if folder.name == ids[0] else folder.name
    page = BUILD / "html" / pages / f"{results[-1].stage}.html"
    return f"`r2a book` puts this on the page {page.as_uri()}"
