"""Slides: one for each stage's finding and each figure, that ask nothing of the network."""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r2a_utils.publishing.slides import slides

FIGURE = '<figure class="r2a-figure"><img alt="A grid" src="data:image/webp;base64,AAAA"></figure>'
FINDING = ":::{admonition} In one line\n:class: r2a-finding\n\nhalf & more flip\n:::"


def made(folder) -> str:
    figure = new_output("display_data", {"text/html": FIGURE})
    for name, title in (("05_activation_patching", "Patching"), ("07_synthesis", "Synthesis")):
        page = new_notebook(
            cells=[
                new_markdown_cell(f"# {title}\n\n{FINDING}\n\nMore."),
                new_code_cell("grid()", outputs=[figure]),
                new_markdown_cell("{.r2a-caption}\n**Figure 5.1.** What {term}`patching` shows."),
                new_code_cell("table()", outputs=[figure]),
                new_markdown_cell("A figure with no caption is on the page alone."),
            ]
        )
        nbformat.write(page, folder / f"{name}.ipynb")
    return slides("The bundled model", folder)


def test_each_stage_of_the_paper_has_its_finding_and_its_figures(tmp_path):
    page = made(tmp_path)
    headings = re.findall(r"<h[12]>(.*?)</h[12]>", page)
    assert headings == ["From reasoning to answer", "Patching", "Patching"]
    assert "half &amp; more flip" in page and page.count("data:image/webp") == 1
    assert "<strong>Figure 5.1.</strong> What patching shows." in page
    assert f'href="{tmp_path.name}/05_activation_patching.html"' in page


def test_nothing_is_fetched_and_a_title_does_nothing(tmp_path):
    page = made(tmp_path)
    assert "http" not in page and "<link" not in page
    assert "<script>x" not in slides("<script>x", tmp_path)
