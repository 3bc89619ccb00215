"""Pieces are chosen by mouse and keys; the check says what is missing and what does not belong."""

from __future__ import annotations

import pytest

from r2a_utils import figures


@pytest.fixture
def page(browser, tmp_path):
    view = figures.pick_view("Which are even?", ["1", "2", "<3>", "4"], [1, 3], "Two and four.")
    page = browser.new_page(viewport={"width": 390, "height": 700})
    page.goto(view.save(tmp_path / "view.html").as_uri())
    yield page
    page.close()


def status(page) -> str:
    return page.locator(".r2a-status").inner_text()


def test_the_check_says_what_is_missing_and_what_does_not_belong(page):
    page.get_by_role("button", name="2", exact=True).click()
    page.get_by_role("button", name="<3>").press("Enter")
    page.get_by_role("button", name="Check").click()
    assert status(page).startswith("1 of 2 found, and 1 that does not belong.")
    page.get_by_role("button", name="<3>").press("Space")
    page.get_by_role("button", name="4", exact=True).click()
    page.get_by_role("button", name="Check").click()
    assert status(page) == "All 2 and no other. Two and four."


def test_what_belongs_can_be_shown(page):
    page.get_by_role("button", name="1", exact=True).click()
    page.get_by_role("button", name="Show").click()
    pressed = page.locator('[aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["2", "4"] and status(page) == "Two and four."
    assert pressed.first.evaluate("button => getComputedStyle(button).fontWeight") == "700"


@pytest.mark.parametrize("right", [[], [4], [-1]])
def test_a_place_outside_the_pieces_is_refused(right):
    with pytest.raises(ValueError, match="no places among 4 pieces"):
        figures.pick_view("Which?", ["1", "2", "3", "4"], right, "")
