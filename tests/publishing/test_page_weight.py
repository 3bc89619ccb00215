"""What is taken out of built pages is what none of them shows."""

import re
from pathlib import Path

import pytest

from r2a_utils.publishing.page_weight import ICONS, STYLES, lighten

DRAWINGS = (
    'var icons={"sun":[512,512,[9728],"f185","M1 2z"],'
    '"magnifying-glass":[512,512,[128269,"search"],"f002","M3 4z"],'
    'gear:[512,512,[],"f013",["M5 6z","M7 8z"]]};run(icons);'
)
RULES = (
    ".fa-spin{animation:turn}.fa-sun:before{content:'x'}.fa-search:before{content:'y'}"
    ".fa-cog:before,.fa-gear:before{content:'z'}.fold:before{content:'w'}"
)
SEARCHING = '<script src="_static/searchtools.js"></script>\n<script src="searchindex.js"></script>'
MATHJAX = '<script>window.MathJax = {"a": 1}</script>\n<script defer src="mathjax/startup.js?v=1">'


@pytest.fixture
def built(tmp_path) -> Path:
    (tmp_path / ICONS).parent.mkdir(parents=True)
    (tmp_path / ICONS).write_text(DRAWINGS)
    (tmp_path / STYLES).parent.mkdir(parents=True)
    (tmp_path / STYLES).write_text(RULES)
    (tmp_path / "search.html").write_text(SEARCHING)
    (tmp_path / "plain.html").write_text(
        f"{SEARCHING}"
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


def test_only_rules_of_icons_that_are_named_are_left(built):
    assert (built / STYLES).read_text() == (
        ".fa-spin{animation:turn}.fa-search:before{content:'y'}.fold:before{content:'w'}"
    )


def test_the_index_of_words_is_loaded_where_it_is_searched(built):
    assert (built / "search.html").read_text() == SEARCHING
    assert "search" not in "".join(re.findall("<script.*", (built / "plain.html").read_text()))


def test_mathematics_is_set_where_there_is_some(built):
    assert "mathjax" not in (built / "plain.html").read_text().lower()
    assert MATHJAX in (built / "formula.html").read_text()


def test_a_button_is_named_by_what_stands_on_it(built):
    page = (built / "plain.html").read_text()
    assert '<button class="btn search-button-field" title="Find">Search K' in page
    assert "<summary>Show the solution" in page
    assert 'aria-label="Table of contents"' in page


def test_what_is_marked_up_as_a_list_is_one(tmp_path):
    """Sphinx lists a signature's parameters without terms, and a bibliography without items."""
    page = tmp_path / "api.html"
    page.write_text(
        '<dl class="py function"><dt>f(\n<dl>\n'
        '<dd><em class="sig-param">x</em></dd></dl>)</dt></dl>'
        '<div role="list"><div class="citation" id="a" role="doc-biblioentry">A. Title.</div></div>'
    )
    lighten(tmp_path)
    assert page.read_text() == (
        '<dl class="py function"><dt>f(\n<dl role="none">\n'
        '<dd><em class="sig-param">x</em></dd></dl>)</dt></dl>'
        '<div role="list"><div class="citation" id="a" role="listitem">A. Title.</div></div>'
    )
