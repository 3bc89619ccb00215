"""The reader's view: a page opens with its finding; code and parameters are one click away."""

import pytest
from book_visit import Visit

pytestmark = pytest.mark.xdist_group("book")
pytest.importorskip("playwright.sync_api")

PAGE = "stages/03_segment_attention.html"
CODE = "article :is(.cell_input, details.above-input):not(#exercises *)"


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
        button = page.get_by_role("button", name="Show code and parameters")
        button.focus()
        page.keyboard.press("Enter")
        assert shown(page, "#parameters") == 1
        assert shown(page, "article .cell_input") > 5
        page.reload()
        assert shown(page, "#parameters") == 1
        page.get_by_role("button", name="Hide code and parameters").click()
        assert shown(page, "#parameters") == 0


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
