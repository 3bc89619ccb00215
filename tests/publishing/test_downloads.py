"""What a reader takes from a page: its notebook, and links to machines that run it."""

from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r2a_utils.publishing import downloads
from r2a_utils.publishing.downloads import launch_links, repository_of, write_downloads
from r2a_utils.runs.stage import ROOT, load_stages

STAGE = "04_reasoning_focus_heads"
REPOSITORY = "https://github.com/ada/r2a"


@pytest.fixture
def place(tmp_path):
    """The source of a book with one page, and the built book."""
    shown = new_output("display_data", {"text/html": "<b>7</b>"})
    page = new_notebook(
        cells=[
            new_markdown_cell("(heads)=\n# Heads\n\nSee {doc}`03_segment_attention`."),
            new_code_cell("1 + 6", outputs=[shown], metadata={"mystnb": {"x": 1}}),
            new_markdown_cell("{.r2a-caption}\n**Figure 4.1.** Seven."),
            new_code_cell("done", metadata={"tags": ["solution", "hide-cell"]}),
            new_markdown_cell("Run `default` · [versions and parameters](../status.md)"),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3"},
            "r2a": {"stage": STAGE, "run_id": "default", "inputs": {"dataset": "/home/ada/x"}},
        },
    )
    for folder in ("source/stages", "html/_sources/stages"):
        (tmp_path / folder).mkdir(parents=True)
    nbformat.write(page, tmp_path / "source/stages" / f"{STAGE}.ipynb")
    return tmp_path


def written(place, repository=""):
    write_downloads(place / "source", place / "html", load_stages(), repository)
    return nbformat.read(place / "html/_sources/stages" / f"{STAGE}.ipynb", as_version=4)


def test_a_notebook_is_plain_and_has_its_outputs_and_names_no_folder(place):
    notebook = written(place)
    nbformat.validate(notebook)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert prose == [
        "# Heads\n\nSee [03_segment_attention](03_segment_attention.ipynb).",
        "**Figure 4.1.** Seven.",
        "Run `default` · versions and parameters",
    ]
    first, last = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.outputs[0].data == {"text/html": "<b>7</b>"} and first.metadata == {}
    assert last.metadata == {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    assert "/home/" not in nbformat.writes(notebook)


def test_with_a_repository_the_first_code_installs_and_makes_what_is_read(place):
    setup = next(cell for cell in written(place, REPOSITORY).cells if cell.cell_type == "code")
    assert f'"r2a @ git+{REPOSITORY}"' in setup.source
    assert "!r2a run --run-id default --stages 01,03" in setup.source
    assert "!r2a" not in "".join(cell.source for cell in written(place).cells)


def test_links_lead_to_the_public_repository_and_there_are_none_without_one():
    links = launch_links(REPOSITORY, f"stages/{STAGE}")
    start = "https://colab.research.google.com/github/ada/r2a/blob/notebooks/stages"
    assert links["Colab"] == f"{start}/{STAGE}.ipynb"
    assert links["Binder"].startswith("https://mybinder.org/v2/gh/ada/r2a/HEAD?")
    assert launch_links("", "stages/x") == launch_links("https://example.org/r2a", "x") == {}
    assert repository_of(ROOT / "_config.yml") == ""  # this copy says nowhere that it is public


@pytest.mark.parametrize(
    ("repository", "suffix", "places"),
    [(REPOSITORY, ".ipynb", ["Colab", "Binder"]), (REPOSITORY, ".md", []), ("", ".ipynb", [])],
)
def test_only_stage_pages_have_a_button_that_runs_them(repository, suffix, places):
    context = {"page_source_suffix": suffix, "header_buttons": []}
    options = {"repository_url": repository}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options))
    downloads._add_buttons(app, f"stages/{STAGE}", "page.html", context, None)
    shown = [button["text"] for group in context["header_buttons"] for button in group["buttons"]]
    assert shown == places
