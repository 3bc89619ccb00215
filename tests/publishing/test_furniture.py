"""What every page brings besides its text: a preview, how to cite, the way to the repository."""

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from matplotlib.image import imread, imsave

from r2a_utils.publishing import furniture
from r2a_utils.publishing.furniture import draw_preview, how_to_cite, preview_tags
from r2a_utils.publishing.quoted_numbers import render
from r2a_utils.runs.stage import ROOT

BODY = '<h1>Heads</h1><div class="r2a-finding admonition"><p class="admonition-title">In one line'
BODY += "</p><p>one <em>head</em> &amp; no more</p></div><p>Question.</p>"


def page(tmp_path, repository="", address="", body=BODY):
    """The context of a page of a book in `tmp_path` after the extension has been at it."""
    context = {
        "body": body,
        "title": "Heads &lt;think&gt;",
        "theme_extra_footer": "From a run.",
        "pathto": lambda name, resource=False: f"../{name}" + ("" if resource else ".html"),
    }
    config = SimpleNamespace(
        html_title="The book",
        project="",
        html_baseurl=address,
        html_theme_options={"repository_url": repository},
    )
    app = SimpleNamespace(config=config, srcdir=str(tmp_path))
    furniture._add_furniture(app, "stages/04", "page.html", context, None)
    return context


def test_a_preview_has_the_page_s_title_and_finding(tmp_path):
    tags = page(tmp_path)["metatags"]
    assert '"og:title" content="Heads &lt;think&gt;"' in tags
    assert '"og:description" content="one head &amp; no more"' in tags
    assert "og:image" not in tags  # a book without the three figures has none


def test_a_preview_s_picture_is_at_the_book_s_address_where_it_has_one(tmp_path):
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "preview.png").touch()
    assert '"og:image" content="../preview.png"' in page(tmp_path)["metatags"]
    named = page(tmp_path, address="https://ada.example/r2a/")["metatags"]
    assert '"og:image" content="https://ada.example/r2a/preview.png"' in named


def test_a_page_without_a_finding_is_described_by_its_first_words():
    tags = preview_tags("Data", "<h1>Data</h1><p>" + "word " * 100 + "</p><p>x</p>", "", "B")
    described = tags.partition('og:description" content="')[2].partition('"')[0]
    assert described.startswith("word word") and described.endswith("word …")
    assert len(described) <= 202


@pytest.mark.parametrize("repository", ["", "https://github.com/ada/r2a"])
def test_the_foot_says_how_to_cite_and_links_a_repository_that_is_named(tmp_path, repository):
    foot = page(tmp_path, repository)["theme_extra_footer"]
    assert foot.startswith("From a run. · ")
    assert 'href="../references.html#how-to-cite"' in foot
    assert ("The repository" in foot) == bool(repository) and repository in foot


def test_how_to_cite_is_what_the_citation_file_says(tmp_path):
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    cited = how_to_cite()
    paper = told["references"][0]
    assert f"version = {{{told['version']}}}" in cited and told["title"] in cited
    assert "Zhang, Jue and Lin, Qingwei" in cited and f"pages = {{{paper['start']}--" in cited
    empty = {"id": "default", "records": {}}
    quoted = render("{{ how_to_cite }}", "references.md", empty, {}, {"how_to_cite": cited})
    assert quoted == cited  # as it stands, braces and lines
    told["title"] = "Another title"
    other = tmp_path / "CITATION.cff"
    other.write_text(yaml.safe_dump(told), encoding="utf-8")
    assert "title = {{Another title}}" in how_to_cite(other)
    assert "url = {https://x.example}" in how_to_cite(other, "https://x.example")


def test_a_preview_s_picture_shows_the_figures_side_by_side(tmp_path):
    colours = {"a": (1.0, 0.0, 0.0), "b": (0.0, 0.0, 1.0)}
    for name, colour in colours.items():
        imsave(tmp_path / f"{name}.png", np.full((40, 50, 3), colour))
    draw_preview([tmp_path / "a.png", tmp_path / "b.png"], "Title", tmp_path / "out.png")
    drawn = imread(tmp_path / "out.png")[..., :3]
    assert drawn.shape == (630, 1200, 3)
    np.testing.assert_allclose(drawn[350, 300], colours["a"], atol=0.01)
    np.testing.assert_allclose(drawn[350, 900], colours["b"], atol=0.01)
