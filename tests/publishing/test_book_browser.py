"""The book in a real browser with the network cut: every page opens whole, on any screen.

Screenshots of all pages are left in test-artefacts/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from book_visit import PHONE, Visit

from r2a_utils.runs.stage import ROOT

pytestmark = pytest.mark.xdist_group("book")
sync_api = pytest.importorskip("playwright.sync_api")

SCREENSHOTS = ROOT / "test-artefacts"
LARGEST_PAGE = 3_000_000  # bytes that a page brings with it, apart from what all pages share
MOST_AT_HOME = 1_500_000  # of a page, before a reader asks for the model that lives in it
SHARED = ("_static", "mathjax")


@pytest.fixture(scope="module")
def pages(html) -> list[str]:
    """All pages, relative to the book's folder; index.html only leads on to the first."""
    found = [str(path.relative_to(html)) for path in sorted(html.rglob("*.html"))]
    return [name for name in found if not name.startswith(SHARED)]


@dataclass(frozen=True)
class Seen:
    """What one visit of a page showed: what went wrong, its weight, where it leads."""

    faults: list[str]
    own_bytes: int  # without what all pages share
    all_bytes: int
    mathematics: bool
    anchors: set[str]
    links: list[str]


@pytest.fixture(scope="module")
def seen(browser, html, pages) -> dict[str, Seen]:
    """Every page visited once, on a wide screen; a picture of each is kept."""
    found = {}
    for name in pages:
        with Visit(browser, html, name) as visit:
            page = visit.page
            faults = faults_in(page)
            page.screenshot(
                path=SCREENSHOTS / "wide" / Path(name).with_suffix(".png"),
                full_page=True,
                timeout=120_000,
            )
            own = [p for p in visit.files if p.relative_to(html).parts[0] not in SHARED]
            found[name] = Seen(
                faults=visit.faults + faults,
                own_bytes=sum(path.stat().st_size for path in own),
                all_bytes=sum(path.stat().st_size for path in visit.files),
                mathematics=page.locator(".math").count() > 0,
                anchors=set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")),
                links=page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"),
            )
    return found


def faults_in(page) -> list[str]:
    """Images that did not load or say nothing, and whatever was left unrendered."""
    found = []
    for image in page.locator("img").all():
        source = (image.get_attribute("src") or "")[:80]
        if not image.evaluate("image => image.complete && image.naturalWidth > 0"):
            found.append(f"image not loaded: {source}")
        if not (image.get_attribute("alt") or "").strip():
            found.append(f"image without alternative text: {source}")
    prose = "\n".join(page.locator("article p, article li").all_inner_texts())
    found += [f"unrendered: {mark}" for mark in ("{{", "}}", "{%") if mark in prose]
    if page.locator("mjx-merror").count():
        found.append("mathematics that MathJax cannot read")
    formulas = page.locator("span.math, div.math").count()
    if formulas > page.locator("mjx-container svg").count():
        found.append("mathematics not typeset")
    return found


def test_every_page_opens_whole(seen):
    """No failed request, no error, every image loaded and described, nothing left unrendered."""
    assert {name: page.faults for name, page in seen.items() if page.faults} == {}


def test_no_page_is_heavy(seen):
    sizes = {name: page.own_bytes for name, page in seen.items()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_PAGE} == {}


def test_what_all_pages_share_is_light(seen):
    """Home and playground before their model is asked for, and every page without figures.

    The reference of the package is as long as the package.
    """
    sizes = {
        name: page.all_bytes
        for name, page in seen.items()
        if "/" not in name and name != "api.html" and not page.mathematics
    }
    assert {"intro.html", "playground.html"} <= sizes.keys()
    assert {name: size for name, size in sizes.items() if size > MOST_AT_HOME} == {}


def test_every_link_within_the_book_leads_somewhere(html, seen):
    anchors = {html / name: page.anchors for name, page in seen.items()}
    broken = []
    for name, page in seen.items():
        for target in page.links:
            url, fragment = urldefrag(target)
            if urlparse(url).scheme != "file":
                continue
            if "=" in fragment:  # a state of the playground, no place on its page
                fragment = ""
            path = Path(unquote(urlparse(url).path))
            known = anchors.get(path, set())
            if not path.is_file() or (fragment and path in anchors and fragment not in known):
                broken.append(f"{name}: {target.removeprefix(html.as_uri())}")
    assert broken == []


SLIDES = "slides.html"  # for a projector: a document of its own, dark ink on white


def test_no_page_scrolls_sideways_on_a_phone_nor_fails_in_the_dark(browser, html, pages):
    faults = {}
    for name in pages:
        with Visit(browser, html, name, viewport=PHONE, scheme="dark") as visit:
            themed = name != SLIDES
            if themed and visit.page.locator("html[data-theme=dark]").count() == 0:
                visit.faults.append("not dark")
            overflow = "document.documentElement.scrollWidth - window.innerWidth"
            if visit.page.evaluate(overflow) > 0:
                visit.faults.append("scrolls sideways")
            path = SCREENSHOTS / "phone" / Path(name).with_suffix(".png")
            visit.page.screenshot(path=path, full_page=True, timeout=120_000)
            if visit.faults:
                faults[name] = visit.faults
    assert faults == {}


def test_the_table_of_families_shows_all_its_columns(browser, html):
    with Visit(browser, html, "families.html") as visit:  # 1280 pixels wide
        table = visit.page.locator(".r2a-families table")
        assert table.evaluate("table => table.scrollWidth - table.clientWidth") == 0


def test_search_finds_a_word_without_a_server(browser, html):
    with Visit(browser, html, "search.html?q=trace") as visit:
        visit.page.wait_for_selector("#search-results li a", timeout=60_000)
        assert visit.faults == []


def test_what_is_found_is_quoted_from_a_file_that_no_other_page_loads(browser, html):
    with Visit(browser, html, "search.html?q=reasoning") as visit:
        quoted = visit.page.locator("#search-results li p.context")
        quoted.first.wait_for(timeout=60_000)
        assert "reasoning" in quoted.first.inner_text().lower()
        assert visit.faults == []
    loading = [path for path in html.rglob("*.html") if "search_excerpts.js" in path.read_text()]
    assert loading == [html / "search.html"]


def test_the_first_page_leads_to_the_home_page(browser, html):
    with Visit(browser, html, "index.html") as visit:
        visit.page.wait_for_url("**/intro.html", timeout=60_000)
        assert visit.faults == []


def test_the_home_page_is_light_until_its_model_is_asked_for(browser, html):
    with Visit(browser, html, "intro.html") as visit:
        assert sum(path.stat().st_size for path in visit.files) < MOST_AT_HOME
        visit.page.get_by_role("button", name="Wake the model").click()
        visit.page.wait_for_selector(".r2a-bars u", state="attached", timeout=60_000)
        visit.page.screenshot(path=SCREENSHOTS / "live" / "home.png", full_page=True)
        assert visit.faults == []
