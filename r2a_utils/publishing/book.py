"""Make the book: hand-written pages and the notebooks of one or several runs, as HTML.

`book/runs.yml` names the runs that the book shows. The pages are assembled in a build folder, their
numbers are put in (see `quoted_numbers.py`), and Jupyter Book 1 builds them with execution off and
warnings as errors. Only a complete book whose pages ask the network for nothing replaces the
published one. This file runs no stage and knows nothing of what they compute.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import yaml
from filelock import FileLock, Timeout

from r2a_utils.folders import PACKAGE, source_folder
from r2a_utils.models import memory
from r2a_utils.publishing.book_runs import (
    BOOK,
    MAIN_PAGES,
    BookRun,
    PublishError,
    declared_runs,
)
from r2a_utils.publishing.comparison_page import compare
from r2a_utils.publishing.downloads import repository_of, write_downloads
from r2a_utils.publishing.exercises import load_exercises
from r2a_utils.publishing.furniture import PREVIEW, draw_preview, how_to_cite
from r2a_utils.publishing.missing_stages import (
    ended_stages,
    in_place_of,
    missing_stages,
    placeholder,
    quotable,
)
from r2a_utils.publishing.page_weight import lighten
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.publishing.rerun_page import plans_table, read_plans
from r2a_utils.publishing.slides import BOOK as TITLE
from r2a_utils.publishing.slides import slides
from r2a_utils.publishing.stage_page import fill_page
from r2a_utils.publishing.verdicts import Verdicts, judge
from r2a_utils.runs.archive import opened, read_archive
from r2a_utils.runs.folder import Run
from r2a_utils.runs.local_paths import shown_folders, without_folders
from r2a_utils.runs.manifest import read_manifest
from r2a_utils.runs.prose import in_todays_words
from r2a_utils.runs.running import RUNS
from r2a_utils.runs.stage import NOTEBOOKS, ROOT, Stage, load_stages, select
from r2a_utils.tiny.page_weights import write_page_weights

CONFIG = source_folder() / "_config.yml"
BUILD = ROOT / "_build"
# What turns pages into HTML; a new version of any of them makes the built book old.
_BUILDERS = ("jupyter-book", "myst-nb", "myst-parser", "sphinx", "sphinx-book-theme")


def publish(
    book: Path = BOOK,
    runs: Path = RUNS,
    build: Path = BUILD,
    config: Path = CONFIG,
    notebooks: Path = NOTEBOOKS,
) -> tuple[Path, bool]:
    """Build the book if anything in it has changed; returns its first page and whether it built.

    Of each run is shown what can be shown. Raises PublishError, and leaves the published book as it
    was, when nothing of the main run has been made, when another process builds the book, when
    Jupyter Book warns of anything, or when a page would need the network.
    """
    build.mkdir(parents=True, exist_ok=True)
    lock = FileLock(build / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _publish(declared_runs(book, runs), book, build, config, notebooks)
    except Timeout as error:
        raise PublishError(
            f"another process builds the book in {build}: wait until it is done, and repeat the "
            "command if anything has changed since it began"
        ) from error


def _publish(
    shown: Sequence[BookRun], book: Path, build: Path, config: Path, notebooks: Path
) -> tuple[Path, bool]:
    source = build / "source"
    assemble(book, shown, source, notebooks)
    shutil.copy(config, source / "_config.yml")
    state = _state(source)
    published = build / "html"
    stamp = published / ".state"
    first_page = published / "index.html"
    if stamp.exists() and stamp.read_text() == state:
        return first_page, False

    work = build / "work"
    shutil.rmtree(work, ignore_errors=True)
    html = _jupyter_book(source, work)
    check_pages(source, html)
    lighten(html)
    write_downloads(source, html, load_stages(notebooks), repository_of(config))
    (html / ".state").write_text(state)
    old = build / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if published.exists():
        os.replace(published, old)
    os.replace(html, published)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work)
    return first_page, True


def assemble(
    book: Path, shown: Sequence[BookRun], source: Path, notebooks: Path = NOTEBOOKS
) -> None:
    """Put together all pages of the book, ready for Jupyter Book, in the folder `source`.

    A run that is shown from an archive is unpacked beside `source`. Raises PublishError when
    nothing of the main run has been made, ProseError for a page that quotes what no record holds,
    unless a stage is missing that may hold it, and ArchiveError for a damaged archive.
    """
    shutil.rmtree(source, ignore_errors=True)
    not_pages = shutil.ignore_patterns("assets", "params", "published", "families.json", "runs.yml")
    shutil.copytree(book, source, ignore=not_pages)
    copy_assets(book / "assets", source)
    toc = yaml.safe_load((source / "_toc.yml").read_text(encoding="utf-8"))
    available = load_stages(notebooks)
    summaries = {}
    shown = [_opened(declared, source.parent / "archives") for declared in shown]
    for declared in shown:
        main = declared is shown[0]
        summary = _summary(declared, MAIN_PAGES if main else declared.id, available)
        if not summary["stages"] and main:
            raise PublishError(
                f"run {declared.id!r} has not been made: r2a run --run-id {declared.id}"
            )
        if not summary["stages"]:
            continue  # the comparison page says how it is made
        summaries[declared.id] = summary
        folder = source / summary["pages"]
        folder.mkdir()
        figures = declared.run / "figures"
        if figures.exists():
            shutil.copytree(figures, folder / "figures")
        if not main:
            part = {"caption": declared.title, "chapters": [{"glob": f"{declared.id}/*"}]}
            toc.setdefault("parts", []).append(part)
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    verdicts = judge(summaries)
    for declared in shown:
        if declared.id in summaries:
            _write_stage_pages(declared, summaries, available, source, verdicts)
    pictures = slides(shown[0].title, source / MAIN_PAGES)
    (source / "extra" / "slides.html").write_text(pictures, encoding="utf-8")
    if figures := sorted((source / MAIN_PAGES / "figures").glob("*.png")):
        draw_preview(figures, TITLE, source / "extra" / PREVIEW)
    first = summaries[shown[0].id]
    without = {*first["missing"], *first["ended"]}
    with_page = {name: stage for name, stage in available.items() if name not in without}
    others = {
        "comparison": compare(shown, summaries),
        "verdicts": verdicts,
        "plans": plans_table(read_plans(book / "params")),
        "needs": memory,
        "families": _families(book),
        "exercises": load_exercises(with_page),
        "how_to_cite": how_to_cite(),
    }
    pages = [path.relative_to(book) for path in book.rglob("*.md")]
    for page in (page for page in pages if page.parts[0] != "assets"):
        text = (source / page).read_text(encoding="utf-8")
        text = _rendered(text, f"book/{page}", first, summaries, others)
        (source / page).write_text(text, encoding="utf-8")


def copy_assets(assets: Path, source: Path) -> None:
    """Put what pages load beside them: into `_static` for all, into `extra` for some.

    The model that lives in a page is among the latter, as scripts that a page asks for.
    """
    not_everywhere = shutil.ignore_patterns("mathjax", "live")
    shutil.copytree(assets, source / "_static", ignore=not_everywhere)
    for part in ("mathjax", "live"):
        shutil.copytree(assets / part, source / "extra" / part)
    live = source / "extra" / "live"
    write_page_weights(live / "model.js")
    for name in ("views.css", "views.js"):
        shutil.copy(PACKAGE / "figures" / name, live)


def _opened(declared: BookRun, place: Path) -> BookRun:
    """A run of the book as it lies in a folder: one that is shown from an archive, unpacked."""
    if declared.archive is None:
        return declared
    return replace(declared, folder=opened(declared.archive, place, declared.id))


def _families(book: Path) -> dict[str, Any]:
    """The table of model families that the tests write; empty for a book without one."""
    table = book / "families.json"
    return json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}


def _summary(declared: BookRun, pages: str, available: Mapping[str, Stage]) -> dict[str, Any]:
    """What the pages may say of a run: see `quoted_numbers.render`."""
    made = read_manifest(declared.run)["stages"]
    asked = select(available, declared.stages)
    if declared.archive:  # nobody can complete the rest of it here
        made = {name: entry for name, entry in made.items() if entry["status"] == "completed"}
        asked = [*made]
    wanted = {name: stage for name, stage in available.items() if name in asked}
    missing = missing_stages(declared.run, wanted)
    folders = _folders(made)
    stages = {name: entry for name, entry in made.items() if name not in missing}
    stages = without_folders(stages, folders)
    records = quotable(Run.open(declared.run).records(), missing, wanted) if stages else {}
    return {
        "id": declared.id,
        "title": declared.title,
        "pages": pages,
        "records": without_folders(records, folders),
        "stages": stages,
        "missing": missing,
        "ended": ended_stages(declared.run, stages),
        "machines": _machines(stages),
        "folders": folders,
        "archive": declared.archive and read_archive(declared.archive)[0],
    }


def _write_stage_pages(
    declared: BookRun,
    summaries: Mapping[str, Any],
    available: Mapping[str, Stage],
    source: Path,
    verdicts: Verdicts,
) -> None:
    """A page for each stage of a run, and one that says why for each that cannot be shown."""
    summary = summaries[declared.id]
    folder = source / summary["pages"]
    for stage in summary["stages"]:
        executed = nbformat.read(declared.run / "notebooks" / f"{stage}.ipynb", as_version=4)
        page = in_todays_words(available[stage], executed)
        quote = partial(
            _rendered,
            page=f"notebooks/{stage}.py",
            summary=summary,
            summaries=summaries,
            others={"verdicts": verdicts},
        )
        fill_page(page, stage, summary, quote)
        nbformat.write(page, folder / f"{stage}.ipynb")
    for stage, sentence in summary["missing"].items():
        text = placeholder(available[stage], sentence, summary["pages"] == MAIN_PAGES)
        (folder / f"{stage}.md").write_text(text, encoding="utf-8")


def _rendered(
    text: str,
    page: str,
    summary: Mapping[str, Any],
    summaries: Mapping[str, Any],
    others: Mapping[str, Any] | None = None,
) -> str:
    """Prose with its numbers; where a stage or an archive lacks what it quotes, what is missing."""
    try:
        return render(text, page, summary, summaries, others)
    except ProseError:
        why = [*(summary["missing"] | summary["ended"]).values()]
        if not why and summary["archive"]:
            why = ["This run was packed before the numbers of this paragraph were recorded."]
        if not why:
            raise
        return in_place_of(text, why)


def check_pages(source: Path, html: Path) -> None:
    """PublishError if a page is missing or asks another host for anything when it is opened."""
    for path in _pages(source):
        if not (html / path).with_suffix(".html").exists():
            raise PublishError(f"{path} has no page: is it in book/_toc.yml?")
    for page in sorted(html.rglob("*.html")):
        finder = _Requests()
        finder.feed(page.read_text(encoding="utf-8"))
        if finder.found:
            raise PublishError(
                f"{page.relative_to(html)} asks the network for {', '.join(finder.found)}; "
                "serve it from book/assets"
            )


class _Requests(HTMLParser):
    """Collects what a page would fetch from another host without the reader's doing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loads = [values.get("src"), values.get("srcset"), values.get("poster")]
        if tag == "link" and values.get("rel") not in ("canonical", "author", "license"):
            loads.append(values.get("href"))
        self.found += [url for url in loads if url and re.match(r"(https?:)?//", url)]


def _pages(source: Path) -> list[Path]:
    """The sources of all pages, relative to `source`."""
    files = [path.relative_to(source) for path in sorted(source.rglob("*"))]
    pages = [path for path in files if path.suffix in (".md", ".ipynb")]
    return [path for path in pages if path.parts[0] not in ("_static", "extra")]


def _machines(stages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where the stages of a run were made: one entry for all that share machine and versions."""
    machines: list[dict[str, Any]] = []
    for name, entry in stages.items():
        facts = {"platform": entry["platform"], "python": entry["python"]}
        facts["versions"] = entry["inputs"]["versions"]
        same = [m for m in machines if all(m[key] == value for key, value in facts.items())]
        if same:
            same[0]["stages"].append(name)
        else:
            machines.append({**facts, "stages": [name]})
    return machines


def _folders(stages: Mapping[str, Any]) -> dict[str, str]:
    """What is shown for the folders of the machine that a run's parameters name."""
    found: dict[str, str] = {}
    for entry in stages.values():
        found |= shown_folders(entry.get("inputs", {}).get("parameters", {}))
    return found


def _state(source: Path) -> str:
    """One hash of everything that the built book depends on."""
    digest = hashlib.sha256()
    for name in _BUILDERS:
        digest.update(f"{name} {version(name)}\n".encode())
    # The page about the package is made from its docstrings while the book is built.
    package = sorted(PACKAGE.rglob("*.py"))
    pages = sorted(path for path in source.rglob("*") if path.is_file())
    for base, files in ((PACKAGE.parent, package), (source, pages)):
        for path in files:
            digest.update(str(path.relative_to(base)).encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _jupyter_book(source: Path, work: Path) -> Path:
    """Build strictly; returns the folder of the pages. PublishError holds the warnings."""
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(source)]
    command += ["--path-output", str(work), "-W", "-n", "--keep-going", "-q"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode != 0:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", built.stdout + built.stderr).splitlines()
        wrong = [line for line in lines if re.search(r"WARNING|ERROR|Error|CRITICAL", line)]
        told = "\n".join(wrong or lines[-20:]).replace(str(source) + os.sep, "")
        raise PublishError(f"Jupyter Book refused the book:\n{told}")
    return work / "_build" / "html"
