"""What is taken out of built pages is what none of them shows."""

from pathlib import Path

import pytest

from r2a_utils.publishing.page_weight import ICONS, lighten

DRAWINGS = (
    'var icons={"sun":[512,512,[9728],"f185","M1 2z"],'
    '"magnifying-glass":[512,512,[128269,"search"],"f002","M3 4z"],'
    'gear:[512,512,[],"f013",["M5 6z","M7 8z"]]};run(icons);'
)
MATHJAX = '<script>window.MathJax = {"a": 1}</script>\n<script defer src="mathjax/startup.js?v=1">'


@pytest.fixture
def built(tmp_path) -> Path:
    (tmp_path / ICONS).parent.mkdir(parents=True)
    (tmp_path / ICONS).write_text(DRAWINGS)
    (tmp_path / "plain.html").write_text(
        f'{MATHJAX}</script><i class="fa-solid fa-search"></i>'
        '<button class="btn search-button-field" title="Find" aria-label="Find">Search K</button>'
        '<summary aria-label="Toggle">Show the solution</summary>'
        '<button class="btn fold" aria-label="Table of contents"></button>'
    )
    (tmp_path / "formula.html").write_text(
        f'{MATHJAX}</script><span class="math notranslate">x</span>'
    )
    lighten(tmp_path)
    return tmp_path


def test_only_icons_that_a_page_names_are_left(built):
    """By their name or by another name of theirs."""
    left = (built / ICONS).read_text()
    assert left == (
        'var icons={"magnifying-glass":[512,512,[128269,"search"],"f002","M3 4z"],};run(icons);'
    )


def test_mathematics_is_set_where_there_is_some(built):
    assert "mathjax" not in (built / "plain.html").read_text().lower()
    assert MATHJAX in (built / "formula.html").read_text()


def test_a_button_is_named_by_what_stands_on_it(built):
    page = (built / "plain.html").read_text()
    assert '<button class="btn search-button-field" title="Find">Search K' in page
    assert "<summary>Show the solution" in page
    assert 'aria-label="Table of contents"' in page
