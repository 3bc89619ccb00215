"""The views on the book's own pages: by mouse, keyboard and touch, in the dark, without JavaScript.

What a view shows is tested in test_views.py on made-up numbers; here it must live in the built book
with the network cut. Pictures of the views are left in test-artefacts/views/.
"""

from __future__ import annotations

import json
import re

import pytest
from book_visit import PHONE, Visit

from r2a_utils.figures.views import MOST_BYTES
from r2a_utils.runs.stage import ROOT

pytestmark = pytest.mark.xdist_group("book")
pytest.importorskip("playwright.sync_api")

SCREENSHOTS = ROOT / "test-artefacts" / "views"
PAGES = {
    "03_segment_attention": ["tokens", "tokens"],
    "04_reasoning_focus_heads": ["heads"],
    "04b_what_the_heads_do": ["tokens"],
    "04c_failed_traces": ["tokens"],
    "05_activation_patching": ["patch"],
    "06_head_interventions": ["tokens"],
}
_, HEADS, _, _, PATCHES, TRACES = PAGES
DATA_OF_VIEWS = "[...document.querySelectorAll('.r2a-view > script')].map(s => s.textContent)"


def visit(browser, html, stage: str, **settings) -> Visit:
    return Visit(browser, html, f"stages/{stage}.html", **settings)


def kind_of(data: str) -> str:
    """The kind of a view; of a shelf, that of the views that it holds."""
    view = json.loads(data)
    return view["views"][0]["kind"] if view["kind"] == "shelf" else view["kind"]


def view_of(page, kind: str):
    """The first view of a kind, scrolled to where a reader sees it."""
    index = [kind_of(text) for text in page.evaluate(DATA_OF_VIEWS)].index(kind)
    view = page.locator(".r2a-view[data-r2a-view]").nth(index)
    view.scroll_into_view_if_needed()
    return view


def status(view) -> str:
    return view.locator(".r2a-status").first.inner_text()


@pytest.mark.parametrize("stage", PAGES)
def test_each_page_has_its_views_and_little_data(browser, html, stage):
    with visit(browser, html, stage) as found:
        data = found.page.evaluate(DATA_OF_VIEWS)
        # a run of few problems may have no failed trace to show
        kinds = [kind_of(text) for text in data]
        assert kinds == PAGES[stage][: len(kinds)] and set(kinds) == set(PAGES[stage])
        assert sum(len(text.encode()) for text in data) <= MOST_BYTES
        assert found.page.locator(".r2a-view[data-r2a-view]:not([data-mounted])").count() == 0
        for place, view in enumerate(found.page.locator(".r2a-view").all()):
            view.screenshot(path=SCREENSHOTS / f"{stage}_{place}.png")
        assert found.faults == []


def test_pointing_at_a_token_says_what_it_reads(browser, html):
    with visit(browser, html, TRACES) as found:
        view = view_of(found.page, "tokens")
        assert re.match(r"To write “.+”, token \d+ of \d+ of the answer, L\d+\.H\d+", status(view))
        view.locator("[data-segment=answer] .r2a-token").nth(1).hover()
        assert "token 2 of" in status(view)
        view.locator(".r2a-text").focus()
        found.page.keyboard.press("Home")
        assert "token 1 of" in status(view)
        found.page.keyboard.press("Escape")
        view.get_by_label("Read by").select_option(index=1)
        assert re.search(r"All tokens of the answer together, L\d+\.H\d+\.", status(view))


def test_a_click_on_a_head_shows_where_it_looks(browser, html):
    with visit(browser, html, HEADS) as found:
        view = view_of(found.page, "heads")
        before = status(view)
        assert view.locator("canvas").count() == 2  # the heads, and the tokens of the one chosen
        grid = view.locator("canvas").first
        grid.click(position={"x": 45, "y": 10})  # the top left cell: head 0 of the last layer
        assert re.match(r"Head L\d+\.H0", status(view)) and status(view) != before
        drawn = view.locator("canvas:visible").count()
        assert drawn == (1 if "No maps were kept" in status(view) else 2)
        grid.press("ArrowRight")
        assert re.match(r"Head L\d+\.H1\b", status(view))


def test_a_click_on_a_cell_shows_what_was_patched(browser, html):
    with visit(browser, html, PATCHES) as found:
        view = view_of(found.page, "patch")
        assert "the answer flips" in status(view)
        view.locator("canvas").click(position={"x": 40, "y": 10})
        moved = status(view)
        assert re.match(r"Before layer \d+, ", moved)
        view.locator("canvas").press("ArrowDown")
        assert re.match(r"Before layer \d+, ", status(view)) and status(view) != moved
        assert view.locator(".r2a-bars").inner_text().count("→") == 2


def test_a_tap_is_enough_on_a_phone_in_the_dark(browser, html):
    with visit(browser, html, TRACES, viewport=PHONE, scheme="dark", touch=True) as found:
        view = view_of(found.page, "tokens")
        view.locator("[data-segment=answer] .r2a-token").nth(2).tap()
        assert "token 3 of" in status(view)
        assert view.evaluate("v => getComputedStyle(v).backgroundColor") == "rgb(22, 24, 28)"
        box = view.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
        view.locator("[data-segment=answer] .r2a-token").last.scroll_into_view_if_needed()
        told = view.locator(".r2a-status").first.bounding_box()
        assert 0 <= told["y"] < PHONE["height"] / 2  # it stays in sight
        view.screenshot(path=SCREENSHOTS / "phone_dark.png")


def test_the_page_s_own_switch_turns_the_views(browser, html):
    with visit(browser, html, PATCHES) as found:
        view = view_of(found.page, "patch")
        colour = "v => getComputedStyle(v).color"
        seen = {view.evaluate(colour)}
        for _ in range(2):  # auto, light, dark
            found.page.locator(".theme-switch-button").first.click()
            seen.add(view.evaluate(colour))
        assert seen == {"rgb(31, 31, 31)", "rgb(230, 230, 230)"}


@pytest.mark.parametrize(("stage", "figures"), [(HEADS, 3), (PATCHES, 4)])
def test_without_javascript_figures_and_words_remain(browser, html, stage, figures):
    with visit(browser, html, stage, javascript=False) as found:
        words = found.page.locator(".r2a-view noscript").all_inner_texts()
        assert words and all(len(text) > 80 for text in words)
        assert found.page.locator("figure.r2a-figure img").count() >= figures


def test_the_home_page_shows_three_findings_and_leads_on(browser, html):
    with Visit(browser, html, "intro.html") as found:
        cards = found.page.locator(".r2a-home .sd-card")
        assert cards.count() == 3
        for card in cards.all():
            assert len(card.locator("img").get_attribute("alt")) > 40
            assert re.search(r"\d\s%", card.inner_text())
        cards.nth(1).click()
        found.page.wait_for_url(f"**/{HEADS}.html")


@pytest.mark.parametrize("stage", PAGES)
def test_figures_are_numbered_in_order(browser, html, stage):
    with visit(browser, html, stage) as found:
        captions = found.page.locator("p.r2a-caption strong:first-child").all_inner_texts()
        expected = [
            f"Figure {stage.partition('_')[0][1:]}.{i}." for i in range(1, len(captions) + 1)
        ]
        assert captions == expected and captions
