"""Captions are numbered with their stage, and left out where their figure is."""

from __future__ import annotations

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r2a_utils.publishing.captions import is_caption, number_captions, shows_figure


def showing(kind: str):
    html = f'<div class="{kind}"></div>'
    return new_code_cell("draw()", outputs=[new_output("display_data", {"text/html": html})])


def test_captions_count_what_is_shown():
    cells = [
        new_markdown_cell("# A stage"),
        showing("r2a-figure"),
        new_markdown_cell("**Figure.** Bars."),
        new_code_cell("absent"),
        new_markdown_cell("**Figure.** What there was no data for."),
        showing("r2a-view"),
        new_markdown_cell("**Figure.** A map."),
        new_markdown_cell("Read it so."),
    ]
    page = new_notebook(cells=cells)
    number_captions(page, "04_heads")
    assert [cell.source for cell in page.cells if cell.cell_type == "markdown"] == [
        "# A stage",
        "{.r2a-caption}\n**Figure 4.1.** Bars.",
        "{.r2a-caption}\n**Figure 4.2.** A map.",
        "Read it so.",
    ]


def test_only_a_cell_s_own_first_words_make_it_a_caption():
    assert is_caption(new_markdown_cell("**Figure.** Bars."))
    assert not is_caption(new_markdown_cell("See **Figure.** Bars."))
    assert not is_caption(new_code_cell("**Figure.** "))


def test_tables_and_printed_text_are_no_figures():
    assert shows_figure(showing("r2a-figure")) and not shows_figure(showing("dataframe"))
    assert not shows_figure(new_code_cell("1", outputs=[new_output("stream", text="r2a-figure")]))
