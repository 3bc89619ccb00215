"""The book is built strictly from complete runs, or the published one stays as it is."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from r2a_utils.publishing import book as publishing
from r2a_utils.publishing.book import assemble, check_pages, publish
from r2a_utils.publishing.book_runs import PublishError, declared_runs
from r2a_utils.publishing.quoted_numbers import ProseError, render
from r2a_utils.runs.archive import ArchiveError, pack
from r2a_utils.runs.folder import Run
from r2a_utils.runs.running import run_stages
from r2a_utils.runs.stage import ROOT

pytestmark = pytest.mark.xdist_group("book")

STAGE = """\
# ---
# jupyter:
#   r2a:
#     writes: [records/count, figures/line]
# ---

# %% [markdown]
# (counting)=
# # Counting
#
# There are {{ count.n }} of them. See {ref}`counting` and the [home page](../intro.md).

# %% tags=["parameters"]
run_dir = "runs/default"
n = 3

# %%
import matplotlib.pyplot as plt
from r2a_utils.runs.archive import ArchiveError, pack
from r2a_utils.runs.folder import Run
run = Run.open(run_dir)
run.write_record("count", {"n": n, "share": 0.5})
figure = plt.figure(figsize=(1, 1))
figure.add_subplot().plot([0, n])
plt.close(figure)
run.write_figure("line", figure);

# %% mystnb={"figure": {"caption": "Up.", "name": "fig-line"}, "image": {"alt": "a line"}}
figure
"""
LATER = """\
# %% [markdown]
# # Later
#
# After {doc}`01_counting`, or {doc}`the first one <01_counting>`, comes {doc}`02_later`.

# %% tags=["parameters"]
run_dir = "runs/default"
"""
INTRO = """\
# Home

{{ count.n }} here and {{ runs["other"].records.count.n }} there. $x^2$

![A line](stages/figures/line.png)
"""
TOC = """\
format: jb-book
root: intro
parts:
- caption: All
  chapters:
  - glob: stages/*
  - file: status
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a small book and two complete runs of one stage."""
    folder = tmp_path_factory.mktemp("publish")
    for path in ("notebooks", "book", "book/assets/mathjax", "book/assets/live"):
        (folder / path).mkdir(parents=True)
    (folder / "notebooks/01_counting.py").write_text(STAGE)
    (folder / "book/intro.md").write_text(INTRO)
    (folder / "book/status.md").write_text("# Status\n")
    (folder / "book/references.bib").write_text("")
    (folder / "book/assets/book.css").write_text("")
    (folder / "book/assets/mathjax/startup.js").write_text("")
    (folder / "book/_toc.yml").write_text(TOC)
    (folder / "book/runs.yml").write_text(
        "runs:\n- {id: default, title: Ours, parameters: {}}\n"
        "- {id: other, title: Another, stages: ['01']}\n"
        "- {id: part, title: A part, stages: ['02']}\n- {id: nowhere, title: Not made}\n"
    )
    (folder / "notebooks/02_later.py").write_text(LATER)
    for run_id, stages, given in (
        ("default", None, {}),
        ("other", ["01"], {"n": 4}),
        ("part", ["02"], {}),
    ):
        run_stages(
            folder / "runs" / run_id,
            stages,
            given=given,
            notebooks=folder / "notebooks",
            progress=False,
        )
    return folder


def build(made: Path) -> tuple[Path, bool]:
    return publish(made / "book", made / "runs", made / "_build", notebooks=made / "notebooks")


def test_the_book_shows_every_run_and_is_built_again_only_when_something_changed(made):
    first_page, built = build(made)
    assert built
    html = first_page.parent
    assert "3 here and 4 there" in (html / "intro.html").read_text()
    assert "There are 3 of them" in (html / "stages/01_counting.html").read_text()
    other = (html / "other/01_counting.html").read_text()
    assert "There are 4 of them" in other
    assert "Another" in other
    assert 'alt="a line"' in other
    assert (html / "_images/line.png").exists()
    assert build(made) == (first_page, False)

    status = made / "book/status.md"
    status.write_text("# Status\n\nAll well.\n")
    assert build(made)[1]
    assert "All well." in (html / "status.html").read_text()


def test_an_archive_is_shown_as_if_the_run_had_been_made_here(made, tmp_path):
    def pages(name: str, runs: Path) -> dict[str, bytes]:
        source = tmp_path / name / "source"
        assemble(tmp_path / "book", declared_runs(tmp_path / "book", runs), source, notebooks)
        files = [path for path in source.rglob("*") if path.is_file()]
        return {path.relative_to(source).as_posix(): path.read_bytes() for path in files}

    notebooks = made / "notebooks"
    shutil.copytree(made / "book", tmp_path / "book")
    here = pages("here", made / "runs")
    shutil.copytree(made / "runs/default", tmp_path / "runs/default")
    listed = (tmp_path / "book/runs.yml").read_text()
    pack(made / "runs/other", tmp_path / "book/published/other.r2a")
    archived = "title: Another, archive: published/other.r2a"
    (tmp_path / "book/runs.yml").write_text(listed.replace("title: Another", archived))
    there = pages("there", tmp_path / "runs")
    assert "There are 4" in here["other/01_counting.ipynb"].decode()
    gone = [name for name in here if name.startswith("part/")]  # made here, in no archive
    assert there == {name: data for name, data in here.items() if name not in gone} | {
        "_toc.yml": there["_toc.yml"]
    }

    edited = tmp_path / "book/published/other.r2a"
    edited.write_bytes(edited.read_bytes()[:-40])
    with pytest.raises(ArchiveError, match=r"other\.r2a is no run archive or is damaged"):
        pages("edited", tmp_path / "runs")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# Status\n\n{ref}`nowhere`\n", "nowhere"),
        ("# Status\n\n[gone](gone.md)\n", "gone"),
        ("# Status\n\n#### Too deep\n", "H1 to H4"),
        ("# Status\n\n<script src='https://example.org/x.js'></script>\n", "status.html asks the"),
    ],
)
def test_a_book_with_a_fault_is_refused_and_the_published_one_stays(made, text, told):
    first_page, _ = build(made)
    before = (first_page.parent / "status.html").read_text()
    status = made / "book/status.md"
    good = status.read_text()
    status.write_text(text)
    try:
        with pytest.raises(PublishError, match=told):
            build(made)
    finally:
        status.write_text(good)
    assert (first_page.parent / "status.html").read_text() == before


def assembled(made: Path, source: Path) -> None:
    shown = declared_runs(made / "book", made / "runs")
    assemble(made / "book", shown, source, made / "notebooks")


def test_without_the_main_run_there_is_no_book(made, tmp_path):
    with pytest.raises(PublishError, match="'default' has not been made: r2a run --run-id default"):
        publish(made / "book", tmp_path, tmp_path / "_build", notebooks=made / "notebooks")


def test_what_a_run_lacks_hides_nothing_else(made, tmp_path):
    """A stage that failed, and one that was never run: the rest is shown and says so."""
    runs = tmp_path / "runs"
    shutil.copytree(made / "runs", runs)
    manifest = runs / "default/manifest.json"
    entries = json.loads(manifest.read_text())
    entries["stages"]["01_counting"]["status"] = "failed"
    manifest.write_text(json.dumps(entries))
    first_page, built = publish(
        made / "book", runs, tmp_path / "_build", notebooks=made / "notebooks"
    )
    assert built
    html = first_page.parent
    told = "r2a run --run-id default --stages 01"
    for page in ("intro.html", "stages/01_counting.html"):
        assert told in re.sub("<[^>]+>", "", (html / page).read_text())
    assert "<h1>Counting" in (html / "stages/01_counting.html").read_text()
    assert "comes" in (html / "stages/02_later.html").read_text()
    assert "There are 4 of them" in (html / "other/01_counting.html").read_text()
    assert "--run-id part" not in (html / "part/02_later.html").read_text()  # it wants no other


def test_what_quotes_a_stage_that_ended_itself_says_why(made, tmp_path):
    """Its own page is shown as far as it goes."""
    runs = tmp_path / "runs"
    shutil.copytree(made / "runs", runs)
    entries = json.loads((runs / "default/manifest.json").read_text())
    entries["stages"]["02_later"]["ended"] = "Needs 1, has 0; --set n=1"
    (runs / "default/manifest.json").write_text(json.dumps(entries))
    (runs / "default/records/count.json").unlink()
    shown = declared_runs(made / "book", runs)
    assemble(made / "book", shown, tmp_path / "source", made / "notebooks")
    told = (tmp_path / "source/intro.md").read_text()
    assert (
        "02_later of run `default` ended before it had results. Needs 1, has 0; `--set n=1`" in told
    )
    assert (tmp_path / "source/stages/02_later.ipynb").exists()


def test_a_misspelt_quotation_is_refused_where_nothing_is_missing(made):
    status = made / "book/status.md"
    good = status.read_text()
    status.write_text("# Status\n\n{{ count.m }}\n")
    try:
        with pytest.raises(ProseError, match=r"status.md.*has the records count"):
            build(made)
    finally:
        status.write_text(good)


def test_the_book_is_built_by_one_process_at_a_time(made):
    (made / "_build").mkdir(exist_ok=True)
    with (
        FileLock(made / "_build/.lock", is_singleton=False),
        pytest.raises(PublishError, match="another process builds the book"),
    ):
        build(made)


def test_labels_stay_only_on_the_main_pages(made, tmp_path):
    assembled(made, tmp_path / "source")
    main, other = (
        nbformat.read(tmp_path / "source" / run / "01_counting.ipynb", as_version=4)
        for run in ("stages", "other")
    )
    assert main.cells[0].source.startswith("(counting)=\n# Counting")
    assert other.cells[0].source.startswith("# Counting")
    assert main.cells[3].metadata["mystnb"]["figure"]["name"] == "fig-line"
    assert "name" not in other.cells[3].metadata["mystnb"]["figure"]


def test_a_run_of_some_stages_links_to_the_main_runs_other_pages(made):
    first_page, _ = build(made)
    later = (first_page.parent / "part/02_later.html").read_text()
    assert later.count('href="../stages/01_counting.html"><span class="doc">') == 2
    assert 'href="#"><span class="doc">' in later or 'href="02_later.html"' in later


def test_a_run_that_has_not_been_made_has_no_pages_and_stops_no_book(made):
    first_page, _ = build(made)
    assert not (first_page.parent / "nowhere").exists()


def test_a_page_says_which_run_it_comes_from(made, tmp_path):
    Run.open(made / "runs/other")
    assembled(made, tmp_path / "source")
    page = nbformat.read(tmp_path / "source/other/01_counting.ipynb", as_version=4)
    assert "Run `other`" in page.cells[-1].source
    assert "../status.md" in page.cells[-1].source


def test_a_page_says_what_the_weights_were_packed_in(made, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(made / "runs", runs)
    told = "6.2-bit weights (Q4_K_M), expanded"
    path = runs / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    model = {"name": "q.gguf", "device": "cpu", "packed": told}
    manifest["stages"]["01_counting"]["model"] = model
    path.write_text(json.dumps(manifest))
    shown = declared_runs(made / "book", runs)
    assemble(made / "book", shown, tmp_path / "source", made / "notebooks")
    page = nbformat.read(tmp_path / "source/other/01_counting.ipynb", as_version=4)
    assert told in page.cells[1].source and "q.gguf" in page.cells[1].source
    assert told in page.cells[-1].source
    page = nbformat.read(tmp_path / "source/stages/01_counting.ipynb", as_version=4)
    assert not any("expanded" in cell.source for cell in page.cells)


def test_a_page_that_jupyter_book_did_not_make_is_missed(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/alone.md").write_text("# Alone")
    with pytest.raises(PublishError, match=r"alone.md has no page: is it in book/_toc.yml"):
        check_pages(tmp_path / "source", tmp_path / "html")


def test_the_projects_own_runs_are_well_declared():
    runs = declared_runs()
    assert runs[0].id == "default"
    assert runs[0].parameters is not None
    assert publishing.CONFIG == ROOT / "_config.yml"


SUMMARY = {"id": "default", "records": {"quality": {"share": 0.934, "p": 2e-5, "d": -0.5}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ quality.share | percent }}", "93 %"),
        ("{{ quality.share | percent(1) }}", "93.4 %"),
        ("{{ quality.p | p_value }}", "p < 0.001"),
        ("{{ 0.0123 | p_value }}", "p = 0.012"),
        ("n = {{ 3 }}{{ 3 | few }}", "n = 3: too few for a mean"),
        ("n = {{ 5 }}{{ 5 | few }}", "n = 5"),
        ("{{ quality.d | number }}", "−0.50"),
        ("{{ -0.001 | number }}", "0.00"),
        ("{{ 1 | counted('pair') }}, {{ 2 | counted('pair') }}", "1 pair, 2 pairs"),
        ("{{ 0 | counted('family', 'families') }}", "0 families"),
        ("{#id .class} $x_{i}$\n", "{#id .class} $x_{i}$\n"),
        ("{{ runs.default.records.quality.share }}", "0.934"),
    ],
)
def test_numbers_are_put_into_prose(text, told):
    assert render(text, "page.md", SUMMARY, {"default": SUMMARY}) == told


BROKEN = ["{{ qualty.share }}", "{{ quality.shar }}", "{{ quality", "{{ none | percent }}"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_quotation_of_nothing_names_its_page(text):
    with pytest.raises(ProseError, match=r"page.md.*has the records quality"):
        render(text, "page.md", SUMMARY, {})


def test_prose_that_an_archive_lacks_a_number_for_says_so_and_that_of_a_run_is_refused():
    lacks = {"id": "x", "records": {}, "missing": {}, "ended": {}, "archive": {"hours": 1.0}}
    said = publishing._rendered("## A title\n\nIt is {{ gone }}.", "page", lacks, {})
    assert said.startswith("## A title") and "was packed before the numbers" in said
    with pytest.raises(ProseError, match="gone"):
        publishing._rendered("It is {{ gone }}.", "page", lacks | {"archive": None}, {})
