"""The reader's view opens with a page's finding; code and details are one click away."""

import re

import nbformat
import pytest
from book_visit import Visit

from r2a_utils.publishing.readers_view import DETAILS, mark_details
from r2a_utils.runs.stage import load_stages

pytestmark = pytest.mark.xdist_group("book")
pytest.importorskip("playwright.sync_api")

PAGE = "stages/03_segment_attention.html"
CODE = "article :is(.cell_input, details.above-input):not(#exercises *)"


STAGES = load_stages()
MOST_WORDS = 1_200
DETAILED = "stages/06_head_interventions.html"
# Paragraphs and items that a reader sees, but for exercises, tables and what is to be explored.
PROSE = """() => [...document.querySelectorAll("article :is(p, li)")].filter((part) =>
  part.offsetParent && !part.closest("table, .r2a-view, section#exercises, .r2a-reading")
  && !part.parentElement.closest("p, li")).map((part) => part.innerText).join(" ")"""


def shown(page, selector: str) -> int:
    return page.locator(selector).locator("visible=true").count()


def test_a_page_opens_with_its_finding_and_without_code(browser, html):
    with Visit(browser, html, PAGE) as found:
        page = found.page
        finding = page.locator(".r2a-finding")
        assert finding.count() == 1 and "times a uniform head" in finding.inner_text()
        question = page.locator("article p", has_text="Question.").first
        assert finding.bounding_box()["y"] < question.bounding_box()["y"]
        assert shown(page, CODE) == 0
        assert shown(page, "#parameters") == 0
        assert (
            page.evaluate("document.querySelector('article').innerText.includes('= load_model(')")
            is False
        )


def test_one_button_shows_the_code_and_is_remembered(browser, html):
    with Visit(browser, html, PAGE) as found:
        page = found.page
        button = page.get_by_role("button", name="Notebook view")
        button.focus()
        page.keyboard.press("Enter")
        assert shown(page, "#parameters") == 1
        assert shown(page, "article .cell_input") > 5
        page.reload()
        assert shown(page, "#parameters") == 1
        page.get_by_role("button", name="Reader's view").click()
        assert shown(page, "#parameters") == 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_reader_s_page_is_short(browser, html, stage):
    with Visit(browser, html, f"stages/{stage}.html") as found:
        words = re.findall(r"[A-Za-z][\w'’-]*", found.page.evaluate(PROSE))
        assert 50 < len(words) <= MOST_WORDS


@pytest.mark.parametrize("stage", DETAILS)
def test_every_detail_is_a_section_of_its_notebook(stage):
    text = "\n".join(c.source for c in STAGES[stage].notebook.cells if c.cell_type == "markdown")
    headings = re.findall(r"(?m)^## (.+)$", text)
    assert set(DETAILS[stage]) <= set(headings)


def test_the_last_section_of_a_page_that_ended_early_stays():
    headings = ("Contrast pairs", "Which pairs can be patched")
    cells = [nbformat.v4.new_markdown_cell(f"## {heading}\n\nWords.") for heading in headings]
    page = nbformat.v4.new_notebook(cells=cells)
    mark_details(page, "05_activation_patching")
    assert ["{.r2a-notebook}" in cell.source for cell in page.cells] == [True, False]


def test_details_are_named_and_one_click_away(browser, html):
    with Visit(browser, html, DETAILED) as found:
        page = found.page
        assert shown(page, "section.r2a-notebook") == 0
        told = page.locator(".r2a-reading")
        opening = r"\d+ minutes to read\. The notebook view goes further: "
        assert re.match(opening, told.inner_text())
        told.get_by_role("link", name=DETAILS["06_head_interventions"][1]).click()
        assert shown(page, "section.r2a-notebook") == len(DETAILS["06_head_interventions"])
        assert "goes further" not in told.inner_text()


def test_exercises_keep_their_code(browser, html):
    with Visit(browser, html, "stages/00_anatomy_of_a_trace.html") as found:
        assert shown(found.page, "#exercises .cell_input") > 0
        assert shown(found.page, "#parameters") == 0


def test_a_link_to_the_parameters_shows_them(browser, html):
    with Visit(browser, html, PAGE) as found:
        found.page.goto(found.page.url.partition("#")[0] + "#parameters")
        found.page.reload()
        assert shown(found.page, "#parameters") == 1


def test_without_javascript_everything_is_there(browser, html):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((html / PAGE).as_uri())
    assert shown(page, "#parameters") == 1
    context.close()
