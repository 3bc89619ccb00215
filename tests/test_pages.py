"""The pages as they are written: a thread through the stages, terms, references, captions."""

from __future__ import annotations

import re

import nbformat
import pytest

from r2a_utils.captions import is_caption, shows_figure
from r2a_utils.publish import BOOK, declared_runs
from r2a_utils.stages import load_stages

STAGES = load_stages()
NAMES = list(STAGES)
MAIN_RUN = declared_runs()[0].id
PROSE = {
    name: "\n\n".join(c.source for c in stage.notebook.cells if c.cell_type == "markdown")
    for name, stage in STAGES.items()
}
WRITTEN = {path.name: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("**/*.md"))}


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_a_stage_begins_with_what_is_known_and_ends_with_what_is_missing(place):
    prose = PROSE[NAMES[place]]
    known = re.search(r"\*\*What we know so far\.\*\*(.*?)\n\n", prose, re.DOTALL).group(1)
    limits, missing = re.split(r"\n## What is missing\n", prose)
    assert "\n## What this does not show\n" in limits and "\n## " not in missing
    assert place == 0 or re.search(r"<\d\d_\w+>`", known)
    if place + 1 < len(NAMES):
        assert f"<{NAMES[place + 1]}>`" in re.sub(r"\s+", " ", missing).replace("` <", "`<")


def test_every_reference_is_cited():
    entries = re.findall(r"(?m)^@\w+\{(\w+),", (BOOK / "references.bib").read_text("utf-8"))
    pages = "\n".join([*PROSE.values(), *WRITTEN.values()])
    cited = {key for keys in re.findall(r"\{cite:\w+\}`([^`]+)`", pages) for key in keys.split(",")}
    assert len(entries) == len(set(entries)) and set(entries) == {key.strip() for key in cited}


def test_every_term_of_the_glossary_is_linked_from_a_stage():
    glossary = WRITTEN["glossary.md"].partition("```{glossary}\n")[2].partition("\n```")[0]
    entries = re.findall(r"(?m)^((?:\S.*\n)+)  ", glossary)
    pages = re.sub(r"\s+", " ", "\n".join([*PROSE.values(), WRITTEN["intro.md"]]))
    links = re.findall(r"\{term\}`([^`]+)`", pages)
    linked = {(link.partition("<")[2].strip("> ") or link).lower() for link in links}
    assert entries
    assert [names for names in entries if not set(names.lower().splitlines()) & linked] == []


@pytest.mark.xdist_group("book")
@pytest.mark.parametrize("stage", NAMES)
def test_every_figure_has_a_caption(small_runs, stage):
    page = nbformat.read(small_runs / MAIN_RUN / "notebooks" / f"{stage}.ipynb", as_version=4)
    following = zip(page.cells, [*page.cells[1:], None], strict=True)
    bare = [c.source for c, n in following if shows_figure(c) and not (n and is_caption(n))]
    assert bare == []
