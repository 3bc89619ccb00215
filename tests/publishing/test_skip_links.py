"""“Skip to the explorer” leads from the top of a page to its first view, which takes the focus."""

from __future__ import annotations

import pytest

from r2a_utils.folders import source_folder

PAGE = """<!doctype html><html lang="en"><head><script>{script}</script></head><body>
<div id="pst-skip-link"><a href="#main-content">Skip to main content</a></div>
<nav><a href="#one">one</a><a href="#two">two</a></nav>
<article class="bd-article"><div style="height: 3000px">text</div>
<div class="r2a-view r2a-pair">two texts, nothing to explore</div>
<div data-r2a-view="folded" style="display: none">folded</div>
{view}</article></body></html>"""


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page with the book's own script and a given piece of HTML as its view."""
    script = (source_folder() / "book" / "assets" / "reader.js").read_text("utf-8")
    page = browser.new_page(viewport={"width": 800, "height": 600})

    def open_page(view: str):
        path = tmp_path / "page.html"
        path.write_text(PAGE.format(script=script, view=view), "utf-8")
        page.goto(path.as_uri())
        return page

    yield open_page
    page.close()


@pytest.mark.parametrize("kind", ['data-r2a-view="a1"', 'data-live="hero"'])
def test_the_link_leads_to_the_first_view_that_is_seen_and_it_takes_the_focus(opened, kind):
    page = opened(f'<div class="r2a-view" {kind} id="first"><select></select></div>')
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the explorer"
    before = page.url
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "first" and page.url == before
    assert 0 <= page.locator("#first").bounding_box()["y"] < 600
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"


def test_a_page_with_nothing_to_explore_has_no_such_link(opened):
    page = opened("<p>more text</p>")
    assert page.get_by_text("Skip to the explorer").count() == 0
