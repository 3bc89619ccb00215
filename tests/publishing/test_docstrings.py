"""Docstrings as reStructuredText, and the page of the book that is made from them."""

import re

import pytest
from docutils.core import publish_doctree

from r2a_utils.publishing.docstrings import as_restructured
from r2a_utils.runs.stage import ROOT


def tree(docstring: str):
    """What docutils understands; a warning is an error."""
    return publish_doctree(as_restructured(docstring), settings_overrides={"halt_level": 2})


@pytest.mark.parametrize(
    "sign", ["*args", "name_", "|a|", "\\boxed{}", "a*b", "`m`s", "**", "_x", "`a_` and `*b`"]
)
def test_every_sign_stands_for_itself(sign):
    assert tree(f"Before {sign} after.").astext() == f"Before {sign} after.".replace("`", "")


def test_dashes_make_a_list_and_indented_lines_stay():
    text = "One::\n\n    a  b\n      c\n\nColumns:\n- x: first\n  of two;\n- y.\nAfter."
    document = tree(text)
    assert [node.tagname for node in document.children] == [
        "paragraph", "literal_block", "paragraph", "bullet_list", "paragraph"
    ]  # fmt: skip
    assert document.children[1].astext() == "a  b\n  c"
    assert [item.astext() for item in document.children[3]] == ["x: first of two;", "y."]


def test_the_page_has_every_room_that_exports_something():
    package = ROOT / "r2a_utils"
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    rooms = {
        ".".join(face.parent.relative_to(ROOT).parts)
        for face in package.glob("*/**/__init__.py")
        if "lazy_loader" in face.read_text(encoding="utf-8")
    }
    assert set(re.findall(r"automodule:: (\S+)", page)) == rooms
