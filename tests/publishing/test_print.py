"""A printed page is one to hand out: no code, nothing clipped, no page empty, light from dark."""

import re
import zlib

import pytest
from book_visit import Visit

pytestmark = pytest.mark.xdist_group("book")
pytest.importorskip("playwright.sync_api")

STAGE = "stages/05_activation_patching.html"
PAPER = {"width": 670, "height": 1000}  # A4 within its margins, in CSS pixels
CLIPPED = """() => [...document.querySelectorAll("article, article *")].filter((part) => {
  const style = getComputedStyle(part), box = part.getBoundingClientRect();
  const scrolls = /auto|scroll/.test(style.overflowX) && part.scrollWidth > part.clientWidth + 1;
  return scrolls || (part.matches("table, img, canvas") && box.width && box.right > innerWidth);
}).map((part) => part.tagName + "." + part.className)"""


def drawn_pages(pdf: bytes) -> list[bool]:
    """For each page of a PDF that Chromium wrote: whether it has text or a picture."""
    streams = {}
    stream = rb"(?s)(\d+) 0 obj\s((?:(?!endobj).)*?>>)\s*stream\n(.*?)\nendstream"
    for number, told, content in re.findall(stream, pdf):
        streams[number] = zlib.decompress(content) if b"FlateDecode" in told else content
    contents = re.findall(rb"/Type /Page\n.*?/Contents (\d+) 0 R", pdf, re.DOTALL)
    return [re.search(rb"\b(Tj|TJ|Do)\b", streams[number]) is not None for number in contents]


@pytest.mark.parametrize("name", ["intro.html", STAGE, "compare.html"])
def test_on_paper_nothing_is_clipped_and_no_code_stands(browser, html, name):
    with Visit(browser, html, name, viewport=PAPER) as found:
        page = found.page
        page.emulate_media(media="print")
        assert page.evaluate(CLIPPED) == []
        hidden = "article :is(.cell_input, details.above-input, button, select, .r2a-help)"
        assert page.locator(hidden).locator("visible=true").count() == 0
        figures = page.locator("article img")
        assert figures.locator("visible=true").count() == figures.count() > 0


def test_no_printed_page_is_empty(browser, html):
    with Visit(browser, html, STAGE) as found:
        pages = drawn_pages(found.page.pdf(prefer_css_page_size=True))
        assert len(pages) > 4 and all(pages)


def test_the_home_page_s_figures_stand_in_a_row_on_paper(browser, html):
    with Visit(browser, html, "intro.html", viewport=PAPER) as found:
        found.page.emulate_media(media="print")
        cards = [card.bounding_box() for card in found.page.locator(".r2a-home .sd-card").all()]
        assert len({round(card["y"]) for card in cards}) == 1 < len(cards)


def test_the_notebook_view_is_printed_with_its_code(browser, html):
    with Visit(browser, html, STAGE, viewport=PAPER) as found:
        found.page.get_by_role("button", name="Notebook view").click()
        found.page.emulate_media(media="print")
        assert found.page.locator("article .cell_input").locator("visible=true").count() > 5


def test_a_dark_page_is_printed_light_and_dark_again_after(browser, html):
    with Visit(browser, html, STAGE, scheme="dark") as found:
        page = found.page
        page.evaluate("""() => addEventListener("beforeprint", () => {
          window.printed = document.documentElement.dataset.theme;
        })""")
        shown = page.evaluate("document.documentElement.dataset.theme")
        page.pdf()
        assert shown != "light" == page.evaluate("window.printed")
        assert page.evaluate("document.documentElement.dataset.theme") == shown
